#include "quantize/kmeans.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <optional>

#include "base/status.h"

namespace pome {
namespace {

// Sums over the values before a place, values counted from their mean. `f` belongs to whichever
// programme runs: the cost of the best partition of what lies before.
struct Prefix {
  double w = 0, wv = 0, wvv = 0, f = 0;
};

inline double interval_cost(const Prefix& from, const Prefix& to) {
  const double w = to.w - from.w, wv = to.wv - from.wv;
  return (to.wvv - from.wvv) - wv * wv / w;
}

// Cuts: 0 = cut[0] < cut[1] < ... < cut[k] = n, as places in a list of n + 1 prefixes.
using Cuts = std::vector<int32_t>;

// ---- divide and conquer
// ----------------------------------------------------------------------------

class LayeredProgramme {
 public:
  LayeredProgramme(std::span<const Prefix> prefix, int k)
      : prefix_(prefix),
        places_(static_cast<int32_t>(prefix.size())),
        k_(k),
        previous_(prefix.size()),
        current_(prefix.size()),
        cut_(static_cast<size_t>(k) * prefix.size()) {}

  Cuts run() {
    for (int32_t j = 1; j < places_; ++j) {
      current_[static_cast<size_t>(j)] = interval_cost(prefix_[0], prefix_[static_cast<size_t>(j)]);
    }
    for (int m = 2; m <= k_; ++m) {
      std::swap(previous_, current_);
      // Only the last place of the last layer is asked for.
      const int32_t first = m == k_ ? places_ - 1 : m;
      solve(m, first, places_ - 1, m - 1, places_ - 2);
    }
    Cuts cuts(static_cast<size_t>(k_) + 1);
    cuts.back() = places_ - 1;
    for (int m = k_; m >= 2; --m) {
      cuts[static_cast<size_t>(m) - 1] = cut_at(m, cuts[static_cast<size_t>(m)]);
    }
    return cuts;
  }

 private:
  int32_t& cut_at(int m, int32_t j) {
    return cut_[static_cast<size_t>(m - 1) * prefix_.size() + static_cast<size_t>(j)];
  }

  // Ends [first, last] of layer m, whose last cuts lie in [low, high]. The depth is log2(n).
  void solve(int m, int32_t first, int32_t last, int32_t low, int32_t high) {
    if (first > last) return;
    const int32_t middle = first + (last - first) / 2;
    const Prefix end = prefix_[static_cast<size_t>(middle)];
    double best = std::numeric_limits<double>::infinity();
    int32_t best_cut = low;
    for (int32_t i = low; i <= std::min(high, middle - 1); ++i) {
      const double cost =
          previous_[static_cast<size_t>(i)] + interval_cost(prefix_[static_cast<size_t>(i)], end);
      if (cost < best) {
        best = cost;
        best_cut = i;
      }
    }
    current_[static_cast<size_t>(middle)] = best;
    cut_at(m, middle) = best_cut;
    solve(m, first, middle - 1, low, best_cut);
    solve(m, middle + 1, last, best_cut, high);
  }

  std::span<const Prefix> prefix_;
  int32_t places_;
  int k_;
  std::vector<double> previous_, current_;
  std::vector<int32_t> cut_;  // [layer - 1][end]
};

// ---- Lagrangian
// ------------------------------------------------------------------------------------

// The cheapest partition when every cluster costs `price` on top; ties prefer fewer clusters only
// as far as the queue sees them.
class PricedPartition {
 public:
  explicit PricedPartition(std::span<const Prefix> prefix)
      : prefix_(prefix.begin(), prefix.end()),
        places_(static_cast<int32_t>(prefix.size())),
        from_(prefix.size()),
        queue_(prefix.size()) {}

  int64_t run(double price) {
    int32_t front = 0, back = 0;
    queue_[0] = {0, 1};
    prefix_[0].f = 0;
    for (int32_t j = 1; j < places_; ++j) {
      while (front < back && queue_[static_cast<size_t>(front) + 1].takes_over <= j) ++front;
      const int32_t start = queue_[static_cast<size_t>(front)].start;
      prefix_[static_cast<size_t>(j)].f = cost(start, j) + price;
      from_[static_cast<size_t>(j)] = start;
      if (j + 1 == places_) break;
      // A start that is beaten where it would take over never leads.
      while (back > front && beats(j, queue_[static_cast<size_t>(back)].start,
                                   std::max(queue_[static_cast<size_t>(back)].takes_over, j + 1))) {
        --back;
      }
      const Entry& last = queue_[static_cast<size_t>(back)];
      const int32_t place = crossing(last.start, j, std::max(last.takes_over, j + 1));
      if (place < places_) queue_[static_cast<size_t>(++back)] = {j, place};
    }
    int64_t clusters = 0;
    for (int32_t j = places_ - 1; j > 0; j = from_[static_cast<size_t>(j)]) ++clusters;
    return clusters;
  }

  Cuts cuts() const {  // of the latest run
    Cuts cuts;
    for (int32_t j = places_ - 1; j > 0; j = from_[static_cast<size_t>(j)]) cuts.push_back(j);
    cuts.push_back(0);
    std::reverse(cuts.begin(), cuts.end());
    return cuts;
  }

