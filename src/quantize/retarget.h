// What a weight should be where it will not meet the activations that it was made for.
//
// A layer behind quantised ones is given y where the original was given x. The rounded weight V
// should give V y = W x, not W y. With H = mean of y y' and C = mean of x y',
//
//   mean |W x - V y|^2 = mean |(W* - V) y|^2 + what no V can change,   W* = W C H^-1
//
// so rounding aims at W* (the idea of GPTAQ, arXiv 2504.02692, solved for all columns at once).
// Both H and C get what H is damped by (feedback.h). That cancels in C - H, the mean of (x - y) y':
//
//   W* = W + W D H^-1 = W + L H^-1,   D = mean of (x - y) y',   L = W D = mean of (W x - W y) y'
//
// D serves all weights that read a value, L is less work for one with fewer rows than columns.
//
// Where the product is added to a hidden state, which itself is r in the original and s in the
// quantised model, V can also make good a part p of what s lacks: V y = W x + p (r - s), and L has
// the mean of p (r - s) y' besides.
//
// Thread safety: immutable.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "graph/constant.h"
#include "quantize/feedback.h"

namespace pome {

class Retarget {
 public:
  // `feedback` was made of the moments of y. `cross`: D, [K, K], x - y by rows. `rows`: how many
  // will be asked for; with fewer than K each is solved for itself.
  Retarget(FeedbackPtr feedback, std::vector<float> cross, int64_t rows, ThreadPool* pool);
  int64_t columns() const { return columns_; }
  // Rows of W to rows of W*.
  void apply(std::span<const float> rows, std::span<float> out) const;

 private:
  int64_t columns_;
  FeedbackPtr feedback_;       // null: H^-1 is in the matrix already
  std::vector<float> turned_;  // (D H^-1)', or D'
};

// L H^-1 of all rows of a weight, in place.
void solve_rows(const Feedback& feedback, std::vector<float>* lacking, ThreadPool* pool);

// `data` decoded and changed: by D, and by rows that are on top of it, all of them. Either may be
// null. canonical() is that of `data`.
ConstantDataPtr retargeted(ConstantDataPtr data, std::shared_ptr<const Retarget> by,
                           std::shared_ptr<const std::vector<float>> added = nullptr);

}  // namespace pome
