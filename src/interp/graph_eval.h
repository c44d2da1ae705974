// The reference evaluator: runs the *decomposed* graph with plain f32 maths on tensors. Slow and
// obvious: the oracle.
#pragma once

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
};
// A chain of graphs (whole model, or its parts cut between layers) as one runner.
Result<std::unique_ptr<Runner>> reference_runner(std::vector<Graph> chain,
                                                 const ReferenceOptions& options);

}  // namespace pome
