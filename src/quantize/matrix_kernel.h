// The matrix kernel of this machine, for sums whose order depends on nothing but their length.
#pragma once

#include <algorithm>

#include "base/cpu_features.h"
#include "kernels/gemm/gemm.h"

namespace pome {

// y[m, n] = sum over k of x[m, k] w[n, k], as kernels/gemm/gemm.h says, with `w` cut so that what
// is read again and again stays in the cache.
inline void multiply(const kernels::PanelArgs& args) {
  static const kernels::PanelKernel panel =
      kernels::choose_panel(selected_isa().ok() ? *selected_isa() : Isa::kPortable);
  constexpr int64_t kCachedFloats = 64 * 1024;
  const int64_t step = std::max<int64_t>(8, kCachedFloats / std::max<int64_t>(1, args.k) / 8 * 8);
  for (int64_t n = 0; n < args.n; n += step) {
    kernels::PanelArgs part = args;
    part.w += n * args.ldw;
    part.y += n;
    part.n = std::min(step, args.n - n);
    panel(part);
  }
}

// to[i] += by * from[i] for i in [first, count), and for those before it down to a multiple of 16,
// where `from` is zero. `count` is a multiple of 16.
inline void add_scaled(float by, const float* __restrict from, int64_t first, int64_t count,
                       float* __restrict to) {
  constexpr int64_t kStep = 16;  // a number that compilers make vectors of
  for (int64_t i = first / kStep * kStep; i < count; i += kStep)
    for (int64_t k = i; k < i + kStep; ++k) to[k] += by * from[k];
}

}  // namespace pome
