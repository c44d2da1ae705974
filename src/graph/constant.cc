#include "graph/constant.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "graph/f32_tile.h"

namespace pome {

namespace {

int64_t rows_of(const Shape& shape) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}
int64_t columns_of(const Shape& shape) { return shape.empty() ? 1 : shape.back(); }

class InlineConstant final : public ConstantData {
 public:
  explicit InlineConstant(Tensor values)
      : ConstantData(values.shape(), Encoding::plain(EncodingKind::kF32)),
        values_(std::move(values)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    tile->row = row;
    tile->rows = rows;
    tile->storage.clear();
    const size_t row_bytes = static_cast<size_t>(columns()) * sizeof(float);
    tile->parts.assign(1, values_.bytes().subspan(static_cast<size_t>(row) * row_bytes,
                                                  static_cast<size_t>(rows) * row_bytes));
    return {};
  }
  std::optional<std::span<const std::byte>> view() const override { return values_.bytes(); }

 private:
  Tensor values_;
};

// Base of transforms that only move whole rows: the encoding stays when a row of it stands on its
// own.
class RowMap : public ConstantData {
 public:
  // Encodings whose parts are bit streams or tables over several rows are decoded before rows are
  // moved.
  static Encoding encoding_for(const ConstantData& in) {
    return row_granularity(in.encoding(), in.columns()) == 1 ? in.encoding()
                                                             : Encoding::plain(EncodingKind::kF32);
  }
  // The same for `rows` neighbouring rows that stay together: whole groups of rows are moved as
  // they are.
  static Encoding encoding_for(const ConstantData& in, int64_t first, int64_t rows) {
    const int64_t step = row_granularity(in.encoding(), in.columns());
    return first % step == 0 && rows % step == 0 ? in.encoding()
                                                 : Encoding::plain(EncodingKind::kF32);
  }

 protected:
  RowMap(Shape shape, Encoding encoding) : ConstantData(std::move(shape), encoding) {}

  // Rows of `in`, which has our encoding or is decoded to f32.
  Status read_source(const ConstantData& in, int64_t row, int64_t rows, EncodedTile* tile) const {
    if (in.encoding() == encoding()) return in.read_tile(row, rows, tile);
    return in.read_f32(row, rows, f32_part(tile, row, rows, in.columns()));
  }
  // Appends them behind what `tile` holds.
  Status append(const ConstantData& in, int64_t row, int64_t rows, EncodedTile* tile) const {
    EncodedTile piece;
    POME_RETURN_IF_ERROR(read_source(in, row, rows, &piece));
    tile->storage.resize(piece.parts.size());
    for (size_t part = 0; part < piece.parts.size(); ++part)
      tile->storage[part].insert(tile->storage[part].end(), piece.parts[part].begin(),
                                 piece.parts[part].end());
    return {};
  }
  static void begin(int64_t row, int64_t rows, EncodedTile* tile) {
    tile->row = row;
    tile->rows = rows;
    for (auto& storage : tile->storage) storage.clear();
  }
  static void end(EncodedTile* tile) {
    tile->parts.assign(tile->storage.begin(), tile->storage.end());
  }
};

class PermutedRows final : public RowMap {
 public:
  PermutedRows(ConstantDataPtr in, Shape shape, std::function<int64_t(int64_t)> order)
      : RowMap(std::move(shape), encoding_for(*in)), in_(std::move(in)), order_(std::move(order)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    begin(row, rows, tile);
    // Most orders move rows within heads: the sources of a tile are one range.
    int64_t first = in_->rows(), last = -1;
    for (int64_t i = row; i < row + rows; ++i) {
      const int64_t from = order_(i);
      first = std::min(first, from);
      last = std::max(last, from);
    }
    if (last - first < rows) {
      POME_RETURN_IF_ERROR(read_range(row, rows, first, last + 1 - first, tile));
    } else {
      POME_RETURN_IF_ERROR(read_runs(row, rows, tile));
    }
    end(tile);
    return {};
  }

