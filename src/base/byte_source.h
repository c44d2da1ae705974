// Bytes to read from: a mapped file, a file read with pread, or memory. And ByteReader, the one
// checked reader that does all offset arithmetic of all parsers.
//
// Thread safety: a ByteSource is immutable and may be read from many threads; a ByteReader belongs
// to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pome {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  const std::string& name() const {
    return name_;
  }  // for messages: the path, or what the caller called it
  uint64_t size() const { return size_; }
  // Copies [offset, offset+out.size()). kTrunc with file and offset when the bytes are not there
  // (also when another process cut the file after it was opened: this call never raises SIGBUS).
  virtual Status read(uint64_t offset, std::span<std::byte> out) const = 0;
  // Zero-copy view valid for the life of the source; nullopt where the source cannot give one. The
  // caller has checked the range. The view of a file that another process truncates later is
  // undefined (as with any mapping).
  virtual std::optional<std::span<const std::byte>> view(uint64_t offset, uint64_t size) const;
  // Hint: the pages of this range are not needed again soon (keeps the resident set small when
  // streaming).
  virtual void release(uint64_t offset, uint64_t size) const;
  // Fills in file and offset of an error at `offset` of this source (a window names the offset in
  // its parent).
  virtual Status locate(Status status, uint64_t offset) const;

 protected:
  ByteSource(std::string name, uint64_t size) : name_(std::move(name)), size_(size) {}

 private:
  std::string name_;
  uint64_t size_;
};
using ByteSourcePtr = std::shared_ptr<const ByteSource>;

// Only regular files (a FIFO, device or folder is refused with kType, without blocking). kMissing
// when absent.
Result<ByteSourcePtr> open_mapped(const std::string& path);
Result<ByteSourcePtr> open_for_reading(const std::string& path);  // pread only, no mapping
ByteSourcePtr memory_source(std::vector<std::byte> bytes, std::string name);
// A window of another source; offsets in errors are those of the parent. The caller has checked the
// range.
ByteSourcePtr sub_source(ByteSourcePtr parent, uint64_t offset, uint64_t size, std::string name);
// For tests: delegates to `inner` one byte at a time and never gives a view.
ByteSourcePtr one_byte_source(ByteSourcePtr inner);
// A whole small text file; kLimit when larger than max_bytes.
Result<std::string> read_text_file(const std::string& path, uint64_t max_bytes);

// Little-endian cursor over a source. Every error names file and offset. O(1) per call: it buffers.
class ByteReader {
 public:
  explicit ByteReader(ByteSourcePtr source, uint64_t offset = 0);
  // Reads [offset, end) only. Both ends are clamped to the source.
  ByteReader(ByteSourcePtr source, uint64_t offset, uint64_t end);

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return end_ - offset_; }
  bool at_end() const { return offset_ == end_; }

  Result<uint8_t> u8();
  Result<uint16_t> u16();
  Result<uint32_t> u32();
  Result<uint64_t> u64();
  Result<int8_t> i8();
  Result<int16_t> i16();
  Result<int32_t> i32();
  Result<int64_t> i64();
  Result<float> f32();
  Result<double> f64();
  Status bytes(std::span<std::byte> out);  // kTrunc when fewer remain
  // `size` bytes as text; kBounds when size > remaining(), kLimit when size > max_bytes. No UTF-8
  // check.
  Result<std::string> text(uint64_t size, uint64_t max_bytes);
  Status skip(uint64_t size);    // kBounds past the end
  Status seek(uint64_t offset);  // kBounds outside of what this reader may read
  // An error at the current offset, with file and offset filled in.
  Status fail(Refusal refusal, std::string message) const;

 private:
  template <typename T>
  Result<T> number();
  Status need(uint64_t size) const;
  Status take(void* out, size_t size);  // size <= remaining()

  ByteSourcePtr source_;
  uint64_t begin_, offset_, end_;
  uint64_t buffer_offset_ = 0;
  std::vector<std::byte> buffer_;
};

bool is_valid_utf8(std::string_view text);

}  // namespace pome
