#include "quantize/refine_scales.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quantize/block_fit.h"
#include "quantize/feedback.h"
#include "quantize/int_scale.h"
#include "quantize/refine.h"
#include "support/second_moments.h"
#include "tensor/half.h"

namespace pome {
namespace {

using test::kFittedKinds;

FeedbackPtr feedback_of(int64_t columns) {
  return *Feedback::create_with_form(test::directed_moments(columns));
}

// Rows of blocks, rounded with feedback.
struct Rows {
  BlockRule rule;
  LevelsPtr kinds;
  std::vector<float> values;
  std::vector<BlockScales> blocks;
  std::vector<RowGrid> grids;
  std::vector<uint8_t> levels;

  Rows(const BlockRule& how, Levels of, std::vector<float> weights, std::vector<BlockScales> scales,
       const Feedback& feedback)
      : rule(how),
        kinds(std::make_shared<const Levels>(std::move(of))),
        values(std::move(weights)),
        blocks(std::move(scales)),
        levels(values.size()) {
    const auto rows = values.size() / static_cast<size_t>(feedback.columns());
    make_grids(rows);
    feedback.round(values, grids, levels);
  }
  static Rows of_kind(EncodingKind kind, const std::vector<float>& values,
                      const Feedback& feedback) {
    std::vector<BlockCodes> codes(values.size() / static_cast<size_t>(traits(kind).block_elements));
    fit_block_codes(kind, values, feedback.columns(), feedback.weights(), codes);
    return {BlockRule::of_blocks(kind),
            Levels::of_blocks(kind),
            values,
            {codes.begin(), codes.end()},
            feedback};
  }
  // int4 with one scale everywhere.
  static Rows of_scale(float scale, int64_t block, const std::vector<float>& values,
                       const Feedback& feedback) {
    return {BlockRule::of_scales(block), Levels::of_integers(-8, 7, 0), values,
            std::vector<BlockScales>(values.size() / static_cast<size_t>(block),
                                     BlockScales{.d = f32_to_f16(scale)}),
            feedback};
  }

