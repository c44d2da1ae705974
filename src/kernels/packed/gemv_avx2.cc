// AVX2: quantising activations, and products of a few tokens with packed weights.
//
// Bytes are multiplied two by two into 16 bits, which saturates; so codes are never wider there
// than their sums allow. Codes below 64 fit as they are, wider ones are taken apart into nibbles.
// Sums are therefore exact, and results are those of the wider instruction sets, bit for bit.
#include <algorithm>
#include <limits>

#include "kernels/packed/tile.h"
#include "kernels/packed/unpack_avx2.h"

#if defined(POME_HAVE_AVX2_KERNELS)
namespace pome::kernels {

namespace {

// Weights to come are asked for this many bytes ahead of their use.
constexpr int64_t kAhead = 4096;

POME_INLINE_AVX2 __m256i four(const int8_t* at) {
  int32_t bytes;
  __builtin_memcpy(&bytes, at, 4);
  return _mm256_set1_epi32(bytes);
}
POME_INLINE_AVX2 __m256i pairs(__m256i sums) {
  return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
}

// Sums over quads [kFirst, kFirst + kCount) of codes up to kLargest times x.
template <int kLargest, int kFirst, int kCount>
POME_INLINE_AVX2 __m256i sum_of(const __m256i* quads, const int8_t* x) {
  // As many products of two pairs as 16 bits hold, |x| <= 128.
  constexpr int kFits = 32767 / (2 * 128 * kLargest);
  constexpr int kChain = kFits >= kCount ? kCount : kFits >= 4 ? 4 : 2;
  static_assert(kFits >= kChain && kCount % kChain == 0);
  __m256i total = _mm256_setzero_si256();
  POME_UNROLL
  for (int begin = kFirst; begin < kFirst + kCount; begin += kChain) {
    __m256i chain = _mm256_maddubs_epi16(quads[begin], four(x + 4 * begin));
    POME_UNROLL
    for (int t = begin + 1; t < begin + kChain; ++t)
      chain = _mm256_add_epi16(chain, _mm256_maddubs_epi16(quads[t], four(x + 4 * t)));
    total = begin == kFirst ? pairs(chain) : _mm256_add_epi32(total, pairs(chain));
  }
  return total;
}

// The eight quads of a block for half of the rows, ready to be multiplied.
template <int kBits, PackedScales kScales, bool kTable>
struct Factors {
  static constexpr int kWidth = code_width(kBits, kScales, kTable);
  static constexpr bool kWide = kWidth == 8;
  static constexpr int kLargest = kWide ? 15 : (1 << kWidth) - 1;

  // Of nibbles where codes are wide: low and high ones.
  __m256i low[8], high[8];
  struct Tables {
    __m256i low, high;
  };

