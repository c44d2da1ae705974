// A product in bfloat16 of random activations.
#pragma once

#include <cstdlib>
#include <memory>

#include "kernels/bf16/bf16.h"
#include "kernels/kernel_test_util.h"

namespace pome::kernels {

struct Bf16Product {
  Bf16Product(const RandomWeight& weight, int64_t tokens)
      : w(weight.view),
        m(tokens),
        ldy(w.rows + 2),
        q(static_cast<size_t>(m * bf16_padded(w.columns))),
        bias(random_floats(w.rows, 12)),
        scratch(std::aligned_alloc(64, static_cast<size_t>(bf16_panel_bytes(w.columns))),
                std::free) {
    const auto x = random_floats(m * w.columns, 11);
    for (int64_t i = 0; i < m; ++i)
      bf16_round_portable(x.data() + i * w.columns, w.columns,
                          q.data() + i * bf16_padded(w.columns));
  }
  std::vector<float> run(Bf16MultiplyKernel kernel) const {
    std::vector<float> y(static_cast<size_t>(m * ldy), -77.0f);
    kernel({w, 0, w.rows, q.data(), m, bias.data(), y.data(), ldy,
            static_cast<std::byte*>(scratch.get())});
    return y;
  }

  WeightView w;
  int64_t m, ldy;
  std::vector<uint16_t> q;
  std::vector<float> bias;
  std::unique_ptr<void, decltype(&std::free)> scratch;
};

}  // namespace pome::kernels
