#include "kernels/weights/loaders_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

namespace {

template <typename Loader>
void decode_rows_with(const WeightView& w, int64_t row, int64_t rows, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    Loader loader(w, row + r);
    float* to = out + r * w.columns;
    int64_t k = 0;
    for (; k + 32 <= w.columns; k += 32) {
      loader.step32(k);
      POME_UNROLL
      for (int i = 0; i < 32; i += 8) store8(to + k + i, loader.next8(k, i));
    }
    if constexpr (Loader::kTail) {
      for (; k + 8 <= w.columns; k += 8) store8(to + k, loader.next8(k, 0));
      if (k < w.columns) {
        float last[8];
        store8(last, loader.tail(k, w.columns - k));
        for (int64_t i = 0; k + i < w.columns; ++i) to[k + i] = last[i];
      }
    }
  }
}

}  // namespace

void decode_f16_neon(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderF16>(w, row, rows, out);
}
void decode_bf16_neon(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderBF16>(w, row, rows, out);
}
void decode_q8_0_neon(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderQ8_0>(w, row, rows, out);
}
void decode_q4_0_neon(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderQ4_0>(w, row, rows, out);
}
void decode_mxfp4_neon(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderMXFP4>(w, row, rows, out);
}
void decode_int4_neon(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderInt<4>>(w, row, rows, out);
}
void decode_int8_neon(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderInt<8>>(w, row, rows, out);
}
void decode_lut4_neon(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderLut4>(w, row, rows, out);
}

}  // namespace pome::kernels
#endif