  POME_INLINE_AVX2 static Tables tables(const PackedView& w, const std::byte* tile, int level) {
    uint8_t bytes[16], low[16], high[16];
    table_of(w, tile, level, bytes);
    for (int i = 0; i < 16; ++i) {
      low[i] = kWide ? bytes[i] & 15 : bytes[i];
      high[i] = bytes[i] >> 4;
    }
    return {twice_16(low), twice_16(high)};
  }
  POME_INLINE_AVX2 void load(const std::byte* codes, [[maybe_unused]] const Tables& tables) {
    HalfQuads quads;
    HalfCodes<kBits>::load(codes, &quads);
    POME_UNROLL
    for (int t = 0; t < 8; ++t) {
      if constexpr (kTable) {
        low[t] = _mm256_shuffle_epi8(tables.low, quads.v[t]);
        if constexpr (kWide) high[t] = _mm256_shuffle_epi8(tables.high, quads.v[t]);
      } else if constexpr (kWide) {
        low[t] = _mm256_and_si256(quads.v[t], _mm256_set1_epi8(15));
        high[t] = shifted<4>(quads.v[t], _mm256_set1_epi8(15));
      } else {
        low[t] = quads.v[t];
      }
    }
  }
  template <int kFirst, int kCount>
  POME_INLINE_AVX2 __m256i times(const int8_t* x) const {
    const __m256i sum = sum_of<kLargest, kFirst, kCount>(low, x);
    if constexpr (!kWide) return sum;
    const __m256i above = sum_of<kLargest, kFirst, kCount>(high, x);
    return _mm256_add_epi32(sum, _mm256_slli_epi32(above, 4));
  }
};

// What one token brings to a block.
struct TokenBlock {
  const int8_t *high, *low;
  const int32_t* sum;       // of 16 columns each
  const float* scaled_sum;  // likewise
  float scale;
};

// Adds the products of a block with one token to the sums of half of the rows.
template <int kBits, PackedScales kScales, bool kTable, bool kFine>
POME_INLINE_AVX2 __m256 add_block(const Factors<kBits, kScales, kTable>& w,
                                  const HalfTileReader<kBits, kScales>& reader, int half,
                                  const TokenBlock& x, int offset, __m256 total) {
  using Reader = HalfTileReader<kBits, kScales>;
  const __m256 xs = _mm256_set1_ps(x.scale);
  // (256 high +) low, less the offset of the codes.
  if constexpr (Reader::kParts == 2) {
    __m256i sums[2] = {w.template times<0, 4>(kFine ? x.low : x.high),
                       w.template times<4, 4>(kFine ? x.low : x.high)};
    if constexpr (kFine) {
      sums[0] = _mm256_add_epi32(sums[0], _mm256_slli_epi32(w.template times<0, 4>(x.high), 8));
      sums[1] = _mm256_add_epi32(sums[1], _mm256_slli_epi32(w.template times<4, 4>(x.high), 8));
    }
    POME_UNROLL
    for (int part = 0; part < 2; ++part) {
      const __m256i all = _mm256_sub_epi32(sums[part], _mm256_set1_epi32(offset * x.sum[part]));
      const __m256 factor = _mm256_mul_ps(reader.scale(half, part), xs);
      total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(all), factor, total);
      if constexpr (Reader::kBias) {
        total = _mm256_fmadd_ps(reader.bias(half, part), _mm256_set1_ps(x.scaled_sum[part]), total);
      }
    }
  } else {
    __m256i all = w.template times<0, 8>(kFine ? x.low : x.high);
    if constexpr (kFine) {
      all = _mm256_add_epi32(all, _mm256_slli_epi32(w.template times<0, 8>(x.high), 8));
    }
    all = _mm256_sub_epi32(all, _mm256_set1_epi32(offset * (x.sum[0] + x.sum[1])));
    const __m256 factor =
        kScales == PackedScales::kRow ? xs : _mm256_mul_ps(reader.scale(half, 0), xs);
    total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(all), factor, total);
    if constexpr (Reader::kBias) {
      const __m256 s = _mm256_set1_ps(x.scaled_sum[0] + x.scaled_sum[1]);
      total = _mm256_fmadd_ps(reader.bias(half, 0), s, total);
    }
  }
  return total;
}

// One tile times M tokens, beginning with token m0.
template <int kBits, PackedScales kScales, bool kTable, bool kFine, int M>
POME_TARGET_AVX2 void tile_times(const ProductArgs& args, int64_t tile, int64_t m0) {
  using Block = Factors<kBits, kScales, kTable>;
  using Reader = HalfTileReader<kBits, kScales>;
  const PackedLayout& layout = args.w.layout;
  const Activations& x = args.x;
  const std::byte* data = args.w.tile(tile);
  Reader reader(data + layout.head_bytes);
  constexpr int kLevels = code_levels(kBits, kScales, kTable, kFine);
  typename Block::Tables tables[kLevels] = {};
  if constexpr (kTable) {
    for (int level = 0; level < kLevels; ++level)
      tables[level] = Block::tables(args.w, data, level);
  }
  __m256 total[M][kHalves];
  POME_UNROLL
  for (int m = 0; m < M; ++m) total[m][0] = total[m][1] = _mm256_setzero_ps();
  const int offset = args.w.format.offset;
  for (int64_t block = 0; block < layout.blocks; ++block) {
    const std::byte* codes = reader.next();
    POME_UNROLL
    for (int i = 0; i < Reader::kBlockBytes; i += 64)
      _mm_prefetch(reinterpret_cast<const char*>(codes) + kAhead + i, _MM_HINT_T0);
    POME_UNROLL
    for (int half = 0; half < kHalves; ++half) {
      POME_UNROLL
      for (int level = 0; level < kLevels; ++level) {
        Block factors;
        factors.load(codes + 32 * half + (kBits == 16 ? kLevelBytes * level : 0), tables[level]);
        POME_UNROLL
        for (int m = 0; m < M; ++m) {
          const int64_t row = m0 + m, at = row * x.stride + block * kBlockColumns;
          const int64_t sums = row * x.sums() + 2 * block;
          const TokenBlock token{x.high + at, kFine ? x.low + at : nullptr, x.sum + sums,
                                 x.scaled_sum + sums,
                                 x.scale[row * x.scales() + block] * level_weight(level)};
          total[m][half] = add_block<kBits, kScales, kTable, kFine>(factors, reader, half, token,
                                                                    offset, total[m][half]);
        }
      }
    }
  }
  for (int half = 0; half < kHalves; ++half) {
    const int64_t row = tile * kTileRows + kHalfRows * half;
    const __m256i mask = lanes_below(layout.rows - row);
    __m256 bias = _mm256_setzero_ps();
    if (args.bias) bias = _mm256_maskload_ps(args.bias + row, mask);
    for (int m = 0; m < M; ++m) {
      __m256 y = total[m][half];
      if constexpr (kScales == PackedScales::kRow) {
        const auto* scale = reinterpret_cast<const float*>(data) + kHalfRows * half;
        y = _mm256_mul_ps(y, _mm256_loadu_ps(scale));
      }
      _mm256_maskstore_ps(args.y_at(m0 + m, row), mask, _mm256_add_ps(y, bias));
    }
  }
}

