// AVX2: reads tiles, half of the 16 rows at a time. Codes of a block become eight quads (a register
// each, whose 32-bit lanes are rows), scales and biases of the rows a register of floats.
#pragma once

#include "kernels/packed/products.h"
#include "kernels/packed/tile.h"

#if defined(POME_HAVE_AVX2_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

// Rows [0, 8) and [8, 16) of a tile.
inline constexpr int kHalves = 2, kHalfRows = 8;

struct HalfQuads {
  __m256i v[8];
};

// `at` points to the half's first byte of a block.
POME_INLINE_AVX2 __m256i half_line(const std::byte* at, int index) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 64 * index));
}
// 16-bit shifts carry bits over from the neighbouring byte; the mask takes them off.
template <int kRight>
POME_INLINE_AVX2 __m256i shifted(__m256i v, __m256i mask) {
  if constexpr (kRight >= 0) {
    return _mm256_and_si256(_mm256_srli_epi16(v, kRight), mask);
  } else {
    return _mm256_and_si256(_mm256_slli_epi16(v, -kRight), mask);
  }
}

template <int kBits>
struct HalfCodes;

template <>
struct HalfCodes<8> {
  static POME_INLINE_AVX2 void load(const std::byte* at, HalfQuads* out) {
    POME_UNROLL
    for (int t = 0; t < 8; ++t) out->v[t] = half_line(at, t);
  }
};
template <>
struct HalfCodes<4> {
  static POME_INLINE_AVX2 void load(const std::byte* at, HalfQuads* out) {
    const __m256i mask = _mm256_set1_epi8(15);
    POME_UNROLL
    for (int j = 0; j < 4; ++j) {
      const __m256i plane = half_line(at, j);
      out->v[j] = _mm256_and_si256(plane, mask);
      out->v[j + 4] = shifted<4>(plane, mask);
    }
  }
};
template <>
struct HalfCodes<2> {
  static POME_INLINE_AVX2 void load(const std::byte* at, HalfQuads* out) {
    const __m256i mask = _mm256_set1_epi8(3);
    POME_UNROLL
    for (int j = 0; j < 2; ++j) {
      const __m256i plane = half_line(at, j);
      out->v[4 * j] = _mm256_and_si256(plane, mask);
      out->v[4 * j + 1] = shifted<2>(plane, mask);
      out->v[4 * j + 2] = shifted<4>(plane, mask);
      out->v[4 * j + 3] = shifted<6>(plane, mask);
    }
  }
};
// One level.
template <>
struct HalfCodes<16> : HalfCodes<8> {};
// Bit t of `plane` becomes bit kTo of quad t.
template <int kTo>
POME_INLINE_AVX2 void add_half_bit_plane(__m256i plane, HalfQuads* out) {
  const __m256i mask = _mm256_set1_epi8(1 << kTo);
  __m256i* v = out->v;
  v[0] = _mm256_or_si256(v[0], shifted<0 - kTo>(plane, mask));
  v[1] = _mm256_or_si256(v[1], shifted<1 - kTo>(plane, mask));
  v[2] = _mm256_or_si256(v[2], shifted<2 - kTo>(plane, mask));
  v[3] = _mm256_or_si256(v[3], shifted<3 - kTo>(plane, mask));
  v[4] = _mm256_or_si256(v[4], shifted<4 - kTo>(plane, mask));
  v[5] = _mm256_or_si256(v[5], shifted<5 - kTo>(plane, mask));
  v[6] = _mm256_or_si256(v[6], shifted<6 - kTo>(plane, mask));
  v[7] = _mm256_or_si256(v[7], shifted<7 - kTo>(plane, mask));
}
template <>
struct HalfCodes<3> {
  static POME_INLINE_AVX2 void load(const std::byte* at, HalfQuads* out) {
    HalfCodes<2>::load(at, out);
    add_half_bit_plane<2>(half_line(at, 2), out);
  }
};
template <>
struct HalfCodes<5> {
  static POME_INLINE_AVX2 void load(const std::byte* at, HalfQuads* out) {
    HalfCodes<4>::load(at, out);
    add_half_bit_plane<4>(half_line(at, 4), out);
  }
};
template <>
struct HalfCodes<6> {
  static POME_INLINE_AVX2 void load(const std::byte* at, HalfQuads* out) {
    HalfCodes<4>::load(at, out);
    const __m256i mask = _mm256_set1_epi8(0x30);
    POME_UNROLL
    for (int j = 0; j < 2; ++j) {
      const __m256i plane = half_line(at, 4 + j);
      __m256i* v = out->v + 4 * j;
      v[0] = _mm256_or_si256(v[0], shifted<-4>(plane, mask));
      v[1] = _mm256_or_si256(v[1], shifted<-2>(plane, mask));
      v[2] = _mm256_or_si256(v[2], _mm256_and_si256(plane, mask));
      v[3] = _mm256_or_si256(v[3], shifted<2>(plane, mask));
    }
  }
};

