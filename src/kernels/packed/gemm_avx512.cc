// AVX-512 VNNI: products of many tokens with packed weights.
//
// 32 rows at a time become a panel of bytes: for each 64 columns  [f32 scale [16]] [16 quads],
// byte = round(w / scale) + 128, once for each of the two tiles. Then 12 tokens times 32 rows are
// summed in 24 registers; a quad of x is broadcast to all rows.
#include <algorithm>

#include "kernels/packed/tile.h"
#include "kernels/packed/unpack_avx512.h"

#if defined(POME_HAVE_AVX512_KERNELS)
namespace pome::kernels {

namespace {

constexpr int64_t kGroup = kPanelColumns;                 // columns that share a panel scale
constexpr int64_t kGroupBytes = 64 + kTileRows * kGroup;  // of the panel
constexpr int64_t kGroupBlocks = kGroup / kBlockColumns;
constexpr int kTokens = 12;

// A quad of codes c becomes round(c * a + b) + 128. `a` holds a * 2^(6 + kBits) and `b` the
// constant 16 b + 16 * 128 + 8, both twice in each lane of a row. The product is taken with four
// binary places; that c * a <= 254 keeps all of it inside 16 bits.
template <int kBits>
POME_INLINE_VNNI __m512i requantize(__m512i quad, __m512i a, __m512i b) {
  const __m512i even = _mm512_and_si512(quad, _mm512_set1_epi16(255));
  const __m512i odd = _mm512_srli_epi16(quad, 8);
  const __m512i even_product = _mm512_mulhrs_epi16(_mm512_slli_epi16(even, 13 - kBits), a);
  const __m512i odd_product = _mm512_mulhrs_epi16(_mm512_slli_epi16(odd, 13 - kBits), a);
  const __m512i even_out = _mm512_srli_epi16(_mm512_add_epi16(even_product, b), 4);
  const __m512i odd_out = _mm512_srli_epi16(_mm512_add_epi16(odd_product, b), 4);
  return _mm512_or_si512(even_out, _mm512_slli_epi16(odd_out, 8));
}
// Both 16-bit halves of every lane.
POME_INLINE_VNNI __m512i twice(__m512 v) {
  const __m512i low = _mm512_and_si512(_mm512_cvtps_epi32(v), _mm512_set1_epi32(0xFFFF));
  return _mm512_or_si512(low, _mm512_slli_epi32(low, 16));
}

template <int kBits, PackedScales kScales, bool kTable>
POME_TARGET_VNNI void fill_panel(const PackedView& w, int64_t tile, std::byte* panel) {
  using Reader = TileReader<kBits, kScales>;
  constexpr int kParts = Reader::kParts;
  const PackedLayout& layout = w.layout;
  const std::byte* data = w.tile(tile);
  Reader reader(data + layout.head_bytes);
  constexpr int kWidth = code_width(kBits, kScales, kTable);
  __m512i table = _mm512_setzero_si512();
  if constexpr (kTable) {
    table = table_register(w, data);
  }
  const CodeRange range = code_range(w.format);
  const __m512 low = _mm512_set1_ps(range.low), high = _mm512_set1_ps(range.high);
  const __m512 offset = _mm512_set1_ps(static_cast<float>(w.format.offset));
  for (int64_t first = 0; first < layout.blocks; first += kGroupBlocks) {
    const int blocks = static_cast<int>(std::min<int64_t>(kGroupBlocks, layout.blocks - first));
    __m512 scale[kGroupBlocks][kParts], bias[kGroupBlocks][kParts];
    const std::byte* codes[kGroupBlocks];
    __m512 largest = _mm512_setzero_ps();
    for (int b = 0; b < blocks; ++b) {
      codes[b] = reader.next();
      POME_UNROLL
      for (int part = 0; part < kParts; ++part) {
        scale[b][part] = reader.scale[part];
        bias[b][part] = _mm512_setzero_ps();
        if constexpr (Reader::kBias) bias[b][part] = reader.bias[part];
        largest = _mm512_max_ps(largest,
                                _mm512_abs_ps(_mm512_fmadd_ps(scale[b][part], low, bias[b][part])));
        largest = _mm512_max_ps(
            largest, _mm512_abs_ps(_mm512_fmadd_ps(scale[b][part], high, bias[b][part])));
      }
    }
    const __m512 unit = _mm512_mul_ps(largest, _mm512_set1_ps(1.0f / 127.0f));
    const __mmask16 nonzero = _mm512_cmp_ps_mask(unit, _mm512_set1_ps(1e-36f), _CMP_GT_OQ);
    const __m512 inverse = _mm512_maskz_div_ps(nonzero, _mm512_set1_ps(1.0f), unit);
    __m512 unit_out = _mm512_maskz_mov_ps(nonzero, unit);
    if constexpr (kScales == PackedScales::kRow)
      unit_out = _mm512_mul_ps(unit_out, _mm512_loadu_ps(data));
    _mm512_storeu_ps(panel, unit_out);
    std::byte* to = panel + 64;
    for (int b = 0; b < blocks; ++b) {
      Quads quads;
      Codes<kBits>::load(codes[b], &quads);
      POME_UNROLL
      for (int part = 0; part < kParts; ++part) {
        const __m512 a = _mm512_mul_ps(scale[b][part], inverse);
        const __m512 c = _mm512_fnmadd_ps(offset, a, _mm512_mul_ps(bias[b][part], inverse));
        const __m512i a16 =
            twice(_mm512_mul_ps(a, _mm512_set1_ps(static_cast<float>(1 << (6 + kWidth)))));
        const __m512i b16 =
            twice(_mm512_fmadd_ps(c, _mm512_set1_ps(16), _mm512_set1_ps(16 * 128 + 8)));
        constexpr int kEach = 8 / kParts;
        POME_UNROLL
        for (int t = part * kEach; t < (part + 1) * kEach; ++t) {
          __m512i quad = quads.v[t];
          if constexpr (kTable) quad = _mm512_shuffle_epi8(table, quad);
          _mm512_storeu_si512(to + 64 * t, requantize<kWidth>(quad, a16, b16));
        }
      }
      to += 8 * 64;
    }
    for (; to < panel + kGroupBytes; to += 64) _mm512_storeu_si512(to, _mm512_setzero_si512());
    panel += kGroupBytes;
  }
}

struct FillPanel {
  const PackedView& w;
  int64_t tile;
  std::byte* panel;
  template <int kBits, PackedScales kScales, bool kTable>
  void operator()() const {
    fill_panel<kBits, kScales, kTable>(w, tile, panel);
  }
};

struct PanelProduct {
  const std::byte* panel[2];
  int64_t groups;
  const Activations& x;
  float* y;  // of the first token and row
  int64_t ldy;
  __mmask16 mask[2];
  __m512 bias[2];
};

// M tokens from m0 on times N tiles of the panel.
template <int M, int N>
POME_TARGET_VNNI void multiply_panel(const PanelProduct& p, int64_t m0) {
  alignas(64) float total[M][N][16];
  const int64_t ldx = p.x.columns;
  const int8_t* x = p.x.high + m0 * ldx;
  const float* xs = p.x.scale + m0 * p.groups;
  const int32_t* sum = p.x.sum + m0 * p.groups;
  const std::byte* panel[2] = {p.panel[0], p.panel[1]};
  for (int64_t g = 0; g < p.groups; ++g) {
    __m512i part[M][N];
    POME_UNROLL
    for (int m = 0; m < M; ++m) {
      POME_UNROLL
      for (int n = 0; n < N; ++n) part[m][n] = _mm512_set1_epi32(-128 * sum[m * p.groups + g]);
    }
    // Three tokens are addressed from one pointer.
    constexpr int kPointers = (M + 2) / 3;
    const int8_t* from[kPointers];
    POME_UNROLL
    for (int i = 0; i < kPointers; ++i) from[i] = x + g * kGroup + 3 * i * ldx;
    const std::byte* w0 = panel[0] + 64;
    const std::byte* w1 = panel[N - 1] + 64;
#pragma GCC unroll 2
    for (int t = 0; t < kGroup / 4; ++t) {
      __m512i w[N];
      w[0] = _mm512_loadu_si512(w0 + 64 * t);
      if constexpr (N == 2) w[1] = _mm512_loadu_si512(w1 + 64 * t);
      POME_UNROLL
      for (int m = 0; m < M; ++m) {
        int32_t four;
        __builtin_memcpy(&four, from[m / 3] + m % 3 * ldx + 4 * t, 4);
        const __m512i xs4 = _mm512_set1_epi32(four);
        POME_UNROLL
        for (int n = 0; n < N; ++n) part[m][n] = _mm512_dpbusd_epi32(part[m][n], w[n], xs4);
      }
    }
    POME_UNROLL
    for (int n = 0; n < N; ++n) {
      const __m512 unit = _mm512_loadu_ps(panel[n]);
      POME_UNROLL
      for (int m = 0; m < M; ++m) {
        const __m512 factor = _mm512_mul_ps(unit, _mm512_set1_ps(xs[m * p.groups + g]));
        const __m512 before = g == 0 ? p.bias[n] : _mm512_load_ps(total[m][n]);
        _mm512_store_ps(total[m][n],
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[m][n]), factor, before));
      }
    }
    panel[0] += kGroupBytes;
    panel[1] += kGroupBytes;
  }
  POME_UNROLL
  for (int m = 0; m < M; ++m) {
    POME_UNROLL
    for (int n = 0; n < N; ++n)
      _mm512_mask_storeu_ps(p.y + (m0 + m) * p.ldy + 16 * n, p.mask[n],
                            _mm512_load_ps(total[m][n]));
  }
}

