#include "graph/constant.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "tensor/half.h"

namespace pome {
namespace {

ConstantDataPtr counting(int64_t rows, int64_t columns) {
  std::vector<float> values(static_cast<size_t>(rows * columns));
  std::iota(values.begin(), values.end(), 0.0f);
  return inline_constant(Tensor::from_f32({rows, columns}, std::move(values)));
}

std::vector<float> all(const ConstantData& data) {
  std::vector<float> out(static_cast<size_t>(data.rows() * data.columns()));
  EXPECT_TRUE(data.read_f32(0, data.rows(), out.data()).ok());
  return out;
}

// Q8_0 rows whose value is row * 1000 + column / 32, so that moved rows are recognised.
class Q8Rows final : public ConstantData {
 public:
  Q8Rows(int64_t rows, int64_t columns)
      : ConstantData({rows, columns}, Encoding::plain(EncodingKind::kQ8_0)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    ++reads;
    tile->row = row;
    tile->rows = rows;
    tile->storage.assign(1,
                         std::vector<std::byte>(static_cast<size_t>(rows * columns() / 32 * 34)));
    std::byte* at = tile->storage[0].data();
    for (int64_t r = row; r < row + rows; ++r)
      for (int64_t b = 0; b < columns() / 32; ++b, at += 34) {
        const uint16_t one = f32_to_f16(1.0f);
        std::memcpy(at, &one, 2);
        std::memset(at + 2, static_cast<int>(r * 4 + b), 32);
      }
    tile->parts.assign(1, tile->storage[0]);
    return {};
  }
  mutable int reads = 0;
};

TEST(Constant, ShapesOfVectorsAndScalars) {
  EXPECT_EQ(inline_constant(Tensor::from_f32({}, {7}))->rows(), 1);
  EXPECT_EQ(inline_constant(Tensor::from_f32({}, {7}))->columns(), 1);
  EXPECT_EQ(inline_constant(Tensor::from_f32({3}, {1, 2, 3}))->columns(), 3);
  const auto stacked = inline_constant(Tensor::zeros(DType::kF32, {2, 3, 4}));
  EXPECT_EQ(stacked->rows(), 6);
  EXPECT_EQ(stacked->columns(), 4);
  EXPECT_EQ(stacked->stored_bytes(), 96u);
}

TEST(Constant, PermutedRowsKeepTheEncodingAndReadRunsAtOnce) {
  const auto source = std::make_shared<Q8Rows>(8, 64);
  const auto reversed = permute_rows(source, {8, 64}, [](int64_t i) { return 7 - i; });
  EXPECT_EQ(reversed->encoding().kind, EncodingKind::kQ8_0);
  const std::vector<float> values = all(*reversed);
  for (int64_t r = 0; r < 8; ++r)
    for (int64_t c = 0; c < 64; ++c)
      EXPECT_EQ(values[static_cast<size_t>(r * 64 + c)], static_cast<float>((7 - r) * 4 + c / 32));
  source->reads = 0;
  all(*permute_rows(source, {4, 64}, [](int64_t i) { return i + 2; }));
  EXPECT_EQ(source->reads, 1);
  source->reads = 0;
  all(*reversed);
  EXPECT_EQ(source->reads, 1) << "one range in another order";
}

TEST(Constant, SlicesStayInPlace) {
  const auto whole = counting(5, 2);
  ASSERT_TRUE(whole->view());
  const auto view = slice_rows(whole, 3, {2, 2})->view();
  ASSERT_TRUE(view);
  EXPECT_EQ(view->data(), whole->view()->data() + 3 * 2 * sizeof(float));
  EXPECT_EQ(view->size(), 2 * 2 * sizeof(float));
}

TEST(Constant, ReadInTheMiddleOfAPermutation) {
  const auto permuted =
      permute_rows(counting(10, 3), {10, 3}, [](int64_t i) { return (i * 3) % 10; });
  std::vector<float> row(6);
  ASSERT_TRUE(permuted->read_f32(4, 2, row.data()).ok());
  EXPECT_EQ(row, (std::vector<float>{6, 7, 8, 15, 16, 17}));
}

TEST(Constant, SliceConcatAddTranspose) {
  EXPECT_EQ(all(*slice_rows(counting(5, 2), 3, {2, 2})), (std::vector<float>{6, 7, 8, 9}));
  const auto stacked = concat_rows({counting(2, 2), counting(1, 2), counting(2, 2)}, {5, 2});
  EXPECT_EQ(all(*stacked), (std::vector<float>{0, 1, 2, 3, 0, 1, 0, 1, 2, 3}));
  std::vector<float> across(4);
  ASSERT_TRUE(stacked->read_f32(1, 2, across.data()).ok());
  EXPECT_EQ(across, (std::vector<float>{2, 3, 0, 1}));
  EXPECT_EQ(all(*add_scalar(counting(1, 3), 0.5f)), (std::vector<float>{0.5f, 1.5f, 2.5f}));
  const auto turned = transposed(counting(67, 5));
  EXPECT_EQ(turned->shape(), (Shape{5, 67}));
  const std::vector<float> values = all(*turned);
  for (int64_t r = 0; r < 5; ++r)
    for (int64_t c = 0; c < 67; ++c)
      ASSERT_EQ(values[static_cast<size_t>(r * 67 + c)], static_cast<float>(c * 5 + r));
}

TEST(Constant, MixedEncodingsConcatenateAsF32) {
  const auto mixed = concat_rows({std::make_shared<Q8Rows>(2, 32), counting(1, 32)}, {3, 32});
  EXPECT_EQ(mixed->encoding().kind, EncodingKind::kF32);
  EXPECT_EQ(all(*mixed)[32], 4.0f);
  EXPECT_EQ(all(*mixed)[65], 1.0f);
}

TEST(Constant, TileRowsSuitEveryEncoding) {
  for (const int64_t columns : {1, 3, 100, 2048, 8192, 1 << 20})
    EXPECT_EQ(tile_rows(*std::make_shared<Q8Rows>(64, columns * 32)) % 64, 0);
  EXPECT_GE(tile_rows(*counting(1, 1)), 64);
}

TEST(Constant, DigestDependsOnBytesShapeAndEncodingNotOnThreads) {
  const auto data = counting(3000, 300);
  ThreadPool one(1), four(4);
  const Digest digest = *digest_of(*data, &one);
  EXPECT_EQ(digest, *digest_of(*data, &four));
  EXPECT_EQ(digest, *digest_of(*data, nullptr));
  EXPECT_NE(digest, *digest_of(*counting(300, 3000), nullptr));
  EXPECT_NE(digest, *digest_of(*add_scalar(data, 1), nullptr));
}

}  // namespace
}  // namespace pome
