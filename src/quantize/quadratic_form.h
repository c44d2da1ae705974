// e H e' of rows of errors, H the second moments of the activations as feedback shrinks and damps
// them: (1 - r) H + diag(r H_jj + damping). Nothing is copied but the diagonal.
//
// Thread safety: immutable.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantize/statistics.h"

namespace pome {

class QuadraticForm {
 public:
  QuadraticForm() = default;
  QuadraticForm(MomentsPtr moments, double shrink, double damping);

  int64_t columns() const { return moments_->columns; }
  float diagonal(int64_t j) const { return diagonal_[static_cast<size_t>(j)]; }
  // out[row, j - first] = (e H)_j for j in [first, first + count). `errors`: [rows, columns()].
  void gradient(std::span<const float> errors, int64_t first, int64_t count,
                std::vector<float>* out) const;
  // Some columns of rows that are `stride` apart.
  struct Part {
    const float* data;
    int64_t stride, rows;
  };
  // out[row, j - first] = the sum over i < width of part[row, i] H[at + i, j], j as above.
  void products(const Part& part, int64_t at, int64_t width, int64_t first, int64_t count,
                std::vector<float>* out) const;
  // to[i] += by * H[j, first + i] for i < count.
  void add_line(int64_t j, float by, int64_t first, int64_t count, float* to) const;
  // e H e' of each row.
  std::vector<double> costs(std::span<const float> errors) const;

 private:
  MomentsPtr moments_;
  float keep_ = 0;
  std::vector<float> diagonal_, more_;  // H_jj, and how much more that is than keep_ times it
};

}  // namespace pome
