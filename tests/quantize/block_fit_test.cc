#include "quantize/block_fit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "tensor/half.h"

namespace pome {
namespace {

using Bytes = std::vector<std::byte>;

const EncodingKind kKinds[] = {EncodingKind::kQ4_0, EncodingKind::kQ4_1,   EncodingKind::kQ5_0,
                               EncodingKind::kQ5_1, EncodingKind::kQ8_0,   EncodingKind::kQ2_K,
                               EncodingKind::kQ3_K, EncodingKind::kQ4_K,   EncodingKind::kQ5_K,
                               EncodingKind::kQ6_K, EncodingKind::kIQ4_NL, EncodingKind::kIQ4_XS,
                               EncodingKind::kMXFP4};

constexpr int64_t kColumns = 512, kRows = 40;

// Numbers in [0, 1) that every standard library makes alike.
class Numbers {
 public:
  double next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state_ >> 11) * 0x1p-53;
  }
  // Sum of twelve: close to a normal distribution, with rows and columns of different spread.
  std::vector<float> weights() {
    std::vector<float> out(static_cast<size_t>(kRows * kColumns)), spread(kColumns);
    for (float& s : spread) s = static_cast<float>(0.5 + next());
    for (size_t i = 0; i < out.size(); ++i) {
      double sum = -6;
      for (int k = 0; k < 12; ++k) sum += next();
      if (next() < 0.02) sum *= 3;
      out[i] = static_cast<float>(0.02 * sum) * spread[i % kColumns];
    }
    return out;
  }

 private:
  uint64_t state_ = 12345;
};

std::vector<float> some_column_weights() {
  Numbers numbers;
  std::vector<float> out(kColumns);
  for (float& w : out) w = static_cast<float>(std::exp(4 * numbers.next() - 2));
  return out;
}

Bytes encode(EncodingKind kind, std::span<const float> values, std::span<const float> weights = {},
             Isa isa = Isa::kPortable) {
  const EncodingTraits& type = traits(kind);
  Bytes out(values.size() / static_cast<size_t>(type.block_elements) *
            static_cast<size_t>(type.block_bytes));
  fit_blocks_with(isa, kind, values, kColumns, weights, out.data());
  return out;
}

std::vector<float> decode(EncodingKind kind, const Bytes& bytes) {
  const EncodingTraits& type = traits(kind);
  const int64_t blocks = static_cast<int64_t>(bytes.size()) / type.block_bytes;
  std::vector<float> out(static_cast<size_t>(blocks * type.block_elements));
  type.decode(bytes.data(), blocks, out.data());
  return out;
}

double relative_error(EncodingKind kind, std::span<const float> values, const Bytes& bytes,
                      std::span<const float> weights = {}) {
  const std::vector<float> stored = decode(kind, bytes);
  double lost = 0, all = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double w = weights.empty() ? 1.0 : weights[i % kColumns], e = values[i] - stored[i];
    lost += w * e * e;
    all += w * values[i] * values[i];
  }
  return lost / all;
}

TEST(BlockFit, ErrorIsWhatWasRecorded) {
  // sum e^2 / sum w^2 as measured when this was written, with one percent to spare.
  const std::map<EncodingKind, double> recorded = {
      {EncodingKind::kQ4_0, 1.0032e-02},   {EncodingKind::kQ4_1, 6.1584e-03},
      {EncodingKind::kQ5_0, 2.4865e-03},   {EncodingKind::kQ5_1, 1.4353e-03},
      {EncodingKind::kQ8_0, 3.9461e-05},   {EncodingKind::kQ2_K, 8.3426e-02},
      {EncodingKind::kQ3_K, 2.7994e-02},   {EncodingKind::kQ4_K, 6.2980e-03},
      {EncodingKind::kQ5_K, 1.5660e-03},   {EncodingKind::kQ6_K, 3.9676e-04},
      {EncodingKind::kIQ4_NL, 6.9345e-03}, {EncodingKind::kIQ4_XS, 7.0885e-03},
      {EncodingKind::kMXFP4, 1.4443e-02}};
  const std::vector<float> values = Numbers().weights();
  for (const EncodingKind kind : kKinds) {
    const double error = relative_error(kind, values, encode(kind, values));
    EXPECT_LE(error, 1.01 * recorded.at(kind)) << traits(kind).name << " " << error;
  }
}

TEST(BlockFit, EveryInstructionSetGivesTheSameBytes) {
  const std::vector<float> values = Numbers().weights();
  for (const EncodingKind kind : kKinds) {
    const Bytes portable = encode(kind, values);
    for (const Isa isa : available_isas())
      EXPECT_TRUE(encode(kind, values, {}, isa) == portable)
          << traits(kind).name << " " << to_string(isa);
  }
}

TEST(BlockFit, RowsDoNotSeeEachOther) {
  const std::vector<float> values = Numbers().weights();
  for (const EncodingKind kind : kKinds) {
    const Bytes whole = encode(kind, values);
    Bytes parts;
    for (int64_t row = 0; row < kRows;) {
      const int64_t rows = std::min<int64_t>(1 + row % 7, kRows - row);
      const Bytes part =
          encode(kind, std::span(values).subspan(static_cast<size_t>(row * kColumns),
                                                 static_cast<size_t>(rows * kColumns)));
      parts.insert(parts.end(), part.begin(), part.end());
      row += rows;
    }
    EXPECT_TRUE(parts == whole) << traits(kind).name;
  }
}

