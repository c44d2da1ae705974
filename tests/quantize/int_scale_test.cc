#include "quantize/int_scale.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tensor/half.h"

namespace pome {
namespace {

// The definition, in binary64.
double plain_error(std::span<const float> values, std::span<const float> weights, double scale,
                   const CodeRange& range) {
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double code =
        scale == 0 ? 0.0
                   : std::clamp<double>(std::nearbyint(values[i] / scale), range.low, range.high);
    const double difference = values[i] - scale * code;
    sum += (weights.empty() ? 1.0 : weights[i]) * difference * difference;
  }
  return sum;
}

// Over every binary16 scale up to twice the largest magnitude.
double brute_force(std::span<const float> values, std::span<const float> weights,
                   const CodeRange& range) {
  float absmax = 0;
  for (const float v : values) absmax = std::max(absmax, std::fabs(v));
  double best = plain_error(values, weights, 0, range);
  const int last = f32_to_f16(std::min(65504.0f, 2 * absmax));
  for (int bits = 1; bits <= last; ++bits) {
    const double scale = f16_to_f32(static_cast<uint16_t>(bits));
    if (scale * 200 < absmax / 128.0) continue;
    best = std::min(best, plain_error(values, weights, scale, range));
    if (range.negative_scale) best = std::min(best, plain_error(values, weights, -scale, range));
  }
  return best;
}

std::vector<float> draw(size_t n, int kind, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 0.02);
  std::student_t_distribution<double> heavy(2.5);
  std::vector<float> out;
  for (size_t i = 0; i < n; ++i) {
    switch (kind) {
      case 0:
        out.push_back(static_cast<float>(normal(random)));
        break;
      case 1:
        out.push_back(static_cast<float>(0.02 * heavy(random)));
        break;
      case 2:  // bf16 values, many ties
        out.push_back(bf16_to_f32(f32_to_bf16(static_cast<float>(normal(random)))));
        break;
      default:  // scales are among the smallest binary16 values
        out.push_back(static_cast<float>(normal(random) * 50 * 0x1p-22));
    }
  }
  return out;
}

double error_of(std::span<const float> values, std::span<const float> weights, const ScaleFit& fit,
                const CodeRange& range) {
  std::vector<int8_t> codes(values.size());
  quantize_with_scale(values, fit.scale, range, codes);
  const float scale = f16_to_f32(fit.scale);
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_GE(codes[i], range.low);
    EXPECT_LE(codes[i], range.high);
    const double difference = values[i] - scale * static_cast<float>(codes[i]);
    sum += (weights.empty() ? 1.0 : weights[i]) * difference * difference;
  }
  return sum;
}

constexpr CodeRange kRanges[] = {kInt4Range,     {-8, 7, false}, {-7, 7, false},
                                 {-1, 1, false}, {-2, 1, true},  {-16, 15, true}};

TEST(ExactScale, EqualsBruteForceOverAllScales) {
  ScaleScratch scratch;
  uint32_t seed = 0;
  for (const size_t n : {1u, 2u, 5u, 8u, 17u, 32u, 100u}) {
    for (int kind = 0; kind < 4; ++kind) {
      for (const CodeRange& range : kRanges) {
        const std::vector<float> values = draw(n, kind, ++seed);
        const ScaleFit fit = fit_scale_exact(values, {}, range, &scratch);
        const double best = brute_force(values, {}, range);
        double squares = 0;
        for (const float v : values) squares += static_cast<double>(v) * v;
        EXPECT_NEAR(error_of(values, {}, fit, range), best, 1e-6 * best + 1e-12 * squares)
            << "n " << n << " kind " << kind << " range " << range.low << " seed " << seed;
        EXPECT_NEAR(fit.error, best, 2e-6 * best + 1e-12 * squares);
      }
    }
  }
}

