// AVX-512 VNNI: quantising activations, and products of a few tokens with packed weights.
#include <algorithm>
#include <limits>

#include "kernels/packed/tile.h"
#include "kernels/packed/unpack_avx512.h"

#if defined(POME_HAVE_AVX512_KERNELS)
namespace pome::kernels {

namespace {

POME_INLINE_VNNI __m512i four(const int8_t* at) {
  int32_t bytes;
  __builtin_memcpy(&bytes, at, 4);
  return _mm512_set1_epi32(bytes);
}

// A tile of a product: its bytes, and where its 16 results go.
struct Place {
  const std::byte* tile;
  const float* bias;  // null: none
  float* y;           // of the first token
  int64_t ldy;
  __mmask16 rows;
};
Place place_of(const ProductArgs& args, int64_t tile) {
  const int64_t row = tile * kTileRows;
  const int64_t rows = std::min(kTileRows, args.w.layout.rows - row);
  return {args.w.tile(tile), args.bias ? args.bias + row : nullptr, args.y_at(0, row), args.ldy,
          static_cast<__mmask16>((1u << rows) - 1)};
}

// T tiles of one format times M tokens, beginning with token m0.
//
// Weights are read from memory once, so that is what their reading must not disturb. The
// processor's own prefetcher follows a stream of lines better than instructions that ask for lines
// ahead (they fill the buffers of the first-level cache; measured on Zen 4). x is read once per
// tile and pushed out of that cache by weights when it is wide: it is asked for a few blocks ahead.
template <int kBits, PackedScales kScales, bool kTable, bool kFine, int M, int T>
POME_TARGET_VNNI void tiles_times(const ProductArgs& args, const Place (&places)[T], int64_t m0) {
  using Reader = TileReader<kBits, kScales>;
  constexpr int kOffset = code_offset(kBits, kScales, kTable);
  const PackedLayout& layout = args.w.layout;
  Reader reader[T];
  constexpr int kLevels = code_levels(kBits, kScales, kTable, kFine);
  __m512i table[T][kLevels];
  POME_UNROLL
  for (int n = 0; n < T; ++n) {
    reader[n].begin(places[n].tile + layout.head_bytes);
    if constexpr (kTable) {
      POME_UNROLL
      for (int level = 0; level < kLevels; ++level)
        table[n][level] = table_register(args.w, places[n].tile, level);
    }
  }
  const int8_t *high[M], *low[M];
  const float *xs[M], *scaled_sum[M];
  const int32_t* sum[M];
  __m512 total[M][T];
  POME_UNROLL
  for (int m = 0; m < M; ++m) {
    high[m] = args.x.high + (m0 + m) * args.x.stride;
    low[m] = kFine ? args.x.low + (m0 + m) * args.x.stride : nullptr;
    xs[m] = args.x.scale + (m0 + m) * args.x.scales();
    sum[m] = args.x.sum + (m0 + m) * args.x.sums();
    scaled_sum[m] = args.x.scaled_sum + (m0 + m) * args.x.sums();
    POME_UNROLL
    for (int n = 0; n < T; ++n) total[m][n] = _mm512_setzero_ps();
  }
  for (int64_t block = 0; block < layout.blocks; ++block) {
    const int at = 32 * static_cast<int>(block);
    if constexpr (M == 1 && !kFine) {
      _mm_prefetch(reinterpret_cast<const char*>(high[0] + at + 256), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(xs[0] + block + 16), _MM_HINT_T0);
      if constexpr (kOffset != 0)
        _mm_prefetch(reinterpret_cast<const char*>(sum[0] + 2 * block + 32), _MM_HINT_T0);
      if constexpr (Reader::kBias)
        _mm_prefetch(reinterpret_cast<const char*>(scaled_sum[0] + 2 * block + 32), _MM_HINT_T0);
    }
    POME_UNROLL
    for (int n = 0; n < T; ++n) {
      const std::byte* codes = reader[n].next();
      Quads quads[kLevels];
      Codes<kBits>::load(codes, &quads[0]);
      if constexpr (kBits == 16) Codes<kBits>::load(codes + kLevelBytes, &quads[1]);
      if constexpr (kTable) {
        POME_UNROLL
        for (int level = kLevels - 1; level >= 0; --level) {
          POME_UNROLL
          for (int t = 0; t < 8; ++t)
            quads[level].v[t] = _mm512_shuffle_epi8(table[n][level], quads[0].v[t]);
        }
      }
      POME_UNROLL
      for (int pass = 0; pass < kLevels * M; ++pass) {
        const int level = pass / M, m = pass % M;
        // Columns [0, 16) and [16, 32): two sums, which also hides the latency of the products.
        __m512i part[2];
        POME_UNROLL
        for (int h = 0; h < 2; ++h) {
          // (256 high +) low, less the offset of the codes.
          __m512i both = _mm512_setzero_si512();
          if constexpr (kOffset != 0) both = _mm512_set1_epi32(-kOffset * sum[m][2 * block + h]);
          if constexpr (kFine) {
            __m512i first = _mm512_setzero_si512();
            POME_UNROLL
            for (int t = 4 * h; t < 4 * h + 4; ++t)
              first = _mm512_dpbusd_epi32(first, quads[level].v[t], four(high[m] + at + 4 * t));
            both = _mm512_add_epi32(both, _mm512_slli_epi32(first, 8));
          }
          const int8_t* const last = kFine ? low[m] : high[m];
          POME_UNROLL
          for (int t = 4 * h; t < 4 * h + 4; ++t)
            both = _mm512_dpbusd_epi32(both, quads[level].v[t], four(last + at + 4 * t));
          part[h] = both;
        }
        __m512& sums = total[m][n];
        const __m512 x = _mm512_set1_ps(xs[m][block] * level_weight(level));
        if constexpr (Reader::kParts == 2) {
          POME_UNROLL
          for (int h = 0; h < 2; ++h) {
            const __m512 factor = _mm512_mul_ps(reader[n].scale[h], x);
            sums = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[h]), factor, sums);
            if constexpr (Reader::kBias) {
              sums = _mm512_fmadd_ps(reader[n].bias[h],
                                     _mm512_set1_ps(scaled_sum[m][2 * block + h]), sums);
            }
          }
        } else {
          const __m512 both = _mm512_cvtepi32_ps(_mm512_add_epi32(part[0], part[1]));
          const __m512 factor =
              kScales == PackedScales::kRow ? x : _mm512_mul_ps(reader[n].scale[0], x);
          sums = _mm512_fmadd_ps(both, factor, sums);
          if constexpr (Reader::kBias) {
            const float s = scaled_sum[m][2 * block] + scaled_sum[m][2 * block + 1];
            sums = _mm512_fmadd_ps(reader[n].bias[0], _mm512_set1_ps(s), sums);
          }
        }
      }
    }
  }
  POME_UNROLL
  for (int n = 0; n < T; ++n) {
    const Place& to = places[n];
    __m512 bias = _mm512_setzero_ps();
    if (to.bias) bias = _mm512_maskz_loadu_ps(to.rows, to.bias);
    POME_UNROLL
    for (int m = 0; m < M; ++m) {
      __m512 y = total[m][n];
      if constexpr (kScales == PackedScales::kRow) y = _mm512_mul_ps(y, _mm512_loadu_ps(to.tile));
      _mm512_mask_storeu_ps(to.y + (m0 + m) * to.ldy, to.rows, _mm512_add_ps(y, bias));
    }
  }
}

