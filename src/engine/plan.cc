// What a plan says of itself.
#include "engine/plan_impl.h"

namespace pome {

std::string PlanImpl::describe() const {
  const PlanData& d = *data_;
  std::string text = "plan of " + escape_for_terminal(d.name) + ": " +
                     std::string(to_string(d.isa)) + ", " + std::to_string(d.threads) +
                     " threads, capacity " + std::to_string(d.capacity) + ", chunk " +
                     std::to_string(d.chunk) + "\n";
  const uint64_t cache = kv_bytes_at(d.caches, d.capacity, d.chunk);
  text += "bytes: weights " + std::to_string(d.weights.bytes()) + ", full cache " +
          std::to_string(cache) + ", work " + std::to_string(session_bytes() - cache) + "\n";
  int number = 0;
  for (const auto* section : {&d.body, &d.tail}) {
    text += section == &d.body ? "body\n" : "tail\n";
    for (const PlannedStep& planned : *section) {
      text += "  " + std::to_string(number++) + " " + planned.step->describe() + " -> " +
              escape_for_terminal(d.names[static_cast<size_t>(planned.writes[0])]) + "\n";
    }
  }
  return text;
}

uint64_t PlanImpl::session_bytes() const {
  return data_->arena_bytes + kv_bytes_at(data_->caches, data_->capacity, data_->chunk) +
         data_->scratch_bytes + data_->workspace_bytes;
}

}  // namespace pome
