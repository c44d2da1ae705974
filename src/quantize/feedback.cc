#include "quantize/feedback.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quantize/matrix_kernel.h"

namespace pome {

namespace {

constexpr double kDamping = 0.01, kMostDamping = 10;
constexpr double kMostShrinking = 0.5;
constexpr int64_t kBlock = 64;  // columns that are asked together
constexpr int64_t kRows = 128;  // rows that are rounded together

// H as it is shrunk and damped, in the order in which columns are taken, reversed (factor.h).
void fill_reversed(const Moments& moments, std::span<const int32_t> order, double shrink,
                   double damping, ThreadPool* pool, std::vector<float>* out) {
  const int64_t n = moments.columns;
  const auto keep = static_cast<float>(1 - shrink), more = static_cast<float>(damping);
  constexpr int64_t kTogether = 16;
  pool->parallel_for(n, kTogether, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* const from =
          moments.second.data() + int64_t{order[static_cast<size_t>(n - 1 - i)]} * n;
      float* const to = out->data() + i * n;
      for (int64_t j = 0; j < i; ++j) to[j] = keep * from[order[static_cast<size_t>(n - 1 - j)]];
      to[i] = from[order[static_cast<size_t>(n - 1 - i)]] + more;
    }
  });
}

// Falling, group by group of columns; a group that is not full comes last.
struct Groups {
  int64_t size;
  std::vector<double> sums;

  Groups(std::span<const float> diagonal, int64_t columns) : size(columns) {
    for (size_t j = 0; j < diagonal.size(); ++j) {
      if (j % static_cast<size_t>(size) == 0) sums.push_back(0);
      sums.back() += static_cast<double>(diagonal[j]);
    }
    if (diagonal.size() % static_cast<size_t>(size) != 0) sums.back() = -1;
  }
  // Below 0: a's group comes before b's.
  int compare(int64_t a, int64_t b) const {
    const auto i = static_cast<size_t>(a / size), j = static_cast<size_t>(b / size);
    if (i == j) return 0;
    if (sums[i] != sums[j]) return sums[i] > sums[j] ? -1 : 1;
    return i < j ? -1 : 1;
  }
};

std::vector<int32_t> order_of(std::span<const float> diagonal, int64_t run) {
  std::vector<int32_t> out(diagonal.size());
  std::iota(out.begin(), out.end(), 0);
  const Groups runs(diagonal, run), halves(diagonal, std::max<int64_t>(1, run / 2)),
      single(diagonal, 1);
  std::sort(out.begin(), out.end(), [&](int32_t a, int32_t b) {
    for (const Groups* groups : {&runs, &halves, &single})
      if (const int sign = groups->compare(a, b); sign != 0) return sign < 0;
    return false;
  });
  return out;
}

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

Result<std::shared_ptr<const Feedback>> Feedback::create(const Moments& moments, int64_t run,
                                                         ThreadPool* pool) {
  POME_ASSIGN_OR_RETURN(std::shared_ptr<Feedback> out, make(moments, run, pool));
  return std::shared_ptr<const Feedback>(std::move(out));
}

Result<std::shared_ptr<const Feedback>> Feedback::create_with_form(const MomentsPtr& moments,
                                                                   int64_t run, ThreadPool* pool) {
  POME_ASSIGN_OR_RETURN(std::shared_ptr<Feedback> out, make(*moments, run, pool));
  out->form_.emplace(moments, out->shrink_, out->damping_);
  return std::shared_ptr<const Feedback>(std::move(out));
}