// From here on x no longer stays in the first-level cache beside the weights that pass through it.
constexpr int64_t kManyColumns = 4096;

// One matrix, or two side by side.
struct Gemv {
  const ProductArgs& args;
  const ProductArgs* other = nullptr;

  template <int kBits, PackedScales kScales, bool kTable>
  void operator()() const {
    if (args.x.m == 1 && args.x.bits == ActivationBits::kByte) {
      const int64_t end = args.tile + args.tiles;
      int64_t tile = args.tile;
      if (other) {
        for (; tile < end; ++tile)
          one_token<kBits, kScales, kTable>({place_of(args, tile), place_of(*other, tile)});
        return;
      }
      if (args.x.columns >= kManyColumns) {
        // Two halves at once, each a stream of its own: half as often past x.
        const int64_t half = args.tiles / 2;
        for (; tile < args.tile + half; ++tile)
          one_token<kBits, kScales, kTable>({place_of(args, tile), place_of(args, tile + half)});
        tile += half;
      }
      for (; tile < end; ++tile) one_token<kBits, kScales, kTable>({place_of(args, tile)});
      return;
    }
    several_tokens<kBits, kScales, kTable>(args);
    if (other) several_tokens<kBits, kScales, kTable>(*other);
  }

 private:
  template <int kBits, PackedScales kScales, bool kTable, size_t T>
  void one_token(const Place (&places)[T]) const {
    tiles_times<kBits, kScales, kTable, false, 1, static_cast<int>(T)>(args, places, 0);
  }
  template <int kBits, PackedScales kScales, bool kTable>
  static void several_tokens(const ProductArgs& of) {
    for_few_tokens<4>(of, [&of]<bool kFine, int M>(int64_t tile, int64_t m0) {
      tiles_times<kBits, kScales, kTable, kFine, M, 1>(of, {place_of(of, tile)}, m0);
    });
  }
};

}  // namespace

