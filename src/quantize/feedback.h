// Rounding with error feedback: the error of a column is made good by the columns behind it.
//
// With the second moments H of the activations, a row w rounded to v costs e H e', e = w - v, in
// the output. H = U D U', U unit upper triangular, D > 0, gives
//
//   e H e' = sum over j of D_j (e_j + sum over i < j of e_i U_ij)^2
//
// so with t_j = w_j + sum over i < j of (w_i - v_i) U_ij and v_j the grid's value next to t_j each
// term is as small as the grid allows, one after the other (LDLQ, arXiv 2307.13304; the same codes
// as GPTQ's, arXiv 2210.17323). Columns are taken in descending order of H_jj, those of a run one
// after the other: a block of the grid that is a run can be fitted when it is reached, for what is
// then wanted of its columns. Codes stay in their places, so every encoding can be used. A row
// whose nearest values cost less than that keeps those.
//
// Many rows are rounded together. Columns come in blocks: what all blocks before ask of one is a
// matrix product of the rows' errors and U, only inside of a block columns go one by one. A row's
// codes do not depend on the rows beside it.
//
// H is shrunk and damped before, (1 - r) H + r diag(H) + l mean(diag H) I, r = K / (K + tokens) at
// most 1/2, l = 0.01 and ten times that until U D U' exists.
//
// Deterministic within one instruction set. Thread safety: immutable, shared.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "quantize/factor.h"
#include "quantize/quadratic_form.h"
#include "quantize/row_grid.h"
#include "quantize/statistics.h"

namespace pome {

class Feedback {
 public:
  static constexpr int64_t kRun = 32;
  // `run`: neighbouring columns that are taken one after the other, 1 or kRun, and of these 16 by
  // 16. `pool`: who makes it, the caller alone where it is null. kBadInput where moments are not
  // finite.
  static Result<std::shared_ptr<const Feedback>> create(const Moments& moments, int64_t run = 1,
                                                        ThreadPool* pool = nullptr);
  // The same, and refinement needs the form besides (refine.h): the moments are kept.
  static Result<std::shared_ptr<const Feedback>> create_with_form(const MomentsPtr& moments,
                                                                  int64_t run = 1,
                                                                  ThreadPool* pool = nullptr);

  int64_t columns() const { return factor_.n; }
  // D by column: how much an error counts once the columns behind it have made good what they can.
  // What a grid should be fitted for.
  std::span<const float> weights() const { return weights_; }
  // Mean squares of the activations, by column.
  std::span<const float> squares() const { return squares_; }
  // Columns as they are taken.
  std::span<const int32_t> order() const { return order_; }
  // Rows whose values are chosen together: choose(column, wanted, chosen) for one column after the
  // other, an element per row. Always with feedback.
  using Chooser = std::function<void(int64_t, std::span<const float>, std::span<float>)>;
  void round_together(std::span<const float> values, const Chooser& choose) const;
  // May change the grid of a row in a block of columns, before any of these is rounded: fit(row,
  // block, targets, weights). Targets are at most 65504 in magnitude, weights are D, of the columns
  // as they are taken.
  using Fitter =
      std::function<void(size_t, size_t, std::span<const float>, std::span<const float>)>;
  // Whether blocks of so many columns are taken as a whole.
  bool takes_whole(int64_t block) const {
    return run_ == kRun && (block == kRun || block == kRun / 2);
  }
  // The levels of rows, each against its grid; the grids have blocks of one size. Gives the sum of
  // e H e', with H as damped. `fit`: only of blocks that are taken as a whole.
  double round(std::span<const float> values, std::span<const RowGrid> grids,
               std::span<uint8_t> levels, const Fitter& fit = {}) const;
  // e H e' of the errors of a row.
  double cost(std::span<const float> errors) const;
  // H as damped; null unless created with it.
  const QuadraticForm* form() const { return form_ ? &*form_ : nullptr; }
  // Rows x become x H^-1, with H as damped.
  void solve(std::span<float> rows) const;

 private:
  struct Tile;
  Feedback() = default;
  static Result<std::shared_ptr<Feedback>> make(const Moments& moments, int64_t run,
                                                ThreadPool* pool);
  void fit_block(const Tile& tile, int64_t row, int64_t place, std::span<const float> wanted,
                 const float* asked) const;
  void feed(Tile* tile) const;
  void take_nearest_where_better(Tile* tile) const;
  void add_cost(int64_t block, int64_t rows, const float* errors, double* costs) const;
  void ask(int64_t block, int64_t rows, const float* errors, float* asked) const;

  double shrink_ = 0, damping_ = 0;  // what was done to H
  int64_t run_ = 1;
  std::vector<int32_t> order_;
  Factor factor_;               // in that order
  std::vector<float> inside_;   // per block of columns U - I by rows, [block, block]
  std::vector<float> weights_;  // D by column
  std::optional<QuadraticForm> form_;
  std::vector<float> squares_;
};
using FeedbackPtr = std::shared_ptr<const Feedback>;

}  // namespace pome
