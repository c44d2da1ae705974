#include "base/byte_source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>
#include <utility>

#include "base/checked.h"
#include "base/utf8.h"

namespace pome {
namespace {

constexpr size_t kReaderBuffer = 64 << 10;

std::string found_bytes(uint64_t expected, uint64_t found) {
  return "expected " + std::to_string(expected) + (expected == 1 ? " byte" : " bytes") +
         ", found " + std::to_string(found);
}

std::string errno_text(const char* operation, int error) {
  return std::string(operation) + ": " + std::generic_category().message(error);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

struct OpenFile {
  Descriptor fd;
  uint64_t size;
};

Status open_error(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return missing("there is no such file").in(path);
    case EACCES:
    case EPERM:
      return missing("the file may not be read").in(path).hint("check its permissions");
    case ELOOP:
      return bad_input(Refusal::kLink, "too many symbolic links").in(path);
    case ENAMETOOLONG:
      return bad_input(Refusal::kPath, "the path is too long").in(path);
    case ENXIO:  // a socket
    case ENODEV:
      return bad_input(Refusal::kType, "expected a regular file").in(path);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return does_not_fit(errno_text("open", error)).in(path);
    default:
      return bad_input(Refusal::kNone, errno_text("open", error)).in(path);
  }
}

// O_NONBLOCK: opening a FIFO without a writer would block before it could be refused.
Result<OpenFile> open_regular(const std::string& path) {
  if (path.empty()) return usage_error("the path is empty");
  if (path.find('\0') != std::string::npos)
    return bad_input(Refusal::kPath, "the path holds a zero byte").in(path);
  int fd;
  do {
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return open_error(path, errno);
  Descriptor descriptor(fd);
  struct stat info;
  if (::fstat(fd, &info) != 0)
    return bad_input(Refusal::kNone, errno_text("fstat", errno)).in(path);
  if (S_ISDIR(info.st_mode))
    return bad_input(Refusal::kType, "expected a regular file, found a folder").in(path);
  if (!S_ISREG(info.st_mode)) {
    const char* found = S_ISFIFO(info.st_mode) ? "a FIFO" : "a device or socket";
    return bad_input(Refusal::kType, std::string("expected a regular file, found ") + found)
        .in(path);
  }
  return OpenFile{std::move(descriptor), static_cast<uint64_t>(info.st_size)};
}

// A file read with pread, and mapped as well where mapping worked.
class FileSource final : public ByteSource {
 public:
  FileSource(const std::string& path, OpenFile file, const std::byte* mapping)
      : ByteSource(path, file.size), fd_(std::move(file.fd)), mapping_(mapping) {}
  ~FileSource() override {
    if (mapping_) ::munmap(const_cast<std::byte*>(mapping_), static_cast<size_t>(size()));
  }

  Status read(uint64_t offset, std::span<std::byte> out) const override {
    if (!span_fits(offset, out.size(), size()))
      return bad_input(Refusal::kTrunc,
                       found_bytes(out.size(), offset < size() ? size() - offset : 0))
          .in(name())
          .at_offset(offset);
    // Reading the mapping instead would raise SIGBUS if the file had been cut meanwhile.
    constexpr size_t kLargestRead = 1 << 30;
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t n =
          ::pread(fd_.get(), out.data() + done, std::min(out.size() - done, kLargestRead),
                  static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0)
        return bad_input(Refusal::kNone, errno_text("read", errno)).in(name()).at_offset(offset);
      if (n == 0)
        return bad_input(Refusal::kTrunc, found_bytes(out.size(), done) +
                                              "; the file became shorter while it was in use")
            .in(name())
            .at_offset(offset);
      done += static_cast<size_t>(n);
    }
    return {};
  }

  std::optional<std::span<const std::byte>> view(uint64_t offset, uint64_t length) const override {
    if (!span_fits(offset, length, size())) return std::nullopt;
    if (length == 0) return std::span<const std::byte>();
    if (!mapping_) return std::nullopt;
    struct stat info;
    if (::fstat(fd_.get(), &info) != 0 || static_cast<uint64_t>(info.st_size) < offset + length)
      return std::nullopt;
    return std::span<const std::byte>(mapping_ + offset, static_cast<size_t>(length));
  }

  void release(uint64_t offset, uint64_t length) const override {
    if (!mapping_ || !span_fits(offset, length, size())) return;
    // Whole pages only: the partial ones at the ends belong to neighbours that may still be in use.
    const uint64_t page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    const uint64_t begin = (offset + page - 1) / page * page;
    const uint64_t end = (offset + length) / page * page;
    if (begin < end)
      ::madvise(const_cast<std::byte*>(mapping_) + begin, static_cast<size_t>(end - begin),
                MADV_DONTNEED);
  }

 private:
  Descriptor fd_;
  const std::byte* mapping_;
};

class MemorySource final : public ByteSource {
 public:
  MemorySource(std::vector<std::byte> bytes, std::string name)
      : ByteSource(std::move(name), bytes.size()), bytes_(std::move(bytes)) {}

