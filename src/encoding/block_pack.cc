#include "encoding/block_pack.h"

#include <algorithm>
#include <cstring>

#include "encoding/blocks.h"

namespace pome {

namespace {

template <typename Block>
void store(const Block& block, std::byte* out) {
  std::memcpy(out, &block, sizeof block);
}

void pack_nibbles(const uint8_t* codes, uint8_t (&qs)[16]) {
  for (int j = 0; j < 16; ++j)
    qs[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

void pack_fifth_bits(const uint8_t* codes, uint8_t (&qh)[4]) {
  for (int byte = 0; byte < 4; ++byte) {
    int bits = 0;
    for (int bit = 0; bit < 8; ++bit) bits |= (codes[8 * byte + bit] >> 4 & 1) << bit;
    qh[byte] = static_cast<uint8_t>(bits);
  }
}

// Two bits of each code in the two-bit order.
void pack_pairs(const uint8_t* codes, uint8_t (&qs)[64]) {
  for (int h = 0; h < 2; ++h)
    for (int l = 0; l < 32; l += 8) {  // eight bytes at a time
      uint64_t bits = 0;
      for (int e = 0; e < 4; ++e) {
        uint64_t part;
        std::memcpy(&part, codes + 128 * h + 32 * e + l, 8);
        bits |= (part & 0x0303030303030303u) << (2 * e);
      }
      std::memcpy(qs + 32 * h + l, &bits, 8);
    }
}

void pack_k_scales(const BlockCodes& b, uint8_t (&packed)[12]) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>((b.scales[j] & 63) | (b.scales[j + 4] >> 4 & 3) << 6);
    packed[j + 4] = static_cast<uint8_t>((b.mins[j] & 63) | (b.mins[j + 4] >> 4 & 3) << 6);
    packed[j + 8] = static_cast<uint8_t>((b.scales[j + 4] & 15) | (b.mins[j + 4] & 15) << 4);
  }
}

// Low nibbles of Q4_K and Q5_K: 64 weights per 32 bytes.
void pack_halves(const uint8_t* codes, uint8_t (&qs)[128]) {
  for (int c = 0; c < 4; ++c)
    for (int l = 0; l < 32; ++l) {
      const uint8_t* from = codes + 64 * c + l;
      qs[32 * c + l] = static_cast<uint8_t>((from[0] & 15) | (from[32] & 15) << 4);
    }
}

void pack_q2_k(const BlockCodes& b, std::byte* out) {
  BlockQ2_K block;
  block.d = b.d, block.dmin = b.dmin;
  for (int j = 0; j < 16; ++j)
    block.scales[j] = static_cast<uint8_t>((b.scales[j] & 15) | (b.mins[j] & 15) << 4);
  pack_pairs(b.codes, block.qs);
  store(block, out);
}

void pack_q3_k(const BlockCodes& b, std::byte* out) {
  BlockQ3_K block{};
  block.d = b.d;
  pack_pairs(b.codes, block.qs);
  for (int l = 0; l < 32; l += 8) {  // eight bytes at a time
    uint64_t bits = 0;
    for (int e = 0; e < 8; ++e) {
      uint64_t codes;
      std::memcpy(&codes, b.codes + 32 * e + l, 8);
      bits |= (codes >> 2 & 0x0101010101010101u) << e;
    }
    std::memcpy(block.hmask + l, &bits, 8);
  }
  for (int j = 0; j < 16; ++j) {
    const int scale = b.scales[j] + 32;
    block.scales[j % 8] |= static_cast<uint8_t>((scale & 15) << (j < 8 ? 0 : 4));
    block.scales[8 + j % 4] |= static_cast<uint8_t>((scale >> 4 & 3) << (2 * (j / 4)));
  }
  store(block, out);
}

void pack_q4_k(const BlockCodes& b, std::byte* out) {
  BlockQ4_K block;
  block.d = b.d, block.dmin = b.dmin;
  pack_k_scales(b, block.scales);
  pack_halves(b.codes, block.qs);
  store(block, out);
}

void pack_q5_k(const BlockCodes& b, std::byte* out) {
  BlockQ5_K block{};
  block.d = b.d, block.dmin = b.dmin;
  pack_k_scales(b, block.scales);
  pack_halves(b.codes, block.qs);
  for (int e = 0; e < 256; ++e)
    block.qh[e % 32] |= static_cast<uint8_t>((b.codes[e] >> 4 & 1) << (e / 32));
  store(block, out);
}

void pack_q6_k(const BlockCodes& b, std::byte* out) {
  BlockQ6_K block{};
  block.d = b.d;
  for (int j = 0; j < 16; ++j) block.scales[j] = static_cast<int8_t>(b.scales[j]);
  for (int h = 0; h < 2; ++h)
    for (int t = 0; t < 4; ++t)
      for (int l = 0; l < 32; ++l) {
        const uint8_t code = b.codes[128 * h + 32 * t + l];
        block.ql[64 * h + 32 * (t % 2) + l] |= static_cast<uint8_t>((code & 15) << (t < 2 ? 0 : 4));
        block.qh[32 * h + l] |= static_cast<uint8_t>((code >> 4 & 3) << (2 * t));
      }
  store(block, out);
}

void pack_iq4_xs(const BlockCodes& b, std::byte* out) {
  BlockIQ4_XS block{};
  block.d = b.d;
  int high = 0;
  for (int j = 0; j < 8; ++j) {
    const int scale = b.scales[j] + 32;
    block.scales_l[j / 2] |= static_cast<uint8_t>((scale & 15) << (4 * (j % 2)));
    high |= (scale >> 4 & 3) << (2 * j);
    uint8_t nibbles[16];
    pack_nibbles(b.codes + 32 * j, nibbles);
    std::memcpy(block.qs + 16 * j, nibbles, 16);
  }
  block.scales_h = static_cast<uint16_t>(high);
  store(block, out);
}

template <typename Block>
void pack_scale_and_nibbles(const BlockCodes& b, std::byte* out) {
  Block block{};
  block.d = b.d;
  if constexpr (requires { block.m; }) block.m = b.dmin;
  if constexpr (requires { block.qh; }) pack_fifth_bits(b.codes, block.qh);
  pack_nibbles(b.codes, block.qs);
  store(block, out);
}

void pack_q8_0(const BlockCodes& b, std::byte* out) {
  BlockQ8_0 block;
  block.d = b.d;
  for (int e = 0; e < 32; ++e) block.qs[e] = static_cast<int8_t>(b.codes[e] - 128);
  store(block, out);
}

void pack_mxfp4(const BlockCodes& b, std::byte* out) {
  BlockMXFP4 block;
  block.e = static_cast<uint8_t>(b.d);
  pack_nibbles(b.codes, block.qs);
  store(block, out);
}

using Packer = void (*)(const BlockCodes&, std::byte*);
Packer packer_of(EncodingKind kind) {
  switch (kind) {
    case EncodingKind::kQ4_0:
      return pack_scale_and_nibbles<BlockQ4_0>;
    case EncodingKind::kQ4_1:
      return pack_scale_and_nibbles<BlockQ4_1>;
    case EncodingKind::kQ5_0:
      return pack_scale_and_nibbles<BlockQ5_0>;
    case EncodingKind::kQ5_1:
      return pack_scale_and_nibbles<BlockQ5_1>;
    case EncodingKind::kIQ4_NL:
      return pack_scale_and_nibbles<BlockIQ4_NL>;
    case EncodingKind::kQ8_0:
      return pack_q8_0;
    case EncodingKind::kQ2_K:
      return pack_q2_k;
    case EncodingKind::kQ3_K:
      return pack_q3_k;
    case EncodingKind::kQ4_K:
      return pack_q4_k;
    case EncodingKind::kQ5_K:
      return pack_q5_k;
    case EncodingKind::kQ6_K:
      return pack_q6_k;
    case EncodingKind::kIQ4_XS:
      return pack_iq4_xs;
    case EncodingKind::kMXFP4:
      return pack_mxfp4;
    default:
      return nullptr;
  }
}

}  // namespace

bool can_pack(EncodingKind kind) { return packer_of(kind) != nullptr; }

void pack_block(EncodingKind kind, const BlockCodes& block, std::byte* out) {
  packer_of(kind)(block, out);
}

}  // namespace pome
