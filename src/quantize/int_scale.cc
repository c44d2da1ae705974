#include "quantize/int_scale.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/cpu_features.h"
#include "base/status.h"
#include "tensor/half.h"

namespace pome {
namespace {

constexpr uint16_t kInfinityBits = 0x7C00;
constexpr uint16_t kSignBit = 0x8000;
// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, half to even, without an
// instruction that older processors lack.
constexpr float kRounder = 12582912.0f;

// ---- sums over a block
// ---------------------------------------------------------------------------
// Eight binary32 lanes, folded into binary64 every kFold elements in a fixed order: the result does
// not depend on how wide the registers are. Each body is compiled once as it is and once for AVX2.

constexpr int64_t kLanes = 8;
constexpr int64_t kFold = 512;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));
#define POME_INLINE inline __attribute__((always_inline))

POME_INLINE double fold(const float* lanes) {
  const double a = static_cast<double>(lanes[0]) + lanes[4];
  const double b = static_cast<double>(lanes[1]) + lanes[5];
  const double c = static_cast<double>(lanes[2]) + lanes[6];
  const double d = static_cast<double>(lanes[3]) + lanes[7];
  return (a + c) + (b + d);
}

// Sums term(value) * weight; term(value, out) is 0 for the value 0, with which the last lanes are
// padded. (A vector result would change the ABI with the instruction set.)
template <typename Term>
POME_INLINE double sum_body(const float* v, const float* w, int64_t n, const Term& term) {
  double total = 0;
  for (int64_t start = 0; start < n; start += kFold) {
    const int64_t end = std::min(n, start + kFold);
    Lanes sum = {};
    for (int64_t i = start; i < end; i += kLanes) {
      Lanes value = {}, weight = {};
      const size_t bytes = sizeof(float) * static_cast<size_t>(std::min(kLanes, end - i));
      if (bytes == sizeof value) {
        std::memcpy(&value, v + i, sizeof value);
      } else {
        std::memcpy(&value, v + i, bytes);
      }
      Lanes part;
      term(value, &part);
      if (w != nullptr) {
        std::memcpy(&weight, w + i, bytes);
        part *= weight;
      }
      sum += part;
    }
    float lanes[kLanes];
    std::memcpy(lanes, &sum, sizeof lanes);
    total += fold(lanes);
  }
  return total;
}

POME_INLINE double error_body(const float* v, const float* w, int64_t n, float scale, float low,
                              float high) {
  const float inverse = 1 / scale;
  const Lanes lowest = Lanes{} + low, highest = Lanes{} + high;
  return sum_body(
      v, w, n, [&](const Lanes& value, Lanes* out) __attribute__((always_inline)) {
        Lanes code = value * inverse;
        code = code < lowest ? lowest : code;
        code = code > highest ? highest : code;
        code = (code + kRounder) - kRounder;
        const Lanes difference = value - scale * code;
        *out = difference * difference;
      });
}

// Squares of what lies beyond the code `limit` for every scale <= s.
POME_INLINE double clipped_body(const float* v, const float* w, int64_t n, float s, float limit) {
  const Lanes border = Lanes{} + s * limit, zero = {};
  return sum_body(
      v, w, n, [&](const Lanes& value, Lanes* out) __attribute__((always_inline)) {
        const Lanes over = (value < zero ? -value : value) - border;
        *out = over > zero ? over * over : zero;
      });
}