  Status read(uint64_t offset, std::span<std::byte> out) const override {
    if (!span_fits(offset, out.size(), size()))
      return bad_input(Refusal::kTrunc,
                       found_bytes(out.size(), offset < size() ? size() - offset : 0))
          .in(name())
          .at_offset(offset);
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return {};
  }
  std::optional<std::span<const std::byte>> view(uint64_t offset, uint64_t length) const override {
    if (!span_fits(offset, length, size())) return std::nullopt;
    return std::span<const std::byte>(bytes_).subspan(static_cast<size_t>(offset),
                                                      static_cast<size_t>(length));
  }

 private:
  std::vector<std::byte> bytes_;
};

class SubSource final : public ByteSource {
 public:
  SubSource(ByteSourcePtr parent, uint64_t offset, uint64_t length, std::string name)
      : ByteSource(std::move(name), length), parent_(std::move(parent)), offset_(offset) {}

  Status read(uint64_t offset, std::span<std::byte> out) const override {
    if (!span_fits(offset, out.size(), size()))
      return locate(bad_input(Refusal::kTrunc,
                              found_bytes(out.size(), offset < size() ? size() - offset : 0)),
                    offset);
    return parent_->read(offset_ + offset, out);
  }
  std::optional<std::span<const std::byte>> view(uint64_t offset, uint64_t length) const override {
    if (!span_fits(offset, length, size())) return std::nullopt;
    return parent_->view(offset_ + offset, length);
  }
  void release(uint64_t offset, uint64_t length) const override {
    if (span_fits(offset, length, size())) parent_->release(offset_ + offset, length);
  }
  Status locate(Status status, uint64_t offset) const override {
    Status named = std::move(status).in(name());
    return parent_->locate(std::move(named), offset_ + offset);
  }

 private:
  ByteSourcePtr parent_;
  uint64_t offset_;
};

class OneByteSource final : public ByteSource {
 public:
  explicit OneByteSource(ByteSourcePtr inner)
      : ByteSource(inner->name(), inner->size()), inner_(std::move(inner)) {}

  Status read(uint64_t offset, std::span<std::byte> out) const override {
    if (!span_fits(offset, out.size(), size())) return inner_->read(offset, out);
    for (size_t i = 0; i < out.size(); ++i)
      POME_RETURN_IF_ERROR(inner_->read(offset + i, out.subspan(i, 1)));
    return {};
  }
  Status locate(Status status, uint64_t offset) const override {
    return inner_->locate(std::move(status), offset);
  }

 private:
  ByteSourcePtr inner_;
};

}  // namespace

std::optional<std::span<const std::byte>> ByteSource::view(uint64_t, uint64_t) const {
  return std::nullopt;
}
void ByteSource::release(uint64_t, uint64_t) const {}
Status ByteSource::locate(Status status, uint64_t offset) const {
  return std::move(status).in(name_).at_offset(offset);
}

Result<ByteSourcePtr> open_mapped(const std::string& path) {
  POME_ASSIGN_OR_RETURN(OpenFile file, open_regular(path));
  const std::byte* mapping = nullptr;
  // Where a mapping is refused (empty file, address space, odd file system) pread serves as well.
  if (file.size > 0 && file.size <= std::numeric_limits<size_t>::max()) {
    void* address =
        ::mmap(nullptr, static_cast<size_t>(file.size), PROT_READ, MAP_PRIVATE, file.fd.get(), 0);
    if (address != MAP_FAILED) mapping = static_cast<const std::byte*>(address);
  }
  return ByteSourcePtr(std::make_shared<FileSource>(path, std::move(file), mapping));
}

Result<ByteSourcePtr> open_for_reading(const std::string& path) {
  POME_ASSIGN_OR_RETURN(OpenFile file, open_regular(path));
  return ByteSourcePtr(std::make_shared<FileSource>(path, std::move(file), nullptr));
}

ByteSourcePtr memory_source(std::vector<std::byte> bytes, std::string name) {
  return std::make_shared<MemorySource>(std::move(bytes), std::move(name));
}

ByteSourcePtr sub_source(ByteSourcePtr parent, uint64_t offset, uint64_t size, std::string name) {
  POME_CHECK(span_fits(offset, size, parent->size()));
  return std::make_shared<SubSource>(std::move(parent), offset, size, std::move(name));
}

ByteSourcePtr one_byte_source(ByteSourcePtr inner) {
  return std::make_shared<OneByteSource>(std::move(inner));
}

Result<std::string> read_text_file(const std::string& path, uint64_t max_bytes) {
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(path));
  if (source->size() > max_bytes)
    return bad_input(Refusal::kLimit, "the file has " + std::to_string(source->size()) +
                                          " bytes, at most " + std::to_string(max_bytes) +
                                          " are accepted")
        .in(path);
  std::string text(static_cast<size_t>(source->size()), '\0');
  POME_RETURN_IF_ERROR(source->read(0, std::as_writable_bytes(std::span(text))));
  return text;
}

