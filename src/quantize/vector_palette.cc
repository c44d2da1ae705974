#include "quantize/vector_palette.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/split_mix.h"
#include "quantize/grouped_constant.h"
#include "tensor/half.h"

namespace pome {

namespace {

constexpr int64_t kSample = 8192;  // points that seeds are taken from, and that are iterated first
constexpr int kSampleRounds = 20, kRounds = 12;
constexpr double kSmallGain = 1e-4;

struct Points {
  std::vector<float> values, weights;  // [n, d], [n]
  int64_t d = 0;
  int64_t count() const { return static_cast<int64_t>(weights.size()); }
  const float* at(int64_t i) const { return values.data() + i * d; }
};

// The index whose running sum of `masses` passes `share` of their sum.
int64_t pick(std::span<const double> masses, double share) {
  double total = 0;
  for (const double mass : masses) total += mass;
  double left = share * total;
  for (size_t i = 0; i < masses.size(); ++i) {
    left -= masses[i];
    if (left < 0) return static_cast<int64_t>(i);
  }
  return static_cast<int64_t>(masses.size()) - 1;
}

std::vector<float> seeds(const Points& points, int64_t entries) {
  SplitMix64 random(0);
  std::vector<double> masses(points.weights.begin(), points.weights.end()),
      distances(masses.size(), std::numeric_limits<double>::infinity());
  std::vector<float> out;
  for (int64_t e = 0; e < entries; ++e) {
    const float* const chosen = points.at(pick(masses, random.unit()));
    out.insert(out.end(), chosen, chosen + points.d);
    for (int64_t i = 0; i < points.count(); ++i) {
      double distance = 0;
      for (int64_t v = 0; v < points.d; ++v) {
        const double off = static_cast<double>(points.at(i)[v]) -
                           static_cast<double>(out[static_cast<size_t>(e * points.d + v)]);
        distance += off * off;
      }
      const auto at = static_cast<size_t>(i);
      distances[at] = std::min(distances[at], distance);
      masses[at] = static_cast<double>(points.weights[at]) * distances[at];
    }
  }
  return out;
}

// One round of Lloyd's iteration; gives the cost before it.
double improve(const Points& points, std::vector<float>* centroids) {
  const auto d = static_cast<size_t>(points.d);
  VectorIndex index(*centroids, points.d);
  std::vector<double> sums(centroids->size(), 0.0), weights(centroids->size() / d, 0.0);
  double cost = 0;
  for (int64_t i = 0; i < points.count(); ++i) {
    const double weight = static_cast<double>(points.weights[static_cast<size_t>(i)]);
    const auto to = static_cast<size_t>(index.nearest(points.at(i)));
    cost += weight * index.distance();
    weights[to] += weight;
    for (size_t v = 0; v < d; ++v)
      sums[to * d + v] += weight * static_cast<double>(points.at(i)[v]);
  }
  for (size_t e = 0; e < weights.size(); ++e)
    for (size_t v = 0; v < d && weights[e] > 0; ++v)
      (*centroids)[e * d + v] = static_cast<float>(sums[e * d + v] / weights[e]);
  return cost;
}

void iterate(const Points& points, int rounds, std::vector<float>* centroids) {
  double before = std::numeric_limits<double>::infinity();
  for (int round = 0; round < rounds; ++round) {
    const double cost = improve(points, centroids);
    if (!(cost < before * (1 - kSmallGain))) return;
    before = cost;
  }
}

class VectorConstant final : public GroupedConstant {
 public:
  VectorConstant(ConstantDataPtr data, const Encoding& encoding, std::string name,
                 std::vector<FeedbackPtr> feedback)
      : GroupedConstant(std::move(data), encoding, std::move(name), std::move(feedback)) {}
  ConstantDataPtr with(std::vector<FeedbackPtr> feedback) const override {
    return std::make_shared<VectorConstant>(source(), encoding(), name(), std::move(feedback));
  }