// A, B and A^2 / B for kLanes values of u = 1 / |scale| at once; [low, high] is mirrored for a
// negative scale. At most kSumFold terms are added in binary32, which bounds the relative error.
constexpr int64_t kHalf = kLanes / 2;
using HalfLanes = float __attribute__((vector_size(kHalf * sizeof(float))));
using Doubles = double __attribute__((vector_size(kHalf * sizeof(double))));
constexpr int64_t kSumFold = 64;
constexpr double kSumSlack = 2e-5;  // of A^2 / B
struct Samples {
  double a[kLanes], b[kLanes], gain[kLanes];
};
template <bool kWeighted>
POME_INLINE void samples_body(const float* v, const float* w, int64_t n, const float* u, float low,
                              float high, Samples* out) {
  Lanes us;
  std::memcpy(&us, u, sizeof us);
  const Lanes lowest = Lanes{} + low, highest = Lanes{} + high;
  Doubles a_sum[2] = {}, b_sum[2] = {};
  for (int64_t start = 0; start < n; start += kSumFold) {
    const int64_t end = std::min(n, start + kSumFold);
    Lanes a = {}, b = {};
    for (int64_t i = start; i < end; ++i) {
      Lanes code = us * v[i];
      code = code < lowest ? lowest : code;
      code = code > highest ? highest : code;
      code = (code + kRounder) - kRounder;
      if constexpr (!kWeighted) {
        a += code * v[i];
        b += code * code;
      } else {
        const Lanes weighted = code * w[i];
        a += weighted * v[i];
        b += weighted * code;
      }
    }
    HalfLanes halves[2][2];
    std::memcpy(halves[0], &a, sizeof a);
    std::memcpy(halves[1], &b, sizeof b);
    for (int64_t h = 0; h < 2; ++h) {
      a_sum[h] += __builtin_convertvector(halves[0][h], Doubles);
      b_sum[h] += __builtin_convertvector(halves[1][h], Doubles);
    }
  }
  const Doubles zero = {}, one = zero + 1.0;
  for (int64_t h = 0; h < 2; ++h) {
    const Doubles gain = a_sum[h] * a_sum[h] / (b_sum[h] > zero ? b_sum[h] : one);
    std::memcpy(out->a + h * kHalf, &a_sum[h], sizeof gain);
    std::memcpy(out->b + h * kHalf, &b_sum[h], sizeof gain);
    std::memcpy(out->gain + h * kHalf, &gain, sizeof gain);
  }
}

// Magnitudes of the codes at one u.
POME_INLINE void codes_body(const float* v, int64_t n, float u, float low, float high, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    float code = v[i] * u;
    code = code < low ? low : code;
    code = code > high ? high : code;
    out[i] = std::fabs((code + kRounder) - kRounder);
  }
}

struct BlockFunctions {
  double (*error)(const float* v, const float* w, int64_t n, float scale, float low, float high);
  double (*clipped)(const float* v, const float* w, int64_t n, float s, float limit);
  void (*samples)(const float* v, const float* w, int64_t n, const float* u, float low, float high,
                  Samples* out);
  void (*codes)(const float* v, int64_t n, float u, float low, float high, float* out);
};

#define POME_BLOCK_FUNCTIONS(name, attribute)                                                      \
  attribute double error_##name(const float* v, const float* w, int64_t n, float scale, float low, \
                                float high) {                                                      \
    return error_body(v, w, n, scale, low, high);                                                  \
  }                                                                                                \
  attribute double clipped_##name(const float* v, const float* w, int64_t n, float s,              \
                                  float limit) {                                                   \
    return clipped_body(v, w, n, s, limit);                                                        \
  }                                                                                                \
  attribute void samples_##name(const float* v, const float* w, int64_t n, const float* u,         \
                                float low, float high, Samples* out) {                             \
    if (w == nullptr) {                                                                            \
      samples_body<false>(v, w, n, u, low, high, out);                                             \
    } else {                                                                                       \
      samples_body<true>(v, w, n, u, low, high, out);                                              \
    }                                                                                              \
  }                                                                                                \
  attribute void codes_##name(const float* v, int64_t n, float u, float low, float high,           \
                              float* out) {                                                        \
    codes_body(v, n, u, low, high, out);                                                           \
  }                                                                                                \
  constexpr BlockFunctions k_##name = {error_##name, clipped_##name, samples_##name, codes_##name};
POME_BLOCK_FUNCTIONS(portable, )
#if defined(__x86_64__)
POME_BLOCK_FUNCTIONS(avx2, __attribute__((target("avx2"))))
#endif

const BlockFunctions& choose_functions() {
#if defined(__x86_64__)
  const Result<Isa> isa = selected_isa();
  if (isa.ok() && *isa >= Isa::kAvx2 && *isa <= Isa::kAmx) return k_avx2;
#endif
  return k_portable;
}
const BlockFunctions& functions() {
  static const BlockFunctions& chosen = choose_functions();
  return chosen;
}

// ---- a block and its best scale so far
// ----------------------------------------------------------

