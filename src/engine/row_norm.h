// Norms of rows, for the steps that only take norms and for products that begin with one.
#pragma once

#include <vector>

#include "engine/frame.h"
#include "kernels/elementwise/elementwise.h"

namespace pome {

class RowNorm {
 public:
  RowNorm(Isa isa, const Node& node);  // of an RmsNormOp or a LayerNormOp
  static bool is_norm(const Node& node) {
    return std::holds_alternative<RmsNormOp>(node.op) ||
           std::holds_alternative<LayerNormOp>(node.op);
  }
  const char* name() const { return is_layer_norm_ ? "layer_norm" : "rms_norm"; }
  ValueId x() const { return x_; }
  // y [rows, d] = the norm of rows [row, row + rows) of x.
  void run(const Frame& frame, int64_t row, int64_t rows, float* y) const;

 private:
  void layer_norm(const float* x, const float* gain, const float* bias, float* y, int64_t d) const;

  ValueId x_, gain_, bias_;
  bool is_layer_norm_;
  double epsilon_;
  kernels::NormKernel rms_norm_;
};

}  // namespace pome
