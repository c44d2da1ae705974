// The system calls of base/io, each behind the fault plan. Private to base (and its tests).
//
// Every call returns -1 and sets errno like the call that it wraps, retries EINTR, and counts as
// one operation of its kind each time it is tried. Thread safety: any thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"

namespace pome::io::system {

int open(const std::string& path, int flags, mode_t mode = 0);  // O_CLOEXEC is added
ssize_t pwrite(int fd, const void* data, size_t size, uint64_t offset);
int fsync(int fd);
int fsync_folder(const std::string& path);  // file systems that cannot sync folders: 0
int close(int fd);                          // the descriptor is gone whatever the answer
int mkdir(const std::string& path);
int unlink(const std::string& path);
int rmdir(const std::string& path);  // counts as "unlink"
int lock_exclusively(int fd);        // flock; EWOULDBLOCK when somebody else holds it

int rename(const std::string& from, const std::string& to);
int link(const std::string& from, const std::string& to);  // counts as "rename"
// These two fail with EINVAL, ENOSYS or ENOTSUP where kernel or file system lack them.
int rename_noreplace(const std::string& from, const std::string& to);
int rename_exchange(const std::string& a, const std::string& b);
bool is_unsupported(int error);

// Makes the two above unsupported, so that tests reach the plain POSIX way everywhere.
void pretend_plain_posix(bool on);

// "operation: what the system says"; no space and the like become kDoesNotFit with `needed` and the
// free bytes, a missing folder kMissing, a place that may not be written kUsage, all else
// kUnavailable.
Status failure(const char* operation, const std::string& path, int error,
               std::optional<uint64_t> needed = std::nullopt);

}  // namespace pome::io::system
