// Weighted k-means on the line: k intervals of sorted values that minimise sum w (v - centroid)^2.
//
// In one dimension an optimal cluster is an interval of the sorted values, and with prefix sums of
// (w, w v, w v^2) the cost of an interval [i, j) is C(i, j) = S2 - S1^2 / S0 in constant time. C
// satisfies the quadrangle inequality, hence three ways to the partition:
//
//   kDivideAndConquer  exact. Dynamic programme over the number of clusters; the best last cut
//   moves
//                      monotonically with the end, so a layer costs O(n log n).
//   kLagrangian        exact. The optimal cost is convex in k, so a price per cluster is searched
//                      for which the cheapest unconstrained partition has k clusters; each price is
//                      a least-weight subsequence, O(n log n) with a monotone queue.
//   kCoarse            near-exact. The programme runs over bins of equal cube-root density (the
//                      asymptotically optimal density of centroids, Panter and Dite 1951), then
//                      Lloyd's iteration refines the cuts on all values.
//
// Only +, -, *, / and comparisons of binary64 in a fixed order: the result is the same on every
// machine. Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pome {

struct Clustering {
  std::vector<double> centroids;  // ascending; fewer than k only when there are fewer values
  double cost = 0;                // sum w (v - centroid)^2
};

enum class KMeansMethod : uint8_t { kDivideAndConquer, kLagrangian, kCoarse };

// `values` strictly ascending and finite, `weights` of the same length, finite and >= 0, k >= 1.
// Values of weight zero do not take part. `bins` is used by kCoarse (at least 4 k are taken).
Clustering kmeans(std::span<const double> values, std::span<const double> weights, int k,
                  KMeansMethod method, int64_t bins = 512);

// The method that palettes are fitted with. kLagrangian above 16 centroids, where bins would cost
// accuracy, and for 16 centroids of so few distinct values (bf16 sources) that it is the faster
// one; kCoarse elsewhere, within 0.02 % of the optimum.
KMeansMethod default_kmeans_method(int k, int64_t distinct_values);

}  // namespace pome
