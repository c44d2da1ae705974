#include "tensor/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "base/checked.h"
#include "tensor/half.h"

namespace pome {
namespace {

constexpr size_t kAlignment = 64;          // a cache line, and the widest vector
alignas(kAlignment) std::byte g_empty[1];  // where tensors without elements point

std::shared_ptr<std::byte> allocate(size_t size) {
  void* memory = ::operator new (std::max<size_t>(size, 1), std::align_val_t{kAlignment});
  return {static_cast<std::byte*>(memory),
          [](std::byte* p) { ::operator delete (p, std::align_val_t{kAlignment}); }};
}

size_t storage_size(DType dtype, int64_t count) {
  const auto bytes = storage_bytes(dtype, static_cast<uint64_t>(count));
  POME_CHECK(bytes && *bytes <= std::numeric_limits<size_t>::max());
  return static_cast<size_t>(*bytes);
}

// One element between any type and the computation types of conversion: double for floats, int64_t
// or uint64_t for integers.
template <typename T>
T load(const std::byte* data, int64_t i) {
  T value;
  std::memcpy(&value, data + static_cast<size_t>(i) * sizeof(T), sizeof(T));
  return value;
}
template <typename T>
void store(std::byte* data, int64_t i, T value) {
  std::memcpy(data + static_cast<size_t>(i) * sizeof(T), &value, sizeof(T));
}

template <typename To, typename From>
To saturate(From value, To low, To high) {
  if constexpr (std::is_floating_point_v<From>) {
    if (std::isnan(value)) return To{0};
    // The limits as doubles may round up to 2^63; so >= decides.
    if (value >= static_cast<From>(high)) return high;
    if (value <= static_cast<From>(low)) return low;
    return static_cast<To>(value);
  } else if constexpr (std::is_signed_v<From>) {
    if (value < 0 && std::is_unsigned_v<To>) return To{0};
    if (value < 0) return value < static_cast<From>(low) ? low : static_cast<To>(value);
    return static_cast<uint64_t>(value) > static_cast<uint64_t>(high) ? high
                                                                      : static_cast<To>(value);
  } else {
    return static_cast<uint64_t>(value) > static_cast<uint64_t>(high) ? high
                                                                      : static_cast<To>(value);
  }
}
template <typename To, typename From>
To saturate(From value) {
  return saturate<To, From>(value, std::numeric_limits<To>::min(), std::numeric_limits<To>::max());
}

// An integer as a double whose further rounding to f32 or less equals rounding the integer: what
// double cannot hold is folded into a sticky bit.
template <typename From>
double as_double(From value) {
  if constexpr (std::is_floating_point_v<From>) {
    return value;
  } else {
    const bool negative = std::is_signed_v<From> && value < From{0};
    uint64_t magnitude =
        negative ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
    if (magnitude >> 53) magnitude = (magnitude >> 11 | ((magnitude & 0x7FFu) != 0)) << 11;
    const double out = static_cast<double>(magnitude);
    return negative ? -out : out;
  }
}

uint32_t read_code(const std::byte* data, int bits, int64_t index) {
  const uint64_t bit = static_cast<uint64_t>(index) * static_cast<uint64_t>(bits);
  const size_t byte = static_cast<size_t>(bit / 8);
  const int shift = static_cast<int>(bit % 8);
  uint32_t word = std::to_integer<uint32_t>(data[byte]);
  if (shift + bits > 8) word |= std::to_integer<uint32_t>(data[byte + 1]) << 8;
  return (word >> shift) & ((1u << bits) - 1);
}

void write_code(std::byte* data, int bits, int64_t index, uint32_t code) {  // onto zero bits
  const uint64_t bit = static_cast<uint64_t>(index) * static_cast<uint64_t>(bits);
  const size_t byte = static_cast<size_t>(bit / 8);
  const int shift = static_cast<int>(bit % 8);
  data[byte] |= static_cast<std::byte>(code << shift);
  if (shift + bits > 8) data[byte + 1] |= static_cast<std::byte>(code >> (8 - shift));
}

int sign_extend_4(uint32_t code) { return static_cast<int>(code ^ 8u) - 8; }

template <typename From>
void store_as(DType dtype, std::byte* out, int64_t i, From value) {
  switch (dtype) {
    case DType::kF32:
      if constexpr (std::is_floating_point_v<From>)
        return store<float>(out, i, static_cast<float>(value));
      else
        return store<float>(out, i, static_cast<float>(as_double(value)));
    case DType::kF64:
      return store<double>(out, i, static_cast<double>(value));
    case DType::kF16:
      return store<uint16_t>(out, i, f64_to_f16(as_double(value)));
    case DType::kBF16:
      return store<uint16_t>(out, i, f64_to_bf16(as_double(value)));
    case DType::kF8E4M3:
      return store<uint8_t>(out, i, f64_to_f8e4m3(as_double(value)));
    case DType::kF8E5M2:
      return store<uint8_t>(out, i, f64_to_f8e5m2(as_double(value)));
    case DType::kI8:
      return store<int8_t>(out, i, saturate<int8_t>(value));
    case DType::kU8:
      return store<uint8_t>(out, i, saturate<uint8_t>(value));
    case DType::kI16:
      return store<int16_t>(out, i, saturate<int16_t>(value));
    case DType::kU16:
      return store<uint16_t>(out, i, saturate<uint16_t>(value));
    case DType::kI32:
      return store<int32_t>(out, i, saturate<int32_t>(value));
    case DType::kU32:
      return store<uint32_t>(out, i, saturate<uint32_t>(value));
    case DType::kI64:
      return store<int64_t>(out, i, saturate<int64_t>(value));
    case DType::kU64:
      return store<uint64_t>(out, i, saturate<uint64_t>(value));
    case DType::kBool:
      return store<uint8_t>(out, i, value != From{0});
    case DType::kI4:
      return write_code(out, 4, i, static_cast<uint32_t>(saturate<int>(value, -8, 7)) & 0xFu);
    case DType::kU1:
    case DType::kU2:
    case DType::kU3:
    case DType::kU4:
    case DType::kU6: {
      const int bits = bits_of(dtype);
      return write_code(out, bits, i, saturate<uint32_t>(value, 0u, (1u << bits) - 1));
    }
  }
}

template <typename Read>
void convert(int64_t count, DType to, std::byte* out, const Read& read) {
  for (int64_t i = 0; i < count; ++i) store_as(to, out, i, read(i));
}

void convert_any(DType from, const std::byte* in, int64_t count, DType to, std::byte* out) {
  switch (from) {
    case DType::kF32:
      return convert(count, to, out, [in](int64_t i) -> double { return load<float>(in, i); });
    case DType::kF64:
      return convert(count, to, out, [in](int64_t i) { return load<double>(in, i); });
    case DType::kF16:
      return convert(count, to, out,
                     [in](int64_t i) -> double { return f16_to_f32(load<uint16_t>(in, i)); });
    case DType::kBF16:
      return convert(count, to, out,
                     [in](int64_t i) -> double { return bf16_to_f32(load<uint16_t>(in, i)); });
    case DType::kF8E4M3:
      return convert(count, to, out,
                     [in](int64_t i) -> double { return f8e4m3_to_f32(load<uint8_t>(in, i)); });
    case DType::kF8E5M2:
      return convert(count, to, out,
                     [in](int64_t i) -> double { return f8e5m2_to_f32(load<uint8_t>(in, i)); });
    case DType::kI8:
      return convert(count, to, out, [in](int64_t i) -> int64_t { return load<int8_t>(in, i); });
    case DType::kU8:
      return convert(count, to, out, [in](int64_t i) -> int64_t { return load<uint8_t>(in, i); });
    case DType::kI16:
      return convert(count, to, out, [in](int64_t i) -> int64_t { return load<int16_t>(in, i); });
    case DType::kU16:
      return convert(count, to, out, [in](int64_t i) -> int64_t { return load<uint16_t>(in, i); });
    case DType::kI32:
      return convert(count, to, out, [in](int64_t i) -> int64_t { return load<int32_t>(in, i); });
    case DType::kU32:
      return convert(count, to, out, [in](int64_t i) -> int64_t { return load<uint32_t>(in, i); });
    case DType::kI64:
      return convert(count, to, out, [in](int64_t i) { return load<int64_t>(in, i); });
    case DType::kU64:
      return convert(count, to, out, [in](int64_t i) { return load<uint64_t>(in, i); });
    case DType::kBool:
      return convert(count, to, out,
                     [in](int64_t i) -> int64_t { return load<uint8_t>(in, i) != 0; });
    case DType::kI4:
      return convert(count, to, out,
                     [in](int64_t i) -> int64_t { return sign_extend_4(read_code(in, 4, i)); });
    case DType::kU1:
    case DType::kU2:
    case DType::kU3:
    case DType::kU4:
    case DType::kU6: {
      const int bits = bits_of(from);
      return convert(count, to, out,
                     [in, bits](int64_t i) -> int64_t { return read_code(in, bits, i); });
    }
  }
}

}  // namespace

std::optional<int64_t> element_count(const Shape& shape) {
  int64_t count = 1;
  bool overflow = false;
  for (const int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    if (dim == 0)
      return std::all_of(shape.begin(), shape.end(), [](int64_t d) { return d >= 0; })
                 ? std::optional<int64_t>(0)
                 : std::nullopt;
    const auto product = checked_mul(count, dim);
    overflow = overflow || !product;
    count = product.value_or(1);
  }
  return overflow ? std::nullopt : std::optional<int64_t>(count);
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

Tensor Tensor::zeros(DType dtype, Shape shape) {
  const auto count = element_count(shape);
  POME_CHECK(count.has_value());
  Tensor out;
  out.dtype_ = dtype;
  out.shape_ = std::move(shape);
  out.count_ = *count;
  out.size_ = storage_size(dtype, *count);
  const std::shared_ptr<std::byte> memory = allocate(out.size_);
  std::memset(memory.get(), 0, out.size_);
  out.data_ = out.mutable_data_ = memory.get();
  out.owner_ = memory;
  return out;
}

Tensor Tensor::from_f32(Shape shape, std::vector<float> values) {
  Tensor out = zeros(DType::kF32, std::move(shape));
  POME_CHECK(values.size() == static_cast<size_t>(out.count_));
  std::copy(values.begin(), values.end(), out.mutable_as<float>().begin());
  return out;
}

Tensor Tensor::from_i32(Shape shape, std::vector<int32_t> values) {
  Tensor out = zeros(DType::kI32, std::move(shape));
  POME_CHECK(values.size() == static_cast<size_t>(out.count_));
  std::copy(values.begin(), values.end(), out.mutable_as<int32_t>().begin());
  return out;
}

Tensor Tensor::view(DType dtype, Shape shape, std::span<const std::byte> bytes,
                    std::shared_ptr<const void> owner) {
  const auto count = element_count(shape);
  POME_CHECK(count.has_value() && bytes.size() == storage_size(dtype, *count));
  const size_t alignment = static_cast<size_t>(std::max(1, bits_of(dtype) / 8));
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignment != 0) {
    Tensor copy = zeros(dtype, std::move(shape));
    if (!bytes.empty()) std::memcpy(copy.mutable_data_, bytes.data(), bytes.size());
    return copy;
  }
  Tensor out;
  out.dtype_ = dtype;
  out.shape_ = std::move(shape);
  out.count_ = *count;
  out.size_ = bytes.size();
  out.data_ = bytes.data() != nullptr ? bytes.data() : g_empty;
  out.owner_ = std::move(owner);
  return out;
}

int64_t Tensor::dim(int64_t axis) const {
  const int64_t index = axis < 0 ? axis + rank() : axis;
  POME_CHECK(index >= 0 && index < rank());
  return shape_[static_cast<size_t>(index)];
}

std::span<std::byte> Tensor::mutable_bytes() {
  POME_CHECK(mutable_data_ != nullptr);
  return {mutable_data_, size_};
}

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor out = zeros(dtype_, shape_);
  std::memcpy(out.mutable_data_, data_, size_);
  return out;
}

