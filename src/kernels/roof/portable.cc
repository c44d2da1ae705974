// Plain loops: what the compiler makes of them without an instruction set named.
#include <cstring>

#include "kernels/roof/roof.h"

namespace pome::kernels {

uint64_t read_roof_portable(const std::byte* data, int64_t bytes) {
  uint64_t sum[8] = {};
  for (int64_t i = 0; i < bytes; i += 64) {
    uint64_t words[8];
    std::memcpy(words, data + i, sizeof words);
    for (int j = 0; j < 8; ++j) sum[j] += words[j];
  }
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

double int8_roof_portable(int64_t rounds) {
  constexpr int kWidth = 256;
  int8_t x[kWidth], y[kWidth];
  std::memset(x, 1, sizeof x);
  std::memset(y, 1, sizeof y);
  uint32_t sum = 0;
  for (int64_t i = 0; i < rounds; ++i) {
    for (int j = 0; j < kWidth; ++j) sum += static_cast<uint32_t>(x[j] * y[j]);
    // The operands are read anew in every round.
    __asm__ volatile("" : : "r"(x), "r"(y) : "memory");
  }
  return sum;
}

double f32_roof_portable(int64_t rounds) {
  constexpr int kWidth = 64;
  float sum[kWidth] = {};
  float x = 1.0f, y = 1.0f;
  for (int64_t i = 0; i < rounds; ++i) {
    for (int j = 0; j < kWidth; ++j) sum[j] += x * y;
    __asm__ volatile("" : "+m"(x), "+m"(y));
  }
  double total = 0;
  for (const float each : sum) total += static_cast<double>(each);
  return total;
}

}  // namespace pome::kernels
