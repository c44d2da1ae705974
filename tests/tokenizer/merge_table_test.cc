#include "tokenizer/merge_table.h"

#include <gtest/gtest.h>

#include <random>

namespace pome {
namespace {

TEST(MergeTable, LowestRankFirstThenLeftmost) {
  // 0 1 -> 3 (rank 1), 1 2 -> 4 (rank 0), 0 0 -> 5 (rank 2)
  const MergeTable table({{0, 1, 3, 1}, {1, 2, 4, 0}, {0, 0, 5, 2}});
  MergeTable::Scratch scratch;
  std::vector<int32_t> ids{0, 1, 2};
  table.apply(ids, nullptr, scratch);
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 4}));
  ids = {0, 0, 0};
  std::vector<uint32_t> starts{0, 1, 2};
  table.apply(ids, &starts, scratch);
  EXPECT_EQ(ids, (std::vector<int32_t>{5, 0}));
  EXPECT_EQ(starts, (std::vector<uint32_t>{0, 2}));
}

TEST(MergeTable, NegativeIdsNeverMerge) {
  const MergeTable table({{0, 0, 1, 0}});
  MergeTable::Scratch scratch;
  for (const size_t size : {3u, 100u}) {
    std::vector<int32_t> ids(size, -1);
    table.apply(ids, nullptr, scratch);
    EXPECT_EQ(ids.size(), size);
  }
}

TEST(MergeTable, HeapAndScanAgree) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::vector<Merge> merges;
    const int symbols = 3 + static_cast<int>(random() % 4);
    for (int i = 0; i < 40; ++i) {
      // Ranks repeat, as scores of SentencePiece do; a pair has one rank.
      const auto left = static_cast<int32_t>(random() % static_cast<uint32_t>(symbols + i));
      const auto right = static_cast<int32_t>(random() % static_cast<uint32_t>(symbols + i));
      merges.push_back({left, right, symbols + i, static_cast<uint32_t>(random() % 20)});
    }
    const MergeTable table(merges);
    std::vector<int32_t> ids;
    const size_t size = 1 + random() % MergeTable::kScanLimit;
    for (size_t i = 0; i < size; ++i) {
      ids.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(symbols)));
    }
    std::vector<uint32_t> starts(ids.size());
    for (size_t i = 0; i < starts.size(); ++i) starts[i] = static_cast<uint32_t>(i);
    auto ids_b = ids;
    auto starts_b = starts;
    MergeTable::Scratch scratch;
    table.apply_by_scanning(ids, &starts);
    table.apply_by_heap(ids_b, &starts_b, scratch);
    ASSERT_EQ(ids, ids_b);
    ASSERT_EQ(starts, starts_b);
  }
}

}  // namespace
}  // namespace pome
