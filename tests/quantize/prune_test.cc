#include "quantize/prune.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "quantize/quantize.h"
#include "quantize/vector_palette.h"
#include "tensor/half.h"

namespace pome {
namespace {

std::vector<float> random_values(size_t count, unsigned seed = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> out(count);
  for (float& value : out) value = round_to_f16(normal(random));
  return out;
}
ConstantDataPtr constant_of(Shape shape, std::vector<float> values) {
  return inline_constant(Tensor::from_f32(std::move(shape), std::move(values)));
}
std::vector<float> decoded(const ConstantData& data) {
  std::vector<float> out(static_cast<size_t>(data.rows() * data.columns()));
  const Status status = data.read_f32(0, data.rows(), out.data());
  EXPECT_TRUE(status.ok()) << status.to_string();
  return out;
}
std::vector<uint8_t> mask_of(const std::vector<float>& values, const std::vector<float>& importance,
                             int64_t keep, const PruneRule& rule) {
  std::vector<uint8_t> out(values.size(), 7);
  prune_row(values, importance, keep, rule, out);
  return out;
}
// Correlated activations.
Moments moments_of(int64_t k) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  Moments out;
  out.columns = k;
  out.tokens = 4096;
  out.second.assign(static_cast<size_t>(k * k), 0.0f);
  std::vector<float> x(static_cast<size_t>(k));
  for (int t = 0; t < 512; ++t) {
    const float common = normal(random);
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = (0.7f * common + normal(random)) * (i % 7 == 0 ? 4.0f : 1.0f);
    for (size_t i = 0; i < x.size(); ++i)
      for (size_t j = 0; j < x.size(); ++j) out.second[i * x.size() + j] += x[i] * x[j] / 512;
  }
  return out;
}
// Sum over rows of e H e'.
double output_error(const Moments& moments, const std::vector<float>& a,
                    const std::vector<float>& b) {
  const auto k = static_cast<size_t>(moments.columns);
  double out = 0;
  for (size_t at = 0; at < a.size(); at += k)
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < k; ++j)
        out += static_cast<double>(a[at + i] - b[at + i]) *
               static_cast<double>(moments.second[i * k + j]) *
               static_cast<double>(a[at + j] - b[at + j]);
  return out;
}

TEST(Prune, Rules) {
  const auto share = parse_prune("0.75");
  ASSERT_TRUE(share.ok());
  EXPECT_EQ(share->zeros, 0.75);
  const auto pattern = parse_prune("2:4");
  ASSERT_TRUE(pattern.ok());
  EXPECT_EQ(pattern->n, 2);
  EXPECT_EQ(pattern->m, 4);
  for (const char* text : {"", "0", "1", "1.5", "-0.5", "half", "0.5x", "0.5.5", ":", "2:", ":4",
                           "4:4", "0:4", "5:4", "2:4:8", "2:99999", "1e-3"})
    EXPECT_EQ(parse_prune(text).status().code(), StatusCode::kUsage) << text;
}

TEST(Prune, TheLargestStay) {
  using Mask = std::vector<uint8_t>;
  const std::vector<float> row = {1, -5, 2, 0.5f, -3, 3, 4, 0};
  EXPECT_EQ(mask_of(row, {}, 4, {}), (Mask{0, 1, 0, 0, 1, 1, 1, 0}));
  EXPECT_EQ(mask_of(row, {}, 3, {}), (Mask{0, 1, 0, 0, 1, 0, 1, 0}));  // of equals the first
  EXPECT_EQ(mask_of(row, {9, 1, 1, 9, 1, 1, 1, 1}, 4, {}), (Mask{1, 1, 0, 1, 0, 0, 1, 0}));
  PruneRule pattern;
  pattern.n = 2;
  pattern.m = 4;
  EXPECT_EQ(mask_of(row, {}, 4, pattern), (Mask{0, 1, 1, 0, 1, 0, 1, 0}));
  EXPECT_EQ(mask_of(row, {}, 8, {}), Mask(8, 1));
}

