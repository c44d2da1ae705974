#include "quantize/block_fit.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/cpu_features.h"
#include "encoding/block_pack.h"
#include "encoding/blocks.h"
#include "tensor/half.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define POME_BLOCK_FIT_X86 1
#else
#define POME_BLOCK_FIT_X86 0
#endif

namespace pome {

namespace {

constexpr int kMostLanes = 16;

// What was found for one block of each of some rows. Levels are codes (pairs), integers or the
// values of tables; d of MXFP4 is the exponent.
struct LaneFit {
  alignas(64) float d[kMostLanes], dmin[kMostLanes];
  float scale[16][kMostLanes], min[16][kMostLanes];
  int8_t level[256][kMostLanes];
};

// The E8M0 exponent that puts the largest magnitude at the top of four-bit floats.
int power_exponent(float peak) {
  int exponent = 0;
  std::frexp(peak, &exponent);
  return peak > 0 ? exponent - 1 - 2 + 127 : 2;
}

namespace portable {
template <typename Vector>
Vector square_root(Vector value) {
  for (size_t lane = 0; lane < sizeof value / 4; ++lane) value[lane] = std::sqrt(value[lane]);
  return value;
}
#define POME_TARGET
#define POME_MIN(a, b) ((a) < (b) ? (a) : (b))
#define POME_MAX(a, b) ((a) > (b) ? (a) : (b))
#define POME_SQRT(a) square_root(a)
constexpr int kLanes = 4;
#include "quantize/block_fit.inc"
#undef POME_TARGET
#undef POME_MIN
#undef POME_MAX
#undef POME_SQRT
}  // namespace portable
#if POME_BLOCK_FIT_X86
namespace avx2 {
#define POME_TARGET __attribute__((target("avx2")))
#define POME_MIN(a, b) _mm256_min_ps(a, b)
#define POME_MAX(a, b) _mm256_max_ps(a, b)
#define POME_SQRT(a) _mm256_sqrt_ps(a)
constexpr int kLanes = 8;
#include "quantize/block_fit.inc"
#undef POME_TARGET
#undef POME_MIN
#undef POME_MAX
#undef POME_SQRT
}  // namespace avx2
namespace avx512 {
// The masked forms, because the others make GCC 12 warn of a value that nobody sets.
#define POME_TARGET __attribute__((target("avx512f,avx512dq,avx512vl")))
#define POME_MIN(a, b) _mm512_mask_min_ps(a, 0xFFFF, a, b)
#define POME_MAX(a, b) _mm512_mask_max_ps(a, 0xFFFF, a, b)
#define POME_SQRT(a) _mm512_mask_sqrt_ps(a, 0xFFFF, a)
constexpr int kLanes = 16;
#include "quantize/block_fit.inc"
#undef POME_TARGET
#undef POME_MIN
#undef POME_MAX
#undef POME_SQRT
}  // namespace avx512
#endif

struct Fitter {
  void (*fit)(EncodingKind, const float*, const float*, bool, LaneFit*) = portable::fit;
  int lanes = portable::kLanes;
};

Fitter fitter_of([[maybe_unused]] Isa isa) {
#if POME_BLOCK_FIT_X86
  if (isa >= Isa::kAvx2 && isa < Isa::kNeon)
    return isa >= Isa::kAvx512 ? Fitter{avx512::fit, avx512::kLanes}
                               : Fitter{avx2::fit, avx2::kLanes};
#endif
  return {};
}

// Code of each level, -128 .. 127.
struct CodeTable {
  uint8_t code[256] = {};
  explicit CodeTable(EncodingKind kind) {
    int offset = 0;  // codes of pairs are codes already
    switch (kind) {
      case EncodingKind::kIQ4_NL:
      case EncodingKind::kIQ4_XS:
        for (int k = 0; k < 16; ++k) code[kIq4Levels[k] + 128] = static_cast<uint8_t>(k);
        return;
      case EncodingKind::kMXFP4:
        for (int k = 15; k >= 0; --k) code[kFp4Doubled[k] + 128] = static_cast<uint8_t>(k);
        return;
      case EncodingKind::kQ3_K:
        offset = 4;
        break;
      case EncodingKind::kQ4_0:
        offset = 8;
        break;
      case EncodingKind::kQ5_0:
        offset = 16;
        break;
      case EncodingKind::kQ6_K:
        offset = 32;
        break;
      case EncodingKind::kQ8_0:
        offset = 128;
        break;
      default:
        break;
    }
    for (int level = 0; level < 256; ++level)
      code[level] = static_cast<uint8_t>(level - 128 + offset);
  }
};

BlockCodes codes_of_lane(EncodingKind kind, const CodeTable& table, const LaneFit& fit, int lane) {
  BlockCodes block;
  const bool power = kind == EncodingKind::kMXFP4;
  block.d = power ? static_cast<uint16_t>(fit.d[lane]) : f32_to_f16(fit.d[lane]);
  block.dmin = f32_to_f16(fit.dmin[lane]);
  for (int j = 0; j < 16; ++j) {
    block.scales[j] = static_cast<int16_t>(fit.scale[j][lane]);
    block.mins[j] = static_cast<int16_t>(fit.min[j][lane]);
  }
  const int count = traits(kind).block_elements;
  for (int i = 0; i < count; ++i) block.codes[i] = table.code[fit.level[i][lane] + 128];
  return block;
}

// Calls use(number of the block, block), the blocks counted by rows.
template <typename Use>
void fit_each(Isa isa, EncodingKind kind, std::span<const float> values, int64_t columns,
              std::span<const float> weights, const Use& use) {
  const Fitter fitter = fitter_of(isa);
  const int64_t size = traits(kind).block_elements;
  const int64_t rows = columns > 0 ? static_cast<int64_t>(values.size()) / columns : 0;
  POME_CHECK(can_fit_blocks(kind) && columns % size == 0);
  const CodeTable table(kind);
  const std::vector<float> ones(weights.empty() ? 256 : 0, 1.0f);
  LaneFit fit{};
  alignas(64) float x[256 * kMostLanes];
  for (int64_t row = 0; row < rows; row += fitter.lanes) {
    const int64_t used = std::min<int64_t>(fitter.lanes, rows - row);
    for (int64_t column = 0; column < columns; column += size) {
      for (int64_t lane = 0; lane < fitter.lanes; ++lane) {
        const float* from = values.data() + (row + std::min(lane, used - 1)) * columns + column;
        for (int64_t i = 0; i < size; ++i) x[i * fitter.lanes + lane] = from[i];
      }
      fitter.fit(kind, x, weights.empty() ? ones.data() : weights.data() + column, !weights.empty(),
                 &fit);
      for (int64_t lane = 0; lane < used; ++lane)
        use((row + lane) * (columns / size) + column / size,
            codes_of_lane(kind, table, fit, static_cast<int>(lane)));
    }
  }
}

Isa fastest_isa() {
  static const Isa kIsa = selected_isa().ok() ? *selected_isa() : Isa::kPortable;
  return kIsa;
}

}  // namespace

bool can_fit_blocks(EncodingKind kind) { return can_pack(kind); }

void fit_blocks(EncodingKind kind, std::span<const float> values, int64_t columns,
                std::span<const float> weights, std::byte* out) {
  fit_blocks_with(fastest_isa(), kind, values, columns, weights, out);
}

void fit_block_codes(EncodingKind kind, std::span<const float> values, int64_t columns,
                     std::span<const float> weights, std::span<BlockCodes> out) {
  fit_each(fastest_isa(), kind, values, columns, weights,
           [&](int64_t index, const BlockCodes& b) { out[static_cast<size_t>(index)] = b; });
}

void fit_blocks_with(Isa isa, EncodingKind kind, std::span<const float> values, int64_t columns,
                     std::span<const float> weights, std::byte* out) {
  const int64_t bytes = traits(kind).block_bytes;
  fit_each(isa, kind, values, columns, weights, [&](int64_t index, const BlockCodes& block) {
    pack_block(kind, block, out + index * bytes);
  });
}

}  // namespace pome
