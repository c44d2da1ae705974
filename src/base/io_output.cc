#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "base/checked.h"
#include "base/io.h"
#include "base/io_system.h"

namespace pome::io {
namespace {

constexpr size_t kBufferSize = 1 << 20;
constexpr size_t kLargestWrite = 1 << 30;  // Linux takes at most 2^31 - 4096 bytes per call
constexpr uint64_t kLargestFile = std::numeric_limits<int64_t>::max();

}  // namespace

struct OutputFile::Impl {
  std::string path;
  int fd = -1;
  std::mutex mutex;  // guards all below
  std::vector<std::byte> buffer;
  uint64_t flushed = 0;                       // file offset of the first byte of buffer
  uint64_t extent = 0;                        // one past the last byte written anywhere
  uint64_t behind_begin = 0, behind_end = 0;  // write-back of this range was started
  Status first_error;

  // A failed write spoils the file for good: the error comes back from every later call, so that
  // close() cannot report success.
  Status fail(Status status) {
    if (first_error.ok()) first_error = std::move(status);
    return first_error;
  }

  // Without the lock: pwrite keeps no position.
  Status write_out(uint64_t offset, std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t n =
          system::pwrite(fd, bytes.data(), std::min(bytes.size(), kLargestWrite), offset);
      if (n <= 0) return system::failure("write", path, n < 0 ? errno : EIO, offset + bytes.size());
      bytes = bytes.subspan(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    return {};
  }

  Status flush() {
    if (buffer.empty()) return {};
    if (Status status = write_out(flushed, buffer); !status.ok()) return fail(std::move(status));
    flushed += buffer.size();
    buffer.clear();
    return {};
  }

  Status check_range(uint64_t offset, size_t size) const {
    if (span_fits(offset, size, kLargestFile)) return {};
    return system::failure("write", path, EFBIG);
  }
};

OutputFile::OutputFile() : impl_(std::make_unique<Impl>()) {}

Result<std::unique_ptr<OutputFile>> OutputFile::create(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos)
    return usage_error("the output path is empty or holds a zero byte").in(path);
  const int fd = system::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0666);
  if (fd < 0) return system::failure("open", path, errno);
  std::unique_ptr<OutputFile> file(new OutputFile());
  file->impl_->path = path;
  file->impl_->fd = fd;
  return file;
}

OutputFile::~OutputFile() {
  if (impl_->fd >= 0) (void)system::close(impl_->fd);
}

Status OutputFile::write(std::span<const std::byte> bytes) {
  Impl& file = *impl_;
  POME_CHECK(file.fd >= 0);
  const std::lock_guard lock(file.mutex);
  if (!file.first_error.ok()) return file.first_error;
  const uint64_t end = file.flushed + file.buffer.size();
  POME_RETURN_IF_ERROR(file.check_range(end, bytes.size()));
  if (file.buffer.size() + bytes.size() > kBufferSize) POME_RETURN_IF_ERROR(file.flush());
  if (bytes.size() >= kBufferSize) {
    if (Status status = file.write_out(end, bytes); !status.ok())
      return file.fail(std::move(status));
    file.flushed = end + bytes.size();
  } else {
    if (file.buffer.capacity() == 0) file.buffer.reserve(kBufferSize);
    file.buffer.insert(file.buffer.end(), bytes.begin(), bytes.end());
  }
  file.extent = std::max(file.extent, end + bytes.size());
  return {};
}

Status OutputFile::write(std::string_view text) { return write(std::as_bytes(std::span(text))); }

Status OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  Impl& file = *impl_;
  POME_CHECK(file.fd >= 0);
  std::span<const std::byte> before = bytes, after;
  uint64_t after_offset = 0;
  {
    const std::lock_guard lock(file.mutex);
    if (!file.first_error.ok()) return file.first_error;
    POME_RETURN_IF_ERROR(file.check_range(offset, bytes.size()));
    const uint64_t end = offset + bytes.size();
    file.extent = std::max(file.extent, end);
    // The part that is still in the buffer is patched there: the flush comes later and would
    // otherwise put the old bytes back.
    const uint64_t low = std::max(offset, file.flushed);
    const uint64_t high = std::min<uint64_t>(end, file.flushed + file.buffer.size());
    if (low < high) {
      std::memcpy(file.buffer.data() + (low - file.flushed), bytes.data() + (low - offset),
                  static_cast<size_t>(high - low));
      before = bytes.first(static_cast<size_t>(low - offset));
      after = bytes.subspan(static_cast<size_t>(high - offset));
      after_offset = high;
    }
  }
  Status status = file.write_out(offset, before);
  if (status.ok()) status = file.write_out(after_offset, after);
  if (status.ok()) return status;
  const std::lock_guard lock(file.mutex);
  return file.fail(std::move(status));
}

Status OutputFile::pad_to(uint64_t alignment) {
  POME_CHECK(alignment > 0);
  uint64_t missing_bytes = (alignment - size() % alignment) % alignment;
  static constexpr std::byte kZeros[4096] = {};
  while (missing_bytes > 0) {
    const size_t piece = static_cast<size_t>(std::min<uint64_t>(missing_bytes, sizeof kZeros));
    POME_RETURN_IF_ERROR(write(std::span(kZeros).first(piece)));
    missing_bytes -= piece;
  }
  return {};
}

uint64_t OutputFile::size() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->flushed + impl_->buffer.size();
}

Status OutputFile::flush_behind() {
  Impl& file = *impl_;
  POME_CHECK(file.fd >= 0);
  const std::lock_guard lock(file.mutex);
  if (!file.first_error.ok()) return file.first_error;
  POME_RETURN_IF_ERROR(file.flush());
#if defined(__linux__)
  if (file.extent <= file.behind_end) return {};
  // Waits for the range of the last call, which had time to reach the disk, and starts the next.
  const auto sync = [&](uint64_t begin, uint64_t end, unsigned flags) -> Status {
    if (begin == end) return {};
    int result;
    do {
      result = ::sync_file_range(file.fd, static_cast<off_t>(begin),
                                 static_cast<off_t>(end - begin), flags);
    } while (result != 0 && errno == EINTR);
    // This call may be the one that is told of a failed write-back: fsync would not see it again.
    if (result != 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT))
      return file.fail(system::failure("write back", file.path, errno, file.extent));
    return {};
  };
  POME_RETURN_IF_ERROR(sync(file.behind_end, file.extent, SYNC_FILE_RANGE_WRITE));
  POME_RETURN_IF_ERROR(
      sync(file.behind_begin, file.behind_end,
           SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
  ::posix_fadvise(file.fd, static_cast<off_t>(file.behind_begin),
                  static_cast<off_t>(file.behind_end - file.behind_begin), POSIX_FADV_DONTNEED);
  file.behind_begin = file.behind_end;
  file.behind_end = file.extent;
#endif
  return {};
}

Status OutputFile::close() {
  Impl& file = *impl_;
  POME_CHECK(file.fd >= 0);
  const std::lock_guard lock(file.mutex);
  if (file.first_error.ok()) (void)file.flush();
  if (file.first_error.ok() && system::fsync(file.fd) != 0)
    (void)file.fail(system::failure("fsync", file.path, errno, file.extent));
  const int result = system::close(file.fd);
  file.fd = -1;
  if (result != 0) (void)file.fail(system::failure("close", file.path, errno, file.extent));
  return file.first_error;
}

}  // namespace pome::io
