// AVX-512: reads tiles. Codes of a block become eight quads (a register each), scales and biases of
// the 16 rows a register of floats. One struct per kind of plane; the products are written once.
#pragma once

#include "kernels/packed/products.h"
#include "kernels/packed/tile.h"

#if defined(POME_HAVE_AVX512_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

struct Quads {
  __m512i v[8];
};

POME_INLINE_AVX512 __m512i line(const std::byte* at, int index) {
  return _mm512_loadu_si512(at + 64 * index);
}
POME_INLINE_AVX512 __m512i low_nibbles(__m512i v) {
  return _mm512_and_si512(v, _mm512_set1_epi8(15));
}
POME_INLINE_AVX512 __m512i high_nibbles(__m512i v) {
  return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}
// low | (high & mask)
POME_INLINE_AVX512 __m512i join(__m512i low, __m512i high, __m512i mask) {
  return _mm512_ternarylogic_epi32(low, high, mask, 0xF8);
}

template <int kBits>
struct Codes;

template <>
struct Codes<8> {
  static POME_INLINE_AVX512 void load(const std::byte* at, Quads* out) {
    POME_UNROLL
    for (int t = 0; t < 8; ++t) out->v[t] = line(at, t);
  }
};
template <>
struct Codes<4> {
  static POME_INLINE_AVX512 void load(const std::byte* at, Quads* out) {
    POME_UNROLL
    for (int j = 0; j < 4; ++j) {
      const __m512i plane = line(at, j);
      out->v[j] = low_nibbles(plane);
      out->v[j + 4] = high_nibbles(plane);
    }
  }
};
template <>
struct Codes<2> {
  static POME_INLINE_AVX512 void load(const std::byte* at, Quads* out) {
    const __m512i mask = _mm512_set1_epi8(3);
    POME_UNROLL
    for (int j = 0; j < 2; ++j) {
      const __m512i plane = line(at, j);
      out->v[4 * j] = _mm512_and_si512(plane, mask);
      out->v[4 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(plane, 2), mask);
      out->v[4 * j + 2] = _mm512_and_si512(_mm512_srli_epi16(plane, 4), mask);
      out->v[4 * j + 3] = _mm512_and_si512(_mm512_srli_epi16(plane, 6), mask);
    }
  }
};
// One level.
template <>
struct Codes<16> : Codes<8> {};
// Bit t of `plane` becomes bit kTo of quad t. Bytes shift into their neighbours; the mask takes off
// what came over.
template <int kTo>
POME_INLINE_AVX512 void add_bit_plane(__m512i plane, Quads* out) {
  const __m512i mask = _mm512_set1_epi8(1 << kTo);
  POME_UNROLL
  for (int t = 0; t < 8; ++t) {
    const __m512i moved = t <= kTo ? _mm512_slli_epi16(plane, static_cast<unsigned>(kTo - t))
                                   : _mm512_srli_epi16(plane, static_cast<unsigned>(t - kTo));
    out->v[t] = join(out->v[t], moved, mask);
  }
}
template <>
struct Codes<3> {
  static POME_INLINE_AVX512 void load(const std::byte* at, Quads* out) {
    Codes<2>::load(at, out);
    add_bit_plane<2>(line(at, 2), out);
  }
};
template <>
struct Codes<5> {
  static POME_INLINE_AVX512 void load(const std::byte* at, Quads* out) {
    Codes<4>::load(at, out);
    add_bit_plane<4>(line(at, 4), out);
  }
};
template <>
struct Codes<6> {
  static POME_INLINE_AVX512 void load(const std::byte* at, Quads* out) {
    Codes<4>::load(at, out);
    const __m512i mask = _mm512_set1_epi8(0x30);
    POME_UNROLL
    for (int j = 0; j < 2; ++j) {
      const __m512i plane = line(at, 4 + j);
      __m512i* v = out->v + 4 * j;
      v[0] = join(v[0], _mm512_slli_epi16(plane, 4), mask);
      v[1] = join(v[1], _mm512_slli_epi16(plane, 2), mask);
      v[2] = join(v[2], plane, mask);
      v[3] = join(v[3], _mm512_srli_epi16(plane, 2), mask);
    }
  }
};

