// Rows of a cache as floats, by the functions that an instruction set has for one row of each kind.
#pragma once

#include <cstring>

#include "kernels/attention/kv_rows.h"

namespace pome::kernels {

// x[i, d] = row i, row stride ldx.
using UnpackRow = void(const KvRows& rows, const std::byte* row, float* x);
inline void unpack_rows(const KvRows& rows, int64_t n, float* x, int64_t ldx, UnpackRow* halves,
                        UnpackRow* bytes, UnpackRow* nibbles) {
  for (int64_t i = 0; i < n; ++i) {
    const std::byte* row = rows.data + i * rows.row_bytes;
    float* to = x + i * ldx;
    switch (rows.kind) {
      case KvKind::kF32:
        std::memcpy(to, row, static_cast<size_t>(rows.dim) * sizeof(float));
        break;
      case KvKind::kF16:
        halves(rows, row, to);
        break;
      case KvKind::kQ8:
        bytes(rows, row, to);
        break;
      case KvKind::kQ4:
        nibbles(rows, row, to);
        break;
    }
  }
}

}  // namespace pome::kernels
