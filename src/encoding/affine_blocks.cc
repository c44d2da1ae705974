#include "encoding/affine_blocks.h"

#include <cstring>

#include "base/status.h"
#include "encoding/blocks.h"
#include "tensor/half.h"

namespace pome {
namespace {

void split(const BlockQ4_1& block, uint8_t* codes, float* scales, float* minima) {
  const auto code = [&](int i) { return i < 16 ? block.qs[i] & 15 : block.qs[i - 16] >> 4; };
  for (int i = 0; i < 16; ++i) codes[i] = static_cast<uint8_t>(code(2 * i) | code(2 * i + 1) << 4);
  *scales = f16_to_f32(block.d);
  *minima = f16_to_f32(block.m);
}

void split(const BlockQ4_K& block, uint8_t* codes, float* scales, float* minima) {
  const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
  uint8_t scale[8], min[8];
  unpack_k_scales(block.scales, scale, min);
  for (int sub = 0; sub < 8; ++sub) {
    const uint8_t* qs = block.qs + 32 * (sub / 2);
    const int shift = 4 * (sub % 2);
    for (int i = 0; i < 16; ++i)
      codes[16 * sub + i] =
          static_cast<uint8_t>((qs[2 * i] >> shift & 15) | (qs[2 * i + 1] >> shift & 15) << 4);
    scales[sub] = d * static_cast<float>(scale[sub]);
    minima[sub] = -(dmin * static_cast<float>(min[sub]));
  }
}

template <typename Block>
void split_all(const std::byte* in, int64_t blocks, uint8_t* codes, float* scales, float* minima) {
  constexpr int64_t kGroups = Block::kElements / kAffineGroup;
  for (int64_t i = 0; i < blocks; ++i) {
    Block block;
    std::memcpy(&block, in + i * static_cast<int64_t>(sizeof block), sizeof block);
    split(block, codes + i * Block::kElements / 2, scales + i * kGroups, minima + i * kGroups);
  }
}

}  // namespace

bool is_affine4(EncodingKind kind) {
  return kind == EncodingKind::kQ4_1 || kind == EncodingKind::kQ4_K;
}

void split_affine4(EncodingKind kind, const std::byte* in, int64_t blocks, uint8_t* codes,
                   float* scales, float* minima) {
  POME_CHECK(is_affine4(kind));
  if (kind == EncodingKind::kQ4_1)
    split_all<BlockQ4_1>(in, blocks, codes, scales, minima);
  else
    split_all<BlockQ4_K>(in, blocks, codes, scales, minima);
}

}  // namespace pome
