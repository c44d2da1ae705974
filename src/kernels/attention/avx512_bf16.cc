// Attention of many rows in bfloat16: products of pairs, sums f32.
//
// A block of the cache is unpacked once for all rows: keys as [dim / 2][128 keys] words of two
// values, values as [keys / 2][dim] words of two keys. Then scores and mix are the same product of
// words, c[r, n] = sum over k of a[r, k] . b[k, n].
#include <algorithm>

#include "kernels/attention/attention.h"
#include "kernels/attention/load_avx512.h"

#if defined(POME_HAVE_AVX512_KERNELS)
namespace pome::kernels {

namespace {

struct Product {
  const uint32_t* a = nullptr;
  int64_t lda = 0, rows = 0;
  const uint32_t* b = nullptr;
  int64_t ldb = 0, pairs = 0;
  float* c = nullptr;
  int64_t ldc = 0, n = 0;
};

POME_INLINE_BF16 __m512bh as_pairs(__m512i words) { return (__m512bh)words; }
POME_INLINE_BF16 __m512i as_words(__m512bh pairs) { return (__m512i)pairs; }

// R rows by V vectors; `mask` belongs to the last vector.
template <int R, int V>
POME_INLINE_BF16 void product_tile(const Product& p, int64_t row, int64_t n, __mmask16 mask) {
  __m512 sum[R][V];
  POME_UNROLL
  for (int r = 0; r < R; ++r) {
    POME_UNROLL
    for (int v = 0; v < V; ++v) sum[r][v] = _mm512_setzero_ps();
  }
  const uint32_t* a = p.a + row * p.lda;
  const uint32_t* b = p.b + n;
  for (int64_t k = 0; k < p.pairs; ++k, b += p.ldb) {
    __m512bh words[V];
    POME_UNROLL
    for (int v = 0; v < V; ++v) words[v] = as_pairs(_mm512_loadu_si512(b + 16 * v));
    POME_UNROLL
    for (int r = 0; r < R; ++r) {
      const __m512bh one = as_pairs(_mm512_set1_epi32(static_cast<int32_t>(a[r * p.lda + k])));
      POME_UNROLL
      for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], one, words[v]);
    }
  }
  POME_UNROLL
  for (int r = 0; r < R; ++r) {
    float* c = p.c + (row + r) * p.ldc + n;
    POME_UNROLL
    for (int v = 0; v < V; ++v)
      _mm512_mask_storeu_ps(c + 16 * v, v == V - 1 ? mask : mask_below(16), sum[r][v]);
  }
}

template <int R>
POME_TARGET_BF16 void product_rows(const Product& p, int64_t row) {
  int64_t n = 0;
  for (; n + 64 <= p.n; n += 64) product_tile<R, 4>(p, row, n, mask_below(16));
  for (; n < p.n; n += 16) product_tile<R, 1>(p, row, n, mask_below(p.n - n));
}

void multiply(const Product& p) {
  int64_t r = 0;
  for (; r + 6 <= p.rows; r += 6) product_rows<6>(p, r);
  for (; r + 2 <= p.rows; r += 2) product_rows<2>(p, r);
  if (r < p.rows) product_rows<1>(p, r);
}

// Rows of floats as words of two.
POME_TARGET_BF16 void pack_rows(const float* x, int64_t ldx, int64_t rows, int64_t dim,
                                uint32_t* out, int64_t ldo) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t d = 0; d < dim; d += 32) {
      const __m512 low = _mm512_maskz_loadu_ps(mask_below(dim - d), x + r * ldx + d);
      const __m512 high = _mm512_maskz_loadu_ps(mask_below(dim - d - 16), x + r * ldx + d + 16);
      _mm512_storeu_si512(out + r * ldo + d / 2, as_words(_mm512_cvtne2ps_pbh(high, low)));
    }
  }
}

