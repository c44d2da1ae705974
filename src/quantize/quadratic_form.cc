#include "quantize/quadratic_form.h"

#include <algorithm>
#include <utility>

#include "quantize/matrix_kernel.h"

namespace pome {

QuadraticForm::QuadraticForm(MomentsPtr moments, double shrink, double damping)
    : moments_(std::move(moments)), keep_(static_cast<float>(1 - shrink)) {
  const int64_t n = moments_->columns;
  for (int64_t j = 0; j < n; ++j) {
    const float own = moments_->second[static_cast<size_t>(j * n + j)];
    diagonal_.push_back(own + static_cast<float>(damping));
    more_.push_back(diagonal_.back() - keep_ * own);
  }
}

void QuadraticForm::gradient(std::span<const float> errors, int64_t first, int64_t count,
                             std::vector<float>* out) const {
  const int64_t n = columns();
  products({errors.data(), n, static_cast<int64_t>(errors.size()) / n}, 0, n, first, count, out);
}

void QuadraticForm::products(const Part& part, int64_t at, int64_t width, int64_t first,
                             int64_t count, std::vector<float>* out) const {
  const int64_t n = columns();
  out->resize(static_cast<size_t>(part.rows * count));
  multiply({part.data, part.stride, part.rows, moments_->second.data() + first * n + at, n, count,
            width, out->data(), count});
  // Of the columns of both.
  const int64_t begin = std::max(at, first), end = std::min(at + width, first + count);
  for (int64_t row = 0; row < part.rows; ++row) {
    float* const to = out->data() + row * count;
    const float* const from = part.data + row * part.stride;
    for (int64_t j = 0; j < count; ++j) to[j] *= keep_;
    for (int64_t j = begin; j < end; ++j)
      to[j - first] += more_[static_cast<size_t>(j)] * from[j - at];
  }
}

void QuadraticForm::add_line(int64_t j, float by, int64_t first, int64_t count, float* to) const {
  const float* const line = moments_->second.data() + j * columns() + first;
  const float kept = by * keep_;
  int64_t i = 0;
  constexpr int64_t kStep = 16;
  for (; i + kStep <= count; i += kStep)
    for (int64_t k = i; k < i + kStep; ++k) to[k] += kept * line[k];
  for (; i < count; ++i) to[i] += kept * line[i];
  if (j >= first && j < first + count) to[j - first] += by * more_[static_cast<size_t>(j)];
}

std::vector<double> QuadraticForm::costs(std::span<const float> errors) const {
  constexpr int64_t kColumns = 256;
  const int64_t n = columns(), rows = static_cast<int64_t>(errors.size()) / n;
  std::vector<float> gradients;
  std::vector<double> out(static_cast<size_t>(rows), 0.0);
  for (int64_t first = 0; first < n; first += kColumns) {
    const int64_t count = std::min(kColumns, n - first);
    gradient(errors, first, count, &gradients);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t j = 0; j < count; ++j)
        out[static_cast<size_t>(row)] +=
            static_cast<double>(gradients[static_cast<size_t>(row * count + j)]) *
            errors[static_cast<size_t>(row * n + first + j)];
  }
  return out;
}

}  // namespace pome
