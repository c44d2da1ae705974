#include "pipeline/calibrate.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "pipeline/moments.h"

namespace pome {

namespace {

constexpr int64_t kPiece = 64;  // tokens per call: bounds the logits

// Narrow ones first, as many as fit; how many weights have to do without.
int64_t take_memory(std::vector<ReadValue>* values, uint64_t most_bytes) {
  std::vector<const ReadValue*> order;
  for (const ReadValue& value : *values) order.push_back(&value);
  std::stable_sort(order.begin(), order.end(),
                   [](const ReadValue* a, const ReadValue* b) { return a->bytes() < b->bytes(); });
  int64_t left_out = 0;
  uint64_t taken = 0;
  std::set<std::string> without;
  for (const ReadValue* value : order) {
    if (value->bytes() <= most_bytes - taken) {
      taken += value->bytes();
      continue;
    }
    left_out += static_cast<int64_t>(value->weights.size());
    without.insert(value->first);
  }
  std::erase_if(*values, [&](const ReadValue& value) { return without.count(value.first) > 0; });
  return left_out;
}

Status run_text(Runner& runner, std::span<const int32_t> ids, int64_t window,
                const WorkContext& work) {
  const auto vocab = static_cast<size_t>(runner.info().vocab_size);
  std::vector<float> logits(static_cast<size_t>(kPiece) * vocab);
  if (work.progress) work.progress->begin("calibrate", ids.size(), "tokens");
  for (size_t begin = 0; begin < ids.size();) {
    const size_t place = begin % static_cast<size_t>(window);
    if (place == 0) POME_RETURN_IF_ERROR(runner.truncate(0));
    const size_t count = std::min(
        {static_cast<size_t>(kPiece), ids.size() - begin, static_cast<size_t>(window) - place});
    POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
    POME_RETURN_IF_ERROR(runner.prefill(ids.subspan(begin, count), LogitsOf::kAll,
                                        std::span(logits).first(count * vocab)));
    begin += count;
    if (work.progress) work.progress->advance(begin);
  }
  if (work.progress) work.progress->end();
  return {};
}

}  // namespace

Result<Calibration> calibrate(const Graph& graph, std::span<const int32_t> ids,
                              const CalibrationOptions& options, const WorkContext& work) {
  if (ids.size() < 2)
    return usage_error("the calibration text has " + std::to_string(ids.size()) +
                       " tokens, at least 2 are needed");
  Calibration out;
  std::vector<ReadValue> values = read_values(graph);
  out.left_out = take_memory(&values, options.most_bytes);
  PlanOptions plan_options;
  plan_options.threads = work.threads;
  plan_options.capacity = std::min<int64_t>(options.window, graph.info.max_position_embeddings);
  plan_options.chunk = kPiece;
  POME_ASSIGN_OR_RETURN(const Isa isa, selected_isa());
  const auto collector = std::make_shared<MomentCollector>(
      std::move(values), [](const ReadValue&) { return true; }, isa, work.threads);
  plan_options.observer = collector;
  POME_ASSIGN_OR_RETURN(const auto plan, compile(graph, plan_options, work));
  POME_ASSIGN_OR_RETURN(const auto runner, plan->new_session());
  POME_RETURN_IF_ERROR(run_text(*runner, ids, plan_options.capacity, work));
  out.tokens = static_cast<int64_t>(ids.size());
  for (const ReadValue& value : collector->values()) {
    const std::vector<MomentsPtr> moments = collector->take(value);
    for (const std::string& weight : value.weights) out.statistics[weight] = moments;
  }
  return out;
}

}  // namespace pome
