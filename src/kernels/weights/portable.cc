#include <algorithm>
#include <cstring>

#include "encoding/code_streams.h"
#include "kernels/weights/weights.h"
#include "tensor/half.h"
#include "tensor/tensor.h"

namespace pome::kernels {

namespace {

constexpr int64_t kPiece = 256;  // codes unpacked at a time

float f16_at(const std::byte* base, int64_t index) {
  uint16_t bits;
  std::memcpy(&bits, base + index * 2, 2);
  return f16_to_f32(bits);
}

// Codes [first, first + count) of the bit stream of the whole matrix.
void codes_at(const WeightView& w, int64_t first, int64_t count, uint8_t* codes) {
  const int bits = w.encoding.bits;
  const auto stream_bytes = static_cast<size_t>((w.rows * w.columns * bits + 7) / 8);
  unpack_bits({w.parts[0], stream_bytes}, bits, first, {codes, static_cast<size_t>(count)});
}

void decode_int_row(const WeightView& w, int64_t row, float* out) {
  const int shift = 8 - w.encoding.bits;
  const int64_t block = w.encoding.block, scales_per_row = w.columns / block;
  uint8_t codes[kPiece];
  for (int64_t k0 = 0; k0 < w.columns; k0 += kPiece) {
    const int64_t count = std::min(kPiece, w.columns - k0);
    codes_at(w, row * w.columns + k0, count, codes);
    for (int64_t i = 0; i < count; ++i) {
      const int code = static_cast<int8_t>(static_cast<uint8_t>(codes[i] << shift)) >> shift;
      out[k0 + i] =
          f16_at(w.parts[1], row * scales_per_row + (k0 + i) / block) * static_cast<float>(code);
    }
  }
}

void decode_lut_row(const WeightView& w, int64_t row, float* out) {
  const int64_t table = row / w.encoding.group * (int64_t{1} << w.encoding.bits);
  uint8_t codes[kPiece];
  for (int64_t k0 = 0; k0 < w.columns; k0 += kPiece) {
    const int64_t count = std::min(kPiece, w.columns - k0);
    codes_at(w, row * w.columns + k0, count, codes);
    for (int64_t i = 0; i < count; ++i) out[k0 + i] = f16_at(w.parts[1], table + codes[i]);
  }
}

}  // namespace

void decode_portable(const WeightView& w, int64_t row, int64_t rows, float* out) {
  const EncodingTraits& t = traits(w.encoding.kind);
  for (int64_t r = 0; r < rows; ++r) {
    float* to = out + r * w.columns;
    if (w.encoding.kind == EncodingKind::kInt) {
      decode_int_row(w, row + r, to);
    } else if (w.encoding.kind == EncodingKind::kLut) {
      decode_lut_row(w, row + r, to);
    } else if (w.encoding.kind == EncodingKind::kVectorLut) {
      decode_vector_row(w.encoding, row + r, w.columns, w.parts, to);
    } else if (w.encoding.is_sparse()) {
      decode_sparse_row(w.encoding, row + r, w.columns, w.parts, to);
    } else {
      t.decode(w.parts[0] + (row + r) * w.row_bytes, w.columns / t.block_elements, to);
    }
  }
}

}  // namespace pome::kernels
