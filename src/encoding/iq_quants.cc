// The IQ types: IQ1, IQ2 and IQ3 take 8 or 4 weights at once from a fixed grid; IQ4 has fixed
// non-uniform levels. All products but those of IQ4_XS are exact in float32.
#include "encoding/blocks.h"
#include "encoding/decoders.h"
#include "encoding/grids.h"

namespace pome {
namespace {

// `count` coordinates of a point, the j-th negated where bit j of `signs` is set.
template <size_t kCount>
void put_signed(const std::array<int8_t, kCount>& point, unsigned signs, float scale, float* out) {
  for (size_t j = 0; j < kCount; ++j) {
    const float magnitude = scale * static_cast<float>(point[j]);
    out[j] = (signs >> j & 1) != 0 ? -magnitude : magnitude;
  }
}

void put_shifted(const GridPoint8& point, float shift, float scale, float* out) {
  for (size_t j = 0; j < 8; ++j) out[j] = scale * (static_cast<float>(point[j]) + shift);
}

int nibble(const uint8_t* bytes, int index) { return bytes[index / 2] >> (4 * (index % 2)) & 15; }

constexpr float kIq1Shift = 0.125f;

}  // namespace

void decode_iq2_xxs(const std::byte* in, int64_t blocks, float* out) {
  const auto grid = iq2_xxs_grid();
  for_each_block<BlockIQ2_XXS>(in, blocks, out, [&](const BlockIQ2_XXS& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int sub = 0; sub < 8; ++sub, to += 32) {
      uint8_t index[4];
      uint32_t word;
      std::memcpy(index, block.qs + 4 * sub, sizeof index);
      std::memcpy(&word, block.qs + 4 * sub + 2, sizeof word);
      const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
      for (int j = 0; j < 4; ++j) {
        put_signed(grid[index[j]], grid_signs(word >> (7 * j)), scale, to + 8 * j);
      }
    }
  });
}

void decode_iq2_xs(const std::byte* in, int64_t blocks, float* out) {
  const auto grid = iq2_xs_grid();
  for_each_block<BlockIQ2_XS>(in, blocks, out, [&](const BlockIQ2_XS& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int k = 0; k < 32; ++k, to += 8) {
      const float s = static_cast<float>(nibble(block.scales, k / 2));
      put_signed(grid[block.qs[k] & 511], grid_signs(block.qs[k] >> 9), d * (0.5f + s) * 0.25f, to);
    }
  });
}

void decode_iq2_s(const std::byte* in, int64_t blocks, float* out) {
  const auto grid = iq2_s_grid();
  for_each_block<BlockIQ2_S>(in, blocks, out, [&](const BlockIQ2_S& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int k = 0; k < 32; ++k, to += 8) {
      const float s = static_cast<float>(nibble(block.scales, k / 2));
      const unsigned high = block.qh[k / 4] >> (2 * (k % 4)) & 3;
      put_signed(grid[block.qs[k] | high << 8], block.signs[k], d * (0.5f + s) * 0.25f, to);
    }
  });
}

void decode_iq3_xxs(const std::byte* in, int64_t blocks, float* out) {
  const auto grid = iq3_xxs_grid();
  for_each_block<BlockIQ3_XXS>(in, blocks, out, [&](const BlockIQ3_XXS& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int sub = 0; sub < 8; ++sub) {
      uint32_t word;
      std::memcpy(&word, block.signs_and_scales + 4 * sub, sizeof word);
      const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
      for (int j = 0; j < 8; ++j, to += 4) {
        const unsigned signs = grid_signs(word >> (7 * (j / 2)));
        put_signed(grid[block.qs[8 * sub + j]], signs >> (4 * (j % 2)), scale, to);
      }
    }
  });
}

void decode_iq3_s(const std::byte* in, int64_t blocks, float* out) {
  const auto grid = iq3_s_grid();
  for_each_block<BlockIQ3_S>(in, blocks, out, [&](const BlockIQ3_S& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int k = 0; k < 64; ++k, to += 4) {
      const float scale = d * static_cast<float>(1 + 2 * nibble(block.scales, k / 8));
      const unsigned high = block.qh[k / 8] >> (k % 8) & 1;
      put_signed(grid[block.qs[k] | high << 8], block.signs[k / 2] >> (4 * (k % 2)), scale, to);
    }
  });
}

void decode_iq1_s(const std::byte* in, int64_t blocks, float* out) {
  const auto grid = iq1_grid();
  for_each_block<BlockIQ1_S>(in, blocks, out, [&](const BlockIQ1_S& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int k = 0; k < 32; ++k, to += 8) {
      const unsigned word = block.qh[k / 4];
      const float scale = d * static_cast<float>(2 * (word >> 12 & 7) + 1);
      const float shift = (word & 0x8000) != 0 ? -kIq1Shift : kIq1Shift;
      put_shifted(grid[block.qs[k] | (word >> (3 * (k % 4)) & 7) << 8], shift, scale, to);
    }
  });
}

void decode_iq1_m(const std::byte* in, int64_t blocks, float* out) {
  const auto grid = iq1_grid();
  for_each_block<BlockIQ1_M>(in, blocks, out, [&](const BlockIQ1_M& block, float* to) {
    unsigned bits = 0;
    for (int i = 0; i < 4; ++i) bits |= static_cast<unsigned>(block.scales[i] >> 12) << (4 * i);
    const float d = f16_to_f32(static_cast<uint16_t>(bits));
    for (int k = 0; k < 32; ++k, to += 8) {
      const int sub = k / 2;
      const int s = block.scales[sub / 4] >> (3 * (sub % 4)) & 7;
      const float scale = d * static_cast<float>(2 * s + 1);
      const unsigned high = static_cast<unsigned>(nibble(block.qh, k));
      const float shift = (high & 8) != 0 ? -kIq1Shift : kIq1Shift;
      put_shifted(grid[block.qs[k] | (high & 7) << 8], shift, scale, to);
    }
  });
}

void decode_iq4_nl(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockIQ4_NL>(in, blocks, out, [](const BlockIQ4_NL& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int j = 0; j < 16; ++j) {
      to[j] = d * static_cast<float>(kIq4Levels[block.qs[j] & 15]);
      to[j + 16] = d * static_cast<float>(kIq4Levels[block.qs[j] >> 4]);
    }
  });
}

void decode_iq4_xs(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockIQ4_XS>(in, blocks, out, [](const BlockIQ4_XS& block, float* to) {
    const float d = f16_to_f32(block.d);
    for (int sub = 0; sub < 8; ++sub, to += 32) {
      const int s = nibble(block.scales_l, sub) | (block.scales_h >> (2 * sub) & 3) << 4;
      const float scale = d * static_cast<float>(s - 32);
      const uint8_t* qs = block.qs + 16 * sub;
      for (int j = 0; j < 16; ++j) {
        to[j] = scale * static_cast<float>(kIq4Levels[qs[j] & 15]);
        to[j + 16] = scale * static_cast<float>(kIq4Levels[qs[j] >> 4]);
      }
    }
  });
}

}  // namespace pome