  void make_grids(size_t rows) {
    grids.clear();
    const size_t of_row = blocks.size() / rows;
    for (size_t row = 0; row < rows; ++row)
      grids.emplace_back(kinds, rule, std::span(blocks).subspan(row * of_row, of_row));
  }
  std::vector<float> errors() const {
    std::vector<float> out(values);
    const size_t width = values.size() / grids.size();
    for (size_t i = 0; i < out.size(); ++i) {
      const RowGrid& grid = grids[i / width];
      out[i] -= grid.value(grid.block_of(static_cast<int64_t>(i % width)), levels[i]);
    }
    return out;
  }
  std::vector<double> costs(const Feedback& feedback) const {
    return feedback.form()->costs(errors());
  }
  double cost(const Feedback& feedback) const {
    const std::vector<double> all = costs(feedback);
    return std::accumulate(all.begin(), all.end(), 0.0);
  }
  // One pass over the scales alone, all columns at once.
  double refine(const Feedback& feedback) {
    std::vector<float> gradients;
    feedback.form()->gradient(errors(), 0, feedback.columns(), &gradients);
    ScaleRefiner scales(*feedback.form(), rule, kinds);
    return scales.refine(0, feedback.columns(), levels, blocks, grids, gradients);
  }
};

// Each row on its own, by what it says, with grids that are those of the blocks.
TEST(RefineBlocks, NoStepRaisesTheErrorOfARow) {
  constexpr int64_t kColumns = 512, kCount = 70;
  const FeedbackPtr feedback = feedback_of(kColumns);
  const std::vector<float> values = test::normal_weights(7, kCount * kColumns);
  for (const EncodingKind kind : kFittedKinds) {
    SCOPED_TRACE(traits(kind).name);
    Rows rows = Rows::of_kind(kind, values, *feedback);
    std::vector<double> before = rows.costs(*feedback);
    const double first = rows.cost(*feedback);
    for (int round = 0; round < 3; ++round) {
      const double gain = refine_blocks(*feedback->form(), rows.rule, rows.kinds, rows.values,
                                        rows.blocks, rows.grids, rows.levels);
      const std::vector<double> after = rows.costs(*feedback);
      for (size_t row = 0; row < after.size(); ++row)
        EXPECT_LE(after[row], before[row] * (1 + 1e-4));
      const double fell = std::accumulate(before.begin(), before.end(), 0.0) -
                          std::accumulate(after.begin(), after.end(), 0.0);
      EXPECT_NEAR(gain, fell, 1e-3 * first);
      before = after;
    }
    EXPECT_LT(rows.cost(*feedback), 0.99 * first);
    const std::vector<float> errors = rows.errors();
    rows.make_grids(kCount);
    EXPECT_EQ(errors, rows.errors());
  }
}

// Scales that move pay beside levels that do.
TEST(RefineBlocks, FindsLessErrorThanLevelsAlone) {
  constexpr int64_t kColumns = 512;
  const FeedbackPtr feedback = feedback_of(kColumns);
  const std::vector<float> values = test::normal_weights(8, 32 * kColumns);
  for (const EncodingKind kind : {EncodingKind::kQ4_0, EncodingKind::kQ4_1, EncodingKind::kQ2_K,
                                  EncodingKind::kQ3_K, EncodingKind::kQ4_K}) {
    SCOPED_TRACE(traits(kind).name);
    Rows with = Rows::of_kind(kind, values, *feedback), without = with;
    for (int round = 0; round < 2; ++round) {
      refine_blocks(*feedback->form(), with.rule, with.kinds, with.values, with.blocks, with.grids,
                    with.levels);
      refine_levels(*feedback->form(), without.values, without.grids, without.levels);
    }
    EXPECT_LT(with.cost(*feedback), 0.999 * without.cost(*feedback));
  }
}

// One block, one scale: all 63,487 of them.
TEST(ScaleRefiner, TakesTheBestOfAllScales) {
  const FeedbackPtr feedback = feedback_of(16);
  for (uint32_t seed = 0; seed < 8; ++seed) {
    for (const float size : {0.02f, 3e-6f, 100.0f}) {
      SCOPED_TRACE(size);
      Rows rows = Rows::of_scale((seed % 2 ? -0.3f : 0.3f) * size, 16,
                                 test::normal_weights(seed, 16, size), *feedback);
      const double before = rows.cost(*feedback);
      rows.refine(*feedback);
      const double found = rows.cost(*feedback);
      EXPECT_LE(found, before);
      double best = before;
      for (int bits = 0; bits < 0x10000; ++bits) {
        if ((bits & 0x7C00) == 0x7C00) continue;
        rows.blocks[0].d = static_cast<uint16_t>(bits);
        rows.grids[0].set(0, rows.rule, rows.blocks[0]);
        best = std::min(best, rows.cost(*feedback));
      }
      EXPECT_LE(found, best * (1 + 1e-4));
    }
  }
}

// Where nothing moves any more, no neighbour of any integer, of d or of dmin is better.
TEST(ScaleRefiner, EndsWhereNoNeighbourIsBetter) {
  const FeedbackPtr feedback = feedback_of(256);
  for (const EncodingKind kind :
       {EncodingKind::kQ2_K, EncodingKind::kQ3_K, EncodingKind::kQ4_K, EncodingKind::kIQ4_XS}) {
    SCOPED_TRACE(traits(kind).name);
    Rows rows = Rows::of_kind(kind, test::normal_weights(9, 256), *feedback);
    for (int pass = 0; pass < 100 && rows.refine(*feedback) > 0;) ++pass;
    const double least = rows.cost(*feedback) * (1 - 1e-4);
    const BlockScales found = rows.blocks[0];
    const auto attempt = [&](const BlockScales& other) {
      rows.grids[0].set(0, rows.rule, other);
      EXPECT_GE(rows.cost(*feedback), least);
    };
    for (size_t j = 0; j < static_cast<size_t>(rows.rule.columns / rows.rule.sub); ++j)
      for (int step = 0; step < 9; ++step) {
        BlockScales other = found;
        other.scales[j] = static_cast<int16_t>(
            std::clamp(other.scales[j] + step / 3 - 1, rows.rule.low, rows.rule.high));
        other.mins[j] =
            static_cast<int16_t>(std::clamp(other.mins[j] + step % 3 - 1, 0, rows.rule.most_min));
        attempt(other);
      }
    for (const int step : {-1, 1}) {
      BlockScales other = found;
      other.d = static_cast<uint16_t>(other.d + step);
      attempt(other);
      if (rows.rule.most_min == 0) continue;
      other = found;
      other.dmin = static_cast<uint16_t>(other.dmin + step);
      attempt(other);
    }
  }
}

// Zeros, scales below the smallest normal one, and values at the end of what binary16 holds.
TEST(ScaleRefiner, StaysWithinBinary16) {
  const FeedbackPtr feedback = feedback_of(256);
  for (const EncodingKind kind : kFittedKinds)
    for (const float size : {0.0f, 1e-7f, 2e-6f, 60000.0f}) {
      SCOPED_TRACE(std::string(traits(kind).name) + " " + std::to_string(size));
      std::vector<float> values = test::normal_weights(10, 8 * 256, 1);
      for (float& value : values) value = std::clamp(value * size, -65504.0f, 65504.0f);
      Rows rows = Rows::of_kind(kind, values, *feedback);
      const std::vector<double> before = rows.costs(*feedback);
      refine_blocks(*feedback->form(), rows.rule, rows.kinds, rows.values, rows.blocks, rows.grids,
                    rows.levels);
      const std::vector<double> after = rows.costs(*feedback);
      for (size_t row = 0; row < after.size(); ++row)
        EXPECT_LE(after[row], before[row] * (1 + 1e-4));
      for (const BlockScales& block : rows.blocks) {
        if (rows.rule.power) continue;
        for (const uint16_t half : {block.d, block.dmin}) {
          EXPECT_TRUE(std::isfinite(f16_to_f32(half)));
          EXPECT_TRUE(rows.rule.most_min == 0 || f16_to_f32(half) >= 0);
        }
      }
    }
  // A scale that should be larger than the largest one.
  Rows rows = Rows::of_scale(65504, 16, std::vector<float>(256, 60000), *feedback);
  std::fill(rows.levels.begin(), rows.levels.end(), uint8_t{8});  // 0
  rows.levels[0] = 9;
  for (float& value : rows.values) value = 65504;
  rows.refine(*feedback);
  EXPECT_EQ(rows.blocks[0].d, 0x7BFF);
}

}  // namespace
}  // namespace pome
