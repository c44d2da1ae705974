// Graph -> weight package of MLC, streamed: shards, the list of them under both names, and
// mlc-chat-config.json with the hashes of the graph.
//
// What is told of every weight is which tensor it is or is a part of (MlcPlace); no family is known
// here. Data whose encoding is kInt with 4 bits and blocks of 32 becomes q_weight and q_scale, all
// other is written as it is.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/status.h"
#include "export/report.h"
#include "formats/mlc.h"
#include "graph/graph.h"
#include "graph/mlc_place.h"

namespace pome {

struct MlcOptions {
  Json chat_config;  // mlc-chat-config.json, without the key "pome"
  std::string scheme, tokenizer_digest;
  // Builds the graph that the written folder holds. Its hash must be that of `graph`: else what
  // stands in config.json does not describe the model (kUnsupported).
  std::function<Result<Graph>(const std::string& folder)> reopen;
};
struct MlcReport {
  ExportReport exported;
  std::vector<TensorError> errors;  // of the weights, in graph order
  MlcCache cache;                   // what lies where
};

// One weight in the package.
struct MlcPart {
  MlcPlace place;
  size_t constant = 0;     // of the graph
  ConstantDataPtr stored;  // its data, or with rows that are padded to whole groups
};
// `parts`: every weight of the graph, and those that MLC's model has twice again. Writes into
// `folder` (stage it), where what `reopen` needs beside the weights lies already.
Result<MlcReport> export_mlc(const Graph& graph, const std::vector<MlcPart>& parts,
                             const MlcOptions& options, const std::string& folder,
                             const WorkContext& work);

}  // namespace pome
