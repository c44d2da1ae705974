#include "base/io_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/byte_source.h"
#include "base/io.h"
#include "base/io_system.h"

namespace pome::io {
namespace {

struct Frame {
  std::string path;
  std::vector<std::string> names;
  size_t next = 0;
};

}  // namespace

Result<std::vector<std::string>> list_folder(const std::string& path) {
  const int fd = system::open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0) return system::failure("open", path, errno);
  DIR* const folder = ::fdopendir(fd);
  if (folder == nullptr) {
    const int error = errno;
    (void)system::close(fd);
    return system::failure("open", path, error);
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int error = errno;
  ::closedir(folder);
  if (error != 0) return system::failure("read folder", path, error);
  std::sort(names.begin(), names.end());
  return names;
}

Status walk_tree(const std::string& root, const std::function<Status(const std::string&)>& file,
                 const std::function<Status(const std::string&)>& folder_after) {
  Status first_error;
  const auto keep = [&first_error](Status status) {
    if (first_error.ok() && !status.ok()) first_error = std::move(status);
  };
  std::vector<Frame> open_folders;
  const auto enter = [&](std::string path) {
    struct stat info;
    if (::lstat(path.c_str(), &info) != 0) {
      if (errno != ENOENT) keep(system::failure("lstat", path, errno));
      return;
    }
    if (!S_ISDIR(info.st_mode)) return keep(file(path));
    auto names = list_folder(path);
    if (!names.ok()) return keep(std::move(names).status());
    open_folders.push_back({std::move(path), std::move(names).value()});
  };
  enter(root);
  while (!open_folders.empty()) {
    Frame& top = open_folders.back();
    if (top.next < top.names.size()) {
      enter(top.path + "/" + top.names[top.next++]);
    } else {
      const std::string path = std::move(top.path);
      open_folders.pop_back();
      keep(folder_after(path));
    }
  }
  return first_error;
}

Status make_folder(const std::string& path) {
  if (system::mkdir(path) == 0) return {};
  const int error = errno;
  struct stat info;
  if (error == EEXIST && ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return {};
  return system::failure("mkdir", path, error);
}

Status remove_tree(const std::string& path) {
  std::string root = path;
  while (root.size() > 1 && root.back() == '/') root.pop_back();  // "link/" would follow the link
  const auto gone = [](const char* operation, const std::string& entry, int result) -> Status {
    if (result == 0 || errno == ENOENT) return {};
    return system::failure(operation, entry, errno);
  };
  return walk_tree(
      root, [&](const std::string& entry) { return gone("unlink", entry, system::unlink(entry)); },
      [&](const std::string& entry) { return gone("rmdir", entry, system::rmdir(entry)); });
}

Status copy_file(const std::string& from, const std::string& to) {
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(from));
  POME_ASSIGN_OR_RETURN(const auto out, OutputFile::create(to));
  std::vector<std::byte> buffer(static_cast<size_t>(std::min<uint64_t>(source->size(), 1 << 20)));
  for (uint64_t at = 0; at < source->size();) {
    const auto piece = std::span(buffer).first(
        static_cast<size_t>(std::min<uint64_t>(buffer.size(), source->size() - at)));
    POME_RETURN_IF_ERROR(source->read(at, piece));
    POME_RETURN_IF_ERROR(out->write(std::span<const std::byte>(piece)));
    at += piece.size();
  }
  return out->close();
}

Status write_file(const std::string& path, std::string_view contents) {
  POME_ASSIGN_OR_RETURN(const auto out, OutputFile::create(path));
  POME_RETURN_IF_ERROR(out->write(contents));
  return out->close();
}

Result<uint64_t> free_bytes(const std::string& folder) {
  struct statvfs info;
  if (::statvfs(folder.c_str(), &info) != 0) return system::failure("statvfs", folder, errno);
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

}  // namespace pome::io
