// Graph -> Core ML package (.mlpackage, iOS 18 ML Program), streamed: constants are read, encoded
// and written in tiles.
//
// Interface (docs/coreml.md): functions `prefill` (T = chunk, logits of every position) and
// `decode` (T = 1) that share one weight file; inputs input_ids int32 [1, T], position int32 [1],
// causal_mask fp16 [1, 1, T, context]; states k_cache and v_cache fp16 [layers, 1, kv_heads,
// context, head_dim]; output logits fp16 [1, T, vocab]. The explicit decode step
// (docs/explicit-kv.md) is one function `main` with caches as inputs and outputs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "encoding/activation_grid.h"
#include "export/report.h"
#include "graph/graph.h"

namespace pome {

struct CoremlOptions {
  // kState: states of the package. The others go in and out: kFixed has `places` of them and a mask
  // that says which hold a token, kDynamic as many as there are tokens.
  enum class Caches : uint8_t { kState, kFixed, kDynamic } caches = Caches::kState;
  int64_t places = 0;
  int64_t context = 0;  // positions; a multiple of chunk, and of states the capacity
  int64_t chunk = 64;
  bool one_function = false;  // a single function `main` (T = chunk) for both
  std::string scheme;         // for the metadata
  std::string tokenizer_digest;
  std::string model_name;
  // Grids of eight bits for the values that these weights (names of constants) read. Weights that
  // read one value have one grid.
  std::map<std::string, ActivationGrid> activations;
};
// Writes the package folder at `package_path` (inside a staged folder of the caller).
Result<ExportReport> export_coreml(const Graph& graph, const CoremlOptions& options,
                                   const std::string& package_path, const WorkContext& work);

}  // namespace pome
