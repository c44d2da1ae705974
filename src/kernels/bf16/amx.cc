#include "kernels/bf16/amx.h"

#if defined(POME_HAVE_AMX_KERNELS)
namespace pome::kernels {

void bf16_multiply_amx(const Bf16Args& args) { bf16_multiply_tiles<AmxTiles>(args); }

}  // namespace pome::kernels
#endif
