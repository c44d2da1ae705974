// Parts of verify that every kind of artefact shares.
#pragma once

#include <string>
#include <vector>

#include "verify/exported.h"
#include "verify/verify.h"

namespace pome {

// The manifest of an artefact folder against its files; nothing where `folder` is empty.
Status check_files(const std::string& folder, const WorkContext& work, VerifyReport* report);
void check_gates(const VerifyOptions& options, const Comparison& comparison,
                 std::vector<std::string>* problems);
// An artefact that is opened as a checkpoint is. The file must be one that convert wrote: its
// metadata hold the hashes of its graph, which is built again from the file and hashed.
Result<VerifyReport> verify_checkpoint(const VerifyOptions& options, const ArtefactPaths& paths,
                                       const WorkContext& work);

}  // namespace pome
