#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/split_mix.h"

namespace pome {

namespace {

uint64_t rotate_left(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

// Values are looked at in blocks: loops of a fixed length become vector instructions.
constexpr size_t kBlock = 64, kLanes = 16;

// The largest of kBlock values; NaN loses against all.
float block_largest(const float* values) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -INFINITY);
  for (size_t i = 0; i < kBlock; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
  float largest = lanes[0];
  for (const float lane : lanes) largest = std::max(largest, lane);
  return largest;
}

// e^-x for x >= 0 from two tables of powers of two, to 4e-7: products and no sums, which every
// compiler rounds alike.
class Decay {
  static constexpr int kEntries = 1024;

 public:
  static constexpr double kUnits = kEntries * kEntries * 1.4426950408889634;  // 1 / ln 2

  Decay() {
    for (int i = 0; i < kEntries; ++i) {
      coarse_[i] = std::exp2(-i / static_cast<double>(kEntries));
      fine_[i] = std::exp2(-i / static_cast<double>(kEntries * kEntries));
    }
  }
  // `scaled` is x times kUnits.
  double of(double scaled) const {
    if (!(scaled < kUnits * 690)) return 0;
    const auto steps = static_cast<int64_t>(scaled);
    const int64_t halvings = steps / (kEntries * kEntries);
    const double power = std::bit_cast<double>((int64_t{1023} - halvings) << 52);
    return coarse_[steps / kEntries % kEntries] * fine_[steps % kEntries] * power;
  }

