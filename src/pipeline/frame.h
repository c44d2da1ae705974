// What the targets of convert share: checks of the output, and the manifest.
#pragma once

#include <string>

#include "formats/manifest.h"
#include "pipeline/convert.h"
#include "pipeline/target.h"

namespace pome {

Manifest manifest_of(const Written& written, const Source& source, const ConvertOptions& options);
// What a tokenizer is read from, and what else the checkpoint has beside its weights.
Status write_tokenizer_files(const Checkpoint& checkpoint, const std::string& folder);
// The manifest, last of all files; fills bytes and tree_hash of the report.
Status finish_folder(const Written& written, const Source& source, const ConvertOptions& options,
                     const std::string& folder, const WorkContext& work, ConvertReport* report);

bool is_semver(const std::string& text);
std::string parent_of(const std::string& path);
// --force replaces what is there, but never what the work itself stands on.
Status check_replaceable(const ConvertOptions& options);
// Room for so many bytes of weights, and what comes with them, below `folder`; kDoesNotFit.
Status check_disk(uint64_t stored, const std::string& folder);

}  // namespace pome
