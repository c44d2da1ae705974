// Element types of tensors and of stored data.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace pome {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kU8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
  kBool,
  // Sub-byte types exist only in stored constants: a bit stream, element i in bits [i*b, (i+1)*b),
  // lowest bit first.
  kI4,
  kU1,
  kU2,
  kU3,
  kU4,
  kU6,
  kF8E4M3,
  kF8E5M2,
};
inline constexpr int kDTypeCount = 21;

std::string_view to_string(DType dtype);  // "f32", "bf16", "i4" ...
std::optional<DType> parse_dtype(std::string_view name);
int bits_of(DType dtype);  // 32 for kF32, 8 for kBool, 3 for kU3
bool is_float(DType dtype);
// Bytes of `count` elements, rounded up to whole bytes; nullopt when it does not fit uint64_t.
std::optional<uint64_t> storage_bytes(DType dtype, uint64_t count);

}  // namespace pome