Result<std::shared_ptr<Feedback>> Feedback::make(const Moments& moments, int64_t run,
                                                 ThreadPool* pool) {
  POME_CHECK(run == 1 || run == kRun);
  ThreadPool alone(1);
  if (!pool) pool = &alone;
  const int64_t n = moments.columns;
  const bool whole = !moments.second.empty();
  std::shared_ptr<Feedback> out(new Feedback);
  double trace = 0;
  for (int64_t j = 0; j < n; ++j) {
    out->squares_.push_back(whole ? moments.second[static_cast<size_t>(j * n + j)]
                                  : moments.diagonal[static_cast<size_t>(j)]);
    trace += out->squares_.back();
  }
  if (!std::isfinite(trace) || !all_finite(moments.second))
    return bad_input(Refusal::kRange, "activations of the calibration text are not finite");
  const double mean = n > 0 && trace > 0 ? trace / static_cast<double>(n) : 1;
  out->run_ = run;
  out->order_ = order_of(out->squares_, run);
  const double shrink =
      std::min(kMostShrinking, static_cast<double>(n) /
                                   static_cast<double>(std::max<int64_t>(1, n + moments.tokens)));
  out->shrink_ = shrink;
  out->factor_.n = n;
  out->factor_.rows.resize(whole ? static_cast<size_t>(n * n) : 0);
  // No pivot is smaller than the damping, were it not for rounding.
  constexpr double kSmallest = 0.1;
  if (!whole) {
    out->damping_ = kDamping * mean;
    for (const int32_t j : out->order_)
      out->factor_.diagonal.push_back(out->squares_[static_cast<size_t>(j)] +
                                      static_cast<float>(out->damping_));
  }
  for (double damping = kDamping; whole; damping *= 10) {
    if (damping > kMostDamping)
      return bad_input(Refusal::kRange, "second moments of the calibration text have no factor");
    fill_reversed(moments, out->order_, shrink, damping * mean, pool, &out->factor_.rows);
    out->damping_ = damping * mean;
    if (factorise(kSmallest * damping * mean, &out->factor_, pool)) break;
  }
  out->weights_.resize(static_cast<size_t>(n));
  for (size_t i = 0; i < out->order_.size(); ++i)
    out->weights_[static_cast<size_t>(out->order_[i])] = out->factor_.diagonal[i];
  out->inside_.assign(static_cast<size_t>((n + kBlock - 1) / kBlock * kBlock * kBlock), 0.0f);
  for (int64_t j = 0; whole && j < n; ++j)
    for (int64_t i = j / kBlock * kBlock; i < j; ++i)
      out->inside_[static_cast<size_t>(i * kBlock + j % kBlock)] =
          out->factor_.rows[static_cast<size_t>(j * n + i)];
  return out;
}

// Some rows on their way. Columns stand in the order in which they are taken.
struct Feedback::Tile {
  std::span<const float> values;
  std::span<const RowGrid> grids;
  std::span<uint8_t> levels;
  std::vector<float> wanted, errors;  // [rows, columns]
  std::vector<double> costs;
  std::vector<size_t> blocks;  // of the grids, by column
  const Fitter* fit = nullptr;
  int64_t fitted = 0;    // columns that it fits together
  size_t first_row = 0;  // of all rows

  int64_t rows() const { return static_cast<int64_t>(grids.size()); }
};

// asked[row, j]: what the columns before the block ask of its columns.
void Feedback::ask(int64_t block, int64_t rows, const float* errors, float* asked) const {
  const int64_t n = columns(), first = block * kBlock;
  std::fill_n(asked, rows * kBlock, 0.0f);
  if (first > 0 && !factor_.rows.empty())
    multiply({errors, n, rows, factor_.rows.data() + first * n, n, std::min(kBlock, n - first),
              first, asked, kBlock});
}

// Of the block that begins with the column at `place`.
void Feedback::fit_block(const Tile& tile, int64_t row, int64_t place,
                         std::span<const float> wanted, const float* asked) const {
  constexpr float kMost = 65504;
  float targets[kRun];
  for (size_t i = 0; i < wanted.size(); ++i)
    targets[i] = std::clamp(wanted[i] + asked[i], -kMost, kMost);
  const auto at = static_cast<size_t>(place);
  (*tile.fit)(tile.first_row + static_cast<size_t>(row), tile.blocks[at], {targets, wanted.size()},
              std::span(factor_.diagonal).subspan(at, wanted.size()));
}