 private:
  Status read_range(int64_t row, int64_t rows, int64_t first, int64_t count,
                    EncodedTile* tile) const {
    EncodedTile range;
    POME_RETURN_IF_ERROR(read_source(*in_, first, count, &range));
    tile->storage.resize(range.parts.size());
    for (size_t part = 0; part < range.parts.size(); ++part) {
      const size_t bytes = range.parts[part].size() / static_cast<size_t>(count);
      tile->storage[part].resize(static_cast<size_t>(rows) * bytes);
      std::byte* out = tile->storage[part].data();
      for (int64_t i = row; i < row + rows; ++i, out += bytes)
        std::memcpy(out, range.parts[part].data() + static_cast<size_t>(order_(i) - first) * bytes,
                    bytes);
    }
    return {};
  }
  // Runs of consecutive source rows are read at once.
  Status read_runs(int64_t row, int64_t rows, EncodedTile* tile) const {
    for (int64_t i = row; i < row + rows;) {
      const int64_t first = order_(i);
      int64_t run = 1;
      while (i + run < row + rows && order_(i + run) == first + run) ++run;
      POME_RETURN_IF_ERROR(append(*in_, first, run, tile));
      i += run;
    }
    return {};
  }

  ConstantDataPtr in_;
  std::function<int64_t(int64_t)> order_;
};

// Neighbouring rows: in place where all of them are.
class SlicedRows final : public RowMap {
 public:
  SlicedRows(ConstantDataPtr in, int64_t first, Shape shape)
      : RowMap(shape, encoding_for(*in, first, rows_of(shape))),
        in_(std::move(in)),
        first_(first) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    POME_RETURN_IF_ERROR(read_source(*in_, first_ + row, rows, tile));
    tile->row = row;
    return {};
  }
  std::optional<std::span<const std::byte>> view() const override {
    const auto all = in_->encoding() == encoding() ? in_->view() : std::nullopt;
    if (!all) return std::nullopt;
    if (all->size() % static_cast<size_t>(in_->rows()) != 0) return std::nullopt;
    const size_t row_bytes = all->size() / static_cast<size_t>(in_->rows());
    return all->subspan(static_cast<size_t>(first_) * row_bytes,
                        static_cast<size_t>(rows()) * row_bytes);
  }

 private:
  ConstantDataPtr in_;
  int64_t first_;
};

class ConcatenatedRows final : public RowMap {
 public:
  ConcatenatedRows(std::vector<ConstantDataPtr> parts, Shape shape, Encoding encoding)
      : RowMap(std::move(shape), encoding), parts_(std::move(parts)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    begin(row, rows, tile);
    int64_t start = 0;
    for (const ConstantDataPtr& part : parts_) {
      const int64_t from = std::max(row, start), to = std::min(row + rows, start + part->rows());
      if (from < to) POME_RETURN_IF_ERROR(append(*part, from - start, to - from, tile));
      start += part->rows();
    }
    end(tile);
    return {};
  }

 private:
  std::vector<ConstantDataPtr> parts_;
};

class PickedElements final : public ConstantData {
 public:
  PickedElements(ConstantDataPtr in, int64_t count, std::function<int64_t(int64_t)> order)
      : ConstantData({count}, Encoding::plain(EncodingKind::kF32)),
        in_(std::move(in)),
        order_(std::move(order)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    std::vector<float> all(static_cast<size_t>(in_->columns()));
    POME_RETURN_IF_ERROR(in_->read_f32(0, 1, all.data()));
    float* out = f32_part(tile, row, rows, columns());
    for (int64_t i = 0; i < rows * columns(); ++i) out[i] = all[static_cast<size_t>(order_(i))];
    return {};
  }

 private:
  ConstantDataPtr in_;
  std::function<int64_t(int64_t)> order_;
};

class AddedScalar final : public ConstantData {
 public:
  AddedScalar(ConstantDataPtr in, float value)
      : ConstantData(in->shape(), Encoding::plain(EncodingKind::kF32)),
        in_(std::move(in)),
        value_(value) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    float* out = f32_part(tile, row, rows, columns());
    POME_RETURN_IF_ERROR(in_->read_f32(row, rows, out));
    for (int64_t i = 0; i < rows * columns(); ++i) out[i] += value_;
    return {};
  }

 private:
  ConstantDataPtr in_;
  float value_;
};

