// AVX2: products of many tokens with packed weights.
//
// A tile at a time becomes a panel of signed bytes: for each 64 columns
//   [f32 scale [16]] [16 quads],  byte = round(w / scale),  |byte| <= 127
// Then 4 tokens times 8 rows at a time are summed. Bytes are multiplied as |w| * (x with the sign
// of w): two such products fit 16 bits. The floats are those of the wider instruction sets, so that
// results are the same, bit for bit.
#include <algorithm>
#include <cstring>

#include "kernels/packed/tile.h"
#include "kernels/packed/unpack_avx2.h"

#if defined(POME_HAVE_AVX2_KERNELS)
namespace pome::kernels {

namespace {

constexpr int64_t kGroup = kPanelColumns;                 // columns that share a panel scale
constexpr int64_t kGroupBytes = 64 + kTileRows * kGroup;  // of the panel
constexpr int kGroupBlocks = kGroup / kBlockColumns;
constexpr int kTokens = 4;

POME_INLINE_AVX2 __m256 magnitude(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
// A quad of codes c becomes round(c * a + b), see gemm_avx512.cc.
template <int kBits>
POME_INLINE_AVX2 __m256i requantize(__m256i quad, __m256i a, __m256i b) {
  const __m256i even = _mm256_and_si256(quad, _mm256_set1_epi16(255));
  const __m256i odd = _mm256_srli_epi16(quad, 8);
  const __m256i even_product = _mm256_mulhrs_epi16(_mm256_slli_epi16(even, 13 - kBits), a);
  const __m256i odd_product = _mm256_mulhrs_epi16(_mm256_slli_epi16(odd, 13 - kBits), a);
  const __m256i even_out = _mm256_srli_epi16(_mm256_add_epi16(even_product, b), 4);
  const __m256i odd_out = _mm256_srli_epi16(_mm256_add_epi16(odd_product, b), 4);
  const __m256i bytes = _mm256_or_si256(even_out, _mm256_slli_epi16(odd_out, 8));
  return _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
}
// Both 16-bit halves of every lane.
POME_INLINE_AVX2 __m256i twice(__m256 v) {
  const __m256i low = _mm256_and_si256(_mm256_cvtps_epi32(v), _mm256_set1_epi32(0xFFFF));
  return _mm256_or_si256(low, _mm256_slli_epi32(low, 16));
}

struct Affine {
  __m256 scale, bias;
};

template <int kBits, PackedScales kScales, bool kTable>
struct HalfFiller {
  using Reader = HalfTileReader<kBits, kScales>;
  static constexpr int kParts = Reader::kParts;
  static constexpr int kWidth = code_width(kBits, kScales, kTable);

  const PackedFormat& format;
  const __m256i table;
  Affine affine[kGroupBlocks][kParts];

  // The scale of the panel for eight rows: the largest |w| that the codes can give, over 127.
  POME_INLINE_AVX2 __m256 unit(int blocks) const {
    const CodeRange range = code_range(format);
    const __m256 low = _mm256_set1_ps(range.low), high = _mm256_set1_ps(range.high);
    __m256 largest = _mm256_setzero_ps();
    for (int b = 0; b < blocks; ++b) {
      POME_UNROLL
      for (int part = 0; part < kParts; ++part) {
        const Affine& w = affine[b][part];
        largest = _mm256_max_ps(largest, magnitude(_mm256_fmadd_ps(w.scale, low, w.bias)));
        largest = _mm256_max_ps(largest, magnitude(_mm256_fmadd_ps(w.scale, high, w.bias)));
      }
    }
    return _mm256_mul_ps(largest, _mm256_set1_ps(1.0f / 127.0f));
  }
  // One block of eight rows.
  POME_INLINE_AVX2 void fill(const std::byte* codes, const Affine (&w)[kParts], __m256 inverse,
                             std::byte* to) const {
    const __m256 offset = _mm256_set1_ps(static_cast<float>(format.offset));
    HalfQuads quads;
    HalfCodes<kBits>::load(codes, &quads);
    POME_UNROLL
    for (int part = 0; part < kParts; ++part) {
      const __m256 a = _mm256_mul_ps(w[part].scale, inverse);
      const __m256 c = _mm256_fnmadd_ps(offset, a, _mm256_mul_ps(w[part].bias, inverse));
      const __m256i a16 =
          twice(_mm256_mul_ps(a, _mm256_set1_ps(static_cast<float>(1 << (6 + kWidth)))));
      const __m256i b16 =
          twice(_mm256_fmadd_ps(c, _mm256_set1_ps(16), _mm256_set1_ps(16 * 128 + 8)));
      constexpr int kEach = 8 / kParts;
      POME_UNROLL
      for (int t = part * kEach; t < (part + 1) * kEach; ++t) {
        __m256i quad = quads.v[t];
        if constexpr (kTable) quad = _mm256_shuffle_epi8(table, quad);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 64 * t),
                            requantize<kWidth>(quad, a16, b16));
      }
    }
  }
};

template <int kBits, PackedScales kScales, bool kTable>
POME_TARGET_AVX2 void fill_panel(const PackedView& w, int64_t tile, std::byte* panel) {
  using Filler = HalfFiller<kBits, kScales, kTable>;
  const PackedLayout& layout = w.layout;
  const std::byte* data = w.tile(tile);
  typename Filler::Reader reader(data + layout.head_bytes);
  uint8_t table[16] = {};
  if constexpr (kTable) table_of(w, data, 0, table);
  Filler filler[kHalves] = {{w.format, twice_16(table), {}}, {w.format, twice_16(table), {}}};
  for (int64_t first = 0; first < layout.blocks; first += kGroupBlocks) {
    const int blocks = static_cast<int>(std::min<int64_t>(kGroupBlocks, layout.blocks - first));
    const std::byte* codes[kGroupBlocks];
    for (int b = 0; b < blocks; ++b) {
      codes[b] = reader.next();
      for (int half = 0; half < kHalves; ++half) {
        POME_UNROLL
        for (int part = 0; part < Filler::kParts; ++part)
          filler[half].affine[b][part] = {reader.scale(half, part), reader.bias(half, part)};
      }
    }
    for (int half = 0; half < kHalves; ++half) {
      const __m256 unit = filler[half].unit(blocks);
      const __m256 nonzero = _mm256_cmp_ps(unit, _mm256_set1_ps(1e-36f), _CMP_GT_OQ);
      const __m256 inverse = _mm256_and_ps(nonzero, _mm256_div_ps(_mm256_set1_ps(1.0f), unit));
      __m256 unit_out = _mm256_and_ps(nonzero, unit);
      if constexpr (kScales == PackedScales::kRow) {
        const auto* scale = reinterpret_cast<const float*>(data) + kHalfRows * half;
        unit_out = _mm256_mul_ps(unit_out, _mm256_loadu_ps(scale));
      }
      _mm256_storeu_ps(reinterpret_cast<float*>(panel) + kHalfRows * half, unit_out);
      for (int b = 0; b < blocks; ++b)
        filler[half].fill(codes[b] + 32 * half, filler[half].affine[b], inverse,
                          panel + 64 + 512 * b + 32 * half);
    }
    std::memset(panel + 64 + 512 * blocks, 0, static_cast<size_t>(512 * (kGroupBlocks - blocks)));
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

// M tokens from m0 on times a tile, both halves of its rows.
template <int M>
POME_TARGET_AVX2 void multiply_panel(const ProductArgs& args, int64_t tile, int64_t m0) {
  const Activations& x = args.x;
  const int64_t groups = x.columns / kGroup, row = tile * kTileRows;
  alignas(32) float total[M][kHalves][kHalfRows];
  __m256i mask[kHalves];
  for (int half = 0; half < kHalves; ++half) {
    mask[half] = lanes_below(args.w.layout.rows - row - kHalfRows * half);
    __m256 bias = _mm256_setzero_ps();
    if (args.bias) bias = _mm256_maskload_ps(args.bias + row + kHalfRows * half, mask[half]);
    for (int m = 0; m < M; ++m) _mm256_store_ps(total[m][half], bias);
  }
  const std::byte* panel = args.scratch;
  for (int64_t g = 0; g < groups; ++g, panel += kGroupBytes) {
    const int8_t* from = x.high + m0 * x.stride + g * kGroup;
    Int32x8 part[M][kHalves];
    POME_UNROLL
    for (int m = 0; m < M; ++m) part[m][0] = part[m][1] = Int32x8{};
#pragma GCC unroll 1
    for (int t = 0; t < kGroup / 4; ++t) {
      __m256i w[kHalves], size[kHalves];
      POME_UNROLL
      for (int half = 0; half < kHalves; ++half) {
        w[half] = half_line(panel + 64 + 32 * half, t);
        size[half] = _mm256_abs_epi8(w[half]);
      }
      POME_UNROLL
      for (int m = 0; m < M; ++m) {
        int32_t bytes;
        __builtin_memcpy(&bytes, from + m * x.stride + 4 * t, 4);
        const __m256i four = _mm256_set1_epi32(bytes);
        POME_UNROLL
        for (int half = 0; half < kHalves; ++half) {
          const __m256i two = _mm256_maddubs_epi16(size[half], _mm256_sign_epi8(four, w[half]));
          part[m][half] = (Int32x8)_mm256_add_epi32((__m256i)part[m][half],
                                                    _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
        }
      }
    }
    POME_UNROLL
    for (int half = 0; half < kHalves; ++half) {
      const __m256 unit = _mm256_loadu_ps(reinterpret_cast<const float*>(panel) + kHalfRows * half);
      POME_UNROLL
      for (int m = 0; m < M; ++m) {
        const __m256 factor = _mm256_mul_ps(unit, _mm256_set1_ps(x.scale[(m0 + m) * groups + g]));
        _mm256_store_ps(total[m][half], _mm256_fmadd_ps(_mm256_cvtepi32_ps((__m256i)part[m][half]),
                                                        factor, _mm256_load_ps(total[m][half])));
      }
    }
  }
  for (int m = 0; m < M; ++m)
    for (int half = 0; half < kHalves; ++half)
      _mm256_maskstore_ps(args.y_at(m0 + m, row + kHalfRows * half), mask[half],
                          _mm256_load_ps(total[m][half]));
}

}  // namespace

void packed_gemm_avx2(const ProductArgs& args) {
  for (int64_t tile = args.tile; tile < args.tile + args.tiles; ++tile) {
    with_format(args.w.format, FillPanel{args.w, tile, args.scratch});
    int64_t m = 0;
    for (; m + kTokens <= args.x.m; m += kTokens) multiply_panel<kTokens>(args, tile, m);
    for (; m < args.x.m; ++m) multiply_panel<1>(args, tile, m);
  }
}

}  // namespace pome::kernels
#endif