POME_INLINE_AVX512 __m512 halves(const std::byte* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}
POME_INLINE_AVX512 __m512 signed_bytes(const std::byte* at) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
}
// The table in every 128 bits, as the byte shuffle wants it.
POME_INLINE_AVX512 __m512i table_register(const PackedView& w, const std::byte* tile,
                                          int level = 0) {
  uint8_t bytes[4][16];
  table_of(w, tile, level, bytes[0]);
  for (int i = 1; i < 4; ++i) __builtin_memcpy(bytes[i], bytes[0], 16);
  return _mm512_loadu_si512(bytes);
}

// Goes through the blocks of a tile in order. Scales of a block: one for all 32 columns, or (kParts
// = 2) one for each 16.
template <int kBits, PackedScales kKind>
struct TileReader {
  static constexpr bool kBias = kKind == PackedScales::kHalfBias ||
                                kKind == PackedScales::kSuperBias ||
                                kKind == PackedScales::kSuperBias16;
  static constexpr int kParts =
      kKind == PackedScales::kSuper16 || kKind == PackedScales::kSuperBias16 ? 2 : 1;
  static constexpr int kSpan = span_blocks(kKind);
  static constexpr int kBlockBytes = 64 * kBits;

  const std::byte* at = nullptr;      // the codes of the next block
  const std::byte* record = nullptr;  // of its span
  int number = 0;                     // of the block in its span
  __m512 d, n;
  __m512 scale[kParts], bias[kParts];

  POME_INLINE_AVX512 void begin(const std::byte* spans) { at = record = spans; }

  // Sets scale and bias, and gives the codes of the next block.
  POME_INLINE_AVX512 const std::byte* next() {
    if (number == 0) {
      record = at;
      at += record_bytes(kKind);
      // The prefetcher of the processor follows lines in their order; scales are used later.
      for (int i = 64; i < record_bytes(kKind); i += 64)
        _mm_prefetch(reinterpret_cast<const char*>(record) + i, _MM_HINT_T0);
      if constexpr (kKind >= PackedScales::kSuper) d = halves(record);
      if constexpr (kKind >= PackedScales::kSuper && kBias) n = halves(record + 32);
    }
    read_scales(number);
    const std::byte* const codes = at;
    at += kBlockBytes;
    if constexpr (kSpan > 1) number = (number + 1) % kSpan;
    return codes;
  }

 private:
  POME_INLINE_AVX512 static __m512i bytes_at(const std::byte* from) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  POME_INLINE_AVX512 void read_scales(int b) {
    if constexpr (kKind == PackedScales::kRow) {
      scale[0] = _mm512_set1_ps(1.0f);
    } else if constexpr (kKind == PackedScales::kHalf) {
      scale[0] = halves(record + 32 * b);
    } else if constexpr (kKind == PackedScales::kHalfBias) {
      scale[0] = halves(record);
      bias[0] = halves(record + 32);
    } else if constexpr (kKind == PackedScales::kExponent) {
      const __m512i e = bytes_at(record + 16 * b);
      const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
      const __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
      const __mmask16 is_small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
      scale[0] = _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, is_small, small));
    } else if constexpr (kKind == PackedScales::kSuper) {
      scale[0] = _mm512_mul_ps(d, signed_bytes(record + 32 + 16 * b));
    } else if constexpr (kKind == PackedScales::kSuper16) {
      scale[0] = _mm512_mul_ps(d, signed_bytes(record + 32 + 32 * b));
      scale[1] = _mm512_mul_ps(d, signed_bytes(record + 32 + 32 * b + 16));
    } else if constexpr (kKind == PackedScales::kSuperBias) {
      scale[0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(bytes_at(record + 64 + 16 * b)));
      bias[0] = _mm512_mul_ps(n, _mm512_cvtepi32_ps(bytes_at(record + 192 + 16 * b)));
    } else {
      POME_UNROLL
      for (int part = 0; part < 2; ++part) {
        const __m512i both = bytes_at(record + 64 + 32 * b + 16 * part);
        const __m512i low = _mm512_and_si512(both, _mm512_set1_epi32(15));
        scale[part] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(low));
        bias[part] = _mm512_mul_ps(n, _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4)));
      }
    }
  }
};

}  // namespace pome::kernels
#endif
