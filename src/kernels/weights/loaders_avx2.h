// AVX2: reads a row of weights as vectors of eight floats. One loader per encoding; the algorithms
// that use them (decode, gemv) are written once.
//
// A loader stands at one row and goes through it once: step32(k) prepares columns [k, k + 32), and
// load8(k, i) then gives columns [k + i, k + i + 8), i in {0, 8, 16, 24}. Loaders with kTail offer
// load8 without step32, too, and tail(k, n): n < 8 columns, the other lanes zero. kStepBytes: of
// part 0, per 32 columns.
#pragma once

#include "encoding/blocks.h"
#include "kernels/weights/weights.h"

#if defined(POME_HAVE_AVX2_KERNELS)
#include <immintrin.h>

#include <cstddef>
#include <cstring>

namespace pome::kernels {

POME_INLINE_AVX2 __m256 f16_broadcast(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}
// Lane mask of the first n of eight.
POME_INLINE_AVX2 __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

struct LoaderF32 {
  static constexpr bool kTail = true;
  static constexpr int64_t kStepBytes = 128;
  const float* at;
  POME_INLINE_AVX2 LoaderF32(const WeightView& w, int64_t row)
      : at(reinterpret_cast<const float*>(w.parts[0]) + row * w.columns) {}
  POME_INLINE_AVX2 void step32(int64_t) {}
  POME_INLINE_AVX2 __m256 load8(int64_t k, int i) const { return _mm256_loadu_ps(at + k + i); }
  POME_INLINE_AVX2 __m256 tail(int64_t k, int64_t n) const {
    return _mm256_maskload_ps(at + k, first_lanes(n));
  }
};

struct LoaderF16 {
  static constexpr bool kTail = true;
  static constexpr int64_t kStepBytes = 64;
  const uint16_t* at;
  POME_INLINE_AVX2 LoaderF16(const WeightView& w, int64_t row)
      : at(reinterpret_cast<const uint16_t*>(w.parts[0]) + row * w.columns) {}
  POME_INLINE_AVX2 void step32(int64_t) {}
  POME_INLINE_AVX2 __m256 load8(int64_t k, int i) const {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + k + i)));
  }
  POME_INLINE_AVX2 __m256 tail(int64_t k, int64_t n) const {
    alignas(16) uint16_t bits[8] = {};
    std::memcpy(bits, at + k, static_cast<size_t>(n) * 2);
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
  }
};

struct LoaderBF16 {
  static constexpr bool kTail = true;
  static constexpr int64_t kStepBytes = 64;
  const uint16_t* at;
  POME_INLINE_AVX2 LoaderBF16(const WeightView& w, int64_t row)
      : at(reinterpret_cast<const uint16_t*>(w.parts[0]) + row * w.columns) {}
  POME_INLINE_AVX2 void step32(int64_t) {}
  POME_INLINE_AVX2 static __m256 widen(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  POME_INLINE_AVX2 __m256 load8(int64_t k, int i) const {
    return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + k + i)));
  }
  POME_INLINE_AVX2 __m256 tail(int64_t k, int64_t n) const {
    alignas(16) uint16_t bits[8] = {};
    std::memcpy(bits, at + k, static_cast<size_t>(n) * 2);
    return widen(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
  }
};

// {f16 d, int8 qs[32]}: d * q
struct LoaderQ8_0 {
  static constexpr bool kTail = false;
  static constexpr int64_t kStepBytes = 34;
  const std::byte* at;
  const std::byte* block = nullptr;
  __m256 scale;
  POME_INLINE_AVX2 LoaderQ8_0(const WeightView& w, int64_t row)
      : at(w.parts[0] + row * w.row_bytes), scale(_mm256_setzero_ps()) {}
  POME_INLINE_AVX2 void step32(int64_t k) {
    block = at + k / 32 * 34;
    scale = f16_broadcast(block);
  }
  POME_INLINE_AVX2 __m256 load8(int64_t, int i) const {
    const __m128i q = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 2 + i));
    return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)));
  }
};

// {f16 d, nibbles[16]}: d * (q - 8); element i < 16 in the low nibble of byte i, i + 16 in the high
struct LoaderQ4_0 {
  static constexpr bool kTail = false;
  static constexpr int64_t kStepBytes = 18;
  const std::byte* at;
  const std::byte* block = nullptr;
  __m256 scale;
  POME_INLINE_AVX2 LoaderQ4_0(const WeightView& w, int64_t row)
      : at(w.parts[0] + row * w.row_bytes), scale(_mm256_setzero_ps()) {}
  POME_INLINE_AVX2 void step32(int64_t k) {
    block = at + k / 32 * 18;
    scale = f16_broadcast(block);
  }
  POME_INLINE_AVX2 __m256 load8(int64_t, int i) const {
    __m128i q = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 2 + i % 16));
    if (i >= 16) q = _mm_srli_epi16(q, 4);
    q = _mm_and_si128(q, _mm_set1_epi8(0x0F));
    const __m256i code = _mm256_sub_epi32(_mm256_cvtepu8_epi32(q), _mm256_set1_epi32(8));
    return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(code));
  }
};

