#include "kernels/packed/panel_neon.h"

#include <algorithm>

#include "kernels/packed/unpack_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

namespace {

constexpr int64_t kGroupBlocks = kPanelColumns / kBlockColumns;
constexpr int64_t kTilesAtOnce = 2;    // what the scratch holds
constexpr int64_t kTokensAtOnce = 24;  // stay in the first-level cache between two tiles

// A quad of codes c becomes round(c * a + b). `a` holds a * 2^(6 + kBits) and `b` the constant 16 b
// + 8, both twice in each lane of a row. The product is taken with four binary places; that c * a
// <= 254 keeps all of it inside 16 bits.
template <int kBits>
POME_INLINE_NEON int8x16_t requantize(uint8x16_t quad, int16x8_t a, int16x8_t b) {
  const uint16x8_t both = vreinterpretq_u16_u8(quad);
  const uint16x8_t even = vandq_u16(both, vdupq_n_u16(255)), odd = vshrq_n_u16(both, 8);
  const int16x8_t even_product =
      vqrdmulhq_s16(vreinterpretq_s16_u16(vshlq_n_u16(even, 13 - kBits)), a);
  const int16x8_t odd_product =
      vqrdmulhq_s16(vreinterpretq_s16_u16(vshlq_n_u16(odd, 13 - kBits)), a);
  const int16x8_t even_out = vshrq_n_s16(vaddq_s16(even_product, b), 4);
  const int16x8_t odd_out = vshrq_n_s16(vaddq_s16(odd_product, b), 4);
  return vreinterpretq_s8_s16(vsliq_n_s16(even_out, odd_out, 8));
}
// Both 16-bit halves of every lane.
POME_INLINE_NEON int16x8_t twice(float32x4_t v) {
  const int32x4_t whole = vcvtnq_s32_f32(v);
  return vreinterpretq_s16_s32(vsliq_n_s32(whole, whole, 16));
}

struct Affine {
  float32x4_t scale, bias;
};

// The eight quads of four rows: 32 columns, `to` being where the first of them goes.
POME_INLINE_NEON void store_quads(const int8x16_t (&quads)[8], PanelOrder order, int group,
                                  int8_t* to) {
  if (order == PanelOrder::kQuads) {
    POME_UNROLL
    for (int t = 0; t < 8; ++t) vst1q_s8(to + 64 * t + 16 * group, quads[t]);
    return;
  }
  POME_UNROLL
  for (int c = 0; c < 4; ++c) {
    const int32x4_t first = vreinterpretq_s32_s8(quads[2 * c]);
    const int32x4_t second = vreinterpretq_s32_s8(quads[2 * c + 1]);
    int8_t* const at = to + 128 * c + 32 * group;
    vst1q_s8(at, vreinterpretq_s8_s32(vzip1q_s32(first, second)));
    vst1q_s8(at + 16, vreinterpretq_s8_s32(vzip2q_s32(first, second)));
  }
}

template <int kBits, PackedScales kScales, bool kTable>
struct PanelFiller {
  using Reader = TileReader<kBits, kScales>;
  static constexpr int kParts = Reader::kParts;
  // Bits of what is multiplied: the codes, or the bytes that the table gives for them.
  static constexpr int kWidth = code_width(kBits, kScales, kTable);

  const PackedView& w;
  PanelOrder order;
  uint8x16_t table;

  // Codes of a block of four rows.
  POME_INLINE_NEON void fill_block(const std::byte* codes, int group,
                                   const Affine (&affine)[kParts], float32x4_t inverse,
                                   int8_t* to) const {
    Quads quads;
    Codes<kBits>::load(codes + 16 * group, &quads);
    const float32x4_t offset = vdupq_n_f32(static_cast<float>(w.format.offset));
    int8x16_t out[8];
    POME_UNROLL
    for (int part = 0; part < kParts; ++part) {
      const float32x4_t a = vmulq_f32(affine[part].scale, inverse);
      const float32x4_t c = vfmsq_f32(vmulq_f32(affine[part].bias, inverse), offset, a);
      const int16x8_t a16 = twice(vmulq_f32(a, vdupq_n_f32(static_cast<float>(1 << (6 + kWidth)))));
      const int16x8_t b16 = twice(vfmaq_f32(vdupq_n_f32(8), c, vdupq_n_f32(16)));
      constexpr int kEach = 8 / kParts;
      POME_UNROLL
      for (int t = part * kEach; t < (part + 1) * kEach; ++t) {
        uint8x16_t quad = quads.v[t];
        if constexpr (kTable) quad = vqtbl1q_u8(table, quad);
        out[t] = requantize<kWidth>(quad, a16, b16);
      }
    }
    store_quads(out, order, group, to);
  }

