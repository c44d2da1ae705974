#include "quantize/fed_rounding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "quantize/block_fit.h"
#include "quantize/quantize.h"
#include "quantize/refine.h"
#include "support/second_moments.h"
#include "tensor/half.h"

namespace pome {
namespace {

using test::kFittedKinds;

constexpr int64_t kColumns = 256, kRows = 32;

std::vector<float> some_weights(uint32_t seed, int64_t count = kRows * kColumns) {
  return test::normal_weights(seed, count);
}
MomentsPtr some_moments(int64_t columns = kColumns) { return test::directed_moments(columns); }

class Values final : public ConstantData {
 public:
  Values(Shape shape, std::vector<float> values)
      : ConstantData(std::move(shape), Encoding::plain(EncodingKind::kF32)),
        values_(std::move(values)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    tile->row = row;
    tile->rows = rows;
    tile->parts.assign(
        1, std::as_bytes(std::span(values_).subspan(static_cast<size_t>(row * columns()),
                                                    static_cast<size_t>(rows * columns()))));
    return {};
  }

 private:
  std::vector<float> values_;
};

std::vector<float> decode(const ConstantData& data) {
  std::vector<float> out(static_cast<size_t>(data.rows() * data.columns()));
  EXPECT_TRUE(data.read_f32(0, data.rows(), out.data()).ok());
  return out;
}
std::vector<float> difference(std::vector<float> a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] -= b[i];
  return a;
}
double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

std::vector<Encoding> encodings() {
  std::vector<Encoding> out = {Encoding::int_blocks(4, 32), Encoding::int_blocks(8, kColumns),
                               Encoding::lut(4, 16), Encoding::lut(3, 8), Encoding::lut(8, 16)};
  for (const EncodingKind kind : kFittedKinds) out.push_back(Encoding::plain(kind));
  return out;
}

// What a grid says of a code is, bit for bit, what a reader decodes.
TEST(RowGrid, HoldsTheValuesThatBlocksDecodeTo) {
  const std::vector<float> values = some_weights(1, 4 * kColumns);
  for (const EncodingKind kind : kFittedKinds) {
    const EncodingTraits& type = traits(kind);
    SCOPED_TRACE(type.name);
    const auto size = static_cast<size_t>(type.block_elements);
    std::vector<BlockCodes> blocks(values.size() / size);
    fit_block_codes(kind, values, kColumns, {}, blocks);
    const auto levels = std::make_shared<const Levels>(Levels::of_blocks(kind));
    std::vector<std::byte> bytes(static_cast<size_t>(type.block_bytes));
    std::vector<float> decoded(size);
    for (size_t row = 0; row < 4; ++row) {
      const size_t count = kColumns / size;
      const std::vector<BlockScales> scales(blocks.begin() + row * count,
                                            blocks.begin() + (row + 1) * count);
      const RowGrid grid(levels, BlockRule::of_blocks(kind), scales);
      for (size_t level = 0; level < levels->values.size(); ++level)
        for (size_t b = 0; b < count; ++b) {
          BlockCodes block = blocks[row * count + b];
          std::fill_n(block.codes, size, levels->codes[level]);
          pack_block(kind, block, bytes.data());
          type.decode(bytes.data(), 1, decoded.data());
          for (size_t i = 0; i < size; i += 16)
            EXPECT_EQ(decoded[i],
                      grid.value(grid.block_of(static_cast<int64_t>(b * size + i)), level));
        }
    }
  }
}

// Statistics lower what they are the statistics of, refinement lowers it again, and bytes stay as
// many as they were and do not depend on the tiles that are read.
TEST(WithFeedback, LowersTheErrorOfTheOutputForEveryEncoding) {
  const MomentsPtr moments = some_moments();
  const auto feedback = Feedback::create_with_form(moments, Feedback::kRun);
  ASSERT_TRUE(feedback.ok());
  const QuadraticForm& form = *(*feedback)->form();
  const std::vector<float> values = some_weights(2);
  const auto source = std::make_shared<Values>(Shape{kRows, kColumns}, values);
  for (const Encoding& encoding : encodings()) {
    SCOPED_TRACE(to_string(encoding));
    const ConstantDataPtr plain = encoded_constant(source, encoding);
    const auto cost = [&](const ConstantDataPtr& data) {
      return sum(form.costs(difference(values, decode(*data))));
    };
    const ConstantDataPtr fed = with_feedback(plain, {*feedback});
    ASSERT_TRUE(fed);
    EXPECT_EQ(fed->encoding(), plain->encoding());
    EXPECT_EQ(&fed->canonical(), &plain->canonical());
    const double before = cost(plain), after = cost(fed);
    EXPECT_LT(after, 0.75 * before);
    double last = after;
    for (const int rounds : {1, 3}) {
      const double now = cost(with_feedback(plain, {*feedback}, {rounds}));
      EXPECT_LE(now, last * (1 + 1e-5));
      last = now;
    }
    for (const ConstantDataPtr& data : {fed, with_feedback(plain, {*feedback}, {2})}) {
      EncodedTile whole, part;
      ASSERT_TRUE(data->read_tile(0, kRows, &whole).ok());
      ASSERT_TRUE(data->read_tile(16, 16, &part).ok());
      for (size_t p = 0; p < part.parts.size(); ++p)
        EXPECT_TRUE(
            std::equal(part.parts[p].begin(), part.parts[p].end(),
                       whole.parts[p].end() - static_cast<std::ptrdiff_t>(part.parts[p].size())));
    }
  }
}

TEST(WithFeedback, HasNothingToChooseForPlainNumbers) {
  const auto source = std::make_shared<Values>(Shape{kRows, kColumns}, some_weights(4));
  EXPECT_FALSE(with_feedback(source, {}));
  EXPECT_FALSE(with_feedback(encoded_constant(source, Encoding::plain(EncodingKind::kF16)), {}));
}

TEST(WithFeedback, RowsThatCountMoreGetTheBetterTable) {
  const auto feedback = Feedback::create_with_form(some_moments());
  ASSERT_TRUE(feedback.ok());
  std::vector<float> values = some_weights(5, 16 * kColumns);
  for (size_t i = 0; i < kColumns; ++i) values[i] *= 3;  // row 0 is unlike the others
  const auto source = std::make_shared<Values>(Shape{16, kColumns}, values);
  const ConstantDataPtr plain = encoded_constant(source, Encoding::lut(3, 16));
  std::vector<float> weights(16, 0.1f);
  weights[0] = 10;
  for (const int rounds : {0, 2}) {
    const auto costs = [&](std::vector<float> row_weights) {
      const auto fed = with_feedback(plain, {*feedback}, {rounds}, std::move(row_weights));
      return (*feedback)->form()->costs(difference(values, decode(*fed)));
    };
    EXPECT_LT(costs(weights)[0], 0.9 * costs({})[0]);
  }
}

TEST(TokenWeights, CountTokensAndForgetNone) {
  const std::vector<int32_t> ids = {2, 2, 5};
  const std::vector<float> weights = token_weights(ids, 8);
  EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0f), 8, 1e-5);
  EXPECT_NEAR(weights[2] / weights[0], 5, 1e-5);
  EXPECT_NEAR(weights[5] / weights[0], 3, 1e-5);
}

