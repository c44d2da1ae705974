// NEON: reads a row of weights as vectors of eight floats. One loader per encoding; the algorithms
// that use them (decode, gemv) are written once.
//
// A loader stands at one row and goes through it once: step32(k) prepares columns [k, k + 32), and
// next8(k, i) then gives columns [k + i, k + i + 8), i in {0, 8, 16, 24}. Loaders with kTail offer
// next8 without step32, too, and tail(k, n): n < 8 columns, the other lanes zero.
#pragma once

#include <cstddef>

#include "encoding/blocks.h"
#include "kernels/simd_neon.h"
#include "kernels/weights/weights.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

struct LoaderF32 {
  static constexpr bool kTail = true;
  const float* at;
  POME_INLINE_NEON LoaderF32(const WeightView& w, int64_t row)
      : at(reinterpret_cast<const float*>(w.parts[0]) + row * w.columns) {}
  POME_INLINE_NEON void step32(int64_t) {}
  POME_INLINE_NEON F8 next8(int64_t k, int i) const { return load8(at + k + i); }
  POME_INLINE_NEON F8 tail(int64_t k, int64_t n) const { return load_first8(at + k, n); }
};

// f16 and bf16 differ in how eight of them widen.
struct WidenF16 {
  POME_INLINE_NEON static F8 of(uint16x8_t bits) { return halves8(bits); }
};
struct WidenBF16 {
  POME_INLINE_NEON static F8 of(uint16x8_t bits) {
    return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(bits), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(bits, 16))};
  }
};
template <typename Widen>
struct LoaderTwoBytes {
  static constexpr bool kTail = true;
  const uint16_t* at;
  POME_INLINE_NEON LoaderTwoBytes(const WeightView& w, int64_t row)
      : at(reinterpret_cast<const uint16_t*>(w.parts[0]) + row * w.columns) {}
  POME_INLINE_NEON void step32(int64_t) {}
  POME_INLINE_NEON F8 next8(int64_t k, int i) const { return Widen::of(vld1q_u16(at + k + i)); }
  POME_INLINE_NEON F8 tail(int64_t k, int64_t n) const {
    uint16_t bits[8] = {};
    for (int64_t i = 0; i < n; ++i) bits[i] = at[k + i];
    return Widen::of(vld1q_u16(bits));
  }
};
using LoaderF16 = LoaderTwoBytes<WidenF16>;
using LoaderBF16 = LoaderTwoBytes<WidenBF16>;

POME_INLINE_NEON int8x8_t eight_bytes(const std::byte* at) {
  return vld1_s8(reinterpret_cast<const int8_t*>(at));
}

// {f16 d, int8 qs[32]}: d * q
struct LoaderQ8_0 {
  static constexpr bool kTail = false;
  const std::byte* at;
  const std::byte* block = nullptr;
  float32x4_t scale;
  POME_INLINE_NEON LoaderQ8_0(const WeightView& w, int64_t row)
      : at(w.parts[0] + row * w.row_bytes), scale(vdupq_n_f32(0)) {}
  POME_INLINE_NEON void step32(int64_t k) {
    block = at + k / 32 * 34;
    scale = half_everywhere(block);
  }
  POME_INLINE_NEON F8 next8(int64_t, int i) const {
    return mul8(floats8(vmovl_s8(eight_bytes(block + 2 + i))), scale);
  }
};

// {f16 d, nibbles[16]}: d * (q - 8); element i < 16 in the low nibble of byte i, i + 16 in the high
struct LoaderQ4_0 {
  static constexpr bool kTail = false;
  const std::byte* at;
  const std::byte* block = nullptr;
  float32x4_t scale;
  POME_INLINE_NEON LoaderQ4_0(const WeightView& w, int64_t row)
      : at(w.parts[0] + row * w.row_bytes), scale(vdupq_n_f32(0)) {}
  POME_INLINE_NEON void step32(int64_t k) {
    block = at + k / 32 * 18;
    scale = half_everywhere(block);
  }
  POME_INLINE_NEON F8 next8(int64_t, int i) const {
    const uint8x8_t both = vreinterpret_u8_s8(eight_bytes(block + 2 + i % 16));
    const uint8x8_t code = i < 16 ? vand_u8(both, vdup_n_u8(15)) : vshr_n_u8(both, 4);
    const int8x8_t centred = vsub_s8(vreinterpret_s8_u8(code), vdup_n_s8(8));
    return mul8(floats8(vmovl_s8(centred)), scale);
  }
};

