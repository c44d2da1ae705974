// AVX2: int8 products are pairs added in 16 bits, widened and added in 32.
#include "kernels/roof/products.h"
#include "kernels/roof/roof.h"

#if defined(POME_HAVE_AVX2_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

POME_TARGET_AVX2 uint64_t read_roof_avx2(const std::byte* data, int64_t bytes) {
  constexpr int64_t kAhead = 2048;  // prefetched: the hardware alone stops at the end of each page
  __m256i sum[4];
  for (__m256i& each : sum) each = _mm256_setzero_si256();
  for (int64_t i = 0; i < bytes; i += 256) {
    POME_UNROLL
    for (int line = 0; line < 4; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(data) + i + kAhead + 64 * line, _MM_HINT_T0);
    POME_UNROLL
    for (int j = 0; j < 8; ++j)
      sum[j % 4] = _mm256_add_epi64(
          sum[j % 4], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 32 * j)));
  }
  alignas(32) uint64_t words[4];
  _mm256_store_si256(
      reinterpret_cast<__m256i*>(words),
      _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3])));
  return words[0] + words[1] + words[2] + words[3];
}

POME_TARGET_AVX2 double int8_roof_avx2(int64_t rounds) {
  __m256i x = _mm256_set1_epi8(1), y = x, sum[10];
  const __m256i ones = _mm256_set1_epi16(1);
  POME_ROOF_PRODUCTS("+x", _mm256_setzero_si256(),
                     _mm256_add_epi32(sum[j], _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones)),
                     _mm256_add_epi32(sum[0], sum[j]));
  alignas(32) uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sum[0]);
  uint32_t total = 0;
  for (const uint32_t lane : lanes) total += lane;
  return total;
}

POME_TARGET_AVX2 double f32_roof_avx2(int64_t rounds) {
  __m256 x = _mm256_set1_ps(1.0f), y = x, sum[12];
  POME_ROOF_PRODUCTS("+x", _mm256_setzero_ps(), _mm256_fmadd_ps(x, y, sum[j]),
                     _mm256_add_ps(sum[0], sum[j]));
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, sum[0]);
  double total = 0;
  for (const float lane : lanes) total += static_cast<double>(lane);
  return total;
}

}  // namespace pome::kernels
#endif