ByteReader::ByteReader(ByteSourcePtr source, uint64_t offset)
    : source_(std::move(source)),
      begin_(0),
      offset_(std::min(offset, source_->size())),
      end_(source_->size()) {}

ByteReader::ByteReader(ByteSourcePtr source, uint64_t offset, uint64_t end)
    : source_(std::move(source)),
      begin_(std::min({offset, end, source_->size()})),
      offset_(begin_),
      end_(std::min(end, source_->size())) {}

Status ByteReader::fail(Refusal refusal, std::string message) const {
  return source_->locate(bad_input(refusal, std::move(message)), offset_);
}

Status ByteReader::need(uint64_t size) const {
  if (size <= remaining()) return {};
  return fail(Refusal::kTrunc, found_bytes(size, remaining()));
}

Status ByteReader::take(void* out, size_t size) {
  std::byte* to = static_cast<std::byte*>(out);
  while (size > 0) {
    if (offset_ >= buffer_offset_ && offset_ - buffer_offset_ < buffer_.size()) {
      const size_t at = static_cast<size_t>(offset_ - buffer_offset_);
      const size_t piece = std::min(size, buffer_.size() - at);
      std::memcpy(to, buffer_.data() + at, piece);
      to += piece;
      offset_ += piece;
      size -= piece;
      continue;
    }
    if (size >= kReaderBuffer) {
      POME_RETURN_IF_ERROR(source_->read(offset_, {to, size}));
      offset_ += size;
      return {};
    }
    buffer_.resize(static_cast<size_t>(std::min<uint64_t>(kReaderBuffer, remaining())));
    if (Status status = source_->read(offset_, buffer_); !status.ok()) {
      buffer_.clear();
      return status;
    }
    buffer_offset_ = offset_;
  }
  return {};
}

template <typename T>
Result<T> ByteReader::number() {
  static_assert(std::endian::native == std::endian::little);
  POME_RETURN_IF_ERROR(need(sizeof(T)));
  T value;
  POME_RETURN_IF_ERROR(take(&value, sizeof value));
  return value;
}
Result<uint8_t> ByteReader::u8() { return number<uint8_t>(); }
Result<uint16_t> ByteReader::u16() { return number<uint16_t>(); }
Result<uint32_t> ByteReader::u32() { return number<uint32_t>(); }
Result<uint64_t> ByteReader::u64() { return number<uint64_t>(); }
Result<int8_t> ByteReader::i8() { return number<int8_t>(); }
Result<int16_t> ByteReader::i16() { return number<int16_t>(); }
Result<int32_t> ByteReader::i32() { return number<int32_t>(); }
Result<int64_t> ByteReader::i64() { return number<int64_t>(); }
Result<float> ByteReader::f32() { return number<float>(); }
Result<double> ByteReader::f64() { return number<double>(); }

Status ByteReader::bytes(std::span<std::byte> out) {
  POME_RETURN_IF_ERROR(need(out.size()));
  return take(out.data(), out.size());
}

Result<std::string> ByteReader::text(uint64_t size, uint64_t max_bytes) {
  if (size > remaining())
    return fail(Refusal::kBounds, "a text of " + std::to_string(size) + " bytes, but only " +
                                      std::to_string(remaining()) + " bytes are left");
  if (size > max_bytes)
    return fail(Refusal::kLimit, "a text of " + std::to_string(size) + " bytes, at most " +
                                     std::to_string(max_bytes) + " are accepted");
  std::string out(static_cast<size_t>(size), '\0');
  POME_RETURN_IF_ERROR(take(out.data(), out.size()));
  return out;
}

Status ByteReader::skip(uint64_t size) {
  if (size > remaining())
    return fail(Refusal::kBounds, "a block of " + std::to_string(size) + " bytes, but only " +
                                      std::to_string(remaining()) + " bytes are left");
  offset_ += size;
  return {};
}

Status ByteReader::seek(uint64_t offset) {
  if (offset < begin_ || offset > end_)
    return fail(Refusal::kBounds, "offset " + std::to_string(offset) + " lies outside of " +
                                      std::to_string(begin_) + ".." + std::to_string(end_));
  offset_ = offset;
  return {};
}

size_t utf8_first_error(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t eight;
    while (text.size() - i >= sizeof eight) {
      std::memcpy(&eight, text.data() + i, sizeof eight);
      if (eight & 0x8080808080808080u) break;
      i += sizeof eight;
    }
    if (i == text.size()) break;
    const size_t length = utf8_sequence_length(text, i);
    if (length == 0) return i;
    i += length;
  }
  return i;
}

bool is_valid_utf8(std::string_view text) { return utf8_first_error(text) == text.size(); }

}  // namespace pome