// {exponent, nibbles[16]}, as Q4_0: 2^(e - 128) * kFp4Doubled[q]
struct LoaderMXFP4 {
  static constexpr bool kTail = false;
  const std::byte* at;
  const std::byte* nibbles = nullptr;
  float32x4_t scale;
  int8x16_t table;
  POME_INLINE_NEON LoaderMXFP4(const WeightView& w, int64_t row)
      : at(w.parts[0] + row * w.row_bytes), scale(vdupq_n_f32(0)), table(vld1q_s8(kFp4Doubled)) {}
  POME_INLINE_NEON void step32(int64_t k) {
    const std::byte* const block = at + k / 32 * static_cast<int64_t>(sizeof(BlockMXFP4));
    scale = vdupq_n_f32(e8m0_half(static_cast<uint8_t>(block[offsetof(BlockMXFP4, e)])));
    nibbles = block + offsetof(BlockMXFP4, qs);
  }
  POME_INLINE_NEON F8 next8(int64_t, int i) const {
    const uint8x8_t both = vreinterpret_u8_s8(eight_bytes(nibbles + i % 16));
    const uint8x8_t code = i < 16 ? vand_u8(both, vdup_n_u8(15)) : vshr_n_u8(both, 4);
    return mul8(floats8(vmovl_s8(vqtbl1_s8(table, code))), scale);
  }
};

// Eight nibbles of a stream, lowest first, one per byte, in the top four bits.
POME_INLINE_NEON uint8x8_t eight_nibbles_high(const std::byte* at) {
  uint32_t word;
  std::memcpy(&word, at, 4);
  const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(word));
  const uint8x8_t high = vand_u8(bytes, vdup_n_u8(0xF0));
  return vzip1_u8(vshl_n_u8(bytes, 4), high);
}

template <int kBits>
struct LoaderInt {
  static constexpr bool kTail = false;
  const std::byte* codes;
  const std::byte* scales;
  int64_t block, next = 0;  // `next` column needs the next scale
  float32x4_t scale;
  POME_INLINE_NEON LoaderInt(const WeightView& w, int64_t row)
      : codes(w.parts[0] + row * w.columns * kBits / 8),
        scales(w.parts[1] + row * (w.columns / w.encoding.block) * 2),
        block(w.encoding.block),
        scale(vdupq_n_f32(0)) {}
  POME_INLINE_NEON void step32(int64_t k) {
    if (k != next) return;
    scale = half_everywhere(scales);
    scales += 2;
    next += block;
  }
  POME_INLINE_NEON F8 next8(int64_t k, int i) const {
    int8x8_t code;
    if constexpr (kBits == 4) {
      code = vshr_n_s8(vreinterpret_s8_u8(eight_nibbles_high(codes + (k + i) / 2)), 4);
    } else {
      code = eight_bytes(codes + k + i);
    }
    return mul8(floats8(vmovl_s8(code)), scale);
  }
};

struct LoaderLut4 {
  static constexpr bool kTail = false;
  const std::byte* codes;
  uint8x16x2_t table;  // of sixteen binary16 numbers
  POME_INLINE_NEON LoaderLut4(const WeightView& w, int64_t row)
      : codes(w.parts[0] + row * w.columns / 2) {
    const auto* at = reinterpret_cast<const uint8_t*>(w.parts[1] + row / w.encoding.group * 32);
    table.val[0] = vld1q_u8(at);
    table.val[1] = vld1q_u8(at + 16);
  }
  POME_INLINE_NEON void step32(int64_t) {}
  POME_INLINE_NEON F8 next8(int64_t k, int i) const {
    // Twice the index: the place of the first byte of an entry.
    const uint8x8_t first = vshr_n_u8(eight_nibbles_high(codes + (k + i) / 2), 3);
    const uint8x8_t second = vorr_u8(first, vdup_n_u8(1));
    const uint8x16_t places = vcombine_u8(vzip1_u8(first, second), vzip2_u8(first, second));
    return halves8(vreinterpretq_u16_u8(vqtbl2q_u8(table, places)));
  }
};

}  // namespace pome::kernels
#endif