TEST(Prune, HowManyStay) {
  const auto data = constant_of({2, 10}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10,  //
                                          0, 0, 0, 0, 0, 0, 0, 8, 9, -10});
  EXPECT_EQ(values_kept({}, *data).value(), 5);
  PruneRule rule;
  rule.zeros = 0.75;
  EXPECT_EQ(values_kept(rule, *data).value(), 3);
  rule.below = 7.5;
  EXPECT_EQ(values_kept(rule, *data).value(), 3);
  rule.below = 2;
  EXPECT_EQ(values_kept(rule, *data).value(), 9);
  rule = {};
  rule.n = 2;
  rule.m = 5;
  EXPECT_EQ(values_kept(rule, *data).value(), 4);
  rule.m = 4;
  EXPECT_EQ(values_kept(rule, *data).value(), 5);
}

TEST(Prune, ValuesThatStayAreTheSourcesOwn) {
  const std::vector<float> values = random_values(24 * 40);
  const auto data = constant_of({24, 40}, values);
  const Encoding encoding = Encoding::sparse(Encoding::plain(EncodingKind::kF16), 20);
  const auto pruned = pruned_constant(data, encoding, {});
  const std::vector<float> out = decoded(*pruned);
  for (size_t row = 0; row < 24; ++row) {
    float least_kept = 1e9f, most_lost = 0;
    int zeros = 0;
    for (size_t c = 0; c < 40; ++c) {
      const float was = values[row * 40 + c], is = out[row * 40 + c];
      zeros += is == 0 ? 1 : 0;
      if (is == 0) most_lost = std::max(most_lost, std::abs(was));
      if (is != 0) least_kept = std::min(least_kept, std::abs(was));
      EXPECT_TRUE(is == 0 || is == was);
    }
    EXPECT_EQ(zeros, 20);
    EXPECT_LE(most_lost, least_kept);
  }
  EXPECT_EQ(&pruned->canonical(), data.get());
}

TEST(Prune, TilesDoNotMatter) {
  const auto data = constant_of({64, 24}, random_values(64 * 24));
  for (const Encoding& dense :
       {Encoding::plain(EncodingKind::kF16), Encoding::int_blocks(4, 8), Encoding::lut(3, 16)}) {
    const auto pruned = pruned_constant(data, Encoding::sparse(dense, 11), {});
    const std::vector<float> whole = decoded(*pruned);
    std::vector<float> piece(16 * 24);
    for (int64_t row = 0; row < 64; row += 16) {
      ASSERT_TRUE(pruned->read_f32(row, 16, piece.data()).ok());
      EXPECT_TRUE(std::equal(piece.begin(), piece.end(), whole.begin() + row * 24))
          << to_string(pruned->encoding());
    }
  }
}

TEST(Prune, FeedbackMakesGoodWhatZerosTakeAway) {
  const int64_t k = 96;
  const Moments moments = moments_of(k);
  const auto feedback = Feedback::create(moments);
  ASSERT_TRUE(feedback.ok());
  const std::vector<float> values = random_values(32 * 96, 5);
  const auto data = constant_of({32, k}, values);
  for (const Encoding& dense :
       {Encoding::plain(EncodingKind::kF16), Encoding::int_blocks(4, 32), Encoding::lut(4, 16)}) {
    const auto plain = pruned_constant(data, Encoding::sparse(dense, k / 2), {});
    const auto fed = with_feedback(plain, {*feedback});
    ASSERT_TRUE(fed);
    EXPECT_EQ(fed->encoding(), plain->encoding());
    EXPECT_LT(output_error(moments, values, decoded(*fed)),
              0.5 * output_error(moments, values, decoded(*plain)))
        << to_string(plain->encoding());
  }
}

TEST(Prune, SchemesSayIt) {
  const auto recipe = parse_recipe("sparse-int4");
  ASSERT_TRUE(recipe.ok());
  EXPECT_TRUE(recipe->prune);
  EXPECT_EQ(recipe->matrices, Encoding::int_blocks(4, 32));
  for (const char* scheme : {"sparse-f32", "sparse-lut4x2", "sparse-", "sparse-sparse-int4"})
    EXPECT_EQ(parse_recipe(scheme).status().code(), StatusCode::kUsage) << scheme;
}

