// Weights and second moments of activations as tests of rounding need them.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "encoding/encoding.h"
#include "quantize/statistics.h"
#include "support/normal_values.h"

namespace pome::test {

// Blocks that can be fitted (quantize/block_fit.h).
inline constexpr EncodingKind kFittedKinds[] = {
    EncodingKind::kQ4_0, EncodingKind::kQ4_1, EncodingKind::kQ5_0,   EncodingKind::kQ5_1,
    EncodingKind::kQ8_0, EncodingKind::kQ2_K, EncodingKind::kQ3_K,   EncodingKind::kQ4_K,
    EncodingKind::kQ5_K, EncodingKind::kQ6_K, EncodingKind::kIQ4_NL, EncodingKind::kIQ4_XS,
    EncodingKind::kMXFP4};

inline std::vector<float> normal_weights(uint32_t seed, int64_t count, float size = 0.02f) {
  return normal_values(seed, count, size);
}

// Of columns of different size that share a few directions.
inline MomentsPtr directed_moments(int64_t columns) {
  auto out = std::make_shared<Moments>();
  out->columns = columns;
  out->tokens = 8 * columns;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> directions(24, std::vector<float>(static_cast<size_t>(columns)));
  for (auto& direction : directions)
    for (float& value : direction) value = normal(random);
  for (size_t i = 0; i < static_cast<size_t>(columns); ++i)
    for (size_t j = 0; j < static_cast<size_t>(columns); ++j) {
      float sum = i == j ? 0.5f : 0.0f;
      for (size_t k = 0; k < directions.size(); ++k)
        sum += directions[k][i] * directions[k][j] / static_cast<float>(1 + k);
      out->second.push_back(sum * (i % 9 == 2 ? 4.0f : 1.0f) * (j % 9 == 2 ? 4.0f : 1.0f));
    }
  return out;
}

}  // namespace pome::test