class MultipliedScalar final : public ConstantData {
 public:
  MultipliedScalar(ConstantDataPtr in, float value)
      : ConstantData(in->shape(), Encoding::plain(EncodingKind::kF32)),
        in_(std::move(in)),
        value_(value) {}
  const ConstantData& canonical() const override { return in_->canonical(); }
  const ConstantData& unrounded() const override { return in_->unrounded(); }
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    float* out = f32_part(tile, row, rows, columns());
    POME_RETURN_IF_ERROR(in_->read_f32(row, rows, out));
    for (int64_t i = 0; i < rows * columns(); ++i) out[i] *= value_;
    return {};
  }

 private:
  ConstantDataPtr in_;
  float value_;
};

class Transposed final : public ConstantData {
 public:
  explicit Transposed(ConstantDataPtr in)
      : ConstantData({in->columns(), in->rows()}, Encoding::plain(EncodingKind::kF32)),
        in_(std::move(in)) {}
  Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const override {
    // Reads the source once per tile, a band of its rows at a time: memory stays at two tiles.
    float* out = f32_part(tile, row, rows, columns());
    const int64_t step = std::max<int64_t>(1, row_granularity(in_->encoding(), in_->columns()));
    const int64_t band = step * std::max<int64_t>(1, 64 / step);
    std::vector<float> buffer(static_cast<size_t>(band * in_->columns()));
    for (int64_t source = 0; source < in_->rows(); source += band) {
      const int64_t count = std::min(band, in_->rows() - source);
      POME_RETURN_IF_ERROR(in_->read_f32(source, count, buffer.data()));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < count; ++c)
          out[r * columns() + source + c] =
              buffer[static_cast<size_t>(c * in_->columns() + row + r)];
    }
    return {};
  }

 private:
  ConstantDataPtr in_;
};

}  // namespace

ConstantData::ConstantData(Shape shape, Encoding encoding)
    : shape_(std::move(shape)),
      rows_(rows_of(shape_)),
      columns_(columns_of(shape_)),
      encoding_(encoding) {}

uint64_t ConstantData::stored_bytes() const {
  const auto layout = encoded_layout(encoding_, rows_, columns_);
  POME_CHECK(layout.ok());
  return layout->total_bytes();
}

Status ConstantData::read_f32(int64_t row, int64_t rows, float* out) const {
  // Tiles must start on the granularity: read the enclosing tile and keep the rows that were asked
  // for.
  const int64_t step = row_granularity(encoding_, columns_);
  const int64_t first = row / step * step;
  const int64_t last = std::min(rows_, ceil_div(row + rows, step) * step);
  EncodedTile tile;
  POME_RETURN_IF_ERROR(read_tile(first, last - first, &tile));
  if (first == row && last == row + rows)
    return decode_rows(encoding_, rows, columns_, tile.parts, out);
  std::vector<float> buffer(static_cast<size_t>((last - first) * columns_));
  POME_RETURN_IF_ERROR(decode_rows(encoding_, last - first, columns_, tile.parts, buffer.data()));
  std::memcpy(out, buffer.data() + (row - first) * columns_,
              static_cast<size_t>(rows * columns_) * sizeof(float));
  return {};
}

ConstantDataPtr inline_constant(Tensor f32_values) {
  POME_CHECK(f32_values.dtype() == DType::kF32);
  return std::make_shared<InlineConstant>(std::move(f32_values));
}

ConstantDataPtr permute_rows(ConstantDataPtr in, Shape shape,
                             std::function<int64_t(int64_t)> order) {
  POME_CHECK(columns_of(shape) == in->columns());
  return std::make_shared<PermutedRows>(std::move(in), std::move(shape), std::move(order));
}

ConstantDataPtr permute_elements(ConstantDataPtr in, std::function<int64_t(int64_t)> order) {
  POME_CHECK(in->rows() == 1);
  const int64_t count = in->columns();
  return std::make_shared<PickedElements>(std::move(in), count, std::move(order));
}

ConstantDataPtr slice_elements(ConstantDataPtr in, int64_t first, int64_t count) {
  POME_CHECK(in->rows() == 1 && first >= 0 && first + count <= in->columns());
  return std::make_shared<PickedElements>(std::move(in), count,
                                          [first](int64_t i) { return first + i; });
}