struct Gemv {
  const ProductArgs& args;
  template <int kBits, PackedScales kScales, bool kTable>
  void operator()() const {
    for_few_tokens<2>(args, [this]<bool kFine, int M>(int64_t tile, int64_t m0) {
      tile_times<kBits, kScales, kTable, kFine, M>(args, tile, m0);
    });
  }
};

// Eight numbers that fit bytes.
POME_INLINE_AVX2 void store_bytes(__m256i v, int8_t* to) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
}
POME_INLINE_AVX2 __m128i folded(__m256i v, bool largest) {
  const __m128i a = _mm256_castsi256_si128(v), b = _mm256_extracti128_si256(v, 1);
  return largest ? _mm_max_epu32(a, b) : _mm_add_epi32(a, b);
}
POME_INLINE_AVX2 uint32_t largest_lane(__m256i v) {
  __m128i m = folded(v, true);
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4E));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xB1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
}
POME_INLINE_AVX2 int32_t sum_of_lanes(__m256i v) {
  __m128i s = folded(v, false);
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
  return _mm_cvtsi128_si32(s);
}

}  // namespace

void packed_gemv_avx2(const ProductArgs& args) { with_format(args.w.format, Gemv{args}); }

POME_TARGET_AVX2 void quantize_avx2(const float* x, int64_t columns, const Activations& to,
                                    int64_t row) {
  const bool fine = to.bits == ActivationBits::kFine;
  const float steps = fine ? 127.0f * 256.0f : 127.0f;
  const int64_t per_sum = to.columns / to.sums();
  const auto vectors = static_cast<int>(to.block / 8);
  for (int64_t begin = 0; begin < to.columns; begin += to.block) {
    __m256 values[kPanelColumns / 8];
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < vectors; ++i) {
      const int64_t k = begin + 8 * i;
      values[i] =
          k + 8 <= columns
              ? _mm256_loadu_ps(x + k)
              : _mm256_maskload_ps(x + k, lanes_below(std::clamp<int64_t>(columns - k, 0, 8)));
      // Compared as bits: NaN is larger than infinity, infinity than all numbers.
      largest = _mm256_max_epu32(
          largest, _mm256_and_si256(_mm256_castps_si256(values[i]), _mm256_set1_epi32(0x7FFFFFFF)));
    }
    const uint32_t bits = largest_lane(largest);
    const bool finite = bits < 0x7F800000u;
    float size;
    __builtin_memcpy(&size, &bits, 4);
    const float scale = finite ? size / steps : std::numeric_limits<float>::quiet_NaN();
    const float inverse = finite && size >= 1e-33f ? steps / size : 0.0f;
    to.scale[row * to.scales() + begin / to.block] = scale;
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < vectors; ++i) {
      const int64_t k = begin + 8 * i, at = row * to.stride + k;
      const __m256i v = inverse > 0
                            ? _mm256_cvtps_epi32(_mm256_mul_ps(values[i], _mm256_set1_ps(inverse)))
                            : _mm256_setzero_si256();
      __m256i top = v;
      if (fine) {
        top = _mm256_srai_epi32(_mm256_add_epi32(v, _mm256_set1_epi32(128)), 8);
        store_bytes(_mm256_sub_epi32(v, _mm256_slli_epi32(top, 8)), to.low + at);
      }
      store_bytes(top, to.high + at);
      sum = _mm256_add_epi32(sum, v);
      if ((k + 8) % per_sum != 0) continue;
      const int32_t all = sum_of_lanes(sum);
      to.sum[row * to.sums() + k / per_sum] = all;
      to.scaled_sum[row * to.sums() + k / per_sum] = scale * static_cast<float>(all);
      sum = _mm256_setzero_si256();
    }
  }
}

}  // namespace pome::kernels
#endif