// Goes through the blocks of a tile in order; scales and biases are read for half of the rows.
// Scales of a block: one for all 32 columns, or (kParts = 2) one for each 16.
template <int kBits, PackedScales kKind>
struct HalfTileReader {
  static constexpr bool kBias = PackedFormat{.scales = kKind}.has_bias();
  static constexpr int kParts = PackedFormat{.scales = kKind}.per_16() ? 2 : 1;
  static constexpr int kSpan = span_blocks(kKind);
  static constexpr int kBlockBytes = 64 * kBits;

  const std::byte* at;      // the codes of the next block
  const std::byte* record;  // of the span of the present block
  int upcoming = 0;         // number of the next block in its span
  int number = 0;           // of the present one

  POME_INLINE_AVX2 explicit HalfTileReader(const std::byte* spans) : at(spans), record(spans) {}

  // Goes on to the next block and gives its codes.
  POME_INLINE_AVX2 const std::byte* next() {
    if (upcoming == 0) {
      record = at;
      at += record_bytes(kKind);
    }
    number = upcoming;
    const std::byte* const codes = at;
    at += kBlockBytes;
    if constexpr (kSpan > 1) upcoming = (upcoming + 1) % kSpan;
    return codes;
  }

  POME_INLINE_AVX2 __m256 scale(int half, int part) const {
    if constexpr (kKind == PackedScales::kRow) {
      return _mm256_set1_ps(1.0f);
    } else if constexpr (kKind == PackedScales::kHalf) {
      return halves(record + 32 * number + 16 * half);
    } else if constexpr (kKind == PackedScales::kHalfBias) {
      return halves(record + 16 * half);
    } else if constexpr (kKind == PackedScales::kExponent) {
      const __m256i e = bytes(record + 16 * number + 8 * half);
      const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
      const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
      const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
      return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
    } else if constexpr (kKind == PackedScales::kSuper) {
      return times_d(half, signed_bytes(record + 32 + 16 * number + 8 * half));
    } else if constexpr (kKind == PackedScales::kSuper16) {
      return times_d(half, signed_bytes(record + 32 + 32 * number + 16 * part + 8 * half));
    } else if constexpr (kKind == PackedScales::kSuperBias) {
      return times_d(half, bytes(record + 64 + 16 * number + 8 * half));
    } else {
      const __m256i both = bytes(record + 64 + 32 * number + 16 * part + 8 * half);
      return times_d(half, _mm256_and_si256(both, _mm256_set1_epi32(15)));
    }
  }
  POME_INLINE_AVX2 __m256 bias(int half, int part) const {
    if constexpr (kKind == PackedScales::kHalfBias) {
      return halves(record + 32 + 16 * half);
    } else if constexpr (kKind == PackedScales::kSuperBias) {
      return times_n(half, bytes(record + 192 + 16 * number + 8 * half));
    } else if constexpr (kKind == PackedScales::kSuperBias16) {
      const __m256i both = bytes(record + 64 + 32 * number + 16 * part + 8 * half);
      return times_n(half, _mm256_srli_epi32(both, 4));
    } else {
      return _mm256_setzero_ps();
    }
  }

 private:
  static POME_INLINE_AVX2 __m256 halves(const std::byte* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static POME_INLINE_AVX2 __m256i bytes(const std::byte* from) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static POME_INLINE_AVX2 __m256i signed_bytes(const std::byte* from) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  POME_INLINE_AVX2 __m256 times_d(int half, __m256i s) const {
    return _mm256_mul_ps(halves(record + 16 * half), _mm256_cvtepi32_ps(s));
  }
  POME_INLINE_AVX2 __m256 times_n(int half, __m256i m) const {
    return _mm256_mul_ps(halves(record + 32 + 16 * half), _mm256_cvtepi32_ps(m));
  }
};

// 16 bytes in both halves of a register, as the byte shuffle wants them.
POME_INLINE_AVX2 __m256i twice_16(const uint8_t (&bytes)[16]) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}
// Lanes [0, rows) of eight, for masked loads and stores.
POME_INLINE_AVX2 __m256i lanes_below(int64_t rows) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(rows)), lane);
}

}  // namespace pome::kernels
#endif