template <int N>
POME_TARGET_VNNI void multiply_tokens(const PanelProduct& p) {
  int64_t m = 0;
  for (; m + kTokens <= p.x.m; m += kTokens) multiply_panel<kTokens, N>(p, m);
  for (; m + 6 <= p.x.m; m += 6) multiply_panel<6, N>(p, m);
  for (; m + 3 <= p.x.m; m += 3) multiply_panel<3, N>(p, m);
  for (; m < p.x.m; ++m) multiply_panel<1, N>(p, m);
}

}  // namespace

POME_TARGET_VNNI void packed_gemm_avx512vnni(const ProductArgs& args) {
  const PackedLayout& layout = args.w.layout;
  const int64_t groups = args.x.columns / kGroup;
  for (int64_t tile = args.tile; tile < args.tile + args.tiles; tile += 2) {
    const int64_t tiles = std::min<int64_t>(2, args.tile + args.tiles - tile);
    std::byte* second = args.scratch + groups * kGroupBytes;
    PanelProduct p{{args.scratch, tiles == 2 ? second : args.scratch},
                   groups,
                   args.x,
                   args.y + tile * kTileRows,
                   args.ldy,
                   {},
                   {}};
    for (int64_t n = 0; n < tiles; ++n) {
      with_format(args.w.format,
                  FillPanel{args.w, tile + n, args.scratch + n * groups * kGroupBytes});
      const int64_t rows = std::min(kTileRows, layout.rows - (tile + n) * kTileRows);
      p.mask[n] = static_cast<__mmask16>((1u << rows) - 1);
      p.bias[n] = args.bias ? _mm512_maskz_loadu_ps(p.mask[n], args.bias + (tile + n) * kTileRows)
                            : _mm512_setzero_ps();
    }
    if (tiles == 2) {
      multiply_tokens<2>(p);
    } else {
      multiply_tokens<1>(p);
    }
  }
}

}  // namespace pome::kernels
#endif
