// NEON: reads tiles, four rows at a time. Codes of a block become eight quads (a register each:
// four rows of four columns), scales and biases of the rows a register of floats. One struct per
// kind of plane; the products are written once.
#pragma once

#include <type_traits>

#include "kernels/packed/products.h"
#include "kernels/packed/tile.h"
#include "kernels/simd_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

// Registers for the 16 rows of a tile.
inline constexpr int kRowGroups = 4;

struct Quads {
  uint8x16_t v[8];
};

// Plane `index` of a block; `at` points to the bytes of the first of the four rows.
POME_INLINE_NEON uint8x16_t plane_at(const std::byte* at, int index) {
  return vld1q_u8(reinterpret_cast<const uint8_t*>(at) + 64 * index);
}
// By operators: the intrinsics want literals.
POME_INLINE_NEON uint8x16_t bits_from(uint8x16_t v, int shift) {
  return v >> vdupq_n_u8(static_cast<uint8_t>(shift));
}
// Moves bit `from` of every byte to bit `to`.
POME_INLINE_NEON uint8x16_t moved(uint8x16_t v, int from, int to) {
  return from >= to ? v >> vdupq_n_u8(static_cast<uint8_t>(from - to))
                    : v << vdupq_n_u8(static_cast<uint8_t>(to - from));
}

template <int kBits>
struct Codes;

template <>
struct Codes<8> {
  static POME_INLINE_NEON void load(const std::byte* at, Quads* out) {
    POME_UNROLL
    for (int t = 0; t < 8; ++t) out->v[t] = plane_at(at, t);
  }
};
template <>
struct Codes<4> {
  static POME_INLINE_NEON void load(const std::byte* at, Quads* out) {
    POME_UNROLL
    for (int j = 0; j < 4; ++j) {
      const uint8x16_t plane = plane_at(at, j);
      out->v[j] = plane & vdupq_n_u8(15);
      out->v[j + 4] = bits_from(plane, 4);
    }
  }
};
template <>
struct Codes<2> {
  static POME_INLINE_NEON void load(const std::byte* at, Quads* out) {
    const uint8x16_t mask = vdupq_n_u8(3);
    POME_UNROLL
    for (int j = 0; j < 2; ++j) {
      const uint8x16_t plane = plane_at(at, j);
      out->v[4 * j] = plane & mask;
      out->v[4 * j + 1] = bits_from(plane, 2) & mask;
      out->v[4 * j + 2] = bits_from(plane, 4) & mask;
      out->v[4 * j + 3] = bits_from(plane, 6);
    }
  }
};
// One level.
template <>
struct Codes<16> : Codes<8> {};
// Bit t of `plane` becomes bit `to` of quad t.
POME_INLINE_NEON void add_bit_plane(uint8x16_t plane, int to, Quads* out) {
  const uint8x16_t mask = vdupq_n_u8(static_cast<uint8_t>(1 << to));
  POME_UNROLL
  for (int t = 0; t < 8; ++t) out->v[t] |= moved(plane, t, to) & mask;
}
template <>
struct Codes<3> {
  static POME_INLINE_NEON void load(const std::byte* at, Quads* out) {
    Codes<2>::load(at, out);
    add_bit_plane(plane_at(at, 2), 2, out);
  }
};
template <>
struct Codes<5> {
  static POME_INLINE_NEON void load(const std::byte* at, Quads* out) {
    Codes<4>::load(at, out);
    add_bit_plane(plane_at(at, 4), 4, out);
  }
};
template <>
struct Codes<6> {
  static POME_INLINE_NEON void load(const std::byte* at, Quads* out) {
    Codes<4>::load(at, out);
    const uint8x16_t mask = vdupq_n_u8(0x30);
    POME_UNROLL
    for (int j = 0; j < 2; ++j) {
      const uint8x16_t plane = plane_at(at, 4 + j);
      POME_UNROLL
      for (int n = 0; n < 4; ++n) out->v[4 * j + n] |= moved(plane, 2 * n, 4) & mask;
    }
  }
};

