#include "tensor/dtype.h"

#include <array>

#include "base/checked.h"
#include "base/status.h"

namespace pome {
namespace {

struct Row {
  std::string_view name;
  int bits;
  bool is_float;
};
// In the order of DType.
constexpr std::array<Row, kDTypeCount> kRows = {{
    {"f32", 32, true},   {"f16", 16, true},  {"bf16", 16, true}, {"f64", 64, true},
    {"i8", 8, false},    {"u8", 8, false},   {"i16", 16, false}, {"u16", 16, false},
    {"i32", 32, false},  {"u32", 32, false}, {"i64", 64, false}, {"u64", 64, false},
    {"bool", 8, false},  {"i4", 4, false},   {"u1", 1, false},   {"u2", 2, false},
    {"u3", 3, false},    {"u4", 4, false},   {"u6", 6, false},   {"f8e4m3", 8, true},
    {"f8e5m2", 8, true},
}};
static_assert(static_cast<int>(DType::kF8E5M2) == kDTypeCount - 1);

const Row& row(DType dtype) {
  POME_CHECK(static_cast<size_t>(dtype) < kRows.size());
  return kRows[static_cast<size_t>(dtype)];
}

}  // namespace

std::string_view to_string(DType dtype) { return row(dtype).name; }

std::optional<DType> parse_dtype(std::string_view name) {
  for (size_t i = 0; i < kRows.size(); ++i)
    if (kRows[i].name == name) return static_cast<DType>(i);
  return std::nullopt;
}

int bits_of(DType dtype) { return row(dtype).bits; }

bool is_float(DType dtype) { return row(dtype).is_float; }

std::optional<uint64_t> storage_bytes(DType dtype, uint64_t count) {
  const uint64_t bits = static_cast<uint64_t>(bits_of(dtype));
  if (bits >= 8) return checked_mul<uint64_t>(count, bits / 8);
  // Eight elements fill `bits` bytes; so no product of count and bits can wrap.
  return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

}  // namespace pome
