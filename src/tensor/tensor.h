// Shape, and Tensor: a dense row-major array that owns its bytes or views somebody's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"

namespace pome {

using Shape = std::vector<int64_t>;  // every dimension >= 0; {} is a scalar

std::optional<int64_t> element_count(
    const Shape& shape);                    // nullopt: a negative dimension or more than 2^63-1
std::string to_string(const Shape& shape);  // "[2, 3]"

// Value semantics over shared storage: copies share the bytes; clone() makes its own. Elements of
// sub-byte types are packed (tensor/dtype.h). Thread safety: as any value; do not write through one
// copy while another is read.
class Tensor {
 public:
  Tensor() = default;
  static Tensor zeros(DType dtype, Shape shape);  // POME_CHECKs that the size fits
  static Tensor from_f32(Shape shape, std::vector<float> values);
  static Tensor from_i32(Shape shape, std::vector<int32_t> values);
  // `owner` keeps `bytes` alive; bytes.size() must be the storage size. Bytes that are not aligned
  // for their type (a file may place them anywhere) are copied.
  static Tensor view(DType dtype, Shape shape, std::span<const std::byte> bytes,
                     std::shared_ptr<const void> owner);

  bool defined() const { return data_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
  int64_t dim(int64_t axis) const;  // a negative axis counts from the end
  int64_t count() const { return count_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::span<std::byte> mutable_bytes();  // POME_CHECKs that this tensor owns its storage

  // No other tensor shares the (owned) storage: writing is seen by nobody else.
  bool sole_owner() const { return mutable_data_ != nullptr && owner_.use_count() == 1; }

  // T must be the in-memory type of dtype (float, double, int32_t, uint16_t for kF16/kBF16, bool
  // ...).
  template <typename T>
  std::span<const T> as() const {
    POME_CHECK(sizeof(T) * 8 == static_cast<size_t>(bits_of(dtype_)));
    return {reinterpret_cast<const T*>(data_), static_cast<size_t>(count_)};
  }
  template <typename T>
  std::span<T> mutable_as() {
    POME_CHECK(sizeof(T) * 8 == static_cast<size_t>(bits_of(dtype_)));
    return {reinterpret_cast<T*>(mutable_bytes().data()), static_cast<size_t>(count_)};
  }
  std::span<const float> f32() const { return as<float>(); }

  Tensor clone() const;
  Tensor reshaped(Shape shape) const;  // same count; shares storage
  // Converts element by element. To an integer: truncates toward zero and saturates, NaN becomes 0.
  // To a float: one rounding to nearest even; f8e4m3 has no infinity, what lies beyond 448 becomes
  // NaN. To bool: not equal to zero.
  Tensor to(DType dtype) const;

 private:
  DType dtype_ = DType::kF32;
  Shape shape_;
  int64_t count_ = 0;
  std::shared_ptr<const void> owner_;
  const std::byte* data_ = nullptr;
  std::byte* mutable_data_ = nullptr;
  size_t size_ = 0;
};

// Reads element i of a packed sub-byte stream, sign-extended for kI4.
int read_packed(std::span<const std::byte> stream, DType dtype, int64_t index);
// Packs / unpacks `bits`-wide codes, lowest bit first; `codes` holds values in [0, 2^bits).
void pack_bits(std::span<const uint8_t> codes, int bits, std::span<std::byte> out);
void unpack_bits(std::span<const std::byte> stream, int bits, int64_t first,
                 std::span<uint8_t> codes);

}  // namespace pome
