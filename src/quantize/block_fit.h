// Fits the blocks of GGUF: values [rows, columns] -> encoded rows, the squared error as small as a
// search finds it.
//
//   value ~ s q + m  (Q4_1, Q5_1; Q2_K, Q4_K, Q5_K: s = d scale, m = -dmin min)
//   value ~ s level  (Q4_0, Q5_0, Q8_0, IQ4_NL, MXFP4; Q3_K, Q6_K, IQ4_XS: s = d scale)
//
// Per sub-block: codes for a row of trial scales, each refitted by least squares, the best one
// refined by rounding again. Per super-block: integers for scales and minima, their neighbours
// tried against the error of the whole, d and dmin refitted by least squares with the codes as they
// are, and once more. Every step is judged by the error of the values as they will be decoded.
//
// The error of a weight w counts sqrt(mean w^2 of the block + w^2) times: measured on a real model,
// that keeps its output better than the plain squared error does, as ggml's searches found too (not
// for Q6_K and Q8_0, whose error is noise everywhere). `weights`, one per column: it counts that
// many times more (the mean square of the activation that meets the column). Without them every
// column counts the same.
//
// Values that blocks of Q4_0, Q5_0 or Q8_0 held before are kept, but for the code -128 of Q8_0.
//
// Rows are independent of each other and lie in the lanes of vectors, so the bytes are the same for
// every instruction set and every division into tiles. Thread safety: pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/cpu_features.h"
#include "encoding/block_pack.h"
#include "encoding/encoding.h"

namespace pome {

bool can_fit_blocks(EncodingKind kind);
// Values are finite and at most 65504 in magnitude; `columns` is a multiple of the block. Writes
// rows * columns / block_elements blocks.
void fit_blocks(EncodingKind kind, std::span<const float> values, int64_t columns,
                std::span<const float> weights, std::byte* out);
// The same before packing, for who has better codes: rows * columns / block_elements blocks.
void fit_block_codes(EncodingKind kind, std::span<const float> values, int64_t columns,
                     std::span<const float> weights, std::span<BlockCodes> out);
// fit_blocks() with the vectors of one instruction set that this machine has, for tests.
void fit_blocks_with(Isa isa, EncodingKind kind, std::span<const float> values, int64_t columns,
                     std::span<const float> weights, std::byte* out);

}  // namespace pome
