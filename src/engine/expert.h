// What an expert of a mixture does between its products.
#pragma once

#include <algorithm>

#include "engine/activation.h"

namespace pome {

class ExpertActivation {
 public:
  ExpertActivation(Isa isa, const MoeOp& op)
      : op_(op),
        activate_(choose_activation(isa, op.activation)),
        multiply_(kernels::choose_zip(isa, kernels::ZipOp::kMul)) {}

  // gate[i] = activation(gate[i]) * up[i], with the limits and the offset of the op.
  void run(float* gate, float* up, int64_t count) const {
    const auto limit = static_cast<float>(op_.limit), offset = static_cast<float>(op_.up_offset);
    if (op_.limit > 0) {
      for (int64_t i = 0; i < count; ++i) gate[i] = std::min(gate[i], limit);
      if (op_.gated)
        for (int64_t i = 0; i < count; ++i) up[i] = std::max(std::min(up[i], limit), -limit);
    }
    if (op_.sigmoid_scale == 1) {
      activate_(gate, gate, count);
    } else {  // x sigmoid(a x) = (a x) sigmoid(a x) / a
      const auto scale = static_cast<float>(op_.sigmoid_scale);
      for (int64_t i = 0; i < count; ++i) gate[i] *= scale;
      activate_(gate, gate, count);
      for (int64_t i = 0; i < count; ++i) gate[i] /= scale;
    }
    if (!op_.gated) return;
    if (op_.up_offset != 0)
      for (int64_t i = 0; i < count; ++i) up[i] += offset;
    multiply_(gate, up, gate, count);
  }

 private:
  MoeOp op_;
  kernels::MapKernel activate_;
  kernels::ZipKernel multiply_;
};

}  // namespace pome
