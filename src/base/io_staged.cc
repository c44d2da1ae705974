#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <string_view>
#include <vector>

#include "base/io.h"
#include "base/io_system.h"
#include "base/io_tree.h"
#include "base/sha256.h"
#include "base/utf8.h"

namespace pome::io {
namespace {

constexpr std::string_view kMark = ".pome-";
constexpr std::string_view kOldMark = "old-";  // ".<name>.pome-old-...": see replace_by_two_renames
constexpr size_t kLongestStem = 180;           // leaves room for mark, pid and random in 255 bytes
constexpr int kRemovalTries = 3;

struct Target {
  std::string folder;  // "" for the current one, else ends in '/'
  std::string name;
  std::string final_path;  // without trailing slashes
  std::string folder_path() const { return folder.empty() ? "." : folder; }
  // What all staging names of this target start with.
  std::string prefix() const {
    if (name.size() <= kLongestStem) return "." + name + std::string(kMark);
    size_t cut = 0;
    while (cut < kLongestStem - 32) {
      const size_t length = utf8_sequence_length(name, cut);
      cut += length == 0 ? 1 : length;
    }
    return "." + name.substr(0, cut) + "~" + to_hex(sha256(name)).substr(0, 16) +
           std::string(kMark);
  }
};

Result<Target> parse_target(const std::string& path) {
  if (path.find('\0') != std::string::npos)
    return usage_error("the output path holds a zero byte").in(path);
  std::string text = path;
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  const size_t slash = text.rfind('/');
  Target target;
  target.folder = slash == std::string::npos ? "" : text.substr(0, slash + 1);
  target.name = text.substr(target.folder.size());
  if (target.name.empty() || target.name == "." || target.name == "..")
    return usage_error("the output path does not name a new file or folder").in(path);
  target.final_path = text;
  return target;
}

std::string unique_suffix() {
  uint64_t random = 0;
  if (::getentropy(&random, sizeof random) != 0)
    random = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  char text[64];
  std::snprintf(text, sizeof text, "%ld-%016llx", static_cast<long>(::getpid()),
                static_cast<unsigned long long>(random));
  return text;
}

bool exists(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0 || errno != ENOENT;
}

bool is_folder(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool same_file(int fd, const std::string& path) {
  struct stat by_fd, by_path;
  return ::fstat(fd, &by_fd) == 0 && ::lstat(path.c_str(), &by_path) == 0 &&
         by_fd.st_dev == by_path.st_dev && by_fd.st_ino == by_path.st_ino;
}

// File systems without flock (some network mounts) answer with one of these; staging then works
// without protection against a writer that is still alive being taken for dead, because nobody can
// take its lock either.
bool cannot_lock(int error) {
  return error == ENOLCK || error == EBADF || system::is_unsupported(error);
}

Status remove_stubbornly(const std::string& path) {
  Status status = remove_tree(path);
  for (int i = 1; i < kRemovalTries && !status.ok(); ++i) status = remove_tree(path);
  return status;
}

// Removes what dead writers left. Best effort: a leftover that stays harms nobody but the disk.
void remove_leftovers(const Target& target) {
  const auto names = list_folder(target.folder_path());
  if (!names.ok()) return;
  const std::string prefix = target.prefix();
  for (const std::string& name : *names) {
    if (std::string_view(name).substr(0, prefix.size()) != prefix) continue;
    const std::string path = target.folder + name;
    const int fd = system::open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    struct stat info;
    const bool ours = ::fstat(fd, &info) == 0 && (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode));
    if (ours && system::lock_exclusively(fd) == 0 && same_file(fd, path)) {
      const bool is_old = std::string_view(name).substr(prefix.size(), kOldMark.size()) == kOldMark;
      // The writer died between its two renames: the previous output goes back to its place.
      if (is_old && !exists(target.final_path))
        (void)system::rename(path, target.final_path);
      else
        (void)remove_stubbornly(path);
    }
    (void)system::close(fd);
  }
}

Status exists_error(const std::string& path) {
  return Status(StatusCode::kExists, "the output exists already")
      .in(path)
      .hint("choose another name, or --force to replace it");
}

Status sync_tree(const std::string& root) {
  return walk_tree(
      root,
      [](const std::string& path) -> Status {
        struct stat info;
        if (::lstat(path.c_str(), &info) != 0) return system::failure("lstat", path, errno);
        if (!S_ISREG(info.st_mode)) return {};
        const int fd = system::open(path, O_RDONLY | O_NOFOLLOW);
        if (fd < 0) return system::failure("open", path, errno);
        Status status;
        if (system::fsync(fd) != 0)
          status = system::failure("fsync", path, errno, static_cast<uint64_t>(info.st_size));
        if (system::close(fd) != 0 && status.ok()) status = system::failure("close", path, errno);
        return status;
      },
      [](const std::string& path) -> Status {
        if (system::fsync_folder(path) == 0) return {};
        return system::failure("fsync", path, errno);
      });
}

// How the new output came to its place, for the way back.
enum class Published { kMoved, kExchanged, kSwapped, kReplaced };

}  // namespace

struct Staged::Impl {
  Target target;
  Kind kind = Kind::kFile;
  bool force = false;
  std::string path;      // the staging entry; "" when there is none
  std::string old_path;  // where the replaced output waits for removal
  int lock_fd = -1;
  bool committed = false;

