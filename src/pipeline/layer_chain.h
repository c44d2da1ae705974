// A model as a chain of layers that hidden states go through, one layer at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "engine/engine.h"
#include "graph/graph.h"
#include "pipeline/moments.h"

namespace pome {

// What stands between two hidden states that all goes through: a layer, the halves of it where
// there is such a state between attention and feed-forward network, or what lies between the last
// layer and the head.
struct ChainPart {
  ValueId start = kNoValue;  // kNoValue: the token ids
  ValueId end = kNoValue;
};
struct LayerChain {
  std::vector<ChainPart> parts;
  // The weights that read what the last part gives: one, several where it is in parts, or none.
  std::vector<std::string> head = {};
};
// What the head reads, as a value of `rows` rows of a text.
ReadValue head_value(const LayerChain& chain, const std::vector<float>& rows, int64_t tokens);
LayerChain layer_chain(const Graph& graph);

// Runs texts through parts of a model, each window of `window` tokens from an empty context.
class LayerRunner {
 public:
  LayerRunner(std::span<const int32_t> ids, int64_t window, const WorkContext& work)
      : ids_(ids), window_(window), work_(work) {}
  // From `start`, whose rows are `rows` (of token ids: none), to `end`: its rows. `graph` is a
  // whole one. `observer` sees what meets its weights.
  Result<std::vector<float>> run(const Graph& graph, const ChainPart& part,
                                 const std::vector<float>& rows,
                                 std::shared_ptr<ActivationObserver> observer = nullptr) const;

 private:
  std::span<const int32_t> ids_;
  int64_t window_;
  const WorkContext& work_;
};

// Runs the text through all layers, one in memory at a time, and gives the moments of every value
// that weights read, by expert: all of them where `whole` says so, else their diagonals.
// Deterministic for every number of threads.
using SeeMoments = std::function<Status(const ReadValue&, const std::vector<MomentsPtr>&)>;
Status watch_layers(const Graph& graph, std::span<const int32_t> ids, int64_t window,
                    const std::function<bool(const ReadValue&)>& whole, const SeeMoments& see,
                    const WorkContext& work);

}  // namespace pome
