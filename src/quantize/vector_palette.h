// Palettes of vectors: 2^bits points that stand for the weights of `vector` neighbouring rows of
// one column (kVectorLut).
//
// Weighted k-means in R^d: seeds far from each other (k-means++ with a fixed sequence of numbers),
// Lloyd's iteration on a sample, then on all points. Deterministic for one instruction set; thread
// safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "graph/constant.h"

namespace pome {

// Centroids [entries, d] as binary16 codes. `points` [n, d], `weights` [n] >= 0; d is 2 or 4.
std::vector<uint16_t> fit_vectors(std::span<const float> points, std::span<const float> weights,
                                  int64_t d, int64_t entries);

// Finds the next of some points.
class VectorIndex {
 public:
  // `points` [entries, d].
  VectorIndex(std::span<const float> points, int64_t d);
  // The first of the nearest.
  int64_t nearest(const float* x);
  // Squared distance of the last one found.
  double distance() const { return distance_; }
  const float* point(int64_t index) const {
    return points_.data() + static_cast<size_t>(index) * d_;
  }

 private:
  static constexpr size_t kRun = 16;  // a count that compilers make vectors of
  size_t d_, entries_;
  std::vector<float> points_;
  std::vector<float> coordinates_;  // [d, entries]
  std::vector<float> halves_;       // half of the squared length
  std::vector<float> scores_;
  double distance_ = 0;
};

// Encodes when it is read; the encoding divides the shape.
ConstantDataPtr vector_constant(ConstantDataPtr data, const Encoding& encoding,
                                std::string name = {});

}  // namespace pome