// GPTQ's own form, by the factor of the inverse: the same codes.
TEST(Feedback, GivesTheCodesOfTheInverseCholeskyForm) {
  constexpr size_t n = 40;
  const MomentsPtr moments = some_moments(n);
  const auto feedback = Feedback::create_with_form(moments);
  ASSERT_TRUE(feedback.ok());
  // H as damped, in the order in which columns are taken.
  const std::vector<size_t> order((*feedback)->order().begin(), (*feedback)->order().end());
  std::vector<double> h(n * n), inverse(n * n);
  for (size_t j = 0; j < n; ++j) {
    std::vector<float> line(n, 0.0f);
    (*feedback)->form()->add_line(static_cast<int64_t>(order[j]), 1, 0, n, line.data());
    for (size_t i = 0; i < n; ++i) h[j * n + i] = line[order[i]];
    inverse[j * n + j] = 1;
  }
  for (size_t j = 0; j < n; ++j) {  // Gauss and Jordan, positive definite
    const double pivot = h[j * n + j];
    for (size_t k = 0; k < n; ++k) h[j * n + k] /= pivot, inverse[j * n + k] /= pivot;
    for (size_t i = 0; i < n; ++i) {
      const double by = h[i * n + j];
      if (i == j) continue;
      for (size_t k = 0; k < n; ++k)
        h[i * n + k] -= by * h[j * n + k], inverse[i * n + k] -= by * inverse[j * n + k];
    }
  }
  const RowGrid grid(std::make_shared<const Levels>(Levels::of_integers(-7, 7, 0)), 0, {0.008f},
                     {});
  for (uint32_t seed = 0; seed < 10; ++seed) {
    const std::vector<float> row = some_weights(seed, n);
    std::vector<uint8_t> levels(n);
    (*feedback)->round(row, std::span(&grid, 1), levels);
    std::vector<double> left(n), a = inverse;
    for (size_t j = 0; j < n; ++j) left[j] = row[order[j]];
    size_t other = 0;
    for (size_t j = 0; j < n; ++j) {
      float value = 0;
      other += levels[order[j]] != grid.nearest(0, static_cast<float>(left[j]), &value);
      const double by = (left[j] - static_cast<double>(value)) / a[j * n + j];
      for (size_t k = j + 1; k < n; ++k) left[k] -= by * a[j * n + k];
      // The inverse of what is left of H: column j taken out.
      std::vector<double> line(a.begin() + static_cast<std::ptrdiff_t>(j * n),
                               a.begin() + static_cast<std::ptrdiff_t>((j + 1) * n));
      for (size_t i = j + 1; i < n; ++i)
        for (size_t k = j + 1; k < n; ++k) a[i * n + k] -= line[i] * line[k] / line[j];
    }
    EXPECT_EQ(other, 0u) << seed;
  }
}

