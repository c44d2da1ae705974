#include "pipeline/calibrate.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "pipeline/layer_chain.h"
#include "pipeline/run_text.h"

namespace pome {

namespace {

constexpr int64_t kPiece = 64;  // tokens per call: bounds the logits

// The widest values, whose moments do not fit with those of the others, by their first weights.
std::set<std::string> too_wide(const Graph& graph, uint64_t most_bytes, int64_t* left_out) {
  const std::vector<ReadValue> values = read_values(graph);
  std::vector<const ReadValue*> order;
  for (const ReadValue& value : values) order.push_back(&value);
  std::stable_sort(order.begin(), order.end(),
                   [](const ReadValue* a, const ReadValue* b) { return a->bytes() < b->bytes(); });
  uint64_t taken = 0;
  std::set<std::string> out;
  for (const ReadValue* value : order) {
    if (value->bytes() <= most_bytes - taken) {
      taken += value->bytes();
      continue;
    }
    *left_out += static_cast<int64_t>(value->weights.size());
    out.insert(value->first);
  }
  return out;
}

}  // namespace

Status observe_text(const Graph& graph, std::span<const int32_t> ids, int64_t window,
                    std::shared_ptr<ActivationObserver> observer, const char* stage,
                    const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_text_length(ids.size()));
  PlanOptions options;
  options.threads = work.threads;
  options.capacity = std::min<int64_t>(window, graph.info.max_position_embeddings);
  options.chunk = kPiece;
  options.observer = std::move(observer);
  POME_ASSIGN_OR_RETURN(const auto plan, compile(graph, options, work));
  POME_ASSIGN_OR_RETURN(const auto runner, plan->new_session());
  if (work.progress) work.progress->begin(stage, ids.size(), "tokens");
  POME_RETURN_IF_ERROR(run_text(*runner, ids, options.capacity, kPiece, work,
                                [](size_t, std::span<const float>) {}));
  if (work.progress) work.progress->end();
  return {};
}

Result<Calibration> calibrate(const Graph& graph, std::span<const int32_t> ids,
                              const CalibrationOptions& options, const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_text_length(ids.size()));
  Calibration out;
  out.tokens = static_cast<int64_t>(ids.size());
  const std::set<std::string> without = too_wide(graph, options.most_bytes, &out.left_out);
  const auto whole = [&](const ReadValue& value) { return !without.count(value.first); };
  const auto see = [&](const ReadValue& value, const std::vector<MomentsPtr>& moments) -> Status {
    for (const std::string& weight : value.weights)
      if (whole(value)) out.statistics[weight] = moments;
    return {};
  };
  POME_RETURN_IF_ERROR(watch_layers(graph, ids, options.window, whole, see, work));
  return out;
}

}  // namespace pome