TEST(ExactScale, WeightedEqualsBruteForce) {
  ScaleScratch scratch;
  std::mt19937 random(3);
  for (uint32_t seed = 100; seed < 130; ++seed) {
    const std::vector<float> values = draw(32, static_cast<int>(seed % 3), seed);
    std::vector<float> weights;
    for (int i = 0; i < 32; ++i) {
      // Over five decades, some zero: the largest value need not matter.
      weights.push_back(
          random() % 5 == 0 ? 0.0f : static_cast<float>(std::pow(10.0, random() % 500 / 100.0)));
    }
    for (const CodeRange& range : {kInt4Range, CodeRange{-7, 7, false}}) {
      const ScaleFit fit = fit_scale_exact(values, weights, range, &scratch);
      const double best = brute_force(values, weights, range);
      EXPECT_NEAR(error_of(values, weights, fit, range), best, 2e-6 * best) << seed;
    }
  }
}

TEST(ExactScale, NeverWorseThanTheLargestValueRule) {
  ScaleScratch scratch;
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> values = draw(32, static_cast<int>(seed % 3), seed);
    float absmax = 0;
    for (const float v : values) absmax = std::max(absmax, std::fabs(v));
    const uint16_t rule = f32_to_f16(absmax / 7);
    EXPECT_LE(fit_scale_exact(values, {}, kInt4Range, &scratch).error,
              scale_error(values, {}, rule, kInt4Range));
    EXPECT_LE(fit_scale_search(values, {}, kInt8Range).error,
              scale_error(values, {}, f32_to_f16(absmax / 127), kInt8Range));
  }
}

TEST(ExactScale, RequantisingDecodedValuesLosesNothing) {
  ScaleScratch scratch;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const bool eight = seed % 2 == 1;
    const CodeRange range = eight ? kInt8Range : kInt4Range;
    std::vector<float> values = draw(eight ? 300 : 32, static_cast<int>(seed % 3), seed);
    if (seed % 5 == 0) {  // scales that are subnormal in binary16
      for (float& v : values) v *= 1e-3f;
    }
    const auto fit = [&](const std::vector<float>& in) {
      return eight ? fit_scale_search(in, {}, range) : fit_scale_exact(in, {}, range, &scratch);
    };
    const ScaleFit first = fit(values);
    std::vector<int8_t> codes(values.size());
    quantize_with_scale(values, first.scale, range, codes);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = f16_to_f32(first.scale) * static_cast<float>(codes[i]);
    }
    EXPECT_EQ(fit(values).error, 0) << seed;
  }
}

TEST(SearchedScale, FindsTheScaleOfMultiplesWhoseLargestCodeIsSmall) {
  for (const int top : {70, 100, 126, 127}) {
    std::mt19937 random(static_cast<uint32_t>(top));
    std::vector<float> values;
    for (int i = 0; i < 1000; ++i) {
      values.push_back(0x1.35p-7f *
                       static_cast<float>(static_cast<int>(random() % (2 * top + 1)) - top));
    }
    values[3] = 0x1.35p-7f * static_cast<float>(top);
    EXPECT_EQ(fit_scale_search(values, {}, kInt8Range).error, 0) << top;
  }
}

TEST(ExactScale, ScalesWithPowersOfTwoAndMirrors) {
  ScaleScratch scratch;
  const std::vector<float> values = draw(32, 1, 11);
  const ScaleFit base = fit_scale_exact(values, {}, kInt4Range, &scratch);
  std::vector<float> larger = values, mirrored = values;
  for (float& v : larger) v *= 8;
  for (float& v : mirrored) v = -v;
  EXPECT_EQ(f16_to_f32(fit_scale_exact(larger, {}, kInt4Range, &scratch).scale),
            8 * f16_to_f32(base.scale));
  const ScaleFit flipped = fit_scale_exact(mirrored, {}, kInt4Range, &scratch);
  EXPECT_EQ(flipped.error, base.error);
  EXPECT_EQ(flipped.scale, base.scale ^ 0x8000);
}