// Four floats from binary16 numbers, from unsigned and from signed bytes.
POME_INLINE_NEON float32x4_t four_halves(const std::byte* at) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(at))));
}
POME_INLINE_NEON uint8x8_t four_bytes(const std::byte* at) {
  uint32_t word;
  std::memcpy(&word, at, 4);
  return vreinterpret_u8_u32(vdup_n_u32(word));
}
POME_INLINE_NEON uint32x4_t four_unsigned(const std::byte* at) {
  return vmovl_u16(vget_low_u16(vmovl_u8(four_bytes(at))));
}
POME_INLINE_NEON int32x4_t four_signed(const std::byte* at) {
  return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(four_bytes(at)))));
}
// 2^(e - 128) where 2^-128 and 2^-127 are subnormal
POME_INLINE_NEON float32x4_t exponent_scales(uint32x4_t e) {
  const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
  const uint32x4_t small = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
  return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), small, normal));
}

// Goes through the blocks of a tile in order. Scales of a block: one for all 32 columns, or (kParts
// = 2) one for each 16. `group` counts fours of rows.
template <int kBits, PackedScales kKind>
struct TileReader {
  static constexpr bool kBias = kKind == PackedScales::kHalfBias ||
                                kKind == PackedScales::kSuperBias ||
                                kKind == PackedScales::kSuperBias16;
  static constexpr int kParts =
      kKind == PackedScales::kSuper16 || kKind == PackedScales::kSuperBias16 ? 2 : 1;
  static constexpr int kSpan = span_blocks(kKind);
  static constexpr int kBlockBytes = 64 * kBits;
  static constexpr bool kHasSuper = kKind >= PackedScales::kSuper;

  const std::byte* at;      // the codes of the next block
  const std::byte* record;  // of the span of the block before
  int number = -1;          // of that block in its span
  float32x4_t d[kRowGroups] = {}, n[kRowGroups] = {};

  POME_INLINE_NEON explicit TileReader(const std::byte* spans) : at(spans), record(spans) {}

  // Goes on to the next block and gives its codes.
  POME_INLINE_NEON const std::byte* next() {
    number = number + 1 == kSpan ? 0 : number + 1;
    if (number == 0) {
      record = at;
      at += record_bytes(kKind);
      if constexpr (kHasSuper) {
        POME_UNROLL
        for (int group = 0; group < kRowGroups; ++group) {
          d[group] = four_halves(record + 8 * group);
          if constexpr (kBias) n[group] = four_halves(record + 32 + 8 * group);
        }
      }
    }
    const std::byte* const codes = at;
    at += kBlockBytes;
    return codes;
  }

  POME_INLINE_NEON float32x4_t scale(int group, int part) const {
    const std::byte* const from = record + 4 * group;
    if constexpr (kKind == PackedScales::kRow) {
      return vdupq_n_f32(1);
    } else if constexpr (kKind == PackedScales::kHalf) {
      return four_halves(record + 32 * number + 8 * group);
    } else if constexpr (kKind == PackedScales::kHalfBias) {
      return four_halves(record + 8 * group);
    } else if constexpr (kKind == PackedScales::kExponent) {
      return exponent_scales(four_unsigned(from + 16 * number));
    } else if constexpr (kKind == PackedScales::kSuper || kKind == PackedScales::kSuper16) {
      const int32x4_t s = four_signed(from + 32 + 16 * (kParts * number + part));
      return vmulq_f32(d[group], vcvtq_f32_s32(s));
    } else if constexpr (kKind == PackedScales::kSuperBias) {
      return vmulq_f32(d[group], vcvtq_f32_u32(four_unsigned(from + 64 + 16 * number)));
    } else {
      return vmulq_f32(d[group], vcvtq_f32_u32(four_nibbles(group, part) & vdupq_n_u32(15)));
    }
  }
  POME_INLINE_NEON float32x4_t bias(int group, int part) const {
    if constexpr (kKind == PackedScales::kHalfBias) {
      return four_halves(record + 32 + 8 * group);
    } else if constexpr (kKind == PackedScales::kSuperBias) {
      const uint32x4_t m = four_unsigned(record + 192 + 16 * number + 4 * group);
      return vmulq_f32(n[group], vcvtq_f32_u32(m));
    } else if constexpr (kKind == PackedScales::kSuperBias16) {
      return vmulq_f32(n[group], vcvtq_f32_u32(vshrq_n_u32(four_nibbles(group, part), 4)));
    } else {
      return vdupq_n_f32(0);
    }
  }

 private:
  POME_INLINE_NEON uint32x4_t four_nibbles(int group, int part) const {
    return four_unsigned(record + 64 + 32 * number + 16 * part + 4 * group);
  }
};

}  // namespace pome::kernels
#endif
