// What a weight should be where it will not meet the activations that it was made for.
//
// A layer behind quantised ones is given y where the original was given x. The rounded weight V
// should give V y = W x, not W y. With H = mean of y y' and C = mean of x y',
//
//   mean |W x - V y|^2 = mean |(W* - V) y|^2 + what no V can change,   W* = W C H^-1
//
// so rounding aims at W* (the idea of GPTAQ, arXiv 2504.02692, solved for all columns at once).
// Both H and C get what H is damped by (feedback.h), so that x = y gives W* = W.
//
// Where the product is added to a hidden state, which itself is r in the original and s in the
// quantised model, V can also make good a part p of what s lacks: V y = W x + p (r - s), so D H^-1
// is on top of W*, D = p times the mean of (r - s) y'.
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
  // `feedback` was made of `moments`, those of y. `cross`: C, [K, K], x by rows. `rows`: how many
  // will be asked for; with fewer than K each is solved for itself.
  Retarget(FeedbackPtr feedback, const Moments& moments, std::vector<float> cross, int64_t rows,
           ThreadPool* pool);
  int64_t columns() const { return columns_; }
  // Rows of W to rows of W*.
  void apply(std::span<const float> rows, std::span<float> out) const;

 private:
  int64_t columns_;
  FeedbackPtr feedback_;       // null: H^-1 is in the matrix already
  std::vector<float> turned_;  // (C H^-1)', or C'
};

// `data` decoded and changed; canonical() is that of `data`. `added`: rows on top of those of W*,
// all of them, or none.
ConstantDataPtr retargeted(ConstantDataPtr data, std::shared_ptr<const Retarget> by,
                           std::shared_ptr<const std::vector<float>> added = nullptr);

}  // namespace pome
