#include "base/io_system.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/io.h"

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace pome::io {
namespace {

enum class Op { kOpen, kWrite, kFsync, kRename, kUnlink, kMkdir, kClose, kLock };
constexpr std::array<std::string_view, 8> kOpNames = {"open",   "write", "fsync", "rename",
                                                      "unlink", "mkdir", "close", "lock"};
constexpr int kAnyOp = -1;
constexpr int kCrashExitCode = 137;  // what a shell reports for a process killed by SIGKILL
constexpr int kMaxInterrupts = 64;   // a plan that always answers EINTR must not hang

struct Faults {
  std::atomic<uint64_t> count{0}, fail_at{0};
  std::atomic<int> error{0}, op{kAnyOp};
  std::atomic<bool> sticky{false}, crash{false};
};

std::optional<int> parse_op(std::string_view name) {
  if (name.empty()) return kAnyOp;
  for (size_t i = 0; i < kOpNames.size(); ++i)
    if (kOpNames[i] == name) return static_cast<int>(i);
  return std::nullopt;
}

void apply(Faults& faults, const FaultPlan& plan) {
  const std::optional<int> op = parse_op(plan.op);
  POME_CHECK(op.has_value());
  faults.fail_at = 0;
  faults.count = 0;
  faults.error = plan.error;
  faults.op = *op;
  faults.sticky = plan.sticky;
  faults.crash = plan.crash;
  faults.fail_at = plan.fail_at;
}

std::optional<uint64_t> parse_number(std::string_view text) {
  if (text.empty() || text.size() > 18) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  return value;
}

std::optional<int> parse_errno(std::string_view text) {
  constexpr std::pair<std::string_view, int> kNames[] = {
      {"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EFBIG", EFBIG},
      {"EROFS", EROFS},   {"EACCES", EACCES}, {"EPERM", EPERM},   {"EINTR", EINTR},
      {"EMFILE", EMFILE}, {"ENOENT", ENOENT}, {"EXDEV", EXDEV}};
  for (const auto& [name, value] : kNames)
    if (name == text) return value;
  const auto number = parse_number(text);
  if (!number || *number == 0 || *number > 4095) return std::nullopt;
  return static_cast<int>(*number);
}

// k[:errno|crash[:op[:sticky]]]
std::optional<FaultPlan> parse_plan(std::string_view text) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t colon = std::min(text.find(':', begin), text.size());
    parts.push_back(text.substr(begin, colon - begin));
    begin = colon + 1;
  }
  FaultPlan plan;
  const auto k = parse_number(parts[0]);
  if (!k || parts.size() > 4) return std::nullopt;
  plan.fail_at = *k;
  plan.error = EIO;
  if (parts.size() > 1) {
    if (parts[1] == "crash") {
      plan.crash = true;
    } else {
      const auto error = parse_errno(parts[1]);
      if (!error) return std::nullopt;
      plan.error = *error;
    }
  }
  if (parts.size() > 2) {
    if (!parse_op(parts[2])) return std::nullopt;
    plan.op = parts[2];
  }
  if (parts.size() > 3) {
    if (parts[3] != "sticky") return std::nullopt;
    plan.sticky = true;
  }
  return plan;
}

Faults& faults() {
  static Faults instance;
  static std::once_flag once;
  std::call_once(once, [] {
    const char* text = std::getenv("POME_IO_FAULT");
    if (text == nullptr || *text == '\0') return;
    // A plan that cannot be read must not look like a run that survived it.
    const FaultPlan unreadable{1, EINVAL, true, false, ""};
    apply(instance, parse_plan(text).value_or(unreadable));
  });
  return instance;
}

// Counts the operation; the errno it must fail with, or 0.
int injected(Op op) {
  Faults& plan = faults();
  const int wanted = plan.op.load(std::memory_order_relaxed);
  if (wanted != kAnyOp && wanted != static_cast<int>(op)) return 0;
  const uint64_t n = plan.count.fetch_add(1, std::memory_order_relaxed) + 1;
  const uint64_t fail_at = plan.fail_at.load(std::memory_order_relaxed);
  if (fail_at == 0 || n < fail_at || (n > fail_at && !plan.sticky)) return 0;
  if (plan.crash) ::_exit(kCrashExitCode);
  return plan.error;
}

template <typename Call>
auto attempt(Op op, const Call& call) -> decltype(call()) {
  for (int i = 0;; ++i) {
    if (const int error = injected(op); error != 0) {
      errno = error;
    } else if (const auto result = call(); result >= 0) {
      return result;
    }
    if (errno != EINTR || i >= kMaxInterrupts) return -1;
  }
}

