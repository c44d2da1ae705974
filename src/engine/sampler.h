// Sampling: logits -> token id. Deterministic for a seed on every machine.
//
// Order (as llama.cpp): repetition penalty, temperature, top-k, top-p, min-p, draw. Temperature 0 =
// greedy (lowest id among equals). Randomness: splitmix64-seeded xoshiro256**, 53 bits per draw.
// Cost: one or two passes over the logits; only candidates that a draw can reach are put in order.
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
  struct Candidate {
    float logit;
    int32_t id;
  };
  static bool before(const Candidate& a, const Candidate& b);  // likelier; equal ones by id
  static bool behind(const Candidate& a, const Candidate& b) { return before(b, a); }
  double uniform();
  std::span<const float> penalised(std::span<const float> logits, std::span<const int32_t> context);
  void take_best(std::span<const float> logits, size_t count);
  void take_down_to(std::span<const float> logits, float floor);
  void take_rest(std::span<const float> logits, float floor);
  int32_t draw(std::span<const float> logits, float largest);

  SamplerOptions options_;
  std::array<uint64_t, 4> state_;
  std::vector<float> changed_;    // logits after the penalty
  std::vector<int32_t> recent_;   // ids that it falls on
  std::vector<Candidate> heap_;   // not yet in order
  std::vector<Candidate> order_;  // the likeliest so far, in order
};

// The index of the largest value, the lowest among equals; NaN counts as -infinity. 0 when empty.
int32_t largest_index(std::span<const float> values);
// Whether no value is NaN or +infinity.
bool below_infinity(std::span<const float> values);

}  // namespace pome
