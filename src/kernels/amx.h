// The tile registers of Intel's AMX (SDM vol. 1, chapter 18), behind the few operations that
// kernels need. Kernels are templates over a class like AmxTiles, so that tests can run them on a
// machine without AMX, over plain code of the same meaning.
//
//   configure   shapes of the eight tiles; all of them become zero
//   zero<T>     tile T = 0
//   load<T>     rows of tile T from memory, `stride` bytes apart; store<T> likewise
//   dot_int8    C[m, n] += sum over k, i < 4 of A[m, 4 k + i] * B[k, 4 n + i]   signed bytes, int32
//   dot_bf16    C[m, n] += sum over k, i < 2 of A[m, 2 k + i] * B[k, 2 n + i]   bf16, f32
//
// Subnormal bf16 factors and sums count as zero. C, A and B are numbers of tiles.
//
// Tiles belong to the thread. They are configured at the entry of a kernel and given back at its
// exit: while they are in use every switch of threads has 8 KiB more to save.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/isa.h"

namespace pome::kernels {

inline constexpr int kAmxTiles = 8, kAmxRows = 16, kAmxRowBytes = 64;

// Shapes of the tiles, as LDTILECFG reads them: palette 1 is the one of eight tiles of 1 KiB.
struct alignas(64) AmxShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(AmxShapes) == 64);

// Products of sums in tiles [0, 4) of `rows[i]` tokens each: tile c belongs to tokens c / 2. Tiles
// 4 and 5 hold those tokens, 6 and 7 sixteen rows of weights each; all are 64 bytes wide.
inline AmxShapes amx_shapes(const int (&rows)[2]) {
  AmxShapes out;
  const int of_tile[kAmxTiles] = {rows[0], rows[0], rows[1],  rows[1],
                                  rows[0], rows[1], kAmxRows, kAmxRows};
  for (int tile = 0; tile < kAmxTiles; ++tile) {
    if (of_tile[tile] == 0) continue;
    out.rows[tile] = static_cast<uint8_t>(of_tile[tile]);
    out.row_bytes[tile] = kAmxRowBytes;
  }
  return out;
}

#if defined(POME_HAVE_AMX_KERNELS)
// Written out: the compilers' own intrinsics take the number of a tile as a literal only.
class AmxTiles {
 public:
  AmxTiles() = default;
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
  ~AmxTiles() { __asm__ volatile("tilerelease" ::: "memory"); }

  void configure(const AmxShapes& shapes) {
    __asm__ volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
  }
  template <int kTile>
  void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  void load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile)
                     : "memory");
  }
  template <int kTile>
  void store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile)
                     : "memory");
  }
  template <int kC, int kA, int kB>
  void dot_int8() {
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
  }
  template <int kC, int kA, int kB>
  void dot_bf16() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
  }
};
#endif

}  // namespace pome::kernels
