#include "quantize/block_fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <vector>

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
  Numbers numbers;
  const std::vector<float> values = numbers.weights();
  std::vector<float> weights(kColumns);
  for (float& w : weights) w = static_cast<float>(std::exp(4 * numbers.next() - 2));
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

}  // namespace
}  // namespace pome
