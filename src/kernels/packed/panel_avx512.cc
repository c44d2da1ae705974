// AVX-512: fills panels.
#include "kernels/packed/panel_avx512.h"

#include <algorithm>

#include "kernels/packed/tile.h"
#include "kernels/packed/unpack_avx512.h"

#if defined(POME_HAVE_AVX512_KERNELS)
namespace pome::kernels {

namespace {

constexpr int64_t kGroupBlocks = kPanelColumns / kBlockColumns;

// A quad of codes c becomes round(c * a + b) + 128. `a` holds a * 2^(6 + kBits) and `b` the
// constant 16 b + 16 * 128 + 8, both twice in each lane of a row. The product is taken with four
// binary places; that c * a <= 254 keeps all of it inside 16 bits.
template <int kBits>
POME_INLINE_AVX512 __m512i requantize(__m512i quad, __m512i a, __m512i b) {
  const __m512i even = _mm512_and_si512(quad, _mm512_set1_epi16(255));
  const __m512i odd = _mm512_srli_epi16(quad, 8);
  const __m512i even_product = _mm512_mulhrs_epi16(_mm512_slli_epi16(even, 13 - kBits), a);
  const __m512i odd_product = _mm512_mulhrs_epi16(_mm512_slli_epi16(odd, 13 - kBits), a);
  const __m512i even_out = _mm512_srli_epi16(_mm512_add_epi16(even_product, b), 4);
  const __m512i odd_out = _mm512_srli_epi16(_mm512_add_epi16(odd_product, b), 4);
  return _mm512_or_si512(even_out, _mm512_slli_epi16(odd_out, 8));
}
// Both 16-bit halves of every lane.
POME_INLINE_AVX512 __m512i twice(__m512 v) {
  const __m512i low = _mm512_and_si512(_mm512_cvtps_epi32(v), _mm512_set1_epi32(0xFFFF));
  return _mm512_or_si512(low, _mm512_slli_epi32(low, 16));
}

template <int kBits, PackedScales kScales, bool kTable>
POME_TARGET_AVX512 void fill_panel(const PackedView& w, int64_t tile, PanelBytes bytes,
                                   std::byte* panel) {
  using Reader = TileReader<kBits, kScales>;
  constexpr int kParts = Reader::kParts;
  const PackedLayout& layout = w.layout;
  const std::byte* data = w.tile(tile);
  Reader reader;
  reader.begin(data + layout.head_bytes);
  constexpr int kWidth = code_width(kBits, kScales, kTable);
  __m512i table = _mm512_setzero_si512();
  if constexpr (kTable) {
    table = table_register(w, data);
  }
  const __m512i flip = _mm512_set1_epi8(bytes == PanelBytes::kSigned ? -128 : 0);
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
          _mm512_storeu_si512(to + 64 * t,
                              _mm512_xor_si512(requantize<kWidth>(quad, a16, b16), flip));
        }
      }
      to += 8 * 64;
    }
    for (; to < panel + kPanelGroupBytes; to += 64) _mm512_storeu_si512(to, _mm512_setzero_si512());
    panel += kPanelGroupBytes;
  }
}

struct FillPanel {
  const PackedView& w;
  int64_t tile;
  PanelBytes bytes;
  std::byte* panel;
  template <int kBits, PackedScales kScales, bool kTable>
  void operator()() const {
    fill_panel<kBits, kScales, kTable>(w, tile, bytes, panel);
  }
};

}  // namespace

void fill_panel_avx512(const PackedView& w, int64_t tile, PanelBytes bytes, std::byte* panel) {
  with_format(w.format, FillPanel{w, tile, bytes, panel});
}

}  // namespace pome::kernels
#endif
