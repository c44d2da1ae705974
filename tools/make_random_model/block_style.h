// How to make random bytes a sensible block of each type: which fields are scales, and how large
// the values are that random codes give.
#pragma once

#include <cstddef>
#include <cstdint>

#include "encoding/encoding.h"

namespace pome::random_model {

struct BlockStyle {
  // Where and how the block's scale is stored.
  enum class Scale : uint8_t { kHalf, kHalfInNibbles, kE8M0, kE4M3 };
  EncodingKind kind;
  Scale scale;
  size_t scale_offset;
  // Types with a minimum: where it is, and its ratio to the scale that makes the mean value zero.
  size_t min_offset = 0;
  float min_ratio = 0;
  // Puts quantised scales in the upper half of their range (as fitted ones are) and equal minima;
  // takes out codes that a type does not use. Null where any bytes do.
  void (*tidy)(uint8_t* block) = nullptr;
};

// Null for plain types.
const BlockStyle* block_style(EncodingKind kind);
// Root mean square of decoded values of random blocks whose scale is 1 (kE4M3: 1 as well).
float code_rms(const BlockStyle& style);
// Tidies a block of random bytes and sets its scale to the value nearest to `scale`, with a random
// sign where the type has no minimum.
void finish_block(const BlockStyle& style, float scale, uint8_t* block);
// Fills `bytes` (a stream that depends on `key` alone).
void random_bytes(uint64_t key, uint8_t* bytes, size_t size);
// A 64-bit mixing function; counter-based generators are mix(key + i * kStride).
uint64_t mix(uint64_t x);
inline constexpr uint64_t kStride = 0x9E3779B97F4A7C15u;

}  // namespace pome::random_model
