// For decoders and portable kernels: kInt and kLut seen as one flat run of codes. Row boundaries do
// not matter to either: blocks of columns and groups of whole rows are both runs of the flat order.
// Rows of their relatives stand on their own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "encoding/encoding.h"

namespace pome {

// out[i] = scale[i / block] * code[i]; codes are two's complement, 4 or 8 bits; scales binary16.
void decode_int_stream(const std::byte* codes, int bits, int64_t count, int64_t block,
                       const std::byte* scales, float* out);
// out[i] = table[i / per_table][index[i]]; tables are binary16, 2^bits entries each.
void decode_lut_stream(const std::byte* indices, int bits, int64_t count, int64_t per_table,
                       const std::byte* tables, float* out);

// One row of kVectorLut.
void decode_vector_row(const Encoding& encoding, int64_t row, int64_t columns,
                       const std::byte* const* parts, float* out);
// One row of kSparse*. False where its mask has not as many ones as values are kept; what is read
// and written stays within the row all the same.
bool decode_sparse_row(const Encoding& encoding, int64_t row, int64_t columns,
                       const std::byte* const* parts, float* out);

}  // namespace pome
