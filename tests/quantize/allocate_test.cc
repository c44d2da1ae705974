#include "quantize/allocate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace pome {
namespace {

std::vector<AllocationItem> random_items(std::mt19937& random, size_t most_items,
                                         uint64_t most_bytes) {
  std::vector<AllocationItem> items(1 + random() % most_items);
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].name = "item " + std::to_string(i);
    items[i].choices.resize(1 + random() % 5);
    for (AllocationChoice& choice : items[i].choices) {
      choice.bytes = 1 + random() % most_bytes;
      // Few values, so that ties are met.
      choice.loss = static_cast<double>(random() % 40) / 8;
    }
  }
  return items;
}

struct Best {
  bool fits = false;
  double loss = std::numeric_limits<double>::infinity();
};
Best brute_force(const std::vector<AllocationItem>& items, uint64_t budget) {
  Best best;
  std::vector<size_t> at(items.size(), 0);
  for (;;) {
    uint64_t bytes = 0;
    double loss = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      bytes += items[i].choices[at[i]].bytes;
      loss += items[i].choices[at[i]].loss;
    }
    if (bytes <= budget) {
      best.fits = true;
      best.loss = std::min(best.loss, loss);
    }
    size_t i = 0;
    while (i < items.size() && ++at[i] == items[i].choices.size()) at[i++] = 0;
    if (i == items.size()) return best;
  }
}

uint64_t bytes_of(const std::vector<AllocationItem>& items, const Allocation& allocation) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < items.size(); ++i) bytes += items[i].choices[allocation.chosen[i]].bytes;
  return bytes;
}

TEST(Allocate, FindsWhatTryingAllFinds) {
  std::mt19937 random(7);
  int fitting = 0, refused = 0;
  for (int round = 0; round < 200; ++round) {
    const auto items = random_items(random, round < 20 ? 8 : 6, 1000);
    const uint64_t budget = random() % (items.size() * 700 + 1);
    const Best best = brute_force(items, budget);
    const auto found = allocate(items, budget);
    ASSERT_EQ(found.ok(), best.fits) << "round " << round;
    if (!found.ok()) {
      EXPECT_EQ(found.status().code(), StatusCode::kDoesNotFit);
      ++refused;
      continue;
    }
    ++fitting;
    EXPECT_DOUBLE_EQ(found->loss, best.loss) << "round " << round;
    EXPECT_LE(found->bytes, budget);
    EXPECT_EQ(found->bytes, bytes_of(items, *found));
    EXPECT_LE(found->lower_bound, best.loss + 1e-9) << "round " << round;
  }
  EXPECT_GT(fitting, 50);
  EXPECT_GT(refused, 20);
}

// Sizes as models have them, which are more than there are units.
TEST(Allocate, LargeSizesStayWithinTheBudgetAndNearTheBound) {
  std::mt19937 random(11);
  std::vector<AllocationItem> items(60);
  uint64_t least = 0, most = 0;
  for (AllocationItem& item : items) {
    const uint64_t weights = (1 + random() % 40) * 1048573;
    const double alpha = 0.01 * static_cast<double>(1 + random() % 100);
    for (const int bits : {2, 3, 4, 6, 8, 16})
      item.choices.push_back({weights * static_cast<uint64_t>(bits) / 8 + random() % 1000,
                              alpha * std::pow(4.0, -bits)});
    least += item.choices.front().bytes;
    most += item.choices.back().bytes;
  }
  double before = std::numeric_limits<double>::infinity();
  for (int step = 0; step <= 20; ++step) {
    const uint64_t budget = least + (most - least) / 20 * static_cast<uint64_t>(step) + 37;
    const auto found = allocate(items, budget);
    ASSERT_TRUE(found.ok()) << found.status().to_string();
    EXPECT_LE(bytes_of(items, *found), budget);
    EXPECT_LE(found->loss, before) << "a larger budget loses more";
    EXPECT_LE(found->lower_bound, found->loss * (1 + 1e-9));
    if (step > 0 && step < 18) {  // at the ends one item is all there is to choose
      EXPECT_LE(found->loss, 1.15 * found->lower_bound + 1e-9) << step;
    }
    before = found->loss;
  }
}

TEST(Allocate, ALargerBudgetNeverLosesMore) {
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    // Sums above 65536 bytes: sizes are rounded.
    const auto items = random_items(random, 12, 100000);
    uint64_t most = 0;
    for (const AllocationItem& item : items) {
      uint64_t largest = 0;
      for (const AllocationChoice& choice : item.choices) largest = std::max(largest, choice.bytes);
      most += largest;
    }
    double before = std::numeric_limits<double>::infinity();
    for (uint64_t budget = 0; budget <= most + 1000; budget += most / 41 + 1) {
      const auto found = allocate(items, budget);
      if (!found.ok()) {
        EXPECT_EQ(before, std::numeric_limits<double>::infinity());
        continue;
      }
      EXPECT_LE(found->bytes, budget);
      EXPECT_LE(found->loss, before);
      before = found->loss;
    }
  }
}

TEST(Allocate, SaysTheSmallestSizeWhereNothingFits) {
  const std::vector<AllocationItem> items = {{"a", {{500, 1}, {300, 2}}}, {"b", {{200, 0}}}};
  const auto found = allocate(items, 499);
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.status().code(), StatusCode::kDoesNotFit);
  EXPECT_NE(found.status().message().find("(500 bytes)"), std::string_view::npos)
      << found.status().message();
  const auto fits = allocate(items, 500);
  ASSERT_TRUE(fits.ok());
  EXPECT_EQ(fits->chosen, (std::vector<size_t>{1, 0}));
  EXPECT_TRUE(allocate({}, 0).ok());
}

}  // namespace
}  // namespace pome