// {exponent, nibbles[16]}, as Q4_0: 2^(e - 128) * kFp4Doubled[q]
struct LoaderMXFP4 {
  static constexpr bool kTail = false;
  static constexpr int64_t kStepBytes = sizeof(BlockMXFP4);
  const std::byte* at;
  const std::byte* nibbles = nullptr;
  __m256 scale;
  __m128i table;
  POME_INLINE_AVX2 LoaderMXFP4(const WeightView& w, int64_t row)
      : at(w.parts[0] + row * w.row_bytes),
        scale(_mm256_setzero_ps()),
        table(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kFp4Doubled))) {}
  POME_INLINE_AVX2 void step32(int64_t k) {
    const std::byte* const block = at + k / 32 * kStepBytes;
    scale = _mm256_set1_ps(e8m0_half(static_cast<uint8_t>(block[offsetof(BlockMXFP4, e)])));
    nibbles = block + offsetof(BlockMXFP4, qs);
  }
  POME_INLINE_AVX2 __m256 load8(int64_t, int i) const {
    __m128i q = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(nibbles + i % 16));
    if (i >= 16) q = _mm_srli_epi16(q, 4);
    q = _mm_shuffle_epi8(table, _mm_and_si128(q, _mm_set1_epi8(0x0F)));
    return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)));
  }
};

// Eight nibbles of a stream, lowest first, one per 32-bit lane, in the top four bits.
POME_INLINE_AVX2 __m256i eight_nibbles_high(const std::byte* at) {
  uint32_t word;
  std::memcpy(&word, at, 4);
  return _mm256_sllv_epi32(_mm256_set1_epi32(static_cast<int>(word)),
                           _mm256_setr_epi32(28, 24, 20, 16, 12, 8, 4, 0));
}

template <int kBits>
struct LoaderInt {
  static constexpr bool kTail = false;
  static constexpr int64_t kStepBytes = kBits * 4;
  const std::byte* codes;
  const std::byte* scales;
  int64_t block, next = 0;  // `next` column needs the next scale
  __m256 scale;
  POME_INLINE_AVX2 LoaderInt(const WeightView& w, int64_t row)
      : codes(w.parts[0] + row * w.columns * kBits / 8),
        scales(w.parts[1] + row * (w.columns / w.encoding.block) * 2),
        block(w.encoding.block),
        scale(_mm256_setzero_ps()) {}
  POME_INLINE_AVX2 void step32(int64_t k) {
    if (k != next) return;
    scale = f16_broadcast(scales);
    scales += 2;
    next += block;
  }
  POME_INLINE_AVX2 __m256 load8(int64_t k, int i) const {
    __m256i code;
    if constexpr (kBits == 4) {
      code = _mm256_srai_epi32(eight_nibbles_high(codes + (k + i) / 2), 28);
    } else {
      code = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + k + i)));
    }
    return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(code));
  }
};

struct LoaderLut4 {
  static constexpr bool kTail = false;
  static constexpr int64_t kStepBytes = 16;
  const std::byte* codes;
  __m256 low, high;  // the table of sixteen
  POME_INLINE_AVX2 LoaderLut4(const WeightView& w, int64_t row)
      : codes(w.parts[0] + row * w.columns / 2),
        low(half_table(w.parts[1] + row / w.encoding.group * 32)),
        high(half_table(w.parts[1] + row / w.encoding.group * 32 + 16)) {}
  POME_INLINE_AVX2 static __m256 half_table(const std::byte* at) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
  POME_INLINE_AVX2 void step32(int64_t) {}
  POME_INLINE_AVX2 __m256 load8(int64_t k, int i) const {
    // The sign bit of `nibbles` is bit 3 of the index: it chooses the half.
    const __m256i nibbles = eight_nibbles_high(codes + (k + i) / 2);
    const __m256i index = _mm256_srli_epi32(nibbles, 28);
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index),
                            _mm256_permutevar8x32_ps(high, index), _mm256_castsi256_ps(nibbles));
  }
};

}  // namespace pome::kernels
#endif
