#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

namespace pome {

namespace {

uint64_t rotate_left(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

// Higher logit first; equal ones by id.
bool before(const std::pair<float, int32_t>& a, const std::pair<float, int32_t>& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options), state_{} {
  uint64_t x = options.seed;
  for (uint64_t& word : state_) {  // splitmix64
    x += 0x9E3779B97F4A7C15u;
    uint64_t z = x;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    word = z ^ (z >> 31);
  }
}

double Sampler::uniform() {  // xoshiro256**
  const uint64_t result = rotate_left(state_[1] * 5, 7) * 9;
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = rotate_left(state_[3], 45);
  return static_cast<double>(result >> 11) * 0x1p-53;
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> context) {
  candidates_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    const float logit = std::isnan(logits[id]) ? -INFINITY : logits[id];
    candidates_.emplace_back(logit, static_cast<int32_t>(id));
  }
  if (candidates_.empty()) return 0;

  if (options_.repeat_penalty != 1 && options_.repeat_window != 0) {
    size_t first = 0;
    if (options_.repeat_window > 0 && context.size() > static_cast<size_t>(options_.repeat_window))
      first = context.size() - static_cast<size_t>(options_.repeat_window);
    std::vector<int32_t> recent(context.begin() + static_cast<ptrdiff_t>(first), context.end());
    std::sort(recent.begin(), recent.end());
    recent.erase(std::unique(recent.begin(), recent.end()), recent.end());
    for (const int32_t id : recent) {
      if (id < 0 || static_cast<size_t>(id) >= candidates_.size()) continue;
      float& logit = candidates_[static_cast<size_t>(id)].first;
      logit = static_cast<float>(logit > 0 ? logit / options_.repeat_penalty
                                           : logit * options_.repeat_penalty);
    }
  }
  if (!(options_.temperature > 0))
    return std::min_element(candidates_.begin(), candidates_.end(), before)->second;

  // Candidates leave a heap one by one, likeliest first: most draws need only a few of them.
  const auto begin = candidates_.begin();
  const auto worse = [](const auto& a, const auto& b) { return before(b, a); };
  std::make_heap(begin, candidates_.end(), worse);
  size_t sorted = 0;
  const auto candidate = [&](size_t i) {
    for (; sorted <= i; ++sorted)
      std::pop_heap(begin, candidates_.end() - static_cast<ptrdiff_t>(sorted), worse);
    return candidates_[candidates_.size() - 1 - i];
  };
  const double largest = candidate(0).first;
  if (!std::isfinite(largest)) return candidate(0).second;
  const auto weight_of = [&](float logit) {
    return std::exp((static_cast<double>(logit) - largest) / options_.temperature);
  };
  const auto weight = [&](size_t i) { return weight_of(candidate(i).first); };

  size_t count = candidates_.size();
  double total = 0;
  if (options_.top_k > 0 && static_cast<uint64_t>(options_.top_k) < count) {
    count = static_cast<size_t>(options_.top_k);
    for (size_t i = 0; i < count; ++i) total += weight(i);
  } else {
    for (const auto& one : candidates_) total += weight_of(one.first);
  }
  if (options_.top_p < 1) {
    // The smallest set of the likeliest whose probabilities reach top_p.
    double sum = 0;
    size_t kept = 0;
    while (kept < count && (kept == 0 || sum < options_.top_p * total)) sum += weight(kept++);
    count = kept;
    total = sum;
  }
  if (options_.min_p > 0) {
    // At least min_p times as likely as the likeliest, whose weight is 1.
    size_t kept = 1;
    double sum = 1;
    while (kept < count && weight(kept) >= options_.min_p) sum += weight(kept++);
    count = kept;
    total = sum;
  }
  double left = uniform() * total;
  for (size_t i = 0; i + 1 < count; ++i) {
    left -= weight(i);
    if (left < 0) return candidate(i).second;
  }
  return candidate(count - 1).second;
}

}  // namespace pome