TEST(BlockFit, WeightsMoveTheErrorToWhereItCountsLess) {
  const std::vector<float> values = Numbers().weights(), weights = some_column_weights();
  for (const EncodingKind kind : kKinds) {
    const Bytes plain = encode(kind, values), weighted = encode(kind, values, weights);
    EXPECT_LT(
        relative_error(kind, values, weighted, weights),
        relative_error(kind, values, plain, weights) * (kind == EncodingKind::kMXFP4 ? 1 : 0.999))
        << traits(kind).name;
  }
}

TEST(BlockFit, OddValuesStayFinite) {
  for (const EncodingKind kind : kKinds) {
    for (const float magnitude : {0.0f, 1e-30f, 1e-8f, 1.0f, 60000.0f}) {
      std::vector<float> values(kColumns, magnitude);  // all alike
      values.resize(2 * kColumns, -magnitude);
      values.resize(3 * kColumns, 0.0f);  // one outlier
      values[2 * kColumns + 77] = magnitude;
      const std::vector<float> stored = decode(kind, encode(kind, values));
      double lost = 0, all = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_TRUE(std::isfinite(stored[i])) << traits(kind).name << " " << magnitude;
        lost += (values[i] - stored[i]) * (values[i] - stored[i]);
        all += values[i] * values[i];
      }
      if (magnitude < 1) continue;
      EXPECT_LT(lost, 0.01 * all) << traits(kind).name << " " << magnitude;
    }
  }
}

// Where a scale is all there is to find, it is found again, also where the largest code is not the
// largest that there is.
TEST(BlockFit, RequantisingKeepsWhatHasNothingButAScale) {
  const std::vector<float> values = Numbers().weights(), weights = some_column_weights();
  for (const EncodingKind kind : {EncodingKind::kQ4_0, EncodingKind::kQ5_0, EncodingKind::kQ8_0})
    for (const std::span<const float> by : {std::span<const float>(), std::span(weights)}) {
      const std::vector<float> once = decode(kind, encode(kind, values, by));
      EXPECT_EQ(decode(kind, encode(kind, once, by)), once) << traits(kind).name << by.size();
      std::vector<float> other = once;
      for (float& value : other) value *= 4;
      EXPECT_EQ(decode(kind, encode(kind, other, by)), other) << traits(kind).name << by.size();
    }
}

// Of blocks with one scale, the codes that pome writes.
constexpr struct {
  EncodingKind kind;
  int low, high;
} kCodes[] = {
    {EncodingKind::kQ4_0, -8, 7}, {EncodingKind::kQ5_0, -16, 15}, {EncodingKind::kQ8_0, -127, 127}};

// Codes up to each largest one, scales of either sign.
TEST(BlockFit, RequantisingKeepsBlocksOfOthers) {
  Numbers numbers;
  for (const auto& [kind, low, high] : kCodes) {
    std::vector<float> values;
    for (int top = 1; top <= -low; ++top)
      for (int block = 0; block < 16; ++block) {
        const int mantissa = 1024 + (37 * top + block) % 1024,
                  codes = top + std::min(top, high) + 1;
        const float scale = static_cast<float>(block % 2 ? -mantissa : mantissa) * 0x1p-15f;
        for (int i = 0; i < 32; ++i)
          values.push_back(scale *
                           static_cast<float>(static_cast<int>(numbers.next() * codes) - top));
      }
    EXPECT_EQ(decode(kind, encode(kind, values)), values) << traits(kind).name;
  }
}

// The many numbers of a super-block, and pairs, need not be found again, but little is lost.
TEST(BlockFit, RequantisingLosesLittleOfTheOthers) {
  const std::vector<float> values = Numbers().weights();
  for (const EncodingKind kind : kKinds) {
    const Bytes once = encode(kind, values);
    const std::vector<float> stored = decode(kind, once);
    EXPECT_LT(relative_error(kind, stored, encode(kind, stored)),
              0.1 * relative_error(kind, values, once))
        << traits(kind).name;
  }
}

// Within the range of the codes an error is at most half a step; little lies beyond it.
TEST(BlockFit, ErrorsAreAtMostHalfAStep) {
  const std::vector<float> values = Numbers().weights();
  for (const auto& [kind, low, high] : kCodes) {
    const Bytes bytes = encode(kind, values);
    const std::vector<float> stored = decode(kind, bytes);
    size_t beyond = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t half;
      std::memcpy(&half, bytes.data() + i / 32 * static_cast<size_t>(traits(kind).block_bytes), 2);
      const float d = f16_to_f32(half), lost = std::fabs(values[i] - stored[i]);
      if (const float code = values[i] / d;
          code >= static_cast<float>(low) && code <= static_cast<float>(high))
        ASSERT_LE(lost, std::fabs(d) * 0.500001f) << traits(kind).name << " " << i;
      else
        ++beyond;
    }
    EXPECT_LT(beyond, values.size() / 20) << traits(kind).name;
  }
}

}  // namespace
}  // namespace pome
