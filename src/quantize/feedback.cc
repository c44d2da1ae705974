#include "quantize/feedback.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pome {

namespace {

constexpr double kDamping = 0.01, kMostDamping = 10;
constexpr double kMostShrinking = 0.5;

// H = U D U' from the last column to the first; `h` [n, n] becomes U above the diagonal and D on
// it. False where a pivot is not positive.
bool factor(std::vector<double>* h, int64_t n, double smallest) {
  std::vector<double> column(static_cast<size_t>(n));
  for (int64_t j = n - 1; j >= 0; --j) {
    double* const end = h->data() + j;  // entry i of column j lies n * i behind it
    const double pivot = end[j * n];
    if (!(pivot > smallest)) return false;
    for (int64_t i = 0; i < j; ++i) column[static_cast<size_t>(i)] = end[i * n] /= pivot;
    for (int64_t i = 0; i < j; ++i) {
      const double by = column[static_cast<size_t>(i)] * pivot;
      double* const row = h->data() + i * n;
      for (int64_t k = i; k < j; ++k) row[k] -= by * column[static_cast<size_t>(k)];
    }
  }
  return true;
}

// to[i] += by * from[i]
void add_scaled(float by, const float* __restrict from, size_t count, float* __restrict to) {
  constexpr size_t kStep = 16;  // a count that compilers make vectors of
  size_t i = 0;
  for (; i + kStep <= count; i += kStep)
    for (size_t k = i; k < i + kStep; ++k) to[k] += by * from[k];
  for (; i < count; ++i) to[i] += by * from[i];
}

}  // namespace

Result<std::shared_ptr<const Feedback>> Feedback::create(const Moments& moments) {
  const int64_t n = moments.columns;
  const std::vector<float>& h = moments.second;
  const auto at = [n](int64_t i, int64_t j) { return static_cast<size_t>(i * n + j); };
  double trace = 0;
  for (int64_t j = 0; j < n; ++j) trace += h[at(j, j)];
  if (!std::isfinite(trace) ||
      !std::all_of(h.begin(), h.end(), [](float v) { return std::isfinite(v); }))
    return bad_input(Refusal::kRange, "activations of the calibration text are not finite");
  const double mean = n > 0 && trace > 0 ? trace / static_cast<double>(n) : 1;
  std::shared_ptr<Feedback> out(new Feedback);
  out->order_.resize(static_cast<size_t>(n));
  std::iota(out->order_.begin(), out->order_.end(), 0);
  std::stable_sort(out->order_.begin(), out->order_.end(),
                   [&](int32_t a, int32_t b) { return h[at(a, a)] > h[at(b, b)]; });
  const double shrink =
      std::min(kMostShrinking, static_cast<double>(n) /
                                   static_cast<double>(std::max<int64_t>(1, n + moments.tokens)));
  std::vector<double> work(static_cast<size_t>(n * n));
  double damping = kDamping;
  for (;; damping *= 10) {
    if (damping > kMostDamping)
      return bad_input(Refusal::kRange, "second moments of the calibration text have no factor");
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const double value =
            h[at(out->order_[static_cast<size_t>(i)], out->order_[static_cast<size_t>(j)])];
        work[at(i, j)] = i == j ? value + damping * mean : (1 - shrink) * value;
      }
    }
    if (factor(&work, n, 1e-9 * mean)) break;
  }
  out->factor_.assign(static_cast<size_t>(n * n), 0.0f);
  out->diagonal_.resize(static_cast<size_t>(n));
  out->weights_.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i + 1; j < n; ++j) out->factor_[at(i, j)] = static_cast<float>(work[at(i, j)]);
    const auto d = static_cast<float>(work[at(i, i)]);
    out->diagonal_[static_cast<size_t>(i)] = d;
    out->weights_[static_cast<size_t>(out->order_[static_cast<size_t>(i)])] = d;
  }
  return std::shared_ptr<const Feedback>(std::move(out));
}

// `asked`: what earlier columns ask of each.
double Feedback::round_once(std::span<const float> values, const RowGrid& grid, bool feedback,
                            std::span<float> asked, std::span<uint8_t> codes) const {
  const size_t n = order_.size();
  std::fill(asked.begin(), asked.end(), 0.0f);
  double cost = 0;
  for (size_t j = 0; j < n; ++j) {
    const auto column = static_cast<size_t>(order_[j]);
    const float wanted = values[column] + asked[j];
    float value = 0;
    codes[column] = grid.nearest(order_[j], feedback ? wanted : values[column], &value);
    const float error = values[column] - value, left = wanted - value;
    cost += static_cast<double>(diagonal_[j]) * left * left;
    add_scaled(error, factor_.data() + j * n + j + 1, n - j - 1, asked.data() + j + 1);
  }
  return cost;
}

double Feedback::round(std::span<const float> values, std::span<const RowGrid> grids,
                       std::span<uint8_t> codes) const {
  const size_t width = order_.size();
  double cost = 0;
  for (size_t row = 0; row < grids.size(); ++row)
    cost += round_row(values.subspan(row * width, width), grids[row],
                      codes.subspan(row * width, width));
  return cost;
}

double Feedback::round_row(std::span<const float> values, const RowGrid& grid,
                           std::span<uint8_t> codes) const {
  std::vector<float> asked(order_.size());
  std::vector<uint8_t> plain(order_.size());
  const double fed = round_once(values, grid, true, asked, codes);
  const double nearest = round_once(values, grid, false, asked, plain);
  if (nearest < fed) std::copy(plain.begin(), plain.end(), codes.begin());
  return std::min(fed, nearest);
}

double Feedback::cost(std::span<const float> errors) const {
  const int64_t n = columns();
  double total = 0;
  for (int64_t j = 0; j < n; ++j) {
    double left = errors[static_cast<size_t>(order_[static_cast<size_t>(j)])];
    for (int64_t i = 0; i < j; ++i)
      left += static_cast<double>(errors[static_cast<size_t>(order_[static_cast<size_t>(i)])]) *
              factor_[static_cast<size_t>(i * n + j)];
    total += diagonal_[static_cast<size_t>(j)] * left * left;
  }
  return total;
}

}  // namespace pome
