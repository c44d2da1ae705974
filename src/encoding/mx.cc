// Four-bit floats with an eight-bit float scale: MXFP4 (32 weights, power of two) and NVFP4 (16
// weights, E4M3). Every product is exact.
#include "encoding/blocks.h"
#include "encoding/decoders.h"

namespace pome {

void decode_mxfp4(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockMXFP4>(in, blocks, out, [](const BlockMXFP4& block, float* to) {
    const float scale = e8m0_half(block.e);
    for (int j = 0; j < 16; ++j) {
      to[j] = scale * static_cast<float>(kFp4Doubled[block.qs[j] & 15]);
      to[j + 16] = scale * static_cast<float>(kFp4Doubled[block.qs[j] >> 4]);
    }
  });
}

void decode_nvfp4(const std::byte* in, int64_t blocks, float* out) {
  for_each_block<BlockNVFP4>(in, blocks, out, [](const BlockNVFP4& block, float* to) {
    for (int sub = 0; sub < 4; ++sub, to += 16) {
      const float scale = ue4m3_half(block.scales[sub]);
      const uint8_t* qs = block.qs + 8 * sub;
      for (int j = 0; j < 8; ++j) {
        to[j] = scale * static_cast<float>(kFp4Doubled[qs[j] & 15]);
        to[j + 8] = scale * static_cast<float>(kFp4Doubled[qs[j] >> 4]);
      }
    }
  });
}

}  // namespace pome
