#include <cstring>

#include "base/checked.h"
#include "formats/mil_internal.h"
#include "tensor/half.h"

namespace pome::mil {
namespace {

struct Codes {
  DType dtype;
  uint64_t mil;    // MILSpec.DataType
  uint32_t blob;   // record of a weight file
  uint64_t array;  // ArrayFeatureType.ArrayDataType
};
constexpr Codes kCodes[] = {
    {DType::kBool, 1, 0, 0},     {DType::kF16, 10, 1, 65552},   {DType::kF32, 11, 2, 65568},
    {DType::kF64, 12, 0, 65600}, {DType::kBF16, 13, 5, 0},      {DType::kI8, 21, 4, 131080},
    {DType::kI16, 22, 6, 0},     {DType::kI32, 23, 14, 131104}, {DType::kI64, 24, 0, 0},
    {DType::kI4, 25, 8, 0},      {DType::kU8, 31, 3, 0},        {DType::kU16, 32, 7, 0},
    {DType::kU32, 33, 15, 0},    {DType::kU64, 34, 0, 0},       {DType::kU4, 35, 11, 0},
    {DType::kU2, 36, 10, 0},     {DType::kU1, 37, 9, 0},        {DType::kU6, 38, 13, 0},
    {DType::kU3, 39, 12, 0},     {DType::kF8E4M3, 40, 16, 0},   {DType::kF8E5M2, 41, 17, 0},
};
static_assert(std::size(kCodes) == kDTypeCount);

const Codes& codes_of(DType dtype) {
  for (const Codes& codes : kCodes) {
    if (codes.dtype == dtype) return codes;
  }
  check_failed("every DType has its codes", __FILE__, __LINE__);
}

template <typename T>
std::vector<std::byte> raw(const std::vector<T>& values) {
  std::vector<std::byte> out(values.size() * sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}

}  // namespace

std::optional<DType> dtype_from_mil(uint64_t code) {
  for (const Codes& codes : kCodes) {
    if (codes.mil == code) return codes.dtype;
  }
  return std::nullopt;
}
uint64_t mil_from_dtype(DType dtype) { return codes_of(dtype).mil; }
uint32_t blob_code(DType dtype) { return codes_of(dtype).blob; }
std::optional<DType> dtype_from_array(uint64_t code) {
  for (const Codes& codes : kCodes) {
    if (codes.array != 0 && codes.array == code) return codes.dtype;
  }
  return std::nullopt;
}
uint64_t array_from_dtype(DType dtype) { return codes_of(dtype).array; }

std::optional<uint64_t> element_count_of(const Type& type) {
  uint64_t count = 1;
  bool empty = false;
  for (const int64_t dim : type.dims) {
    if (dim < 0) return std::nullopt;
    empty = empty || dim == 0;
    const auto next = checked_mul<uint64_t>(count, dim == 0 ? 1 : static_cast<uint64_t>(dim));
    if (!next || *next > INT64_MAX) return std::nullopt;
    count = *next;
  }
  return empty ? 0 : count;
}

std::string to_string(const Type& type) {
  std::string text;
  switch (type.kind) {
    case Type::Kind::kTensor:
      text = to_string(type.dtype);
      break;
    case Type::Kind::kString:
      text = "string";
      break;
    case Type::Kind::kState:
      text = "state " + std::string(to_string(type.dtype));
      break;
    case Type::Kind::kOther:
      return "other";
  }
  text += "[";
  for (size_t i = 0; i < type.dims.size(); ++i) {
    if (i > 0) text += ", ";
    text += type.dims[i] < 0 ? "?" : std::to_string(type.dims[i]);
  }
  return text + "]";
}

ValueData ValueData::scalar_i32(int32_t value) {
  return {{Type::Kind::kTensor, DType::kI32, {}}, raw(std::vector<int32_t>{value})};
}
ValueData ValueData::scalar_u8(uint8_t value) {
  return {{Type::Kind::kTensor, DType::kU8, {}}, std::vector<std::byte>{std::byte{value}}};
}
ValueData ValueData::scalar_bool(bool value) {
  return {{Type::Kind::kTensor, DType::kBool, {}},
          std::vector<std::byte>{value ? std::byte{1} : std::byte{0}}};
}
ValueData ValueData::scalar_f16(float value) {
  return {{Type::Kind::kTensor, DType::kF16, {}}, raw(std::vector<uint16_t>{f32_to_f16(value)})};
}
ValueData ValueData::string(std::string value) {
  return {{Type::Kind::kString, DType::kF32, {}}, std::vector<std::string>{std::move(value)}};
}
ValueData ValueData::i32s(std::vector<int32_t> values) {
  return {{Type::Kind::kTensor, DType::kI32, {static_cast<int64_t>(values.size())}}, raw(values)};
}
ValueData ValueData::bools(std::vector<bool> values) {
  std::vector<std::byte> bytes;
  for (const bool value : values) bytes.push_back(value ? std::byte{1} : std::byte{0});
  return {{Type::Kind::kTensor, DType::kBool, {static_cast<int64_t>(values.size())}},
          std::move(bytes)};
}
ValueData ValueData::blob(Type type, BlobRef ref) { return {std::move(type), std::move(ref)}; }

}  // namespace pome::mil