  Status create_entry();
  Result<Published> publish();
  Result<Published> publish_plain();
  Result<Published> replace_by_two_renames();
  void take_back(Published how);
  std::string away_path() const {
    return target.folder + target.prefix() + std::string(kOldMark) + unique_suffix();
  }
  void release_lock() {
    if (lock_fd >= 0) (void)system::close(lock_fd);
    lock_fd = -1;
  }
};

// Makes the entry and takes its lock. Another writer's clean-up may take a new entry for a leftover
// before the lock is held; then the next name is tried.
Status Staged::Impl::create_entry() {
  constexpr int kTries = 16;
  for (int i = 0; i < kTries; ++i) {
    const std::string entry = target.folder + target.prefix() + unique_suffix();
    int fd = -1;
    if (kind == Kind::kFolder) {
      if (system::mkdir(entry) != 0) {
        if (errno == EEXIST) continue;
        return system::failure("mkdir", entry, errno);
      }
      path = entry;
      fd = system::open(entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    } else {
      fd = system::open(entry, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
      if (fd < 0 && errno == EEXIST) continue;
      if (fd >= 0) path = entry;
    }
    if (fd < 0) {
      if (errno == ENOENT && kind == Kind::kFolder) continue;
      return system::failure("open", entry, errno);
    }
    lock_fd = fd;
    const int locked = system::lock_exclusively(fd);
    if (locked != 0 && errno != EWOULDBLOCK && !cannot_lock(errno))
      return system::failure("lock", entry, errno);
    if ((locked == 0 || errno != EWOULDBLOCK) && same_file(fd, entry)) return {};
    release_lock();
    path.clear();
  }
  return Status(StatusCode::kUnavailable,
                "no staging name could be kept; is somebody else busy here?")
      .in(target.final_path);
}

Staged::Staged() : impl_(std::make_unique<Impl>()) {}

Result<std::unique_ptr<Staged>> Staged::create(const std::string& final_path, Kind kind,
                                               bool force) {
  POME_ASSIGN_OR_RETURN(Target target, parse_target(final_path));
  struct stat info;
  const std::string folder = target.folder_path();
  if (::stat(folder.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      return missing("there is no folder \"" + folder + "\" to write into")
          .in(final_path)
          .hint("create it first");
    return system::failure("stat", folder, errno);
  }
  if (!S_ISDIR(info.st_mode)) return missing("\"" + folder + "\" is not a folder").in(final_path);
  remove_leftovers(target);
  if (!force && exists(target.final_path)) return exists_error(target.final_path);
  std::unique_ptr<Staged> staged(new Staged());
  staged->impl_->target = std::move(target);
  staged->impl_->kind = kind;
  staged->impl_->force = force;
  POME_RETURN_IF_ERROR(staged->impl_->create_entry());
  return staged;
}

Staged::~Staged() {
  if (!impl_->committed && !impl_->path.empty()) (void)remove_stubbornly(impl_->path);
  if (!impl_->old_path.empty()) (void)remove_stubbornly(impl_->old_path);
  impl_->release_lock();
}

const std::string& Staged::path() const { return impl_->path; }

Result<Published> Staged::Impl::publish() {
  const std::string& final_path = target.final_path;
  constexpr int kTries = 8;  // the output may come and go while we look
  for (int i = 0; i < kTries; ++i) {
    if (system::rename_noreplace(path, final_path) == 0) return Published::kMoved;
    if (system::is_unsupported(errno)) return publish_plain();
    if (errno != EEXIST) return system::failure("rename", final_path, errno);
    if (!force) return exists_error(final_path);
    if (system::rename_exchange(path, final_path) == 0) return Published::kExchanged;
    if (system::is_unsupported(errno)) return publish_plain();
    if (errno != ENOENT) return system::failure("rename", final_path, errno);
  }
  return Status(StatusCode::kUnavailable, "the output is being changed by somebody else")
      .in(final_path);
}

Result<Published> Staged::Impl::publish_plain() {
  const std::string& final_path = target.final_path;
  if (!force && kind == Kind::kFile) {
    // link() refuses an existing name atomically; rename() would replace it.
    if (system::link(path, final_path) == 0) {
      (void)system::unlink(path);
      return Published::kMoved;
    }
    if (errno == EEXIST) return exists_error(final_path);
    if (errno != EPERM && errno != EMLINK && !system::is_unsupported(errno))
      return system::failure("link", final_path, errno);
  }
  const bool there = exists(final_path);
  if (there && !force) return exists_error(final_path);
  if (there && (kind == Kind::kFolder || is_folder(final_path))) return replace_by_two_renames();
  // A second name for the old file is the way back; where links are lacking there is none.
  if (there) {
    const std::string second = away_path();
    if (system::link(final_path, second) == 0) old_path = second;
  }
  if (system::rename(path, final_path) == 0)
    return there ? Published::kReplaced : Published::kMoved;
  if (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR || errno == EISDIR)
    return exists_error(final_path);
  return system::failure("rename", final_path, errno);
}

// A folder cannot replace another one in one step without exchange. The old output waits under a
// name that a later create() recognises, locked against the clean-up of others.
Result<Published> Staged::Impl::replace_by_two_renames() {
  const std::string& final_path = target.final_path;
  const int old_fd = system::open(final_path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (old_fd >= 0) (void)system::lock_exclusively(old_fd);
  const std::string away = away_path();
  Status status;
  if (system::rename(final_path, away) != 0) {
    status = system::failure("rename", final_path, errno);
  } else if (system::rename(path, final_path) != 0) {
    status = system::failure("rename", final_path, errno);
    if (system::rename(away, final_path) != 0) {
      status = Status(status.code(), std::string(status.message()) +
                                         "; the previous output is now \"" + away + "\"")
                   .in(final_path);
    }
  } else {
    old_path = away;
  }
  if (old_fd >= 0) (void)system::close(old_fd);
  if (!status.ok()) return status;
  return Published::kSwapped;
}

void Staged::Impl::take_back(Published how) {
  const std::string& final_path = target.final_path;
  switch (how) {
    case Published::kMoved:
      // Where both names are links to one file, rename() does nothing and succeeds.
      (void)system::rename(final_path, path);
      if (same_file(lock_fd, final_path)) (void)system::unlink(final_path);
      break;
    case Published::kExchanged:
      (void)system::rename_exchange(path, final_path);
      break;
    case Published::kSwapped:
      if (system::rename(final_path, path) != 0) break;
      // Should this fail, the next create() finds the previous output and puts it back.
      (void)system::rename(old_path, final_path);
      old_path.clear();
      break;
    case Published::kReplaced:
      if (!old_path.empty() && system::rename(old_path, final_path) == 0) old_path.clear();
      break;
  }
}

Status Staged::commit() {
  Impl& staged = *impl_;
  POME_CHECK(!staged.committed && !staged.path.empty());
  POME_RETURN_IF_ERROR(sync_tree(staged.path));
  POME_ASSIGN_OR_RETURN(const Published how, staged.publish());
  // Until the folder is on disk a power loss could bring the old state back, so an error here takes
  // the new one away again: a commit that failed has changed nothing.
  if (system::fsync_folder(staged.target.folder_path()) != 0) {
    Status status = system::failure("fsync", staged.target.folder_path(), errno);
    staged.take_back(how);
    return status;
  }
  staged.committed = true;
  staged.release_lock();
  if (how == Published::kExchanged || how == Published::kMoved) staged.old_path = staged.path;
  if (!staged.old_path.empty() && remove_stubbornly(staged.old_path).ok()) staged.old_path.clear();
  return {};
}

}  // namespace pome::io
