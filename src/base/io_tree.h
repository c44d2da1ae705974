// Walking folders without following links and without recursion. Private to base.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/status.h"

namespace pome::io {

// Names without "." and "..", sorted. A link to a folder is not a folder.
Result<std::vector<std::string>> list_folder(const std::string& path);

// Calls file(path) for everything that is not a folder and folder_after(path) for each folder once
// its entries are done. Goes on after an error and returns the first one; an absent root is fine.
Status walk_tree(const std::string& root, const std::function<Status(const std::string&)>& file,
                 const std::function<Status(const std::string&)>& folder_after);

}  // namespace pome::io