  void fill(const std::byte* tile, std::byte* panel) const {
    Reader reader(tile + w.layout.head_bytes);
    const CodeRange range = code_range(w.format);
    for (int64_t first = 0; first < w.layout.blocks; first += kGroupBlocks) {
      const int blocks = static_cast<int>(std::min(kGroupBlocks, w.layout.blocks - first));
      Affine affine[kGroupBlocks][kRowGroups][kParts];
      const std::byte* codes[kGroupBlocks];
      float32x4_t largest[kRowGroups] = {};
      for (int b = 0; b < blocks; ++b) {
        codes[b] = reader.next();
        POME_UNROLL
        for (int group = 0; group < kRowGroups; ++group) {
          POME_UNROLL
          for (int part = 0; part < kParts; ++part) {
            const Affine each{reader.scale(group, part), reader.bias(group, part)};
            affine[b][group][part] = each;
            for (const float end : {range.low, range.high})
              largest[group] =
                  vmaxq_f32(largest[group], vabsq_f32(vfmaq_n_f32(each.bias, each.scale, end)));
          }
        }
      }
      auto* const to = reinterpret_cast<int8_t*>(panel + 64);
      for (int group = 0; group < kRowGroups; ++group) {
        const float32x4_t unit = vmulq_n_f32(largest[group], 1.0f / 127.0f);
        const uint32x4_t nonzero = vcgtq_f32(unit, vdupq_n_f32(1e-36f));
        const float32x4_t none = vdupq_n_f32(0);
        const float32x4_t inverse = vbslq_f32(nonzero, vdivq_f32(vdupq_n_f32(1), unit), none);
        float32x4_t unit_out = vbslq_f32(nonzero, unit, none);
        if constexpr (kScales == PackedScales::kRow)
          unit_out =
              vmulq_f32(unit_out, vld1q_f32(reinterpret_cast<const float*>(tile) + 4 * group));
        vst1q_f32(reinterpret_cast<float*>(panel) + 4 * group, unit_out);
        for (int b = 0; b < blocks; ++b)
          fill_block(codes[b], group, affine[b][group], inverse, to + 512 * b);
      }
      std::fill(to + 512 * blocks, to + 512 * kGroupBlocks, int8_t{0});
      panel += kPanelGroupBytes;
    }
  }
};

struct FillPanel {
  const PackedView& w;
  int64_t tile;
  PanelOrder order;
  std::byte* panel;
  template <int kBits, PackedScales kScales, bool kTable>
  void operator()() const {
    const std::byte* const data = w.tile(tile);
    uint8_t table[16];
    table_of(w, data, 0, table);
    PanelFiller<kBits, kScales, kTable>{w, order, vld1q_u8(table)}.fill(data, panel);
  }
};

}  // namespace

void multiply_tiles_neon(const ProductArgs& args, PanelOrder order, PanelMultiply multiply) {
  const int64_t groups = args.x.columns / kPanelColumns, end = args.tile + args.tiles;
  for (int64_t tile = args.tile; tile < end; tile += kTilesAtOnce) {
    const int64_t tiles = std::min(kTilesAtOnce, end - tile);
    const auto product = [&](int64_t t) {
      const int64_t row = (tile + t) * kTileRows;
      PanelProduct p{args.scratch + t * groups * kPanelGroupBytes,
                     groups,
                     args.x,
                     args.y_at(0, row),
                     args.ldy,
                     std::min(kTileRows, args.w.layout.rows - row),
                     {}};
      if (args.bias) std::copy(args.bias + row, args.bias + row + p.rows, p.bias);
      return p;
    };
    const PanelProduct products[kTilesAtOnce] = {product(0), product(tiles - 1)};
    for (int64_t t = 0; t < tiles; ++t)
      with_format(args.w.format,
                  FillPanel{args.w, tile + t, order, args.scratch + t * groups * kPanelGroupBytes});
    for (int64_t m = 0; m < args.x.m; m += kTokensAtOnce)
      for (int64_t t = 0; t < tiles; ++t)
        multiply(products[t], m, std::min(m + kTokensAtOnce, args.x.m));
  }
}

}  // namespace pome::kernels
#endif
