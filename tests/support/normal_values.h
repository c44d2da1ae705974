// Normally distributed numbers, the same in every run.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace pome::test {

inline std::vector<float> normal_values(uint32_t seed, int64_t count, float size) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, size);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& value : out) value = normal(random);
  return out;
}

}  // namespace pome::test
