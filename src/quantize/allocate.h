// Which encoding each weight gets under a limit of bytes: the multiple-choice knapsack problem.
//
// An item is one weight, or several that must be stored alike; it gets exactly one of its choices.
// The sum of the losses is made as small as the budget allows. Bytes above the smallest choices
// are counted in units of their greatest common divisor, or of 1/65536 of what all largest choices
// take where that is more, rounded up: a budget is never exceeded, and the unit does not depend on
// it, so a larger budget never gives a larger loss. The result is optimal where the unit is the
// common divisor; otherwise `lower_bound` says how far from it the loss can be at most.
//
// Pure and deterministic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace pome {

struct AllocationChoice {
  uint64_t bytes = 0;
  double loss = 0;  // what this choice adds; finite
};
struct AllocationItem {
  std::string name;  // for messages
  std::vector<AllocationChoice> choices;
};
struct Allocation {
  std::vector<size_t> chosen;  // per item, an index of its choices
  uint64_t bytes = 0;
  double loss = 0;
  // No allocation within the budget loses less (Lagrangian relaxation).
  double lower_bound = 0;
};
// kDoesNotFit, with the smallest possible size, when no allocation fits.
Result<Allocation> allocate(std::span<const AllocationItem> items, uint64_t budget);

}  // namespace pome
