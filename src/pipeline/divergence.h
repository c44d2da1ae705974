// How far the predictions of changed weights are from those of the original: mean KL divergence
// over windows of a text.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "graph/graph.h"

namespace pome {

class Divergence {
 public:
  // Runs the original, exactly, over as many `ids` as `tokens` in windows spread evenly over them,
  // and keeps its probabilities: at most a quarter of a gigabyte of them. kUsage for less than two
  // tokens; what compile() says.
  static Result<std::unique_ptr<Divergence>> create(const Graph& original,
                                                    std::span<const int32_t> ids, int64_t tokens,
                                                    const WorkContext& work);
  // Mean of KL(original || graph) per token, natural logarithm. Deterministic for every number of
  // threads.
  Result<double> of(const Graph& graph);
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }

 private:
  Divergence(const WorkContext& work, int threads);
  // Calls use(first position, logits) over pieces of all windows.
  template <typename Use>
  Status run(const Graph& graph, const Use& use);

  WorkContext work_;
  ThreadPool pool_;
  int64_t window_ = 0, vocab_ = 0;
  std::vector<int32_t> ids_;              // of the windows, one after the other
  std::vector<float> probabilities_;      // [tokens, vocab]
  std::vector<double> negative_entropy_;  // per token: sum of p log p
};

}  // namespace pome
