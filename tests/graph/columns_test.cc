#include "graph/columns.h"

#include <gtest/gtest.h>

namespace pome {
namespace {

ConstantDataPtr counting(int64_t rows, int64_t columns) {
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i + 1);
  return inline_constant(Tensor::from_f32({rows, columns}, std::move(values)));
}
std::vector<float> read(const ConstantData& data, int64_t row, int64_t rows) {
  std::vector<float> out(static_cast<size_t>(rows * data.columns()));
  EXPECT_TRUE(data.read_f32(row, rows, out.data()).ok());
  return out;
}

TEST(Columns, PaddedRowsEndInZerosAndCutOnesAreAsBefore) {
  const ConstantDataPtr in = counting(3, 2);
  const ConstantDataPtr padded = pad_columns(in, 4), cut = cut_columns(padded, 2);
  EXPECT_EQ(padded->shape(), (Shape{3, 4}));
  EXPECT_EQ(read(*padded, 1, 2), (std::vector<float>{3, 4, 0, 0, 5, 6, 0, 0}));
  EXPECT_EQ(cut->shape(), (Shape{3, 2}));
  EXPECT_EQ(read(*cut, 1, 2), (std::vector<float>{3, 4, 5, 6}));
  // What they were made from counts where a source is asked for.
  EXPECT_EQ(&padded->canonical(), in.get());
  EXPECT_EQ(&cut->canonical(), in.get());
  const ConstantDataPtr part = cut_columns(in, 1);
  EXPECT_EQ(&part->canonical(), part.get());
}

}  // namespace
}  // namespace pome
