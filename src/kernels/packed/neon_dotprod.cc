// NEON with dot products of four bytes (SDOT).
#include <algorithm>

#include "kernels/packed/panel_neon.h"
#include "kernels/packed/unpack_neon.h"

#if defined(POME_HAVE_NEON_KERNELS)
namespace pome::kernels {

namespace {

struct Dot {
  static constexpr int kTokens = 6;
  template <int kLane, bool kWide>
  static POME_INLINE_DOTPROD int32x4_t of(int32x4_t sum, int8x16_t w, int8x16_t x) {
    return vdotq_laneq_s32(sum, w, x, kLane);
  }
};

#define POME_NEON_TARGET POME_TARGET_DOTPROD
#include "kernels/packed/products_neon.inc"
#undef POME_NEON_TARGET

}  // namespace

void packed_gemv_neon_dotprod(const ProductArgs& args) { with_format(args.w.format, Gemv{args}); }
void packed_gemm_neon_dotprod(const ProductArgs& args) {
  multiply_tiles_neon(args, PanelOrder::kQuads, multiply_tokens);
}

}  // namespace pome::kernels
#endif