// 16 vectors of 16 words, turned.
POME_INLINE_BF16 void transpose(__m512i* x) {
  __m512i t[16];
  POME_UNROLL
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  POME_UNROLL
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // Now 4x4 blocks are turned in themselves: x[4 g + e] has word 4 l + e of rows 4 g .. in lane l.
  POME_UNROLL
  for (int e = 0; e < 4; ++e) {
    const __m512i a = _mm512_shuffle_i32x4(x[e], x[4 + e], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(x[8 + e], x[12 + e], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(x[e], x[4 + e], 0xDD);
    const __m512i d = _mm512_shuffle_i32x4(x[8 + e], x[12 + e], 0xDD);
    t[e] = _mm512_shuffle_i32x4(a, b, 0x88);
    t[8 + e] = _mm512_shuffle_i32x4(a, b, 0xDD);
    t[4 + e] = _mm512_shuffle_i32x4(c, d, 0x88);
    t[12 + e] = _mm512_shuffle_i32x4(c, d, 0xDD);
  }
  POME_UNROLL
  for (int i = 0; i < 16; ++i) x[i] = t[i];
}

template <typename Load>
POME_TARGET_BF16 void pack_keys(const KvRows& keys, int64_t n, uint32_t* out) {
  for (int64_t j = 0; j < n; j += 16) {
    for (int64_t d = 0; d < keys.dim; d += 32) {
      __m512i words[16];
      for (int i = 0; i < 16; ++i) {
        Load load(keys.data + std::min(j + i, n - 1) * keys.row_bytes, keys.width);
        load.group(d / kKvGroup);
        const __mmask16 first = mask_below(keys.dim - d), second = mask_below(keys.dim - d - 16);
        const __m512 low = _mm512_maskz_mov_ps(first, load.load(d, first));
        const __m512 high = _mm512_maskz_mov_ps(second, load.load(d + 16, second));
        words[i] = as_words(_mm512_cvtne2ps_pbh(high, low));
      }
      transpose(words);
      POME_UNROLL
      for (int i = 0; i < 16; ++i)
        _mm512_storeu_si512(out + (d / 2 + i) * kAttentionKeys + j, words[i]);
    }
  }
}

template <typename Load>
POME_TARGET_BF16 void pack_values(const KvRows& values, int64_t n, uint32_t* out, int64_t ldo) {
  alignas(64) static constexpr uint16_t kPairs[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                      21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                      11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i pairs = _mm512_load_si512(kPairs);
  for (int64_t j = 0; j < n; j += 2) {
    Load even(values.data + j * values.row_bytes, values.width);
    Load odd(values.data + std::min(j + 1, n - 1) * values.row_bytes, values.width);
    for (int64_t d = 0; d < values.dim; d += 16) {
      even.group(d / kKvGroup);
      odd.group(d / kKvGroup);
      const __mmask16 mask = mask_below(values.dim - d);
      const __m512bh both = _mm512_cvtne2ps_pbh(odd.load(d, mask), even.load(d, mask));
      _mm512_storeu_si512(out + j / 2 * ldo + d, _mm512_permutexvar_epi16(pairs, as_words(both)));
    }
  }
}

int64_t up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

void scores_bf16(const DirectArgs& args) {
  const int64_t pairs = up(args.cache.dim, 32) / 2;
  auto* keys = reinterpret_cast<uint32_t*>(args.scratch);
  uint32_t* rows = keys + pairs * kAttentionKeys;
  with_loader(args.cache.kind, [&]<typename Load>() { pack_keys<Load>(args.cache, args.n, keys); });
  pack_rows(args.q, args.ldq, args.rows, args.cache.dim, rows, pairs);
  multiply({rows, pairs, args.rows, keys, kAttentionKeys, pairs, args.s, kAttentionKeys,
            up(args.n, 16)});
}

void mix_bf16(const DirectArgs& args) {
  const int64_t wide = up(args.cache.dim, 16);
  auto* values = reinterpret_cast<uint32_t*>(args.scratch);
  uint32_t* rows = values + kAttentionKeys / 2 * wide;
  with_loader(args.cache.kind,
              [&]<typename Load>() { pack_values<Load>(args.cache, args.n, values, wide); });
  pack_rows(args.s, kAttentionKeys, args.rows, up(args.n, 2), rows, kAttentionKeys / 2);
  multiply({rows, kAttentionKeys / 2, args.rows, values, wide, (args.n + 1) / 2, args.y, args.ldy,
            args.cache.dim});
}

}  // namespace pome::kernels
#endif
