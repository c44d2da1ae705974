#include "kernels/packed/gemm_amx.h"

#if defined(POME_HAVE_AMX_KERNELS)
namespace pome::kernels {

void packed_gemm_amx(const ProductArgs& args) { packed_gemm_tiles<AmxTiles>(args); }

}  // namespace pome::kernels
#endif