void packed_gemv_avx512vnni(const ProductArgs& args) { with_format(args.w.format, Gemv{args}); }
void packed_gemv_pair_avx512vnni(const ProductArgs& one, const ProductArgs& other) {
  with_format(one.w.format, Gemv{one, &other});
}

POME_TARGET_AVX512 void quantize_avx512(const float* x, int64_t columns, const Activations& to,
                                        int64_t row) {
  const bool fine = to.bits == ActivationBits::kFine;
  const float steps = fine ? 127.0f * 256.0f : 127.0f;
  int8_t* high = to.high + row * to.stride;
  const int64_t per_sum = to.columns / to.sums();
  const auto vectors = static_cast<int>(to.block / 16);
  for (int64_t begin = 0; begin < to.columns; begin += to.block) {
    __m512 values[kPanelColumns / 16];
    __m512i largest = _mm512_setzero_si512();
    for (int i = 0; i < vectors; ++i) {
      const int64_t k = begin + 16 * i;
      const int64_t n = std::clamp<int64_t>(columns - k, 0, 16);
      values[i] = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), x + k);
      // Compared as bits: NaN is larger than infinity, infinity than all numbers.
      largest = _mm512_max_epu32(
          largest, _mm512_and_si512(_mm512_castps_si512(values[i]), _mm512_set1_epi32(0x7FFFFFFF)));
    }
    const uint32_t bits = _mm512_reduce_max_epu32(largest);
    const bool finite = bits < 0x7F800000u;
    float size;
    __builtin_memcpy(&size, &bits, 4);
    const float scale = finite ? size / steps : std::numeric_limits<float>::quiet_NaN();
    const float inverse = finite && size >= 1e-33f ? steps / size : 0.0f;
    to.scale[row * to.scales() + begin / to.block] = scale;
    int32_t sum = 0;
    for (int i = 0; i < vectors; ++i) {
      const int64_t k = begin + 16 * i;
      const __m512i v = inverse > 0
                            ? _mm512_cvtps_epi32(_mm512_mul_ps(values[i], _mm512_set1_ps(inverse)))
                            : _mm512_setzero_si512();
      __m512i top = v;
      if (fine) {
        top = _mm512_srai_epi32(_mm512_add_epi32(v, _mm512_set1_epi32(128)), 8);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to.low + row * to.stride + k),
                         _mm512_cvtepi32_epi8(v));
      }
      _mm_storeu_si128(reinterpret_cast<__m128i*>(high + k), _mm512_cvtepi32_epi8(top));
      sum += _mm512_reduce_add_epi32(v);
      if ((k + 16) % per_sum != 0) continue;
      to.sum[row * to.sums() + k / per_sum] = sum;
      to.scaled_sum[row * to.sums() + k / per_sum] = scale * static_cast<float>(sum);
      sum = 0;
    }
  }
}

}  // namespace pome::kernels
#endif