class Candidate {
 public:
  Candidate(std::span<const float> values, std::span<const float> weights, const CodeRange& range)
      : v_(values.data()),
        w_(weights.empty() ? nullptr : weights.data()),
        n_(static_cast<int64_t>(values.size())),
        range_(range),
        functions_(functions()) {
    POME_CHECK(weights.empty() || weights.size() == values.size());
    POME_CHECK(range.low < 0 && range.low >= -128 && range.high > 0 && range.high <= 127);
    for (int64_t i = 0; i < n_; ++i) {
      if (w_ == nullptr || w_[i] > 0) absmax_ = std::max(absmax_, std::fabs(v_[i]));
    }
    squares_ = functions_.clipped(v_, w_, n_, 0, 0);
    best_ = {0, squares_};
  }

  int64_t size() const { return n_; }
  float value(int64_t i) const { return v_[i]; }
  float weight(int64_t i) const { return w_ == nullptr ? 1.0f : w_[i]; }
  float absmax() const { return absmax_; }  // of values whose weight is not 0
  double squares() const { return squares_; }
  const ScaleFit& best() const { return best_; }
  // Every code of every binary16 scale is 0: below half the smallest of them.
  bool vanishes() const { return !(absmax_ > 0x1p-25f); }

  // Side 0 is the positive scale, side 1 the negative one.
  float low(int side) const { return static_cast<float>(side == 0 ? range_.low : -range_.high); }
  float high(int side) const { return static_cast<float>(side == 0 ? range_.high : -range_.low); }
  int sides() const { return range_.negative_scale ? 2 : 1; }

  double error(uint16_t scale) const {
    return functions_.error(v_, w_, n_, f16_to_f32(scale), low(0), high(0));
  }
  double clipped(double s) const {
    return functions_.clipped(v_, w_, n_, static_cast<float>(s), std::max(high(0), -low(0)));
  }
  void samples(const float* u, int side, Samples* out) const {
    functions_.samples(v_, w_, n_, u, low(side), high(side), out);
  }
  void codes(float u, int side, std::vector<float>* out) const {
    out->resize(static_cast<size_t>(n_));
    functions_.codes(v_, n_, u, low(side), high(side), out->data());
  }

  double offer(uint16_t scale) {
    const uint16_t magnitude = scale & static_cast<uint16_t>(~kSignBit);
    if (magnitude == 0 || magnitude >= kInfinityBits) return squares_;
    const double e = error(scale);
    if (e < best_.error) best_ = {scale, e};
    return e;
  }
  // The binary16 value nearest to a positive scale, with the sign of the side. On one parabola no
  // other one is better.
  void offer_nearest(double scale, int side) {
    const uint16_t sign = side == 1 ? kSignBit : uint16_t{0};
    offer(f32_to_f16(static_cast<float>(scale)) | sign);
  }

 private:
  const float *v_, *w_;
  int64_t n_;
  CodeRange range_;
  const BlockFunctions& functions_;
  float absmax_ = 0;
  double squares_ = 0;
  ScaleFit best_;
};

// ---- exact fit
// -----------------------------------------------------------------------------------

class ExactFit {
 public:
  ExactFit(Candidate* candidate, ScaleScratch* scratch)
      : candidate_(*candidate), scratch_(*scratch) {}

  void run() {
    const double absmax = candidate_.absmax();
    const int limit = static_cast<int>(std::min(candidate_.high(0), -candidate_.low(0)));
    // A scale whose codes all fit twice is no better than its half.
    const double from = (limit / 2 + 0.5) / absmax;
    double to = kTo * (std::max(candidate_.high(0), -candidate_.low(0)) + 0.5) / absmax;
    scan(from, to);
    // ... which is no binary16 value where the scale is among the smallest of them.
    if (1 / from < 0x1p-12) scan(0.49 / absmax, from);
    while (candidate_.clipped(1 / to) * (1 + kSumSlack) < candidate_.best().error) {
      scan(to, 2 * to);
      to *= 2;
    }
  }

 private:
  static constexpr double kTo = 1.1;  // of the u at which the largest value clips
  static constexpr int kGroups = 2;
  static constexpr int kPoints = kGroups * static_cast<int>(kLanes);