std::atomic<bool> g_plain_posix{false};

#if defined(__linux__) && defined(SYS_renameat2)
constexpr unsigned kNoReplace = 1, kExchange = 2;  // linux/fs.h: RENAME_NOREPLACE, RENAME_EXCHANGE
// By number, because some C libraries (older bionic, musl) have no wrapper.
int renameat2(const std::string& from, const std::string& to, unsigned flags) {
  return static_cast<int>(
      ::syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags));
}
#endif

}  // namespace

void set_fault_plan(const FaultPlan& plan) { apply(faults(), plan); }
void clear_fault_plan() { apply(faults(), FaultPlan{}); }
uint64_t operation_count() { return faults().count; }

namespace system {

int open(const std::string& path, int flags, mode_t mode) {
  return attempt(Op::kOpen, [&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
}

ssize_t pwrite(int fd, const void* data, size_t size, uint64_t offset) {
  return attempt(Op::kWrite, [&] { return ::pwrite(fd, data, size, static_cast<off_t>(offset)); });
}

int fsync(int fd) {
  return attempt(Op::kFsync, [&] {
#if defined(__APPLE__)
    // Plain fsync there leaves the data in the drive's cache.
    if (::fcntl(fd, F_FULLFSYNC) == 0) return 0;
#endif
    return ::fsync(fd);
  });
}

int fsync_folder(const std::string& path) {
  const int fd = open(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return -1;
  int result = fsync(fd);
  if (result != 0 && (is_unsupported(errno) || errno == EBADF)) result = 0;
  const int error = errno;
  if (close(fd) != 0) return -1;
  errno = error;
  return result;
}

int close(int fd) {
  const int error = injected(Op::kClose);
  // After EINTR the descriptor is closed on Linux and must not be closed again.
  const int result = ::close(fd) != 0 && errno != EINTR ? -1 : 0;
  if (error == 0 || error == EINTR) return result;
  errno = error;
  return -1;
}

int mkdir(const std::string& path) {
  return attempt(Op::kMkdir, [&] { return ::mkdir(path.c_str(), 0777); });
}
int unlink(const std::string& path) {
  return attempt(Op::kUnlink, [&] { return ::unlink(path.c_str()); });
}
int rmdir(const std::string& path) {
  return attempt(Op::kUnlink, [&] { return ::rmdir(path.c_str()); });
}
int lock_exclusively(int fd) {
  return attempt(Op::kLock, [&] { return ::flock(fd, LOCK_EX | LOCK_NB); });
}
int rename(const std::string& from, const std::string& to) {
  return attempt(Op::kRename, [&] { return ::rename(from.c_str(), to.c_str()); });
}
int link(const std::string& from, const std::string& to) {
  return attempt(Op::kRename, [&] {
    return ::linkat(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), 0);  // of a link: the link itself
  });
}

int rename_noreplace(const std::string& from, const std::string& to) {
#if defined(__linux__) && defined(SYS_renameat2)
  if (!g_plain_posix) return attempt(Op::kRename, [&] { return renameat2(from, to, kNoReplace); });
#endif
  (void)from, (void)to;
  errno = ENOSYS;
  return -1;
}

int rename_exchange(const std::string& a, const std::string& b) {
#if defined(__linux__) && defined(SYS_renameat2)
  if (!g_plain_posix) return attempt(Op::kRename, [&] { return renameat2(a, b, kExchange); });
#endif
  (void)a, (void)b;
  errno = ENOSYS;
  return -1;
}

bool is_unsupported(int error) {
  return error == EINVAL || error == ENOSYS || error == ENOTSUP || error == EOPNOTSUPP;
}

void pretend_plain_posix(bool on) { g_plain_posix = on; }

Status failure(const char* operation, const std::string& path, int error,
               std::optional<uint64_t> needed) {
  std::string text = std::string(operation) + ": " + std::generic_category().message(error);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: {
      if (needed) text += "; " + std::to_string(*needed) + " bytes were needed so far";
      const size_t slash = path.rfind('/');
      const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
      if (const auto free = free_bytes(folder); free.ok())
        text += ", " + std::to_string(*free) + " bytes are free";
      return does_not_fit(std::move(text)).in(path).hint("free some space or choose another disk");
    }
    case ENOENT:
    case ENOTDIR:
      return missing(std::move(text)).in(path);
    case EACCES:
    case EPERM:
    case EROFS:
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
      return usage_error(std::move(text)).in(path).hint("choose a place that may be written");
    default:
      return Status(StatusCode::kUnavailable, std::move(text)).in(path);
  }
}

}  // namespace system
}  // namespace pome::io
