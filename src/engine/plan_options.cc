// What a plan can be made of: the graph and the options that it is compiled with.
#include <algorithm>

#include "engine/plan_impl.h"

namespace pome {

namespace {

constexpr int64_t kDefaultCapacity = 4096, kLargestCapacity = int64_t{1} << 31;
constexpr int64_t kLargestChunk = 1 << 16;
constexpr int64_t kTailRows = 32;
constexpr int kMostThreads = 1024;

}  // namespace

Status check_graph(const Graph& graph) {
  POME_RETURN_IF_ERROR(validate(graph));
  const auto rows_of = [&](ValueId id) {
    const ValueType& type = graph.type(id);
    return type.dtype == DType::kF32 && type.shape.size() == 3 &&
           type.shape[0] == Dim(Symbol::kBatch) && type.shape[1] == Dim(Symbol::kTokens) &&
           type.shape[2].is_static();
  };
  if (graph.hidden_in != kNoValue && !rows_of(graph.hidden_in))
    return unsupported("the engine needs rows [B, T, columns] to go on from, not " +
                       to_string(graph.type(graph.hidden_in).shape));
  if (!rows_of(graph.output))
    return unsupported("the engine needs rows [B, T, columns] as output, not " +
                       to_string(graph.type(graph.output).shape));
  return {};
}

Status read_options(const PlanOptions& options, const Graph& graph, PlanData* plan) {
  if (options.isa) {
    const std::vector<Isa> available = available_isas();
    if (std::find(available.begin(), available.end(), *options.isa) == available.end()) {
      return usage_error("this machine cannot run " + std::string(to_string(*options.isa)));
    }
    plan->isa = *options.isa;
  } else {
    POME_ASSIGN_OR_RETURN(plan->isa, selected_isa());
  }
  if (options.threads < 1 || options.threads > kMostThreads)
    return usage_error("threads must lie in [1, " + std::to_string(kMostThreads) + "]");
  const int64_t longest = graph.info.max_position_embeddings;
  plan->threads = options.threads;
  if (options.observer && !options.exact)
    return usage_error("activations are observed in exact plans only");
  plan->exact = options.exact;
  plan->kv = options.kv.value_or(options.exact ? KvKind::kF32 : KvKind::kF16);
  plan->capacity = options.capacity ? options.capacity
                   : longest > 0    ? std::min(longest, kDefaultCapacity)
                                    : kDefaultCapacity;
  if (plan->capacity < 1 || plan->capacity > kLargestCapacity)
    return usage_error("a capacity of " + std::to_string(plan->capacity) + " tokens");
  if (options.chunk < 1 || options.chunk > kLargestChunk)
    return usage_error("a chunk of " + std::to_string(options.chunk) + " tokens");
  plan->chunk = std::min(options.chunk, plan->capacity);
  plan->tail_rows = std::min(plan->chunk, kTailRows);
  plan->vocab_size = graph.info.vocab_size;
  plan->output_columns = graph.type(graph.output).shape[2].size;
  if (graph.hidden_in != kNoValue) plan->hidden_columns = graph.type(graph.hidden_in).shape[2].size;
  plan->name = graph.info.name;
  return {};
}

}  // namespace pome
