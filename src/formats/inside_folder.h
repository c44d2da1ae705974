// Paths that a model file names: they must stay inside the folder of the model, links included.
#pragma once

#include <filesystem>
#include <string>

#include "base/status.h"

namespace pome {

// A relative path of plain names: nothing that could lead out of a folder on any system (kPath).
Status check_relative_path(const std::string& path);
// `path` exists and, links followed, lies below `root` (canonical): its real place; kLink
// otherwise, kMissing when it is not there.
Result<std::filesystem::path> path_inside(const std::filesystem::path& path,
                                          const std::filesystem::path& root);

}  // namespace pome