 private:
  struct Entry {
    int32_t start;
    int32_t takes_over;  // first end for which this start is better than the one before it
  };

  double cost(int32_t start, int32_t end) const {
    const Prefix& from = prefix_[static_cast<size_t>(start)];
    return from.f + interval_cost(from, prefix_[static_cast<size_t>(end)]);
  }
  bool beats(int32_t late, int32_t early, int32_t end) const {
    return cost(late, end) < cost(early, end);
  }
  // First end >= `from` at which `late` beats `early`, or places_. It stays better from there on.
  int32_t crossing(int32_t early, int32_t late, int32_t from) const {
    int32_t low = from, step = 8;
    while (low + step < places_ && !beats(late, early, low + step)) {
      low += step;
      step *= 2;
    }
    int32_t high = std::min(low + step, places_);
    while (low < high) {
      const int32_t middle = low + (high - low) / 2;
      if (beats(late, early, middle)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  std::vector<Prefix> prefix_;
  int32_t places_;
  std::vector<int32_t> from_;
  std::vector<Entry> queue_;
};

// nullopt where no price gives k clusters (equal costs) or the search does not end.
std::optional<Cuts> lagrangian(std::span<const Prefix> prefix, int k, double first_price) {
  PricedPartition partition(prefix);
  double low = 0, high = std::numeric_limits<double>::infinity();  // too many / too few clusters
  double price = first_price;
  for (int pass = 0; pass < 64; ++pass) {
    const int64_t clusters = partition.run(price);
    if (clusters == k) return partition.cuts();
    (clusters > k ? low : high) = price;
    // The number of clusters falls with the cube root of the price where the density is smooth.
    const double ratio = static_cast<double>(clusters) / k;
    double next = price * ratio * ratio * ratio;
    const bool inside = next > low && next < high;
    if (!inside || pass >= 8) {
      if (low == 0) {
        next = high / 16;
      } else if (high == std::numeric_limits<double>::infinity()) {
        next = low * 16;
      } else {
        next = low + (high - low) / 2;
        if (high > 4 * low) next = 2 * low;
      }
    }
    if (!(next > low && next < high)) break;
    price = next;
  }
  return std::nullopt;
}

// ---- coarse
// ----------------------------------------------------------------------------------------

// x^(1/3) of a positive number to about 1e-4, the same on every machine (std::cbrt is not).
double rough_cube_root(double x) {
  const uint64_t third = std::bit_cast<uint64_t>(x) / 3 + (uint64_t{682} << 52);
  const double guess = std::bit_cast<double>(third);
  const double cube = guess * guess * guess;
  return guess * (cube + 2 * x) / (2 * cube + x);  // one step of Halley's iteration
}

// Running sum of cube-root density: mass[i] belongs to the values before place i.
std::vector<double> cube_root_mass(std::span<const double> values,
                                   std::span<const double> weights) {
  const size_t n = values.size();
  std::vector<double> mass(n + 1);
  for (size_t i = 0; i < n; ++i) {
    // The value stands for the middle of its gaps: density w / width, mass width * density^(1/3).
    const double left = i > 0 ? values[i] - values[i - 1] : values[i + 1] - values[i];
    const double right = i + 1 < n ? values[i + 1] - values[i] : left;
    const double width = (left + right) / 2;
    mass[i + 1] = mass[i] + rough_cube_root(weights[i] * width * width);
  }
  return mass;
}

// Places 0 = b[0] < ... < b[last] = n, about `bins` of them, at equal steps of mass.
Cuts equal_mass_places(std::span<const double> mass, int64_t bins) {
  const int32_t n = static_cast<int32_t>(mass.size()) - 1;
  Cuts places = {0};
  const double step = mass.back() / static_cast<double>(bins);
  double target = step;
  for (int32_t i = 1; i < n; ++i) {
    if (mass[static_cast<size_t>(i)] < target) continue;
    places.push_back(i);
    while (target <= mass[static_cast<size_t>(i)]) target += step;
  }
  places.push_back(n);
  return places;
}

double centroid(const Prefix& from, const Prefix& to) {
  return (to.wv - from.wv) / (to.w - from.w);
}

double total_cost(std::span<const Prefix> prefix, const Cuts& cuts) {
  double cost = 0;
  for (size_t a = 0; a + 1 < cuts.size(); ++a) {
    cost += interval_cost(prefix[static_cast<size_t>(cuts[a])],
                          prefix[static_cast<size_t>(cuts[a + 1])]);
  }
  return cost;
}

// First place whose value is beyond `border`, searched outwards from `near` in [low, high].
int32_t place_after(std::span<const double> centred, double border, int32_t near) {
  const int32_t n = static_cast<int32_t>(centred.size());
  int32_t low, high, step = 1;  // values before low are <= border, those from high on are beyond
  if (near < n && centred[static_cast<size_t>(near)] <= border) {
    low = near + 1;
    while (low + step < n && centred[static_cast<size_t>(low + step)] <= border) {
      low += step + 1;
      step *= 2;
    }
    high = std::min(n, low + step);
  } else {
    high = near;
    while (high - step > 0 && centred[static_cast<size_t>(high - step)] > border) {
      high -= step;
      step *= 2;
    }
    low = std::max(0, high - step);
  }
  return static_cast<int32_t>(
      std::upper_bound(centred.begin() + low, centred.begin() + high, border) - centred.begin());
}

// Moves every cut to the middle of its centroids until nothing moves. A step that empties a cluster
// or does not lower the cost ends the iteration: the result is never worse than the start.
void lloyd(std::span<const double> centred, std::span<const Prefix> prefix, Cuts* cuts) {
  double cost = total_cost(prefix, *cuts);
  Cuts next = *cuts;
  for (int round = 0; round < 200; ++round) {
    double left = centroid(prefix[0], prefix[static_cast<size_t>((*cuts)[1])]);
    for (size_t a = 1; a + 1 < cuts->size(); ++a) {
      const double right = centroid(prefix[static_cast<size_t>((*cuts)[a])],
                                    prefix[static_cast<size_t>((*cuts)[a + 1])]);
      next[a] = place_after(centred, left + (right - left) / 2, (*cuts)[a]);
      if (next[a] <= next[a - 1] || next[a] >= cuts->back()) return;
      left = right;
    }
    if (next == *cuts) return;
    const double next_cost = total_cost(prefix, next);
    if (!(next_cost < cost)) return;
    cost = next_cost;
    *cuts = next;
  }
}

std::vector<Prefix> prefix_sums(std::span<const double> centred, std::span<const double> weights) {
  std::vector<Prefix> prefix(centred.size() + 1);
  Prefix sum;
  for (size_t i = 0; i < centred.size(); ++i) {
    const double v = centred[i], w = weights[i];
    sum.w += w;
    sum.wv += w * v;
    sum.wvv += w * v * v;
    prefix[i + 1] = sum;
  }
  return prefix;
}

Cuts coarse(std::span<const double> centred, std::span<const Prefix> prefix,
            std::span<const double> mass, int k, int64_t bins) {
  Cuts places = equal_mass_places(mass, std::max<int64_t>(bins, 4 * int64_t{k}));
  if (static_cast<int64_t>(places.size()) <= 2 * int64_t{k}) {  // the mass sits in few values
    return LayeredProgramme(prefix, k).run();
  }
  std::vector<Prefix> at_places(places.size());
  for (size_t i = 0; i < places.size(); ++i) at_places[i] = prefix[static_cast<size_t>(places[i])];
  Cuts cuts = LayeredProgramme(at_places, k).run();
  for (int32_t& cut : cuts) cut = places[static_cast<size_t>(cut)];
  lloyd(centred, prefix, &cuts);
  return cuts;
}

}  // namespace

Clustering kmeans(std::span<const double> values, std::span<const double> weights, int k,
                  KMeansMethod method, int64_t bins) {
  POME_CHECK(values.size() == weights.size() && k >= 1);
  std::vector<double> kept, kept_weights;
  double weight = 0, moment = 0;
  kept.reserve(values.size());
  kept_weights.reserve(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    kept.push_back(values[i]);
    kept_weights.push_back(weights[i]);
    weight += weights[i];
    moment += weights[i] * values[i];
  }
  if (kept.size() <= static_cast<size_t>(k)) return {std::move(kept), 0};

  const double mean = moment / weight;
  for (double& value : kept) value -= mean;
  const std::vector<Prefix> prefix = prefix_sums(kept, kept_weights);
  Cuts cuts;
  if (k == 1) {
    cuts = {0, static_cast<int32_t>(kept.size())};
  } else if (method == KMeansMethod::kDivideAndConquer) {
    cuts = LayeredProgramme(prefix, k).run();
  } else {
    const std::vector<double> mass = cube_root_mass(kept, kept_weights);
    if (method == KMeansMethod::kCoarse) {
      cuts = coarse(kept, prefix, mass, k, bins);
    } else {
      // Asymptotically the cost is mass^3 / (12 k^2); the price is what one cluster more saves.
      const double m = mass.back(), count = k;
      auto found = lagrangian(prefix, k, m * m * m / (6 * count * count * count));
      cuts = found ? *std::move(found) : LayeredProgramme(prefix, k).run();
    }
  }

  Clustering result;
  result.cost = std::max(0.0, total_cost(prefix, cuts));
  result.centroids.reserve(static_cast<size_t>(k));
  for (size_t a = 0; a + 1 < cuts.size(); ++a) {
    // Rounding must not push a centroid out of its own interval.
    const double value =
        centroid(prefix[static_cast<size_t>(cuts[a])], prefix[static_cast<size_t>(cuts[a + 1])]);
    result.centroids.push_back(std::clamp(value, kept[static_cast<size_t>(cuts[a])],
                                          kept[static_cast<size_t>(cuts[a + 1]) - 1]) +
                               mean);
  }
  return result;
}

KMeansMethod default_kmeans_method(int k, int64_t distinct_values) {
  const bool exact = k > 16 || (k == 16 && distinct_values <= 6000);
  return exact ? KMeansMethod::kLagrangian : KMeansMethod::kCoarse;
}

}  // namespace pome