void Feedback::feed(Tile* tile) const {
  const int64_t n = columns();
  std::vector<float> asked(static_cast<size_t>(tile->rows() * kBlock));
  for (int64_t first = 0; first < n; first += kBlock) {
    ask(first / kBlock, tile->rows(), tile->errors.data(), asked.data());
    const int64_t width = std::min(kBlock, n - first);
    for (int64_t row = 0; row < tile->rows(); ++row) {
      const RowGrid& grid = tile->grids[static_cast<size_t>(row)];
      const float* const wanted = tile->wanted.data() + row * n + first;
      float* const errors = tile->errors.data() + row * n + first;
      float* const more = asked.data() + row * kBlock;
      uint8_t* const levels = tile->levels.data() + row * n;
      double cost = 0;
      for (int64_t j = 0; j < width; ++j) {
        const auto place = static_cast<size_t>(first + j);
        if (tile->fit && j % tile->fitted == 0)
          fit_block(*tile, row, first + j, std::span(wanted + j, static_cast<size_t>(tile->fitted)),
                    more + j);
        const float target = wanted[j] + more[j];
        float value = 0;
        levels[order_[place]] =
            static_cast<uint8_t>(grid.nearest(tile->blocks[place], target, &value));
        const float error = wanted[j] - value, left = target - value;
        errors[j] = error;
        cost += static_cast<double>(factor_.diagonal[place]) * left * left;
        add_scaled(error, inside_.data() + (first + j) * kBlock, j, kBlock, more);
      }
      tile->costs[static_cast<size_t>(row)] += cost;
    }
  }
}

// costs[row] += what the columns of a block cost, of errors that are known to its end.
void Feedback::add_cost(int64_t block, int64_t rows, const float* errors, double* costs) const {
  const int64_t n = columns(), first = block * kBlock, width = std::min(kBlock, n - first);
  std::vector<float> asked(static_cast<size_t>(rows * kBlock));
  ask(block, rows, errors, asked.data());
  for (int64_t row = 0; row < rows; ++row) {
    float* const more = asked.data() + row * kBlock;
    double cost = 0;
    for (int64_t j = 0; j < width; ++j) {
      const float error = errors[row * n + first + j], left = error + more[j];
      cost += static_cast<double>(factor_.diagonal[static_cast<size_t>(first + j)]) * left * left;
      add_scaled(error, inside_.data() + (first + j) * kBlock, j, kBlock, more);
    }
    costs[row] += cost;
  }
}

// Costs only grow from block to block: rows whose nearest values cost more than what was found are
// left alone as soon as that shows, most of them early.
void Feedback::take_nearest_where_better(Tile* tile) const {
  const int64_t n = columns();
  std::vector<int64_t> rows(static_cast<size_t>(tile->rows()));
  std::iota(rows.begin(), rows.end(), int64_t{0});
  std::vector<double> costs(rows.size(), 0.0);
  std::vector<float>& errors = tile->errors;
  for (int64_t row = 0; row < tile->rows(); ++row)
    for (int64_t j = 0; j < n; ++j) {
      const float wanted = tile->wanted[static_cast<size_t>(row * n + j)];
      float value = 0;
      tile->grids[static_cast<size_t>(row)].nearest(tile->blocks[static_cast<size_t>(j)], wanted,
                                                    &value);
      errors[static_cast<size_t>(row * n + j)] = wanted - value;
    }
  for (int64_t block = 0; block * kBlock < n && !rows.empty(); ++block) {
    add_cost(block, static_cast<int64_t>(rows.size()), errors.data(), costs.data());
    size_t kept = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (!(costs[i] < tile->costs[static_cast<size_t>(rows[i])])) continue;
      if (kept != i)
        std::copy_n(errors.begin() + static_cast<std::ptrdiff_t>(i) * n, n,
                    errors.begin() + static_cast<std::ptrdiff_t>(kept) * n);
      rows[kept] = rows[i];
      costs[kept++] = costs[i];
    }
    rows.resize(kept);
    costs.resize(kept);
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto row = static_cast<size_t>(rows[i]);
    const RowGrid& grid = tile->grids[row];
    for (int64_t j = 0; j < n; ++j) {
      float value = 0;
      const auto at = row * static_cast<size_t>(n) + static_cast<size_t>(j);
      tile->levels[at] =
          static_cast<uint8_t>(grid.nearest(grid.block_of(j), tile->values[at], &value));
    }
    tile->costs[row] = costs[i];
  }
}

