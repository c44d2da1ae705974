#include <algorithm>
#include <cmath>

#include "kernels/attention/attention.h"

namespace pome::kernels {

float softmax_portable(const SoftmaxArgs& args) {
  float largest = -INFINITY;
  for (int64_t j = 0; j < args.n; ++j) {
    float s = args.s[j] * args.scale;
    if (args.softcap > 0) s = args.softcap * std::tanh(s / args.softcap);
    args.s[j] = s;
    largest = std::max(largest, s);
  }
  float sum = 0;
  for (int64_t j = 0; j < args.n; ++j) {
    args.s[j] = std::exp(args.s[j] - largest);
    sum += args.s[j];
  }
  *args.largest = largest;
  return sum;
}

void weighted_sum_portable(const WeightedSumArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    float* y = args.y + r * args.ldy;
    std::fill(y, y + args.d, 0.0f);
    for (int64_t j = 0; j < args.n; ++j) {
      const float p = args.p[r * args.ldp + j];
      const float* v = args.v + j * args.ldv;
      for (int64_t d = 0; d < args.d; ++d) y[d] += p * v[d];
    }
  }
}

void unpack_portable(const KvRows& rows, int64_t n, float* x, int64_t ldx) {
  for (int64_t i = 0; i < n; ++i)
    kv_unpack_row(rows.kind, rows.data + i * rows.row_bytes, rows.dim, rows.width, x + i * ldx);
}

}  // namespace pome::kernels
