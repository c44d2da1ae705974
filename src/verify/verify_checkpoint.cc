// A GGUF file or an MLC package that convert wrote: its graph, built again from the file, has the
// hash that stands in the metadata, and comes from the model it is compared with.
#include "formats/mlc.h"
#include "models/models.h"
#include "verify/verify_parts.h"

namespace pome {

namespace {

// The sums that a package states of its own files, beside those of the manifest.
Status check_own_sums(const Checkpoint& checkpoint, const WorkContext& work, VerifyReport* report) {
  if (!checkpoint.mlc.is_object()) return {};
  POME_ASSIGN_OR_RETURN(const MlcCache cache, read_mlc_cache(checkpoint.path));
  const Status status = check_mlc_sums(checkpoint.path, cache, work.cancel);
  if (status.refusal() != Refusal::kIntegrity) return status;
  report->problems.push_back("integrity: " + status.to_string());
  return {};
}

}  // namespace

Result<VerifyReport> verify_checkpoint(const VerifyOptions& options, const ArtefactPaths& paths,
                                       const WorkContext& work) {
  const std::string& file = paths.package;
  VerifyReport report;
  POME_RETURN_IF_ERROR(check_files(paths.folder, work, &report));
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(file));
  const Identity identity = identity_of(checkpoint);
  report.graph_hash = identity.graph_hash;
  report.source_hash = identity.source_hash;
  if (report.graph_hash.empty())
    return unsupported("there is no graph_hash of pome in its metadata: convert did not write this")
        .in(file)
        .hint("compare it with `pome eval FILE --against MODEL`");
  POME_RETURN_IF_ERROR(check_own_sums(checkpoint, work, &report));
  const int64_t context = stated_context(checkpoint);
  POME_ASSIGN_OR_RETURN(const GraphHashes own, hashes_of(checkpoint, context, options.threads));
  if (own.graph_hash != report.graph_hash)
    report.problems.push_back("weights: the graph in the file has the hash " +
                              own.graph_hash.substr(0, 16) + ", its metadata say " +
                              report.graph_hash.substr(0, 16));
  if (!options.original.empty()) {
    POME_ASSIGN_OR_RETURN(const Checkpoint original, open_checkpoint(options.original));
    POME_ASSIGN_OR_RETURN(const GraphHashes source, hashes_of(original, context, options.threads));
    if (source.source_hash != report.source_hash)
      report.problems.push_back("source: the file was made from another model");
    POME_RETURN_IF_ERROR(compare_models(options, file, options.original, work, &report));
  }
  report.ok = report.problems.empty();
  return report;
}

}  // namespace pome
