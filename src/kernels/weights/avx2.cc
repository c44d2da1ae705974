#include "kernels/weights/loaders_avx2.h"

#if defined(POME_HAVE_AVX2_KERNELS)
namespace pome::kernels {

namespace {

template <typename Loader>
POME_TARGET_AVX2 void decode_rows_with(const WeightView& w, int64_t row, int64_t rows, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    Loader loader(w, row + r);
    float* to = out + r * w.columns;
    int64_t k = 0;
    for (; k + 32 <= w.columns; k += 32) {
      loader.step32(k);
      POME_UNROLL
      for (int i = 0; i < 32; i += 8) _mm256_storeu_ps(to + k + i, loader.load8(k, i));
    }
    if constexpr (Loader::kTail) {
      for (; k + 8 <= w.columns; k += 8) _mm256_storeu_ps(to + k, loader.load8(k, 0));
      if (k < w.columns) {
        _mm256_maskstore_ps(to + k, first_lanes(w.columns - k), loader.tail(k, w.columns - k));
      }
    }
  }
}

}  // namespace

void decode_f16_avx2(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderF16>(w, row, rows, out);
}
void decode_bf16_avx2(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderBF16>(w, row, rows, out);
}
void decode_q8_0_avx2(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderQ8_0>(w, row, rows, out);
}
void decode_q4_0_avx2(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderQ4_0>(w, row, rows, out);
}
void decode_mxfp4_avx2(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderMXFP4>(w, row, rows, out);
}
void decode_int4_avx2(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderInt<4>>(w, row, rows, out);
}
void decode_int8_avx2(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderInt<8>>(w, row, rows, out);
}
void decode_lut4_avx2(const WeightView& w, int64_t row, int64_t rows, float* out) {
  decode_rows_with<LoaderLut4>(w, row, rows, out);
}

}  // namespace pome::kernels
#endif