 protected:
  int64_t rows_at_a_time() const override { return encoding().group; }
  void encode(std::span<const float> values, const Feedback* feedback,
              Encoded* out) const override {
    const int64_t d = encoding().vector, entries = int64_t{1} << encoding().bits;
    const auto k = static_cast<size_t>(columns()), width = static_cast<size_t>(d);
    const size_t vectors = values.size() / k / width;  // in a column
    std::vector<float> points(values.size()), weights(vectors * k, 1.0f);
    for (size_t r = 0; r < vectors; ++r)
      for (size_t c = 0; c < k; ++c) {
        if (feedback) weights[r * k + c] = feedback->weights()[c];
        for (size_t v = 0; v < width; ++v)
          points[(r * k + c) * width + v] = values[(r * width + v) * k + c];
      }
    const std::vector<uint16_t> table = fit_vectors(points, weights, d, entries);
    out->grids.insert(out->grids.end(), table.begin(), table.end());
    std::vector<float> centroids(table.size());
    f16_to_f32(table, centroids);
    VectorIndex index(centroids, d);
    const size_t begin = out->codes.size();
    out->codes.resize(begin + vectors * k);
    if (!feedback) {
      for (size_t i = 0; i < vectors * k; ++i)
        out->codes[begin + i] = static_cast<uint8_t>(index.nearest(points.data() + i * width));
      return;
    }
    feedback->round_together(
        values, [&](int64_t column, std::span<const float> wanted, std::span<float> chosen) {
          for (size_t r = 0; r < vectors; ++r) {
            const int64_t code = index.nearest(wanted.data() + r * width);
            out->codes[begin + r * k + static_cast<size_t>(column)] = static_cast<uint8_t>(code);
            std::copy_n(index.point(code), width,
                        chosen.begin() + static_cast<std::ptrdiff_t>(r * width));
          }
        });
  }
};

}  // namespace

// Padded to whole runs with points that are infinitely far.
VectorIndex::VectorIndex(std::span<const float> points, int64_t d)
    : d_(static_cast<size_t>(d)),
      entries_((points.size() / d_ + kRun - 1) / kRun * kRun),
      points_(points.begin(), points.end()),
      coordinates_(d_ * entries_),
      halves_(entries_, std::numeric_limits<float>::infinity()),
      scores_(entries_) {
  for (size_t e = 0; e < points_.size() / d_; ++e) {
    float sum = 0;
    for (size_t v = 0; v < d_; ++v) {
      const float x = points_[e * d_ + v];
      coordinates_[v * entries_ + e] = x;
      sum += x * x;
    }
    halves_[e] = sum / 2;
  }
}

// |x - c|^2 / 2 without the half of |x|^2, which is the same for all.
int64_t VectorIndex::nearest(const float* x) {
  float least[kRun];  // of each place of a run
  std::fill_n(least, kRun, std::numeric_limits<float>::infinity());
  for (size_t first = 0; first < entries_; first += kRun) {
    float* const scores = scores_.data() + first;
    std::copy_n(halves_.data() + first, kRun, scores);
    for (size_t v = 0; v < d_; ++v) {
      const float by = x[v];
      const float* const from = coordinates_.data() + v * entries_ + first;
      for (size_t i = 0; i < kRun; ++i) scores[i] -= by * from[i];
    }
    for (size_t i = 0; i < kRun; ++i) least[i] = scores[i] < least[i] ? scores[i] : least[i];
  }
  const float best = *std::min_element(least, least + kRun);
  const auto found = std::find(scores_.begin(), scores_.end(), best) - scores_.begin();
  distance_ = 0;
  for (size_t v = 0; v < d_; ++v) {
    const double off = static_cast<double>(x[v]) - static_cast<double>(point(found)[v]);
    distance_ += off * off;
  }
  return found;
}

std::vector<uint16_t> fit_vectors(std::span<const float> points, std::span<const float> weights,
                                  int64_t d, int64_t entries) {
  Points all{{points.begin(), points.end()}, {weights.begin(), weights.end()}, d};
  const int64_t step = std::max<int64_t>(1, all.count() / kSample);
  Points sample;
  sample.d = d;
  for (int64_t i = 0; i < all.count(); i += step) {
    sample.values.insert(sample.values.end(), all.at(i), all.at(i) + d);
    sample.weights.push_back(all.weights[static_cast<size_t>(i)]);
  }
  std::vector<float> centroids = seeds(sample, entries);
  iterate(sample, kSampleRounds, &centroids);
  if (step > 1) iterate(all, kRounds, &centroids);
  std::vector<uint16_t> out(centroids.size());
  f32_to_f16(centroids, out);
  return out;
}

ConstantDataPtr vector_constant(ConstantDataPtr data, const Encoding& encoding, std::string name) {
  POME_CHECK(encoding.kind == EncodingKind::kVectorLut);
  POME_CHECK(encoded_layout(encoding, data->rows(), data->columns()).ok());
  return std::make_shared<VectorConstant>(std::move(data), encoding, std::move(name),
                                          std::vector<FeedbackPtr>());
}

}  // namespace pome
