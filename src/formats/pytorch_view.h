// A tensor that does not lie in row-major order, as a source of bytes that do. Private to the
// PyTorch reader.
#pragma once

#include "base/byte_source.h"
#include "tensor/tensor.h"

namespace pome::pytorch {

// Element (i, j, ...) lies at offset + (i * strides[0] + j * strides[1] ...) * item_bytes of
// `parent`. The caller has checked that all of them do, and that the whole has at most 2^63 bytes.
// Gathers what is read and nothing else: a transposed matrix is read in tiles like any other.
ByteSourcePtr strided_source(ByteSourcePtr parent, uint64_t offset, size_t item_bytes, Shape sizes,
                             Shape strides, std::string name);

}  // namespace pome::pytorch