 private:
  double coarse_[kEntries], fine_[kEntries];
};

const Decay& decay() {
  static const Decay table;
  return table;
}

// Candidates whose weight is e^-12 of the largest or more are put in order first; what is below is
// rarely reached.
constexpr double kNear = 12;

}  // namespace

int32_t largest_index(std::span<const float> values) {
  float best = -INFINITY;
  size_t from = 0, length = std::min(values.size(), kBlock);
  size_t i = 0;
  for (; i + kBlock <= values.size(); i += kBlock) {
    const float largest = block_largest(values.data() + i);
    if (!(largest > best)) continue;
    best = largest;
    from = i;
    length = kBlock;
  }
  for (; i < values.size(); ++i) {
    if (!(values[i] > best)) continue;
    best = values[i];
    from = i;
    length = 1;
  }
  for (size_t at = from; at < from + length; ++at)
    if (values[at] == best) return static_cast<int32_t>(at);
  return 0;
}

bool below_infinity(std::span<const float> values) {
  size_t i = 0;
  for (; i + kBlock <= values.size(); i += kBlock) {
    bool below = true;
    for (size_t k = 0; k < kBlock; ++k) below &= values[i + k] < INFINITY;
    if (!below) return false;
  }
  for (; i < values.size(); ++i)
    if (!(values[i] < INFINITY)) return false;
  return true;
}

bool Sampler::before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

Sampler::Sampler(const SamplerOptions& options) : options_(options), state_{} {
  SplitMix64 seeds(options.seed);
  for (uint64_t& word : state_) word = seeds.next();
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

std::span<const float> Sampler::penalised(std::span<const float> logits,
                                          std::span<const int32_t> context) {
  if (options_.repeat_penalty == 1 || options_.repeat_window == 0) return logits;
  size_t first = 0;
  if (options_.repeat_window > 0 && context.size() > static_cast<size_t>(options_.repeat_window))
    first = context.size() - static_cast<size_t>(options_.repeat_window);
  recent_.assign(context.begin() + static_cast<ptrdiff_t>(first), context.end());
  std::sort(recent_.begin(), recent_.end());
  recent_.erase(std::unique(recent_.begin(), recent_.end()), recent_.end());
  changed_.assign(logits.begin(), logits.end());
  for (const int32_t id : recent_) {
    if (id < 0 || static_cast<size_t>(id) >= changed_.size()) continue;
    float& logit = changed_[static_cast<size_t>(id)];
    logit = static_cast<float>(logit > 0 ? logit / options_.repeat_penalty
                                         : logit * options_.repeat_penalty);
  }
  return changed_;
}

// heap_ becomes the `count` likeliest: a heap whose top is the least of them, then one whose top is
// the likeliest.
void Sampler::take_best(std::span<const float> logits, size_t count) {
  const auto offer = [&](size_t id) {
    const Candidate one{std::isnan(logits[id]) ? -INFINITY : logits[id], static_cast<int32_t>(id)};
    if (heap_.size() == count) {
      if (!before(one, heap_.front())) return;
      std::pop_heap(heap_.begin(), heap_.end(), before);
      heap_.pop_back();
    }
    heap_.push_back(one);
    std::push_heap(heap_.begin(), heap_.end(), before);
  };
  size_t i = 0;
  for (; i + kBlock <= logits.size(); i += kBlock) {
    // Later ids lose against equal logits.
    if (heap_.size() == count && !(block_largest(logits.data() + i) > heap_.front().logit))
      continue;
    for (size_t k = i; k < i + kBlock; ++k) offer(k);
  }
  for (; i < logits.size(); ++i) offer(i);
  std::make_heap(heap_.begin(), heap_.end(), behind);
}

void Sampler::take_down_to(std::span<const float> logits, float floor) {
  const auto offer = [&](size_t id) {
    if (logits[id] >= floor) heap_.push_back({logits[id], static_cast<int32_t>(id)});
  };
  size_t i = 0;
  for (; i + kBlock <= logits.size(); i += kBlock)
    if (block_largest(logits.data() + i) >= floor)
      for (size_t k = i; k < i + kBlock; ++k) offer(k);
  for (; i < logits.size(); ++i) offer(i);
  std::make_heap(heap_.begin(), heap_.end(), behind);
}

void Sampler::take_rest(std::span<const float> logits, float floor) {
  for (size_t id = 0; id < logits.size(); ++id)
    if (!(logits[id] >= floor))
      heap_.push_back({std::isnan(logits[id]) ? -INFINITY : logits[id], static_cast<int32_t>(id)});
  std::make_heap(heap_.begin(), heap_.end(), behind);
}

int32_t Sampler::sample(std::span<const float> given, std::span<const int32_t> context) {
  if (given.empty()) return 0;
  const std::span<const float> logits = penalised(given, context);
  const int32_t likeliest = largest_index(logits);
  const float largest = logits[static_cast<size_t>(likeliest)];
  if (!(options_.temperature > 0) || !std::isfinite(largest)) return likeliest;
  return draw(logits, largest);
}

int32_t Sampler::draw(std::span<const float> logits, float largest) {
  size_t count = logits.size();
  heap_.clear();
  order_.clear();
  heap_.reserve(count);
  order_.reserve(count);
  const double units = Decay::kUnits / options_.temperature;
  const Decay& table = decay();
  const auto weight_of = [&](float logit) {
    return table.of((static_cast<double>(largest) - static_cast<double>(logit)) * units);
  };
  auto floor = static_cast<float>(static_cast<double>(largest) - kNear * options_.temperature);
  const bool best_only = options_.top_k > 0 && static_cast<uint64_t>(options_.top_k) < count;
  if (best_only) {
    count = static_cast<size_t>(options_.top_k);
    take_best(logits, count);
  } else {
    take_down_to(logits, floor);
  }
  // Candidates leave the heap one by one, likeliest first: most draws need only a few of them.
  const auto candidate = [&](size_t i) {
    while (order_.size() <= i) {
      if (heap_.empty()) take_rest(logits, floor);
      std::pop_heap(heap_.begin(), heap_.end(), behind);
      order_.push_back(heap_.back());
      heap_.pop_back();
    }
    return order_[i];
  };
  const auto weight = [&](size_t i) { return weight_of(candidate(i).logit); };

  double total = 0;
  if (best_only) {
    for (size_t i = 0; i < count; ++i) total += weight(i);
  } else {
    for (const float logit : logits) total += std::isnan(logit) ? 0 : weight_of(logit);
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
    if (left < 0) return candidate(i).id;
  }
  return candidate(count - 1).id;
}

}  // namespace pome
