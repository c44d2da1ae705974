#include "quantize/allocate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/units.h"

namespace pome {

namespace {

constexpr uint64_t kMostUnits = 65536;
constexpr double kNever = std::numeric_limits<double>::infinity();

// A choice that no other of its item beats in both bytes and loss, in units above the smallest.
struct Step {
  size_t choice = 0;
  uint64_t extra = 0;  // bytes above the smallest choice of the item
  double loss = 0;
};

// By ascending bytes, with descending loss.
std::vector<Step> steps_of(const AllocationItem& item) {
  uint64_t least = item.choices[0].bytes;
  for (const AllocationChoice& choice : item.choices) least = std::min(least, choice.bytes);
  std::vector<Step> all;
  for (size_t i = 0; i < item.choices.size(); ++i) {
    POME_CHECK(std::isfinite(item.choices[i].loss));
    all.push_back({i, item.choices[i].bytes - least, item.choices[i].loss});
  }
  std::stable_sort(all.begin(), all.end(), [](const Step& a, const Step& b) {
    return a.extra != b.extra ? a.extra < b.extra : a.loss < b.loss;
  });
  std::vector<Step> out;
  for (const Step& step : all)
    if (out.empty() || step.loss < out.back().loss) out.push_back(step);
  return out;
}

using Steps = std::vector<std::vector<Step>>;

uint64_t unit_of(const Steps& items) {
  uint64_t common = 0, most = 0;
  for (const std::vector<Step>& steps : items) {
    for (const Step& step : steps) common = std::gcd(common, step.extra);
    most += steps.back().extra;
  }
  return std::max({common, most / kMostUnits + (most % kMostUnits != 0), uint64_t{1}});
}

// The step of each item in the best allocation of `room` units.
std::vector<size_t> solve(const Steps& items, uint64_t unit, size_t room) {
  std::vector<double> best(room + 1, 0.0), next(room + 1);
  std::vector<uint8_t> taken(items.size() * (room + 1));
  for (size_t i = 0; i < items.size(); ++i) {
    std::fill(next.begin(), next.end(), kNever);
    uint8_t* const choice = taken.data() + i * (room + 1);
    for (size_t s = 0; s < items[i].size(); ++s) {
      const Step& step = items[i][s];
      const uint64_t cost = step.extra / unit + (step.extra % unit != 0);
      for (size_t at = static_cast<size_t>(std::min<uint64_t>(cost, room + 1)); at <= room; ++at) {
        const double loss = best[at - cost] + step.loss;
        if (!(loss < next[at])) continue;
        next[at] = loss;
        choice[at] = static_cast<uint8_t>(s);
      }
    }
    best.swap(next);
  }
  std::vector<size_t> out(items.size());
  size_t at = room;
  for (size_t i = items.size(); i-- > 0;) {
    out[i] = taken[i * (room + 1) + at];
    const uint64_t extra = items[i][out[i]].extra;
    at -= static_cast<size_t>(extra / unit + (extra % unit != 0));
  }
  return out;
}

// The largest over prices of a byte of: what the items lose and pay at best, less the price of the
// budget. Concave in the price, and no allocation within the budget loses less at any price.
double lagrangian_bound(const Steps& items, uint64_t budget_extra) {
  const auto value = [&](double price, double* bytes) {
    double sum = 0;
    *bytes = 0;
    for (const std::vector<Step>& steps : items) {
      double least = kNever, extra = 0;
      for (const Step& step : steps) {
        const double paid = step.loss + price * static_cast<double>(step.extra);
        if (paid < least) {
          least = paid;
          extra = static_cast<double>(step.extra);
        }
      }
      sum += least;
      *bytes += extra;
    }
    return sum - price * static_cast<double>(budget_extra);
  };
  double bytes = 0, best = value(0, &bytes);
  if (bytes <= static_cast<double>(budget_extra)) return best;
  double low = 0, high = 1e-12;
  for (; high < 1e12; high *= 4) {
    best = std::max(best, value(high, &bytes));
    if (bytes <= static_cast<double>(budget_extra)) break;
    low = high;
  }
  for (int round = 0; round < 100; ++round) {
    const double middle = 0.5 * (low + high);
    best = std::max(best, value(middle, &bytes));
    (bytes > static_cast<double>(budget_extra) ? low : high) = middle;
  }
  return best;
}

}  // namespace

Result<Allocation> allocate(std::span<const AllocationItem> items, uint64_t budget) {
  Steps steps;
  uint64_t least = 0;
  for (const AllocationItem& item : items) {
    POME_CHECK(!item.choices.empty() && item.choices.size() <= 255);
    steps.push_back(steps_of(item));
    least += item.choices[steps.back()[0].choice].bytes;
  }
  if (least > budget)
    return does_not_fit("the smallest possible size of the weights is " + human_bytes(least) +
                        " (" + std::to_string(least) + " bytes), more than the limit of " +
                        human_bytes(budget) + " (" + std::to_string(budget) + " bytes)");
  const uint64_t unit = unit_of(steps), extra = budget - least;
  uint64_t most = 0;  // what all largest choices take, in units
  for (const std::vector<Step>& each : steps)
    most += each.back().extra / unit + (each.back().extra % unit != 0);
  const auto room = static_cast<size_t>(std::min(extra / unit, most));
  const std::vector<size_t> picked = solve(steps, unit, room);
  Allocation out;
  for (size_t i = 0; i < items.size(); ++i) {
    const Step& step = steps[i][picked[i]];
    out.chosen.push_back(step.choice);
    out.bytes += items[i].choices[step.choice].bytes;
    out.loss += step.loss;
  }
  out.lower_bound = lagrangian_bound(steps, extra);
  return out;
}

}  // namespace pome
