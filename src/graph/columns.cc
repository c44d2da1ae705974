#include "graph/columns.h"

#include <algorithm>

#include "graph/f32_tile.h"

namespace pome {

namespace {

Shape with_columns(Shape shape, int64_t columns) {
  shape.back() = columns;
  return shape;
}

class PaddedColumns final : public ConstantData {
 public:
  PaddedColumns(ConstantDataPtr in, int64_t columns)
      : ConstantData(with_columns(in->shape(), columns), Encoding::plain(EncodingKind::kF32)),
        in_(std::move(in)) {}
  const ConstantData& canonical() const override { return in_->canonical(); }
  const ConstantData& unrounded() const override { return in_->unrounded(); }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    float* out = f32_part(tile, row, rows, columns());
    std::fill_n(out, rows * columns(), 0.0f);
    for (int64_t i = 0; i < rows; ++i)
      POME_RETURN_IF_ERROR(in_->read_f32(row + i, 1, out + i * columns()));
    return {};
  }

 private:
  ConstantDataPtr in_;
};

class CutColumns final : public ConstantData {
 public:
  CutColumns(ConstantDataPtr in, int64_t first, int64_t columns)
      : ConstantData(with_columns(in->shape(), columns), Encoding::plain(EncodingKind::kF32)),
        in_(std::move(in)),
        first_(first) {}
  const ConstantData& canonical() const override {
    const ConstantData& whole = in_->canonical();
    return whole.columns() == columns() ? whole : *this;
  }
  const ConstantData& unrounded() const override {
    const ConstantData& whole = in_->unrounded();
    return whole.columns() == columns() ? whole : *this;
  }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    std::vector<float> whole(static_cast<size_t>(rows * in_->columns()));
    POME_RETURN_IF_ERROR(in_->read_f32(row, rows, whole.data()));
    float* out = f32_part(tile, row, rows, columns());
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(whole.begin() + i * in_->columns() + first_, columns(), out + i * columns());
    return {};
  }

 private:
  ConstantDataPtr in_;
  int64_t first_;
};

}  // namespace

ConstantDataPtr pad_columns(ConstantDataPtr in, int64_t columns) {
  POME_CHECK(!in->shape().empty() && columns >= in->columns());
  return std::make_shared<PaddedColumns>(std::move(in), columns);
}

ConstantDataPtr cut_columns(ConstantDataPtr in, int64_t columns) {
  return slice_columns(std::move(in), 0, columns);
}

ConstantDataPtr slice_columns(ConstantDataPtr in, int64_t first, int64_t columns) {
  POME_CHECK(!in->shape().empty() && first >= 0 && first + columns <= in->columns());
  return std::make_shared<CutColumns>(std::move(in), first, columns);
}

}  // namespace pome
