#include "formats/inside_folder.h"

#include <algorithm>
#include <string_view>

namespace pome {

namespace fs = std::filesystem;

Status check_relative_path(const std::string& path) {
  const auto refuse = [&] {
    return bad_input(Refusal::kPath, "the path '" + path + "' does not stay inside the package");
  };
  if (path.empty() || path.size() > 4096) return refuse();
  if (path.find('\\') != std::string::npos || path.find(':') != std::string::npos ||
      path.find('\0') != std::string::npos) {
    return refuse();
  }
  size_t begin = 0;
  while (begin <= path.size()) {
    size_t end = path.find('/', begin);
    if (end == std::string::npos) end = path.size();
    const std::string_view name = std::string_view(path).substr(begin, end - begin);
    if (name.empty() || name == "." || name == "..") return refuse();
    begin = end + 1;
  }
  return {};
}

Result<fs::path> path_inside(const fs::path& path, const fs::path& root) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error) return missing("'" + path.string() + "' is not there");
  const auto [r, p] = std::mismatch(root.begin(), root.end(), real.begin(), real.end());
  if (r != root.end()) {
    return bad_input(Refusal::kLink,
                     "'" + path.string() + "' is a link that leads out of the package");
  }
  return real;
}

}  // namespace pome