ConstantDataPtr slice_rows(ConstantDataPtr in, int64_t first_row, Shape shape) {
  POME_CHECK(first_row >= 0 && first_row + rows_of(shape) <= in->rows());
  POME_CHECK(columns_of(shape) == in->columns());
  return std::make_shared<SlicedRows>(std::move(in), first_row, std::move(shape));
}

ConstantDataPtr concat_rows(std::vector<ConstantDataPtr> parts, Shape shape) {
  POME_CHECK(!parts.empty());
  int64_t rows = 0;
  Encoding encoding = RowMap::encoding_for(*parts[0], 0, parts[0]->rows());
  for (const ConstantDataPtr& part : parts) {
    POME_CHECK(part->columns() == columns_of(shape));
    rows += part->rows();
    if (RowMap::encoding_for(*part, 0, part->rows()) != encoding)
      encoding = Encoding::plain(EncodingKind::kF32);
  }
  POME_CHECK(rows == rows_of(shape));
  return std::make_shared<ConcatenatedRows>(std::move(parts), std::move(shape), encoding);
}

ConstantDataPtr add_scalar(ConstantDataPtr in, float value) {
  return std::make_shared<AddedScalar>(std::move(in), value);
}

ConstantDataPtr multiply_scalar(ConstantDataPtr in, float value) {
  return std::make_shared<MultipliedScalar>(std::move(in), value);
}

ConstantDataPtr transposed(ConstantDataPtr in) {
  POME_CHECK(in->shape().size() == 2);
  return std::make_shared<Transposed>(std::move(in));
}

int64_t tile_rows(const ConstantData& data) {
  // 64 rows suit every bit width and every table group up to 64; wide rows give smaller tiles down
  // to one such step.
  constexpr int64_t kStep = 64, kTargetElements = 256 * 1024;
  const int64_t step = std::max(kStep, row_granularity(data.encoding(), data.columns()));
  const int64_t rows = kTargetElements / std::max<int64_t>(1, data.columns()) / step * step;
  return std::max(step, rows);
}

DigestBuilder::DigestBuilder(const ConstantData& data) {
  hash_.update(to_string(data.encoding()));
  hash_.update_u64(data.shape().size());
  for (const int64_t dim : data.shape()) hash_.update_u64(static_cast<uint64_t>(dim));
}

Digest DigestBuilder::of_tile(const EncodedTile& tile) {
  Sha256 hash;
  for (const auto part : tile.parts) {
    hash.update_u64(part.size());
    hash.update(part);
  }
  return hash.finish();
}

void DigestBuilder::add(const Digest& tile_digest) {
  hash_.update(std::as_bytes(std::span(tile_digest)));
}
Digest DigestBuilder::finish() { return hash_.finish(); }

Result<Digest> digest_of(const ConstantData& data, ThreadPool* pool) {
  const int64_t step = tile_rows(data);
  const int64_t count = ceil_div(data.rows(), step);
  DigestBuilder builder(data);
  const auto tile_digest = [&](int64_t index, EncodedTile* tile) -> Result<Digest> {
    const int64_t row = index * step;
    POME_RETURN_IF_ERROR(data.read_tile(row, std::min(step, data.rows() - row), tile));
    return DigestBuilder::of_tile(*tile);
  };
  if (!pool || pool->threads() == 1 || count < 2) {
    EncodedTile tile;
    for (int64_t i = 0; i < count; ++i) {
      POME_ASSIGN_OR_RETURN(const Digest digest, tile_digest(i, &tile));
      builder.add(digest);
    }
    return builder.finish();
  }
  const int64_t window = 2 * pool->threads();
  std::vector<EncodedTile> tiles(static_cast<size_t>(window));
  std::vector<Digest> digests(static_cast<size_t>(window));
  POME_RETURN_IF_ERROR(pool->ordered(
      count, window,
      [&](int64_t index, int64_t slot) -> Status {
        POME_ASSIGN_OR_RETURN(digests[static_cast<size_t>(slot)],
                              tile_digest(index, &tiles[static_cast<size_t>(slot)]));
        return {};
      },
      [&](int64_t, int64_t slot) -> Status {
        builder.add(digests[static_cast<size_t>(slot)]);
        return {};
      }));
  return builder.finish();
}

}  // namespace pome
