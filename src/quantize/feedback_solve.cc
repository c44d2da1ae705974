// Linear equations with the factor of a feedback.
#include <algorithm>
#include <vector>

#include "quantize/feedback.h"
#include "quantize/matrix_kernel.h"

namespace pome {

namespace {

constexpr int64_t kBlock = 64, kRows = 128;

// Z U' = B, from the last column to the first, in place. `turned`: scratch.
void solve_back(const Factor& factor, int64_t rows, float* x, std::vector<float>* turned,
                std::vector<float>* products) {
  const int64_t n = factor.n;
  for (int64_t first = (n - 1) / kBlock * kBlock; first >= 0; first -= kBlock) {
    const int64_t width = std::min(kBlock, n - first);
    for (int64_t row = 0; row < rows; ++row) {
      float* const z = x + row * n + first;
      for (int64_t j = width - 1; j > 0; --j) {
        const float* const u = factor.rows.data() + (first + j) * n + first;
        for (int64_t i = 0; i < j; ++i) z[i] -= z[j] * u[i];
      }
    }
    if (first == 0) break;
    turned->resize(static_cast<size_t>(first * width));
    for (int64_t j = 0; j < width; ++j)
      for (int64_t i = 0; i < first; ++i)
        (*turned)[static_cast<size_t>(i * width + j)] =
            factor.rows[static_cast<size_t>((first + j) * n + i)];
    products->resize(static_cast<size_t>(rows * first));
    multiply({x + first, n, rows, turned->data(), width, first, width, products->data(), first});
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0; i < first; ++i)
        x[row * n + i] -= (*products)[static_cast<size_t>(row * first + i)];
  }
}

// X U = Z, from the first column to the last, in place.
void solve_forward(const Factor& factor, int64_t rows, float* x, std::vector<float>* products) {
  const int64_t n = factor.n;
  products->resize(static_cast<size_t>(rows * kBlock));
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t width = std::min(kBlock, n - first);
    if (first > 0)
      multiply(
          {x, n, rows, factor.rows.data() + first * n, n, width, first, products->data(), kBlock});
    for (int64_t row = 0; row < rows; ++row) {
      float* const to = x + row * n + first;
      for (int64_t j = 0; j < width; ++j) {
        const float* const u = factor.rows.data() + (first + j) * n + first;
        float sum = first > 0 ? (*products)[static_cast<size_t>(row * kBlock + j)] : 0.0f;
        for (int64_t i = 0; i < j; ++i) sum += to[i] * u[i];
        to[j] -= sum;
      }
    }
  }
}

}  // namespace

void Feedback::solve(std::span<float> rows) const {
  const auto n = static_cast<size_t>(columns());
  std::vector<float> ordered, turned, products;
  for (size_t first = 0; first < rows.size(); first += kRows * n) {
    const std::span<float> tile = rows.subspan(first, std::min(rows.size() - first, kRows * n));
    const size_t count = tile.size() / n;
    ordered.resize(tile.size());
    for (size_t row = 0; row < count; ++row)
      for (size_t j = 0; j < n; ++j)
        ordered[row * n + j] = tile[row * n + static_cast<size_t>(order_[j])];
    solve_back(factor_, static_cast<int64_t>(count), ordered.data(), &turned, &products);
    for (size_t row = 0; row < count; ++row)
      for (size_t j = 0; j < n; ++j) ordered[row * n + j] /= factor_.diagonal[j];
    solve_forward(factor_, static_cast<int64_t>(count), ordered.data(), &products);
    for (size_t row = 0; row < count; ++row)
      for (size_t j = 0; j < n; ++j)
        tile[row * n + static_cast<size_t>(order_[j])] = ordered[row * n + j];
  }
}

}  // namespace pome
