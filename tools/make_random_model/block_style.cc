#include "block_style.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "encoding/blocks.h"
#include "tensor/half.h"

namespace pome::random_model {
namespace {

void tidy_q2_k(uint8_t* block) {
  for (int i = 0; i < 16; ++i) {
    const int scale = 8 | (block[i] & 7);
    block[i] = static_cast<uint8_t>(scale | scale << 4);
  }
}
void tidy_q3_k(uint8_t* block) { std::fill_n(block + 96 + 8, 4, uint8_t{0xFF}); }
// Six-bit scales of 32 and more, minima equal to them.
void tidy_q4_k(uint8_t* block) {
  uint8_t* packed = block + offsetof(BlockQ4_K, scales);
  for (int j = 0; j < 4; ++j) {
    const int first = 32 | (packed[j] & 31), second = 32 | (packed[j + 8] & 31);
    packed[j] = packed[j + 4] = static_cast<uint8_t>(first | (second >> 4) << 6);
    packed[j + 8] = static_cast<uint8_t>((second & 15) | (second & 15) << 4);
  }
}
void tidy_q6_k(uint8_t* block) {
  uint8_t* scales = block + offsetof(BlockQ6_K, scales);
  for (int i = 0; i < 16; ++i) scales[i] = static_cast<uint8_t>(64 | (scales[i] & 63));
}
// Two-bit codes 0, 1, 2: a 3 becomes a 1, so that the mean stays at 1, which decodes to 0.
void tidy_three_levels(uint8_t* codes, int count) {
  for (int i = 0; i < count; ++i) {
    const int threes = codes[i] & codes[i] >> 1 & 0x55;
    codes[i] = static_cast<uint8_t>(codes[i] & ~(threes << 1));
  }
}
void tidy_tq2_0(uint8_t* block) { tidy_three_levels(block, 64); }
void tidy_q2_0(uint8_t* block) { tidy_three_levels(block + 2, 16); }

using Scale = BlockStyle::Scale;
using K = EncodingKind;
constexpr BlockStyle kStyles[] = {
    {K::kQ4_0, Scale::kHalf, 0},
    {K::kQ4_1, Scale::kHalf, 0, 2, -7.5f},
    {K::kQ5_0, Scale::kHalf, 0},
    {K::kQ5_1, Scale::kHalf, 0, 2, -15.5f},
    {K::kQ8_0, Scale::kHalf, 0},
    {K::kQ2_K, Scale::kHalf, 80, 82, 1.5f, tidy_q2_k},
    {K::kQ3_K, Scale::kHalf, 108, 0, 0, tidy_q3_k},
    {K::kQ4_K, Scale::kHalf, 0, 2, 7.5f, tidy_q4_k},
    {K::kQ5_K, Scale::kHalf, 0, 2, 15.5f, tidy_q4_k},
    {K::kQ6_K, Scale::kHalf, 208, 0, 0, tidy_q6_k},
    {K::kIQ2_XXS, Scale::kHalf, 0},
    {K::kIQ2_XS, Scale::kHalf, 0},
    {K::kIQ2_S, Scale::kHalf, 0},
    {K::kIQ3_XXS, Scale::kHalf, 0},
    {K::kIQ3_S, Scale::kHalf, 0},
    {K::kIQ1_S, Scale::kHalf, 0},
    {K::kIQ1_M, Scale::kHalfInNibbles, 48},
    {K::kIQ4_NL, Scale::kHalf, 0},
    {K::kIQ4_XS, Scale::kHalf, 0},
    {K::kTQ1_0, Scale::kHalf, 52},
    {K::kTQ2_0, Scale::kHalf, 64, 0, 0, tidy_tq2_0},
    {K::kMXFP4, Scale::kE8M0, 0},
    {K::kNVFP4, Scale::kE4M3, 0},
    {K::kQ1_0, Scale::kHalf, 0},
    {K::kQ2_0, Scale::kHalf, 0, 0, 0, tidy_q2_0},
};
static_assert(offsetof(BlockQ5_K, scales) == offsetof(BlockQ4_K, scales));

void put_half(uint8_t* block, size_t offset, float value) {
  const uint16_t bits = f32_to_f16(std::clamp(value, -65504.0f, 65504.0f));
  std::memcpy(block + offset, &bits, sizeof bits);
}

uint8_t nearest_e4m3(float scale) {
  uint8_t best = 0;
  for (int step = 64; step > 0; step /= 2) {  // values ascend with the code up to 0x7E
    const int code = best + step;
    if (code < 0x7F && 2 * ue4m3_half(static_cast<uint8_t>(code)) <= scale) {
      best = static_cast<uint8_t>(code);
    }
  }
  const float below = 2 * ue4m3_half(best);
  const float above = best < 0x7E ? 2 * ue4m3_half(static_cast<uint8_t>(best + 1)) : below;
  return static_cast<uint8_t>(above - scale < scale - below ? best + 1 : best);
}

}  // namespace

uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

void random_bytes(uint64_t key, uint8_t* bytes, size_t size) {
  for (size_t i = 0; i < size; i += 8, key += kStride) {
    const uint64_t word = mix(key);
    std::memcpy(bytes + i, &word, std::min<size_t>(8, size - i));
  }
}

const BlockStyle* block_style(EncodingKind kind) {
  for (const BlockStyle& style : kStyles) {
    if (style.kind == kind) return &style;
  }
  return nullptr;
}

void finish_block(const BlockStyle& style, float scale, uint8_t* block) {
  if (style.tidy != nullptr) style.tidy(block);
  switch (style.scale) {
    case Scale::kHalf:
      if (style.min_ratio != 0) {
        put_half(block, style.min_offset, scale * style.min_ratio);
      } else if (block[style.scale_offset + 1] >= 128) {
        // The mean of codes such as -8..7 is not zero: a random sign makes that of the values so.
        scale = -scale;
      }
      put_half(block, style.scale_offset, scale);
      break;
    case Scale::kHalfInNibbles: {
      const uint16_t bits = f32_to_f16(scale);
      for (int i = 0; i < 4; ++i) {
        uint8_t& high = block[style.scale_offset + static_cast<size_t>(2 * i + 1)];
        high = static_cast<uint8_t>((high & 15) | (bits >> (4 * i) & 15) << 4);
      }
      break;
    }
    case Scale::kE8M0:
      // The decoder's tables hold doubled values and the scale's half: 128 stands for 1.
      block[style.scale_offset] = static_cast<uint8_t>(
          std::clamp(128 + static_cast<int>(std::lround(std::log2(scale))), 2, 254));
      break;
    case Scale::kE4M3:
      std::fill_n(block + style.scale_offset, 4, nearest_e4m3(scale));
      break;
  }
}

float code_rms(const BlockStyle& style) {
  constexpr int kBlocks = 512;
  const EncodingTraits& type = traits(style.kind);
  const size_t size = static_cast<size_t>(type.block_bytes);
  std::vector<uint8_t> bytes(kBlocks * size);
  random_bytes(0, bytes.data(), bytes.size());
  for (size_t i = 0; i < kBlocks; ++i) finish_block(style, 1.0f, bytes.data() + i * size);
  std::vector<float> values(static_cast<size_t>(kBlocks * type.block_elements));
  type.decode(reinterpret_cast<const std::byte*>(bytes.data()), kBlocks, values.data());
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return static_cast<float>(std::sqrt(sum / static_cast<double>(values.size())));
}

}  // namespace pome::random_model
