// What the targets of convert share: checks of the output, and the manifest.
#pragma once

#include <string>

#include "formats/manifest.h"
#include "pipeline/convert.h"
#include "pipeline/target.h"

namespace pome {

Manifest manifest_of(const Written& written, const Source& source, const ConvertOptions& options);

bool is_semver(const std::string& text);
std::string parent_of(const std::string& path);
// --force replaces what is there, but never what the work itself stands on.
Status check_replaceable(const ConvertOptions& options);
// Room for the constants of `graph` below `folder`; kDoesNotFit.
Status check_disk(const Graph& graph, const std::string& folder);

}  // namespace pome
