// What a plan does per call, and where its time goes.
#include <algorithm>

#include "base/stopwatch.h"
#include "engine/plan_impl.h"

namespace pome {

namespace {

// Views with dimensions for a call, and no memory behind them.
Frame shapes_of(const PlanData& plan, const Bindings& bindings) {
  Frame frame;
  frame.bindings = bindings;
  frame.views.resize(plan.slots.size());
  for (size_t id = 0; id < plan.slots.size(); ++id)
    set_contiguous(&frame.views[id], plan.slots[id].type.shape, bindings);
  return frame;
}

class TimedStep final : public StepInFront {
 public:
  TimedStep(StepPtr step, std::shared_ptr<StepProfile> profile, size_t index)
      : StepInFront(std::move(step)), profile_(std::move(profile)), index_(index) {}
  Status run(const Frame& frame) const override {
    StepProfile::Entry& entry = profile_->steps[index_];
    entry.work += step_->work(frame);
    const Stopwatch watch;
    Status status = step_->run(frame);
    entry.seconds += watch.seconds();
    ++entry.calls;
    return status;
  }

 private:
  std::shared_ptr<StepProfile> profile_;
  size_t index_;
};

std::string kind_of(const std::string& description) {
  // Also where something is fused into the product.
  if (description.find("linear ") != std::string::npos) return "linear";
  return description.substr(0, description.find(' '));
}

}  // namespace

Work& Work::operator+=(const Work& other) {
  weight_bytes += other.weight_bytes;
  cache_bytes += other.cache_bytes;
  int8_macs += other.int8_macs;
  bf16_macs += other.bf16_macs;
  f32_macs += other.f32_macs;
  attention_macs += other.attention_macs;
  return *this;
}

void StepProfile::reset() {
  for (Entry& entry : steps) entry = {std::move(entry.kind), 0, 0, {}};
}

int64_t experts_per_token(const Graph& graph, const Node& moe) {
  // The choice of experts is the last one that is made before they run.
  int64_t count = 0;
  for (const Node& node : graph.nodes) {
    if (node.result == moe.result) break;
    if (const auto* chosen = std::get_if<TopKMaskOp>(&node.op)) count = chosen->k;
  }
  return count;
}

Work work_of(const PlanData& plan, int64_t tokens, int64_t past) {
  Work total;
  const Frame body = shapes_of(plan, {1, tokens, past});
  for (const PlannedStep& planned : plan.body) total += planned.step->work(body);
  const Frame tail = shapes_of(plan, {1, std::min<int64_t>(tokens, 1), past});
  for (const PlannedStep& planned : plan.tail) total += planned.step->work(tail);
  return total;
}

void profile_steps(PlanData* plan, const std::shared_ptr<StepProfile>& profile) {
  profile->steps.clear();
  const Frame one = shapes_of(*plan, {1, 1, 0});
  for (auto* section : {&plan->body, &plan->tail}) {
    for (PlannedStep& planned : *section) {
      StepProfile::Entry entry;
      entry.kind = kind_of(planned.step->describe());
      const bool product = planned.step->work(one).weight_macs() > 0;
      if (product && &planned == &plan->tail.back()) entry.kind += " (logits)";
      planned.step =
          std::make_unique<TimedStep>(std::move(planned.step), profile, profile->steps.size());
      profile->steps.push_back(std::move(entry));
    }
  }
}

}  // namespace pome
