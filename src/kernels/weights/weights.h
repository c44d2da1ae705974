// Weights as they are stored, and the kernels that decode rows of them.
//
//   out[r, k] = decoded(w)[row + r, k]          r < rows, k < w.columns
//
// The value of an element is the one that encoding/encoding.h defines, exactly: all kernels of all
// instruction sets give the same bits. Unlike decode_rows(), `row` may be any row whatever the
// encoding's granularity is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "encoding/encoding.h"
#include "kernels/isa.h"

namespace pome::kernels {

// A matrix [rows, columns] in its encoding. Parts are aligned to the size of their elements (2
// bytes for f16, bf16, scales and tables, 4 for f32; block types need none).
struct WeightView {
  Encoding encoding;
  int64_t rows = 0, columns = 0;
  const std::byte* parts[kMostParts] = {};
  int64_t row_bytes = 0;  // of part 0; 0 where rows are not whole bytes (from kInt on)
};
// Fills row_bytes. The caller has checked the shape with encoded_layout().
WeightView weight_view(const Encoding& encoding, int64_t rows, int64_t columns,
                       std::span<const std::byte* const> parts);

using DecodeKernel = void (*)(const WeightView& w, int64_t row, int64_t rows, float* out);

struct DecodeEntry {
  std::string_view name;
  Isa isa;
  bool (*fits)(const Encoding& encoding, int64_t columns);
  DecodeKernel run;
};
std::span<const DecodeEntry> decode_kernels();
// Never null: the portable kernels decode every encoding.
DecodeKernel choose_decode(Isa isa, const Encoding& encoding, int64_t columns);

#define POME_DECODE_KERNEL(isa, fits, function) \
  void function(const WeightView& w, int64_t row, int64_t rows, float* out);
#include "kernels/weights/kernels.inc"
#undef POME_DECODE_KERNEL

// Which encodings a kernel of kernels.inc takes.
bool fits_any(const Encoding& encoding, int64_t columns);
bool fits_f32(const Encoding& encoding, int64_t columns);
bool fits_f16(const Encoding& encoding, int64_t columns);
bool fits_bf16(const Encoding& encoding, int64_t columns);
bool fits_q8_0(const Encoding& encoding, int64_t columns);
bool fits_q4_0(const Encoding& encoding, int64_t columns);
bool fits_mxfp4(const Encoding& encoding, int64_t columns);
// 32 codes in a row share a scale, and rows are whole groups of 32.
bool fits_int4(const Encoding& encoding, int64_t columns);
bool fits_int8(const Encoding& encoding, int64_t columns);
bool fits_lut4(const Encoding& encoding, int64_t columns);

}  // namespace pome::kernels
