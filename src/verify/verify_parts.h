// Parts of verify that every kind of artefact shares.
#pragma once

#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "graph/graph.h"
#include "verify/exported.h"
#include "verify/verify.h"

namespace pome {

// The manifest of an artefact folder against its files; nothing where `folder` is empty.
Status check_files(const std::string& folder, const WorkContext& work, VerifyReport* report);
void check_gates(const VerifyOptions& options, const Comparison& comparison,
                 std::vector<std::string>* problems);
// What a model says of itself in its own metadata; empty where convert did not write it.
struct Identity {
  std::string graph_hash, source_hash;
};
Identity identity_of(const Checkpoint& checkpoint);
Result<Identity> identity_of(const ArtefactPaths& paths);
// Of a checkpoint, computed; as convert would write them into an artefact in f32 of that context
// (0: the model's own).
Result<GraphHashes> hashes_of(const Checkpoint& checkpoint, int64_t context, int threads);
// Whether a model that says it was made from `source_hash` was made from `model` itself: a GGUF
// file that convert wrote has the source hash of the model behind it, and one of its own as a
// model.
Result<bool> is_made_from(const std::string& source_hash, const ArtefactPaths& model,
                          const Identity& identity, int threads);
// Loads both, of whatever kind, and compares ids and logits, under the gates.
Status compare_models(const VerifyOptions& options, const std::string& artefact,
                      const std::string& original, const WorkContext& work, VerifyReport* report);
// Two artefacts of one model, without the model: `original` is `other`, which convert wrote.
Result<VerifyReport> verify_pair(const VerifyOptions& options, const ArtefactPaths& paths,
                                 const Identity& other, const WorkContext& work);

// An artefact that is opened as a checkpoint is. The file must be one that convert wrote: its
// metadata hold the hashes of its graph, which is built again from the file and hashed.
Result<VerifyReport> verify_checkpoint(const VerifyOptions& options, const ArtefactPaths& paths,
                                       const WorkContext& work);

}  // namespace pome