Tensor Tensor::reshaped(Shape shape) const {
  POME_CHECK(element_count(shape) == count_);
  Tensor out = *this;
  out.shape_ = std::move(shape);
  return out;
}

Tensor Tensor::to(DType dtype) const {
  POME_CHECK(defined());
  if (dtype == dtype_) return *this;
  Tensor out = zeros(dtype, shape_);
  // The pairs that carry whole models.
  if (dtype_ == DType::kF16 && dtype == DType::kF32)
    f16_to_f32(as<uint16_t>(), out.mutable_as<float>());
  else if (dtype_ == DType::kBF16 && dtype == DType::kF32)
    bf16_to_f32(as<uint16_t>(), out.mutable_as<float>());
  else if (dtype_ == DType::kF32 && dtype == DType::kF16)
    f32_to_f16(as<float>(), out.mutable_as<uint16_t>());
  else if (dtype_ == DType::kF32 && dtype == DType::kBF16)
    f32_to_bf16(as<float>(), out.mutable_as<uint16_t>());
  else
    convert_any(dtype_, data_, count_, dtype, out.mutable_data_);
  return out;
}

int read_packed(std::span<const std::byte> stream, DType dtype, int64_t index) {
  const int bits = bits_of(dtype);
  POME_CHECK(bits < 8 && index >= 0);
  POME_CHECK(*storage_bytes(dtype, static_cast<uint64_t>(index) + 1) <= stream.size());
  const uint32_t code = read_code(stream.data(), bits, index);
  return dtype == DType::kI4 ? sign_extend_4(code) : static_cast<int>(code);
}

}  // namespace pome
