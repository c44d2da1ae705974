// Private to src/encoding: kInt and kLut seen as one flat run of codes. Row boundaries do not
// matter to either: blocks of columns and groups of whole rows are both runs of the flat order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "encoding/encoding.h"

namespace pome {

// out[i] = scale[i / block] * code[i]; codes are two's complement, 4 or 8 bits; scales binary16.
void decode_int_stream(const std::byte* codes, int bits, int64_t count, int64_t block,
                       const std::byte* scales, float* out);
// out[i] = table[i / per_table][index[i]]; tables are binary16, 2^bits entries each.
void decode_lut_stream(const std::byte* indices, int bits, int64_t count, int64_t per_table,
                       const std::byte* tables, float* out);

// Rows of indices, each of which stands for `vector` rows of values.
void decode_vectors(const Encoding& encoding, int64_t rows, int64_t columns,
                    std::span<const std::byte> indices, std::span<const std::byte> tables,
                    float* out);
// False where a row of the mask has not as many ones as values are kept.
bool decode_sparse(const Encoding& encoding, int64_t rows, int64_t columns,
                   std::span<const std::span<const std::byte>> parts, float* out);

}  // namespace pome
