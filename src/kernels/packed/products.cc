#include "kernels/packed/products.h"

namespace pome::kernels {

namespace {

#define POME_QUANTIZE_KERNEL(isa, function) {#function, Isa::isa, function},
constexpr QuantizeEntry kQuantizeKernels[] = {
#include "kernels/packed/kernels.inc"
};
#undef POME_QUANTIZE_KERNEL

#define POME_PACKED_KERNEL(isa, name, gemv, gemm, pair) {#name, Isa::isa, gemv, gemm, pair},
constexpr PackedEntry kPackedKernels[] = {
#include "kernels/packed/kernels.inc"
};
#undef POME_PACKED_KERNEL

int64_t padded(int64_t columns) {
  return (columns + Activations::kPad - 1) / Activations::kPad * Activations::kPad;
}
// Rows whole pages apart would meet in the same few lines of a cache: the tokens of a product are
// read side by side.
int64_t stride_of(int64_t columns) { return columns % 2048 == 0 ? columns + 64 : columns; }
int64_t lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

std::span<const QuantizeEntry> quantize_kernels() { return kQuantizeKernels; }
std::span<const PackedEntry> packed_kernels() { return kPackedKernels; }

QuantizeKernel choose_quantize(Isa isa) {
  return best_entry(quantize_kernels(), isa, [](const QuantizeEntry&) { return true; })->run;
}
const PackedEntry* choose_packed(Isa isa) {
  return best_entry(packed_kernels(), isa,
                    [](const PackedEntry& entry) { return entry.isa != Isa::kPortable; });
}

int64_t activation_bytes(int64_t m, int64_t columns) {
  const int64_t k = padded(columns);
  // The fine ones take the most.
  return 2 * m * stride_of(k) + lines(m * k / 32 * 4) + 2 * lines(m * k / 16 * 4);
}

Activations activations_in(std::byte* memory, int64_t m, int64_t columns, ActivationBits bits) {
  Activations out;
  out.bits = bits;
  out.m = m;
  out.columns = padded(columns);
  out.stride = stride_of(out.columns);
  const auto take = [&memory](int64_t bytes) {
    std::byte* const at = memory;
    memory += lines(bytes);
    return at;
  };
  out.high = reinterpret_cast<int8_t*>(take(m * out.stride));
  if (bits == ActivationBits::kFine) {
    out.low = reinterpret_cast<int8_t*>(take(m * out.stride));
  } else if (bits == ActivationBits::kCoarse) {
    out.block = kPanelColumns;
  }
  out.scale = reinterpret_cast<float*>(take(m * out.scales() * 4));
  out.sum = reinterpret_cast<int32_t*>(take(m * out.sums() * 4));
  out.scaled_sum = reinterpret_cast<float*>(take(m * out.sums() * 4));
  return out;
}

Activations activations_part(const Activations& of, int64_t row, int64_t first, int64_t columns) {
  Activations out = of;
  const int64_t per_sum = of.columns / of.sums();
  out.m = 1;
  out.columns = columns;
  out.high += row * of.stride + first;
  if (of.low) out.low += row * of.stride + first;
  out.scale += row * of.scales() + first / of.block;
  out.sum += row * of.sums() + first / per_sum;
  out.scaled_sum += row * of.sums() + first / per_sum;
  return out;
}

}  // namespace pome::kernels