double Feedback::round(std::span<const float> values, std::span<const RowGrid> grids,
                       std::span<uint8_t> levels, const Fitter& fit) const {
  const auto n = static_cast<size_t>(columns());
  double cost = 0;
  Tile tile;
  if (fit && !grids.empty()) {
    tile.fit = &fit;
    tile.fitted = grids[0].block_columns();
    POME_CHECK(takes_whole(tile.fitted) && columns() % tile.fitted == 0);
  }
  for (const int32_t column : order_)
    tile.blocks.push_back(grids.empty() ? 0 : grids[0].block_of(column));
  for (size_t first = 0; first < grids.size(); first += kRows) {
    const size_t rows = std::min<size_t>(kRows, grids.size() - first);
    tile.values = values.subspan(first * n, rows * n);
    tile.first_row = first;
    tile.grids = grids.subspan(first, rows);
    tile.levels = levels.subspan(first * n, rows * n);
    tile.wanted.resize(rows * n);
    tile.errors.resize(rows * n);
    tile.costs.assign(rows, 0.0);
    for (size_t row = 0; row < rows; ++row)
      for (size_t j = 0; j < n; ++j)
        tile.wanted[row * n + j] = tile.values[row * n + static_cast<size_t>(order_[j])];
    feed(&tile);
    take_nearest_where_better(&tile);
    cost = std::accumulate(tile.costs.begin(), tile.costs.end(), cost);
  }
  return cost;
}

void Feedback::round_together(std::span<const float> values, const Chooser& choose) const {
  const int64_t n = columns(), rows = n == 0 ? 0 : static_cast<int64_t>(values.size()) / n;
  std::vector<float> errors(values.size()), asked(static_cast<size_t>(rows * kBlock)),
      wanted(static_cast<size_t>(rows)), chosen(static_cast<size_t>(rows));
  for (int64_t first = 0; first < n; first += kBlock) {
    ask(first / kBlock, rows, errors.data(), asked.data());
    for (int64_t j = 0; j < std::min(kBlock, n - first); ++j) {
      const int64_t column = order_[static_cast<size_t>(first + j)];
      for (int64_t row = 0; row < rows; ++row)
        wanted[static_cast<size_t>(row)] = values[static_cast<size_t>(row * n + column)] +
                                           asked[static_cast<size_t>(row * kBlock + j)];
      choose(column, wanted, chosen);
      for (int64_t row = 0; row < rows; ++row) {
        const float error =
            values[static_cast<size_t>(row * n + column)] - chosen[static_cast<size_t>(row)];
        errors[static_cast<size_t>(row * n + first + j)] = error;
        add_scaled(error, inside_.data() + (first + j) * kBlock, j, kBlock,
                   asked.data() + row * kBlock);
      }
    }
  }
}

double Feedback::cost(std::span<const float> errors) const {
  std::vector<float> ordered;
  for (const int32_t column : order_) ordered.push_back(errors[static_cast<size_t>(column)]);
  double cost = 0;
  for (int64_t block = 0; block * kBlock < columns(); ++block)
    add_cost(block, 1, ordered.data(), &cost);
  return cost;
}

}  // namespace pome