  void scan(double from, double to) {
    const float start = static_cast<float>(from);
    const float step = static_cast<float>((to - from) / (kPoints - 1));
    for (int i = 0; i < kPoints; ++i) u_[i] = start + step * static_cast<float>(i);
    for (int i = 0; i < kPoints; ++i) s_[i] = 1 / u_[i];
    // Up to the first scale that clips the largest value both signs have the same codes.
    const float both = (std::min(candidate_.high(0), -candidate_.low(0)) + 0.5f) * (1 - 1e-5f) /
                       candidate_.absmax();
    int first_of_side1 = kGroups;
    for (int group = 0; group < kGroups; ++group) {
      const float* u = u_ + group * kLanes;
      candidate_.samples(u, 0, &samples_[0][group]);
      if (candidate_.sides() == 2 && u[kLanes - 1] > both) {
        candidate_.samples(u, 1, &samples_[1][group]);
        first_of_side1 = std::min(first_of_side1, group);
      }
    }
    offer_best_sample(0, 0);
    offer_best_sample(1, first_of_side1);
    walk_promising(0, 0);
    walk_promising(1, first_of_side1);
  }

  void offer_best_sample(int side, int first_group) {
    double most = 0;
    int best = 0;
    for (int i = first_group * static_cast<int>(kLanes); i < kPoints; ++i) {
      const double gain = at(side, i).gain[i % kLanes];
      best = gain > most ? i : best;
      most = std::max(most, gain);
    }
    if (most > needed()) offer_sample(side, best);
  }
  const Samples& at(int side, int point) const { return samples_[side][point / kLanes]; }
  void offer_sample(int side, int point) {
    const Samples& samples = at(side, point);
    candidate_.offer_nearest(samples.a[point % kLanes] / samples.b[point % kLanes], side);
  }

  // What A^2 / B must exceed to matter.
  double needed() const {
    return (candidate_.squares() - candidate_.best().error) * (1 - kSumSlack);
  }

  void walk_promising(int side, int first_group) {
    double need = needed();
    const int first = first_group * static_cast<int>(kLanes);
    double a0 = 0, b0 = 0;
    for (int i = first; i < kPoints; ++i) {
      const Samples& samples = at(side, i);
      const double a1 = samples.a[i % kLanes], b1 = samples.b[i % kLanes];
      if (samples.gain[i % kLanes] > need) {
        offer_sample(side, i);
        need = needed();
      }
      // All steps at the largest scale: an upper bound without a division.
      const double half_s0 = s_[i > 0 ? i - 1 : 0] * 0.5, a_high = a0 + (b1 - b0) * half_s0;
      if (i > first && a_high * a_high > need * b1 && b1 > b0) {
        // A lies under a0 + (B - b0) s0 / 2 and under a1 - (b1 - B) s1 / 2. A^2 / B along a line is
        // convex, so its maximum is at an end or where the lines meet.
        const double half_s1 = s_[i] * 0.5;
        const double meet =
            std::clamp((a1 - a0 - (b1 - b0) * half_s1) / (half_s0 - half_s1), 0.0, b1 - b0);
        const double a = a0 + meet * half_s0;
        if (a * a > need * (b0 + meet) && candidate_.best().error > 0) {
          walk(i - 1, side);
          need = needed();
        }
      }
      a0 = a1;
      b0 = b1;
    }
  }

  // Visits every parabola between samples i and i + 1.
  void walk(int i, int side) {
    candidate_.codes(u_[i], side, &scratch_.codes_from);
    candidate_.codes(u_[i + 1], side, &scratch_.codes_to);
    scratch_.steps.clear();
    for (int64_t j = 0; j < candidate_.size(); ++j) {
      const float from = scratch_.codes_from[static_cast<size_t>(j)];
      const float to = scratch_.codes_to[static_cast<size_t>(j)];
      if (from == to) continue;
      const float w = candidate_.weight(j), magnitude = std::fabs(candidate_.value(j));
      for (float code = from; code < to; ++code) {
        scratch_.steps.push_back({(code + 0.5f) / magnitude, w * magnitude, w * (2 * code + 1)});
      }
    }
    std::sort(scratch_.steps.begin(), scratch_.steps.end(),
              [](const ScaleScratch::Step& x, const ScaleScratch::Step& y) {
                return x.u != y.u ? x.u < y.u : x.a != y.a ? x.a < y.a : x.b < y.b;
              });
    double a = at(side, i).a[i % kLanes], b = at(side, i).b[i % kLanes];
    for (const ScaleScratch::Step& step : scratch_.steps) {
      a += step.a;
      b += step.b;
      visit(a, b, side);
    }
  }

