#include "quantize/target_fit.h"

#include <gtest/gtest.h>

#include <limits>

#include "quantize/block_fit.h"
#include "quantize/feedback.h"
#include "support/second_moments.h"
#include "tensor/half.h"

namespace pome {
namespace {

std::vector<float> columns_weights(size_t count) {
  std::vector<float> out;
  for (size_t i = 0; i < count; ++i) out.push_back(1 + static_cast<float>(i * 7 % 5));
  return out;
}

double error_of(const RowGrid& grid, size_t sub, std::span<const float> targets,
                std::span<const float> weights) {
  double sum = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    float value = 0;
    grid.nearest(sub, targets[i], &value);
    const double left = static_cast<double>(targets[i]) - static_cast<double>(value);
    sum += static_cast<double>(weights[i]) * left * left;
  }
  return sum;
}

TEST(TargetFit, FitsWhatHasScalesOfItsOwnOrIntegers) {
  const auto can = [](EncodingKind kind) {
    return TargetFit::can_fit(BlockRule::of_blocks(kind), Levels::of_blocks(kind));
  };
  for (const EncodingKind kind :
       {EncodingKind::kQ4_0, EncodingKind::kQ5_0, EncodingKind::kQ2_K, EncodingKind::kQ3_K,
        EncodingKind::kQ4_K, EncodingKind::kQ5_K, EncodingKind::kQ6_K, EncodingKind::kIQ4_XS})
    EXPECT_TRUE(can(kind)) << traits(kind).name;
  for (const EncodingKind kind : {EncodingKind::kQ4_1, EncodingKind::kQ5_1, EncodingKind::kQ8_0,
                                  EncodingKind::kIQ4_NL, EncodingKind::kMXFP4})
    EXPECT_FALSE(can(kind)) << traits(kind).name;
}

TEST(TargetFit, FindsTheBestScaleOfIntegers) {
  const auto levels = std::make_shared<const Levels>(Levels::of_integers(-8, 7, 0));
  const BlockRule rule = BlockRule::of_scales(32);
  const std::vector<float> weights = columns_weights(32);
  for (uint32_t seed = 0; seed < 5; ++seed) {
    const std::vector<float> targets = test::normal_weights(seed, 32);
    std::vector<BlockScales> blocks(6);
    std::vector<RowGrid> grids(2, RowGrid(levels, rule, std::span(blocks).first(3)));
    TargetFit fit(rule, *levels, blocks, grids);
    fit.fit(1, 2, targets, weights);
    for (size_t i = 0; i < 5; ++i) EXPECT_EQ(blocks[i].d, 0);
    const double found = error_of(grids[1], 2, targets, weights);
    for (int bits = 0; bits < 0x10000; ++bits) {
      if ((bits & 0x7C00) == 0x7C00) continue;
      grids[1].set(2, rule, {.d = static_cast<uint16_t>(bits)});
      EXPECT_GE(error_of(grids[1], 2, targets, weights), found * (1 - 1e-4));
    }
  }
}

// Targets other than the weights that the block was fitted for.
TEST(TargetFit, IntegersMoveOnlyToWhatIsBetter) {
  for (const EncodingKind kind : {EncodingKind::kQ2_K, EncodingKind::kQ3_K, EncodingKind::kQ4_K,
                                  EncodingKind::kQ6_K, EncodingKind::kIQ4_XS}) {
    SCOPED_TRACE(traits(kind).name);
    const std::vector<float> values = test::normal_weights(11, 256);
    std::vector<float> targets = test::normal_weights(12, 256, 0.012f);
    std::vector<BlockCodes> codes(1);
    fit_block_codes(kind, values, 256, {}, codes);
    const auto levels = std::make_shared<const Levels>(Levels::of_blocks(kind));
    const BlockRule rule = BlockRule::of_blocks(kind);
    std::vector<BlockScales> blocks(codes.begin(), codes.end());
    std::vector<RowGrid> grids = {RowGrid(levels, rule, blocks)};
    TargetFit fit(rule, *levels, blocks, grids);
    const auto width = static_cast<size_t>(rule.sub);
    const std::vector<float> weights = columns_weights(width);
    double before = 0, after = 0;
    for (size_t sub = 0; sub < 256 / width; ++sub) {
      for (size_t i = 0; i < width; ++i) targets[sub * width + i] += values[sub * width + i];
      const std::span<const float> part = std::span(targets).subspan(sub * width, width);
      const double was = error_of(grids[0], sub, part, weights);
      fit.fit(0, sub, part, weights);
      const double is = error_of(grids[0], sub, part, weights);
      EXPECT_LE(is, was * (1 + 1e-4));
      before += was;
      after += is;
      EXPECT_GE(blocks[0].scales[sub], rule.low);
      EXPECT_LE(blocks[0].scales[sub], rule.high);
      EXPECT_GE(blocks[0].mins[sub], 0);
      EXPECT_LE(blocks[0].mins[sub], rule.most_min);
    }
    EXPECT_EQ(blocks[0].d, codes[0].d);
    EXPECT_LT(after, 0.95 * before);
  }
}

// Grids that are fitted when their columns are reached lose less than those fitted before.
TEST(TargetFit, LowersTheErrorOfFeedback) {
  constexpr int64_t kColumns = 512;
  constexpr size_t kRows = 150;
  const auto feedback = Feedback::create(*test::directed_moments(kColumns), Feedback::kRun);
  ASSERT_TRUE(feedback.ok());
  const std::vector<float> values = test::normal_weights(13, kColumns * int64_t{kRows});
  std::vector<uint8_t> found(values.size());
  for (const EncodingKind kind : {EncodingKind::kQ4_0, EncodingKind::kQ2_K, EncodingKind::kQ4_K}) {
    SCOPED_TRACE(traits(kind).name);
    const BlockRule rule = BlockRule::of_blocks(kind);
    const auto levels = std::make_shared<const Levels>(Levels::of_blocks(kind));
    std::vector<BlockCodes> codes(values.size() / static_cast<size_t>(rule.columns));
    fit_block_codes(kind, values, kColumns, (*feedback)->weights(), codes);
    std::vector<BlockScales> blocks(codes.begin(), codes.end());
    std::vector<RowGrid> grids;
    for (size_t row = 0, count = blocks.size() / kRows; row < kRows; ++row)
      grids.emplace_back(levels, rule, std::span(blocks).subspan(row * count, count));
    const double before = (*feedback)->round(values, grids, found);
    TargetFit targets(rule, *levels, blocks, grids);
    const double after =
        (*feedback)->round(values, grids, found,
                           [&](size_t row, size_t sub, std::span<const float> wanted,
                               std::span<const float> by) { targets.fit(row, sub, wanted, by); });
    EXPECT_LT(after, 0.98 * before);
  }
}

}  // namespace
}  // namespace pome