double squares(const std::vector<float>& values) {
  double out = 0;
  for (const float value : values) out += static_cast<double>(value) * value;
  return out;
}

TEST(Blocks, MoreBitsErrLessAndDecodedValuesAreNearlyKept) {
  const std::vector<float> values = some_weights(6);
  const auto source = std::make_shared<Values>(Shape{kRows, kColumns}, values);
  std::map<EncodingKind, double> error;
  for (const EncodingKind kind : kFittedKinds) {
    SCOPED_TRACE(traits(kind).name);
    const Encoding encoding = Encoding::plain(kind);
    const std::vector<float> once = decode(*encoded_constant(source, encoding));
    const std::vector<float> twice =
        decode(*encoded_constant(std::make_shared<Values>(Shape{kRows, kColumns}, once), encoding));
    error[kind] = squares(difference(values, once));
    EXPECT_LT(squares(difference(once, twice)), 0.2 * error[kind]);
  }
  const std::vector<EncodingKind> ladders[] = {
      {EncodingKind::kQ2_K, EncodingKind::kQ3_K, EncodingKind::kQ4_K, EncodingKind::kQ5_K,
       EncodingKind::kQ6_K},
      {EncodingKind::kQ4_0, EncodingKind::kQ4_1, EncodingKind::kQ5_0, EncodingKind::kQ5_1,
       EncodingKind::kQ8_0}};
  for (const auto& ladder : ladders)
    for (size_t i = 1; i < ladder.size(); ++i)
      EXPECT_LT(error[ladder[i]], error[ladder[i - 1]]) << traits(ladder[i]).name;
}

}  // namespace
}  // namespace pome