  void visit(double a, double b, int side) {
    if (b > 0 && a * a > needed() * b) candidate_.offer_nearest(a / b, side);
  }

  Candidate& candidate_;
  ScaleScratch& scratch_;
  float u_[kPoints], s_[kPoints];  // s = 1 / u
  Samples samples_[2][kGroups];
};

}  // namespace

ScaleFit fit_scale_exact(std::span<const float> values, std::span<const float> weights,
                         const CodeRange& range, ScaleScratch* scratch) {
  Candidate candidate(values, weights, range);
  if (!candidate.vanishes()) ExactFit(&candidate, scratch).run();
  return candidate.best();
}

ScaleFit fit_scale_search(std::span<const float> values, std::span<const float> weights,
                          const CodeRange& range) {
  Candidate candidate(values, weights, range);
  const float absmax = candidate.absmax();
  if (candidate.vanishes()) return candidate.best();
  const int level = std::min(range.high, -range.low);

  // Values that are whole multiples of a scale already: the largest has a code in the upper half.
  for (int code = level; code > level / 2; --code) {
    const uint16_t scale = f32_to_f16(absmax / static_cast<float>(code));
    if (f16_to_f32(scale) * static_cast<float>(code) == absmax) candidate.offer(scale);
  }

  // E is about n s^2 / 12 with a relative spread of sqrt(0.8 / n) that changes within a few percent
  // of s, plus what is clipped: a larger scale than the one that just reaches absmax pays only as
  // far as the spread can hide the trend.
  const double n = static_cast<double>(values.size());
  const double reach = 1 + std::min(1.0, 3 * std::sqrt(0.8 / n));
  const double top = std::min(65504.0, reach * absmax / level);
  const int first = f32_to_f16(static_cast<float>(top)) + 1;  // at least the smallest scale
  // Short rows have a rough error curve, and small scales few binary16 values.
  const int stride = values.size() <= 128 ? 1 : std::clamp(first / 128, 1, 8);
  constexpr int kKept = 4;
  std::array<std::pair<double, int>, kKept> kept;
  kept.fill({std::numeric_limits<double>::infinity(), 0});
  candidate.offer_nearest(static_cast<double>(absmax) / level, 0);
  const int last_unclipped = f32_to_f16(absmax / (static_cast<float>(level) + 0.5f));
  for (int bits = first; bits > 0; bits -= stride) {
    const double e = candidate.offer(static_cast<uint16_t>(bits));
    // Clipping only grows from here on, and it outweighs what rounding can win back.
    if (bits < last_unclipped && e > 1.5 * candidate.best().error) break;
    const std::pair<double, int> entry = {e, bits};
    if (entry < kept.back()) {
      kept.back() = entry;
      std::sort(kept.begin(), kept.end());
    }
  }
  for (int step = stride / 2; step > 0; step /= 2) {
    for (auto& [e, bits] : kept) {
      if (bits == 0) continue;
      const int middle = bits;
      for (const int side : {-step, step}) {
        if (middle + side <= 0 || middle + side > first + stride) continue;
        const double moved = candidate.offer(static_cast<uint16_t>(middle + side));
        if (moved < e) {
          e = moved;
          bits = middle + side;
        }
      }
    }
  }
  return candidate.best();
}

void quantize_with_scale(std::span<const float> values, uint16_t scale, const CodeRange& range,
                         std::span<int8_t> codes) {
  POME_CHECK(codes.size() == values.size());
  const float s = f16_to_f32(scale);
  if (s == 0) {
    std::fill(codes.begin(), codes.end(), int8_t{0});
    return;
  }
  const float inverse = 1 / s, low = static_cast<float>(range.low),
              high = static_cast<float>(range.high);
  for (size_t i = 0; i < values.size(); ++i) {
    float code = values[i] * inverse;
    code = code < low ? low : code;
    code = code > high ? high : code;
    codes[i] = static_cast<int8_t>((code + kRounder) - kRounder);
  }
}

double scale_error(std::span<const float> values, std::span<const float> weights, uint16_t scale,
                   const CodeRange& range) {
  const Candidate candidate(values, weights, range);
  return (scale & 0x7FFF) == 0 ? candidate.squares() : candidate.error(scale);
}

}  // namespace pome
