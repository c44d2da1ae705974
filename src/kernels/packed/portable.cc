// The plain form of quantising and of both products: what the others are tested against.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/packed/products.h"

namespace pome::kernels {

namespace {

// Below it the largest code over the largest value is no finite number; such a block is zero.
constexpr float kSmallest = 1e-33f;

}  // namespace

int64_t gemm_panel_bytes(int64_t columns) {
  const int64_t groups = (columns + kPanelColumns - 1) / kPanelColumns;
  return groups * 2 * (64 + kTileRows * kPanelColumns);
}

void quantize_portable(const float* x, int64_t columns, const Activations& to, int64_t row) {
  const bool fine = to.bits == ActivationBits::kFine;
  const float steps = fine ? 127.0f * 256.0f : 127.0f;
  const int64_t per_sum = to.columns / to.sums();
  for (int64_t begin = 0; begin < to.columns; begin += to.block) {
    const int64_t end = std::clamp<int64_t>(columns, begin, begin + to.block);
    // Compared as bits: NaN is larger than infinity, infinity than all numbers.
    uint32_t largest_bits = 0;
    for (int64_t k = begin; k < end; ++k)
      largest_bits = std::max(largest_bits, std::bit_cast<uint32_t>(x[k]) & 0x7FFFFFFFu);
    const bool finite = largest_bits < 0x7F800000u;
    const float largest = std::bit_cast<float>(largest_bits);
    // Not a number in, not a number out: by way of the scale.
    const float scale = finite ? largest / steps : std::numeric_limits<float>::quiet_NaN();
    const float inverse = finite && largest >= kSmallest ? steps / largest : 0.0f;
    to.scale[row * to.scales() + begin / to.block] = scale;
    int32_t sum = 0;
    for (int64_t k = begin; k < begin + to.block; ++k) {
      const bool zero = k >= end || inverse == 0.0f;
      const int v = zero ? 0 : static_cast<int>(std::nearbyint(x[k] * inverse));
      const int high = fine ? (v + 128) >> 8 : v;
      to.high[row * to.stride + k] = static_cast<int8_t>(high);
      if (fine) to.low[row * to.stride + k] = static_cast<int8_t>(v - 256 * high);
      sum += v;
      if ((k + 1) % per_sum != 0) continue;
      to.sum[row * to.sums() + k / per_sum] = sum;
      to.scaled_sum[row * to.sums() + k / per_sum] = scale * static_cast<float>(sum);
      sum = 0;
    }
  }
}

// Weights as they are stored, whatever the number of tokens.
void packed_gemv_portable(const ProductArgs& args) {
  const PackedLayout& layout = args.w.layout;
  std::vector<float> row(static_cast<size_t>(layout.columns));
  const int64_t end = std::min(layout.rows, (args.tile + args.tiles) * kTileRows);
  for (int64_t r = args.tile * kTileRows; r < end; ++r) {
    unpack_row(args.w, r, row.data());
    for (int64_t m = 0; m < args.x.m; ++m) {
      double sum = args.bias ? static_cast<double>(args.bias[r]) : 0.0;
      for (int64_t k = 0; k < layout.columns; ++k)
        sum += activation(args.x, m, k) * static_cast<double>(row[static_cast<size_t>(k)]);
      *args.y_at(m, r) = static_cast<float>(sum);
    }
  }
}
void packed_gemm_portable(const ProductArgs& args) { packed_gemv_portable(args); }

}  // namespace pome::kernels
