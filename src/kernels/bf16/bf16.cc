#include "kernels/bf16/bf16.h"

#include <algorithm>
#include <vector>

#include "tensor/half.h"

namespace pome::kernels {

namespace {

#define POME_BF16_KERNEL(isa, name, round, multiply) {#name, Isa::isa, round, multiply},
constexpr Bf16Entry kBf16Kernels[] = {
#include "kernels/bf16/kernels.inc"
};
#undef POME_BF16_KERNEL

}  // namespace

int64_t bf16_padded(int64_t columns) { return (columns + kBf16Pad - 1) / kBf16Pad * kBf16Pad; }
int64_t bf16_panel_bytes(int64_t columns) { return kBf16Rows * 2 * bf16_padded(columns); }
std::span<const Bf16Entry> bf16_kernels() { return kBf16Kernels; }

const Bf16Entry* choose_bf16(Isa isa, const Encoding& encoding) {
  const bool floats = encoding.kind == EncodingKind::kF32 || encoding.kind == EncodingKind::kF16 ||
                      encoding.kind == EncodingKind::kBF16;
  if (!floats) return nullptr;
  return best_entry(bf16_kernels(), isa,
                    [](const Bf16Entry& entry) { return entry.isa != Isa::kPortable; });
}

void bf16_round_portable(const float* x, int64_t columns, uint16_t* to) {
  for (int64_t k = 0; k < bf16_padded(columns); ++k) to[k] = k < columns ? f32_to_bf16(x[k]) : 0;
}

void bf16_multiply_portable(const Bf16Args& args) {
  const int64_t columns = args.w.columns;
  std::vector<float> row(static_cast<size_t>(columns));
  for (int64_t r = args.row; r < args.row + args.rows; ++r) {
    decode_portable(args.w, r, 1, row.data());
    for (int64_t m = 0; m < args.m; ++m) {
      double sum = args.bias ? static_cast<double>(args.bias[r]) : 0.0;
      for (int64_t k = 0; k < columns; ++k)
        sum += static_cast<double>(bf16_to_f32(args.x[m * bf16_padded(columns) + k])) *
               static_cast<double>(bf16_to_f32(f32_to_bf16(row[static_cast<size_t>(k)])));
      args.y[m * args.ldy + r] = static_cast<float>(sum);
    }
  }
}

}  // namespace pome::kernels
