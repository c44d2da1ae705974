// Linear maps of the columns and rows of weights: what a change of basis does to a constant.
//
// Weights W [N, K] meet activations x as W x. A map A of the columns makes W A of W, and of x what
// is needed that nothing changes: A^-1 x. Maps of rows are those of the outputs.
//
// All arithmetic is in fixed order and needs no function but the square root, so that values are
// the same for every machine and number of threads. Thread safety: immutable, shared.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "graph/constant.h"
#include "quantize/statistics.h"

namespace pome {

// A random orthogonal Q [d, d], d = k 2^m: Hadamard matrices of runs of 2^m elements with random
// signs, and between the k runs a random orthogonal matrix. Costs d (m + k) operations per vector.
class Rotation {
 public:
  // `keeps_ones`: Q leaves the direction (1, 1, .., 1) where it is, and so commutes with taking the
  // mean away.
  static std::shared_ptr<const Rotation> random(int64_t size, uint64_t seed,
                                                bool keeps_ones = false);
  int64_t size() const { return run_ * runs_; }
  // `values` [size, lanes]: each column v becomes v Q. One lane: a row vector.
  void apply(float* values, int64_t lanes = 1) const;

 private:
  Rotation() = default;
  void hadamard(float* values, int64_t lanes) const;
  void mix(float* values, int64_t lanes) const;

  int64_t run_ = 1, runs_ = 1;
  bool keeps_ones_ = false;
  std::vector<float> signs_;    // [size]
  std::vector<float> between_;  // [runs, runs]; empty for one run
};
using RotationPtr = std::shared_ptr<const Rotation>;

// Elements are put in order, then scaled, then rotated, each where it is not empty.
struct BasisMap {
  int64_t size = 0;
  // `sets` maps one after the other, where each of stacked experts has its own: [sets, size].
  int64_t sets = 1;
  std::vector<int32_t> order;       // element i is element order[i]
  std::vector<float> scale;         // times this
  std::vector<RotationPtr> blocks;  // of neighbouring elements, block after block; of one set

  bool empty() const { return order.empty() && scale.empty() && blocks.empty(); }
  void columns(int64_t set, const float* in, float* out) const;      // of a weight
  void activations(int64_t set, const float* in, float* out) const;  // of what meets it
};
using BasisMapPtr = std::shared_ptr<const BasisMap>;

// What meets the weight whose columns were mapped.
MomentsPtr mapped_moments(const Moments& moments, const BasisMap& map, int64_t set);

// Matrices whose rows depend on many rows of another one, as long as they are read. Holds those
// that were read last: a matrix that is read tile by tile is made once. Thread safe.
class PieceCache;
std::shared_ptr<PieceCache> make_piece_cache();

// f32 out; canonical() is that of `in`.
ConstantDataPtr map_columns(ConstantDataPtr in, BasisMapPtr map);
// `map.sets * map.size` rows.
ConstantDataPtr map_rows(ConstantDataPtr in, BasisMapPtr map, std::shared_ptr<PieceCache> cache);
// Other values in the place of a vector.
ConstantDataPtr replace_vector(const ConstantDataPtr& in, std::vector<float> values);

}  // namespace pome
