// The reference evaluator: runs the *decomposed* graph with plain f32 maths on tensors. Slow and
// obvious: the oracle.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "graph/graph.h"
#include "graph/runner.h"
#include "tensor/tensor.h"

namespace pome {

// Evaluates a graph once. `inputs` by value name, f32 or i32, shapes consistent with one binding of
// B, T, P. Returns the named values (any value of the graph may be asked for).
Result<std::vector<Tensor>> evaluate(const Graph& graph,
                                     const std::vector<std::pair<std::string, Tensor>>& inputs,
                                     const std::vector<std::string>& outputs, ThreadPool* pool);

struct ReferenceOptions {
  int threads = 1;
  int64_t capacity = 0;  // 0 = max_position_embeddings
  // Constants that together decode to more bytes are decoded for each use and then dropped: slower,
  // but as large a model as one has patience for.
  uint64_t constant_budget = std::numeric_limits<uint64_t>::max();
};
// A chain of graphs (whole model, or its parts cut between layers) as one runner.
Result<std::unique_ptr<Runner>> reference_runner(std::vector<Graph> chain,
                                                 const ReferenceOptions& options);

}  // namespace pome