TEST(VectorPalette, FindsClusters) {
  // Four points, each many times with little noise; one of them weighs nothing.
  const float centres[4][2] = {{1, 1}, {-1, 2}, {3, -2}, {0, 0}};
  const std::vector<float> noise = random_values(4000);
  std::vector<float> points, weights;
  for (size_t i = 0; i < 2000; ++i) {
    for (size_t v = 0; v < 2; ++v) points.push_back(centres[i % 4][v] + noise[2 * i + v] / 50);
    weights.push_back(i % 4 == 3 ? 0.0f : 1.0f);
  }
  const std::vector<uint16_t> table = fit_vectors(points, weights, 2, 4);
  std::vector<float> found(table.size());
  f16_to_f32(table, found);
  VectorIndex index(found, 2);
  for (size_t c = 0; c < 3; ++c) {
    index.nearest(centres[c]);
    EXPECT_LT(index.distance(), 1e-4) << c;
  }
}

TEST(VectorPalette, EveryVectorGetsTheNextPoint) {
  const std::vector<float> values = random_values(32 * 24);
  const auto data = constant_of({32, 24}, values);
  const Encoding encoding = Encoding::vector_lut(4, 4, 16);
  const auto made = vector_constant(data, encoding);
  EncodedTile tile;
  ASSERT_TRUE(made->read_tile(0, 32, &tile).ok());
  const std::vector<float> out = decoded(*made);
  std::vector<float> table(2 * 16 * 4);
  f16_to_f32(std::span(reinterpret_cast<const uint16_t*>(tile.parts[1].data()), table.size()),
             table);
  for (size_t r = 0; r < 32; r += 4)
    for (size_t c = 0; c < 24; ++c) {
      const auto distance = [&](const auto& of) {
        double sum = 0;
        for (size_t v = 0; v < 4; ++v)
          sum += std::pow(static_cast<double>(values[(r + v) * 24 + c]) - of(v), 2);
        return sum;
      };
      const double ours =
          distance([&](size_t v) { return static_cast<double>(out[(r + v) * 24 + c]); });
      for (size_t e = 0; e < 16; ++e)
        EXPECT_LE(ours, 1e-9 + distance([&](size_t v) {
                          return static_cast<double>(table[(r / 16 * 16 + e) * 4 + v]);
                        }));
    }
}

TEST(VectorPalette, FeedbackLowersTheErrorOfTheOutput) {
  const int64_t k = 96;
  const Moments moments = moments_of(k);
  const auto feedback = Feedback::create(moments);
  ASSERT_TRUE(feedback.ok());
  const std::vector<float> values = random_values(64 * 96, 9);
  const auto plain = vector_constant(constant_of({64, k}, values), Encoding::vector_lut(6, 2, 32));
  const auto fed = with_feedback(plain, {*feedback});
  ASSERT_TRUE(fed);
  EXPECT_LT(output_error(moments, values, decoded(*fed)),
            0.7 * output_error(moments, values, decoded(*plain)));
}

TEST(VectorPalette, GroupsGrowUntilTablesPay) {
  Constant constant;
  constant.name = "w";
  constant.role = Constant::Role::kMatrix;
  constant.data = constant_of({512, 64}, random_values(512 * 64));
  Graph graph;
  graph.constants.push_back(constant);
  const auto used = [&](const char* scheme) {
    const auto recipe = parse_recipe(scheme);
    EXPECT_TRUE(recipe.ok());
    const auto made = quantize(graph, *recipe);
    EXPECT_TRUE(made.ok());
    return to_string(made->tensors[0].used);
  };
  EXPECT_EQ(used("lut4x2"), "lut4x2/32");
  EXPECT_EQ(used("lut6x2"), "lut6x2/128");
  EXPECT_EQ(used("lut8x4"), "lut2/16");  // the tables would cost a quarter
}

}  // namespace
}  // namespace pome
