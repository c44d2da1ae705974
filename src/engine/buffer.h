// Memory for weights, caches and work: aligned to a cache line, and honest about not being there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "base/status.h"

namespace pome {

// Large pages are for memory that is filled and then read from end to end, as weights are: a miss
// of the page table for every 4 KiB costs up to half of the speed. Memory that may stay half empty
// (a KV cache) would grow by them.
enum class Pages : uint8_t { kSmall, kLarge };

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // kDoesNotFit when the system refuses. The bytes are not initialised.
  static Result<AlignedBuffer> allocate(uint64_t bytes, const char* what,
                                        Pages pages = Pages::kSmall) {
    AlignedBuffer buffer;
    if (bytes == 0) return buffer;
    if (bytes <= kLargest) {
      const size_t alignment = pages == Pages::kLarge ? kLargePage : kAlignment;
      const size_t whole = (static_cast<size_t>(bytes) + alignment - 1) / alignment * alignment;
      buffer.data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, whole));
#if defined(__linux__)
      // Advice only: where it is refused, small pages do.
      if (buffer.data_ && alignment == kLargePage) ::madvise(buffer.data_, whole, MADV_HUGEPAGE);
#endif
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
  ~AlignedBuffer() { std::free(data_); }

  std::byte* data() const { return data_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

  static constexpr size_t kAlignment = 64;

 private:
  static constexpr size_t kLargePage = size_t{2} << 20;
  static constexpr uint64_t kLargest = uint64_t{1} << 47;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace pome
