// AVX-512, VNNI and BF16: 24 sums, as many as the products of pome keep in registers.
#include "kernels/roof/products.h"
#include "kernels/roof/roof.h"

#if defined(POME_HAVE_AVX512_KERNELS)
#include <immintrin.h>

namespace pome::kernels {

namespace {

constexpr int kSums = 24;

// Sums of lanes by way of memory: the compiler's own reductions warn in GCC 12.
POME_INLINE_AVX512 double total_of(__m512 sum) {
  alignas(64) float lanes[16];
  _mm512_store_ps(lanes, sum);
  double total = 0;
  for (const float lane : lanes) total += static_cast<double>(lane);
  return total;
}
POME_INLINE_AVX512 uint32_t total_of(__m512i sum) {
  alignas(64) uint32_t lanes[16];
  _mm512_store_si512(lanes, sum);
  uint32_t total = 0;
  for (const uint32_t lane : lanes) total += lane;
  return total;
}

}  // namespace

POME_TARGET_AVX512 uint64_t read_roof_avx512(const std::byte* data, int64_t bytes) {
  constexpr int64_t kAhead = 2048;  // prefetched: the hardware alone stops at the end of each page
  __m512i sum[4];
  for (__m512i& each : sum) each = _mm512_setzero_si512();
  for (int64_t i = 0; i < bytes; i += 512) {
    POME_UNROLL
    for (int line = 0; line < 8; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(data) + i + kAhead + 64 * line, _MM_HINT_T0);
    POME_UNROLL
    for (int j = 0; j < 8; ++j)
      sum[j % 4] = _mm512_add_epi64(sum[j % 4], _mm512_load_si512(data + i + 64 * j));
  }
  alignas(64) uint64_t words[8];
  _mm512_store_si512(
      words, _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3])));
  uint64_t total = 0;
  for (const uint64_t word : words) total += word;
  return total;
}

POME_TARGET_AVX512 double f32_roof_avx512(int64_t rounds) {
  __m512 x = _mm512_set1_ps(1.0f), y = x, sum[kSums];
  POME_ROOF_PRODUCTS("+v", _mm512_setzero_ps(), _mm512_fmadd_ps(x, y, sum[j]),
                     _mm512_add_ps(sum[0], sum[j]));
  return total_of(sum[0]);
}

POME_TARGET_VNNI double int8_roof_vnni(int64_t rounds) {
  __m512i x = _mm512_set1_epi8(1), y = x, sum[kSums];
  POME_ROOF_PRODUCTS("+v", _mm512_setzero_si512(), _mm512_dpbusd_epi32(sum[j], x, y),
                     _mm512_add_epi32(sum[0], sum[j]));
  return total_of(sum[0]);
}

POME_TARGET_BF16 double bf16_roof_avx512(int64_t rounds) {
  __m512i x = _mm512_set1_epi16(0x3F80), y = x;  // ones
  __m512 sum[kSums];
  POME_ROOF_PRODUCTS("+v", _mm512_setzero_ps(), _mm512_dpbf16_ps(sum[j], (__m512bh)x, (__m512bh)y),
                     _mm512_add_ps(sum[0], sum[j]));
  return total_of(sum[0]);
}

}  // namespace pome::kernels
#endif