TEST(ExactScale, DegenerateBlocks) {
  ScaleScratch scratch;
  const std::vector<float> zeros(32, 0.0f), constant(32, -0.3f), tiny(32, 1e-9f);
  std::vector<float> outlier(32, 1e-3f), largest(32, 65504.0f), subnormal;
  outlier[7] = 60000;
  largest[1] = -65504.0f;
  for (int i = 0; i < 32; ++i) subnormal.push_back(static_cast<float>(i - 16) * 0x1p-24f);
  const auto check = [&](const std::vector<float>& values, double bound, const char* what) {
    for (const bool eight : {false, true}) {
      const CodeRange range = eight ? kInt8Range : kInt4Range;
      const ScaleFit fit = eight ? fit_scale_search(values, {}, range)
                                 : fit_scale_exact(values, {}, range, &scratch);
      EXPECT_TRUE(std::isfinite(f16_to_f32(fit.scale))) << what;
      EXPECT_LE(error_of(values, {}, fit, range), bound) << what << (eight ? " int8" : " int4");
    }
  };
  check(zeros, 0, "zeros");
  EXPECT_EQ(fit_scale_exact(zeros, {}, kInt4Range, &scratch).scale, 0);
  check(constant, 32 * 0.3 * 0.3 * 1e-7, "constant");
  check(tiny, 32 * 1e-18 * 1.0001, "below binary16");
  EXPECT_EQ(fit_scale_exact(tiny, {}, kInt4Range, &scratch).scale, 0);
  check(outlier, 31 * 1e-6 + 60000.0 * 60000 * 1e-7, "one outlier");
  check(largest, 32.0 * 65504 * 65504 * 1e-6, "largest binary16");
  check(subnormal, 32 * 0x1p-48, "binary16 subnormals");
  EXPECT_EQ(fit_scale_exact({}, {}, kInt4Range, &scratch).scale, 0);
}

TEST(ExactScale, ErrorIsAtMostHalfAStepWhereNothingClips) {
  ScaleScratch scratch;
  const std::vector<float> values = draw(32, 0, 21);
  const ScaleFit fit = fit_scale_exact(values, {}, kInt4Range, &scratch);
  const float scale = f16_to_f32(fit.scale);
  std::vector<int8_t> codes(32);
  quantize_with_scale(values, fit.scale, kInt4Range, codes);
  for (size_t i = 0; i < 32; ++i) {
    const float quotient = values[i] / scale;
    if (quotient < -8 || quotient > 7) continue;
    EXPECT_LE(std::fabs(values[i] - scale * static_cast<float>(codes[i])),
              std::fabs(scale) * 0.50001f);
  }
}

TEST(SearchedScale, CloseToADenseSearch) {
  uint32_t seed = 500;
  for (const size_t n : {40u, 256u, 2048u, 4096u}) {
    for (int kind = 0; kind < 3; ++kind) {
      for (int round = 0; round < 3; ++round) {
        const std::vector<float> values = draw(n, kind, ++seed);
        float absmax = 0;
        for (const float v : values) absmax = std::max(absmax, std::fabs(v));
        double best = INFINITY;
        for (int bits = f32_to_f16(absmax / 250); bits <= f32_to_f16(absmax / 63); ++bits) {
          best = std::min(best, scale_error(values, {}, static_cast<uint16_t>(bits), kInt8Range));
        }
        const double found = fit_scale_search(values, {}, kInt8Range).error;
        EXPECT_LE(found, best * (n <= 128 ? 1.000001 : 1.0001)) << "n " << n << " kind " << kind;
      }
    }
  }
}

TEST(ScaleError, MatchesTheDefinition) {
  for (const size_t n : {1u, 7u, 8u, 9u, 511u, 513u, 2000u}) {
    const std::vector<float> values = draw(n, 0, static_cast<uint32_t>(n));
    const std::vector<float> weights(n, 0.5f);
    const double expected = plain_error(values, {}, f16_to_f32(0x1C00), kInt4Range);
    EXPECT_NEAR(scale_error(values, {}, 0x1C00, kInt4Range), expected, 1e-5 * expected);
    EXPECT_NEAR(scale_error(values, weights, 0x1C00, kInt4Range), expected / 2, 1e-5 * expected);
  }
}

}  // namespace
}  // namespace pome
