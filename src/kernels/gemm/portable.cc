#include "kernels/gemm/gemm.h"

namespace pome::kernels {

namespace {

// The summation order that gemm.h promises.
float dot(const float* x, const float* w, int64_t k) {
  float s[8] = {};
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    for (int64_t j = 0; j < 8; ++j) s[j] += x[i + j] * w[i + j];
  }
  for (int64_t j = 0; i + j < k; ++j) s[j] += x[i + j] * w[i + j];
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

}  // namespace

void panel_portable(const PanelArgs& args) {
  for (int64_t m = 0; m < args.m; ++m) {
    for (int64_t n = 0; n < args.n; ++n) {
      args.y[m * args.ldy + n] = dot(args.x + m * args.ldx, args.w + n * args.ldw, args.k);
    }
  }
}

}  // namespace pome::kernels
