// Sampling: logits -> token id. Deterministic for a seed on every machine.
//
// Order (as llama.cpp): repetition penalty, temperature, top-k, top-p, min-p, draw. Temperature 0 =
// greedy (lowest id among equals). Randomness: splitmix64-seeded xoshiro256**, 53 bits per draw.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace pome {

struct SamplerOptions {
  double temperature = 0;
  int64_t top_k = 0;          // 0 = off
  double top_p = 1;           // 1 = off
  double min_p = 0;           // 0 = off
  double repeat_penalty = 1;  // 1 = off; over the last repeat_window ids
  int64_t repeat_window = 64;
  uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);
  int32_t sample(std::span<const float> logits, std::span<const int32_t> context);

 private:
  double uniform();
  SamplerOptions options_;
  std::array<uint64_t, 4> state_;
  std::vector<std::pair<float, int32_t>> candidates_;
};

}  // namespace pome
