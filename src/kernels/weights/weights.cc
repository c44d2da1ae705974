#include "kernels/weights/weights.h"

namespace pome::kernels {

namespace {

#define POME_DECODE_KERNEL(isa, fits, function) {#function, Isa::isa, fits, function},
constexpr DecodeEntry kDecodeKernels[] = {
#include "kernels/weights/kernels.inc"
};
#undef POME_DECODE_KERNEL

bool is_blocks_of(const Encoding& encoding, int64_t columns, EncodingKind kind) {
  return encoding.kind == kind && columns % 32 == 0;
}

}  // namespace

bool fits_any(const Encoding&, int64_t) { return true; }
bool fits_f32(const Encoding& encoding, int64_t) { return encoding.kind == EncodingKind::kF32; }
bool fits_f16(const Encoding& encoding, int64_t) { return encoding.kind == EncodingKind::kF16; }
bool fits_bf16(const Encoding& encoding, int64_t) { return encoding.kind == EncodingKind::kBF16; }
bool fits_q8_0(const Encoding& encoding, int64_t columns) {
  return is_blocks_of(encoding, columns, EncodingKind::kQ8_0);
}
bool fits_q4_0(const Encoding& encoding, int64_t columns) {
  return is_blocks_of(encoding, columns, EncodingKind::kQ4_0);
}
bool fits_mxfp4(const Encoding& encoding, int64_t columns) {
  return is_blocks_of(encoding, columns, EncodingKind::kMXFP4);
}
bool fits_int4(const Encoding& encoding, int64_t columns) {
  return is_blocks_of(encoding, columns, EncodingKind::kInt) && encoding.bits == 4 &&
         encoding.block % 32 == 0;
}
bool fits_int8(const Encoding& encoding, int64_t columns) {
  return is_blocks_of(encoding, columns, EncodingKind::kInt) && encoding.bits == 8 &&
         encoding.block % 32 == 0;
}
bool fits_lut4(const Encoding& encoding, int64_t columns) {
  return is_blocks_of(encoding, columns, EncodingKind::kLut) && encoding.bits == 4;
}

WeightView weight_view(const Encoding& encoding, int64_t rows, int64_t columns,
                       std::span<const std::byte* const> parts) {
  WeightView view;
  view.encoding = encoding;
  view.rows = rows;
  view.columns = columns;
  for (size_t i = 0; i < parts.size() && i < kMostParts; ++i) view.parts[i] = parts[i];
  const EncodingTraits& t = traits(encoding.kind);
  if (t.block_elements > 0) view.row_bytes = columns / t.block_elements * t.block_bytes;
  return view;
}

std::span<const DecodeEntry> decode_kernels() { return kDecodeKernels; }

DecodeKernel choose_decode(Isa isa, const Encoding& encoding, int64_t columns) {
  return best_entry(decode_kernels(), isa,
                    [&](const DecodeEntry& entry) { return entry.fits(encoding, columns); })
      ->run;
}

}  // namespace pome::kernels
