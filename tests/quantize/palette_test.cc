#include "quantize/palette.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tensor/half.h"

namespace pome {
namespace {

std::vector<uint16_t> keys_of(const std::vector<float>& values) {
  std::vector<uint16_t> keys;
  for (const float value : values) keys.push_back(key_of_f16(f32_to_f16(value)));
  return keys;
}

std::vector<uint16_t> fit(const std::vector<float>& values, int bits) {
  KeyHistogram histogram;
  histogram.add(keys_of(values));
  std::vector<double> distinct, weights;
  histogram.collect(&distinct, &weights);
  return fit_palette(distinct, weights, bits);
}

void expect_ascending(const std::vector<uint16_t>& table) {
  for (size_t i = 0; i < table.size(); ++i) {
    ASSERT_TRUE(std::isfinite(f16_to_f32(table[i])));
    ASSERT_NE(table[i], 0x8000) << "minus zero";
    if (i > 0) {
      ASSERT_LT(f16_to_f32(table[i - 1]), f16_to_f32(table[i])) << i;
    }
  }
}

TEST(Keys, OrderAndRoundTrip) {
  float last = -INFINITY;
  int finite = 0;
  for (int key = 0; key < 65536; ++key) {
    const uint16_t bits = f16_of_key(static_cast<uint16_t>(key));
    const float value = f16_to_f32(bits);
    if (!std::isfinite(value)) continue;
    if (bits == 0x8000) {
      EXPECT_EQ(key_of_f16(bits), 0x8000);  // both zeros have the key of +0
      continue;
    }
    EXPECT_EQ(key_of_f16(bits), key);
    EXPECT_GT(value, last);
    last = value;
    ++finite;
  }
  EXPECT_EQ(finite, 63487);
}

TEST(KeyHistogram, CountsAndWeights) {
  KeyHistogram histogram;
  histogram.add(keys_of({1.0f, -2.0f, 1.0f, 0.0f, -0.0f}));
  std::vector<double> values, weights;
  histogram.collect(&values, &weights);
  EXPECT_EQ(values, (std::vector<double>{-2, 0, 1}));
  EXPECT_EQ(weights, (std::vector<double>{1, 2, 2}));
  histogram.clear();
  histogram.add(keys_of({1.0f, 3.0f, 1.0f, 5.0f}), std::vector<float>{0.5f, 0.25f, 2.0f, 0.0f});
  histogram.collect(&values, &weights);
  EXPECT_EQ(values, (std::vector<double>{1, 3}));
  EXPECT_EQ(weights, (std::vector<double>{2.5, 0.25}));
}

TEST(Palette, IndexMapIsNearest) {
  std::mt19937 random(1);
  std::vector<float> values;
  for (int i = 0; i < 5000; ++i) {
    values.push_back(static_cast<float>(std::normal_distribution<double>(0, 0.02)(random)));
  }
  std::vector<uint8_t> map(65536);
  for (const int bits : {1, 2, 3, 4, 6, 8}) {
    const std::vector<uint16_t> table = fit(values, bits);
    ASSERT_EQ(table.size(), size_t{1} << bits);
    expect_ascending(table);
    build_index_map(table, map);
    for (int key = 0; key < 65536; ++key) {
      const double value = f16_to_f32(f16_of_key(static_cast<uint16_t>(key)));
      if (!std::isfinite(value)) continue;
      const double chosen = std::fabs(value - f16_to_f32(table[map[static_cast<size_t>(key)]]));
      for (const uint16_t entry : table) {
        ASSERT_LE(chosen, std::fabs(value - f16_to_f32(entry))) << value << " bits " << bits;
      }
    }
  }
}

TEST(Palette, TiesGoToTheLowerEntry) {
  std::vector<uint8_t> map(65536);
  const std::vector<uint16_t> table = {f32_to_f16(-1), f32_to_f16(0), f32_to_f16(1), f32_to_f16(2)};
  build_index_map(table, map);
  const auto index = [&](float value) { return map[key_of_f16(f32_to_f16(value))]; };
  EXPECT_EQ(index(-0.5f), 0);
  EXPECT_EQ(index(0.5f), 1);
  EXPECT_EQ(index(0.5005f), 2);
  EXPECT_EQ(index(1.5f), 2);
  EXPECT_EQ(index(65504), 3);
  EXPECT_EQ(index(-65504), 0);
  EXPECT_EQ(index(-0.0f), 1);
}

TEST(Palette, FewerValuesThanEntries) {
  const std::vector<std::vector<float>> cases = {
      {0.0f},      {0.25f, 0.25f},       {65504.0f},        {65504.0f, -65504.0f, 0.0f},
      {-0x1p-24f}, {65504.0f, 65440.0f}, {0x1p-24f, -0.0f}, {-1.0f, 1.0f, 3.0f}};
  for (const auto& values : cases) {
    for (const int bits : {1, 2, 4, 8}) {
      const std::vector<uint16_t> table = fit(values, bits);
      ASSERT_EQ(table.size(), size_t{1} << bits);
      expect_ascending(table);
      if (values.size() > table.size()) continue;
      for (const float value : values) {
        EXPECT_TRUE(std::any_of(table.begin(), table.end(), [&](uint16_t entry) {
          return f16_to_f32(entry) == value;
        })) << value;
      }
    }
  }
  expect_ascending(fit_palette({}, {}, 4));
}

TEST(Palette, RequantisingDecodedValuesIsLossless) {
  std::mt19937 random(5);
  std::vector<float> values;
  for (int i = 0; i < 20000; ++i) {
    values.push_back(static_cast<float>(0.02 * std::student_t_distribution<double>(3)(random)));
  }
  std::vector<uint8_t> map(65536);
  for (const int bits : {2, 3, 4, 6, 8}) {
    const std::vector<uint16_t> table = fit(values, bits);
    build_index_map(table, map);
    std::vector<float> decoded;
    for (const uint16_t key : keys_of(values)) decoded.push_back(f16_to_f32(table[map[key]]));
    EXPECT_EQ(fit(decoded, bits), table);
  }
}

TEST(Palette, MoreBitsAreNeverWorseAndSymmetryHolds) {
  std::mt19937 random(6);
  std::vector<float> values, mirrored;
  for (int i = 0; i < 8192; ++i) {
    values.push_back(static_cast<float>(std::normal_distribution<double>(0.001, 0.03)(random)));
    mirrored.push_back(-values.back());
  }
  std::vector<uint8_t> map(65536);
  double last = INFINITY;
  for (const int bits : {1, 2, 3, 4, 6, 8}) {
    const auto error = [&](const std::vector<float>& in) {
      const std::vector<uint16_t> table = fit(in, bits);
      build_index_map(table, map);
      double sum = 0;
      for (const float value : in) {
        const double difference =
            round_to_f16(value) - f16_to_f32(table[map[key_of_f16(f32_to_f16(value))]]);
        sum += difference * difference;
      }
      return sum;
    };
    const double here = error(values);
    EXPECT_LT(here, last);
    EXPECT_NEAR(error(mirrored), here, 1e-3 * here);
    last = here;
  }
}

// ---- what a palette may not depend on

// Multiples of 2^-6 below 8 in magnitude: exact in binary16, also when a little is added and when
// they are multiplied by a power of two.
std::vector<float> coarse_values() {
  std::mt19937 random(7);
  std::normal_distribution<double> normal(0, 2);
  std::vector<float> values;
  while (values.size() < 8192) {
    const double value = std::round(normal(random) * 64) / 64;
    if (std::fabs(value) < 8) values.push_back(static_cast<float>(value));
  }
  return values;
}
template <typename Change>
std::vector<float> changed(std::vector<float> values, const Change& change) {
  for (float& value : values) value = change(value);
  return values;
}

class PaletteOfBits : public testing::TestWithParam<int> {
 protected:
  std::vector<float> table_of(const std::vector<float>& values) const {
    std::vector<float> out;
    for (const uint16_t entry : fit(values, GetParam())) out.push_back(f16_to_f32(entry));
    return out;
  }
  const std::vector<float> values_ = coarse_values(), base_ = table_of(values_);
};

// By powers of eight: bins are placed by cube roots, which other powers of two round another way.
TEST_P(PaletteOfBits, ScalesWithItsValues) {
  for (const float factor : {0x1p-3f, 0x1p6f}) {
    const auto times = [&](float value) { return value * factor; };
    EXPECT_EQ(table_of(changed(values_, times)), changed(base_, times)) << factor;
  }
}

// But for the rounding of both tables to binary16.
TEST_P(PaletteOfBits, ShiftsWithItsValues) {
  for (const float shift : {-8.0f, 3.25f, 8.0f}) {
    const std::vector<float> table = table_of(changed(values_, [&](float v) { return v + shift; }));
    for (size_t i = 0; i < table.size(); ++i) {
      const float rounding = 0x1p-11f * (std::fabs(table[i]) + std::fabs(base_[i]));
      EXPECT_NEAR(table[i], base_[i] + shift, rounding) << i << " " << shift;
    }
  }
}

TEST_P(PaletteOfBits, MirrorsItsValues) {
  const std::vector<float> mirrored = table_of(changed(values_, [](float v) { return -v; }));
  std::vector<float> expected = changed(base_, [](float v) { return -v; });
  std::reverse(expected.begin(), expected.end());
  const bool exact = GetParam() >= 4;  // the other methods are held to their error, above
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(mirrored[i], expected[i], exact ? 0 : 0.02) << i;
}

// An element twice at half of its weight, and one of weight two, are the same.
TEST_P(PaletteOfBits, SplitWeightsCountAsTheWhole) {
  const std::vector<uint16_t> keys = keys_of(values_);
  std::vector<float> whole, twice(keys.size(), 2);
  std::mt19937 random(8);
  for (size_t i = 0; i < keys.size(); ++i)
    whole.push_back(static_cast<float>(std::exponential_distribution<double>()(random)));
  const std::vector<float> half = changed(whole, [](float w) { return w / 2; });
  const auto fitted = [&](const std::vector<const std::vector<float>*>& parts) {
    KeyHistogram histogram;
    for (const std::vector<float>* weights : parts)
      weights ? histogram.add(keys, *weights) : histogram.add(keys);
    std::vector<double> distinct, sums;
    histogram.collect(&distinct, &sums);
    return fit_palette(distinct, sums, GetParam());
  };
  EXPECT_EQ(fitted({&half, &half}), fitted({&whole}));
  EXPECT_EQ(fitted({nullptr, nullptr}), fitted({&twice}));
  EXPECT_NE(fitted({&whole}), fitted({&twice}));
}

INSTANTIATE_TEST_SUITE_P(Bits, PaletteOfBits, testing::Values(1, 2, 3, 4, 6, 8));

}  // namespace
}  // namespace pome
