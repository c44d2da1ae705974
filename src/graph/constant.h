// Lazy constants: where a weight's bytes come from and what is done to them on the way, read in
// tiles of whole rows.
//
// A constant is never held whole. A ConstantData says its shape and encoding and reads any tile of
// rows on demand: straight from a mapped checkpoint, through a transform (row permutation, slice,
// stack of experts, gain + 1), or through a quantiser. Quantising a graph replaces the data of a
// constant and nothing else.
//
// Thread safety: a ConstantData is immutable; read_tile may be called from many threads with
// distinct tiles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "encoding/encoding.h"
#include "tensor/tensor.h"

namespace pome {

// Rows [row, row + rows) of a constant in its encoding. `parts` point into `storage` or into memory
// that lives as long as the ConstantData. Reuse one tile object to reuse its buffers.
struct EncodedTile {
  int64_t row = 0, rows = 0;
  std::vector<std::span<const std::byte>> parts;
  std::vector<std::vector<std::byte>> storage;
};

class ConstantData {
 public:
  virtual ~ConstantData() = default;
  // [rows.., columns]; a vector [N] is one row of N columns; a scalar {} is one row of one column.
  // Stacked experts are [E, N, K] = E * N rows of K columns.
  const Shape& shape() const { return shape_; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  const Encoding& encoding() const { return encoding_; }
  uint64_t stored_bytes() const;  // all parts

  // `row` must be a multiple of row_granularity(encoding, columns), and so must `rows` unless the
  // tile ends the matrix.
  virtual Status read_tile(int64_t row, int64_t rows, EncodedTile* tile) const = 0;
  // Decoded, as f32 [rows, columns].
  virtual Status read_f32(int64_t row, int64_t rows, float* out) const;
  // All bytes of part 0 in place, when they lie contiguous in memory and need no work (the engine
  // maps them as they are); nullopt otherwise.
  virtual std::optional<std::span<const std::byte>> view() const { return std::nullopt; }
  // What the canonical (unquantised) data of this constant is: itself unless it was made from
  // another one.
  virtual const ConstantData& canonical() const { return *this; }
  // The same, but where a change of basis stands between (quantize/transform.h): the values behind
  // it, which rounding is measured against.
  virtual const ConstantData& unrounded() const { return canonical(); }

 protected:
  ConstantData(Shape shape, Encoding encoding);

 private:
  Shape shape_;
  int64_t rows_, columns_;
  Encoding encoding_;
};
using ConstantDataPtr = std::shared_ptr<const ConstantData>;

// Small constants that the builder computes (inverse frequencies, epsilon, tables).
ConstantDataPtr inline_constant(Tensor f32_values);

// Transforms. Each keeps the encoding where it only moves whole rows (slicing and stacking: whole
// groups of rows, where several share a table), and decodes to f32 otherwise.
// out row i = in row order(i); `order` is called with i in [0, rows) and must be a pure function.
ConstantDataPtr permute_rows(ConstantDataPtr in, Shape shape,
                             std::function<int64_t(int64_t)> order);
// The same for vectors [N] (one row of N columns); decodes to f32.
ConstantDataPtr permute_elements(ConstantDataPtr in, std::function<int64_t(int64_t)> order);
ConstantDataPtr slice_elements(ConstantDataPtr in, int64_t first, int64_t count);
ConstantDataPtr slice_rows(ConstantDataPtr in, int64_t first_row, Shape shape);
// [A, ..] and [B, ..] one after the other along the first axis (stacking experts: shape {E, N, K}).
ConstantDataPtr concat_rows(std::vector<ConstantDataPtr> parts, Shape shape);
ConstantDataPtr add_scalar(ConstantDataPtr in, float value);       // decodes: f32 out
ConstantDataPtr multiply_scalar(ConstantDataPtr in, float value);  // the same; canonical: of `in`
ConstantDataPtr transposed(ConstantDataPtr in);  // 2-D; reads by column blocks: f32 out

// Rows per tile for streaming work: about 1 MiB of f32, a multiple of the granularity of every
// encoding in use. The same for every machine and thread count, because digests are taken per tile.
int64_t tile_rows(const ConstantData& data);

// Digest of encoding, shape and bytes. Tiles are hashed on their own (in parallel), then their
// digests in order.
class DigestBuilder {
 public:
  explicit DigestBuilder(const ConstantData& data);
  static Digest of_tile(const EncodedTile& tile);
  void add(const Digest& tile_digest);  // in row order, one per tile_rows() rows
  Digest finish();

 private:
  Sha256 hash_;
};
Result<Digest> digest_of(const ConstantData& data, ThreadPool* pool);

}  // namespace pome
