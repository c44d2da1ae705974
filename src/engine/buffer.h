// Memory for weights, caches and work: aligned to a cache line, and honest about not being there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <utility>

#include "base/status.h"

namespace pome {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // kDoesNotFit when the system refuses. The bytes are not initialised.
  static Result<AlignedBuffer> allocate(uint64_t bytes, const char* what) {
    AlignedBuffer buffer;
    if (bytes == 0) return buffer;
    if (bytes <= kLargest) {
      buffer.data_ = static_cast<std::byte*>(
          ::operator new (static_cast<size_t>(bytes), std::align_val_t{kAlignment}, std::nothrow));
    }
    if (!buffer.data_) {
      return does_not_fit(std::to_string(bytes) + " bytes of memory for " + what +
                          " are not available");
    }
    buffer.size_ = static_cast<size_t>(bytes);
    return buffer;
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~AlignedBuffer() { ::operator delete (data_, std::align_val_t{kAlignment}); }

  std::byte* data() const { return data_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

  static constexpr size_t kAlignment = 64;

 private:
  static constexpr uint64_t kLargest = uint64_t{1} << 47;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace pome
