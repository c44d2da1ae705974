// A GGUF file or an MLC package that convert wrote: its graph, built again from the file, has the
// hash that stands in the metadata, and comes from the model it is compared with.
#include <algorithm>

#include "base/thread_pool.h"
#include "formats/mlc.h"
#include "models/models.h"
#include "verify/model.h"
#include "verify/verify_parts.h"

namespace pome {

namespace {

// What convert wrote about the graph: "graph_hash", "source_hash".
std::string stated(const Checkpoint& checkpoint, const std::string& key) {
  const Json* all = &checkpoint.gguf;
  std::string name = "pome." + key;
  if (checkpoint.mlc.is_object()) {
    const auto own = checkpoint.mlc.find("pome");
    if (own == checkpoint.mlc.end()) return "";
    all = &*own, name = key;
  }
  const auto found = all->find(name);
  return found != all->end() && found->is_string() ? found->get<std::string>() : "";
}

Result<GraphHashes> hashes_of(const Checkpoint& checkpoint, int64_t context, int threads) {
  POME_ASSIGN_OR_RETURN(const Graph graph, build_graph(checkpoint, {context}));
  ThreadPool pool(std::max(1, threads));
  return hash_graph(graph, &pool);
}

// The sums that a package states of its own files, beside those of the manifest.
Status check_own_sums(const Checkpoint& checkpoint, const WorkContext& work, VerifyReport* report) {
  if (!checkpoint.mlc.is_object()) return {};
  POME_ASSIGN_OR_RETURN(const MlcCache cache, read_mlc_cache(checkpoint.path));
  const Status status = check_mlc_sums(checkpoint.path, cache, work.cancel);
  if (status.refusal() != Refusal::kIntegrity) return status;
  report->problems.push_back("integrity: " + status.to_string());
  return {};
}

Status compare_with_original(const VerifyOptions& options, const std::string& file,
                             const WorkContext& work, VerifyReport* report) {
  LoadOptions load;
  load.threads = options.threads;
  POME_ASSIGN_OR_RETURN(const LoadedModel original, load_model(options.original, load, work));
  POME_ASSIGN_OR_RETURN(const LoadedModel artefact, load_model(file, load, work));
  std::vector<int32_t> ids = original.tokenizer->encode(options.text);
  if (artefact.tokenizer->encode(options.text) != ids)
    report->problems.push_back("tokenizer: the file encodes the text into other ids");
  ids.resize(std::min(ids.size(), static_cast<size_t>(options.max_tokens)));
  ScoreOptions scoring;
  scoring.window =
      std::min<int64_t>({artefact.runner->info().capacity, original.runner->info().capacity, 512});
  POME_ASSIGN_OR_RETURN(report->against_original,
                        compare(*artefact.runner, *original.runner, ids, scoring, work));
  report->has_comparison = true;
  check_gates(options, report->against_original, &report->problems);
  return {};
}

}  // namespace

Result<VerifyReport> verify_checkpoint(const VerifyOptions& options, const ArtefactPaths& paths,
                                       const WorkContext& work) {
  const std::string& file = paths.package;
  VerifyReport report;
  POME_RETURN_IF_ERROR(check_files(paths.folder, work, &report));
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(file));
  report.graph_hash = stated(checkpoint, "graph_hash");
  report.source_hash = stated(checkpoint, "source_hash");
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
    POME_RETURN_IF_ERROR(compare_with_original(options, file, work, &report));
  }
  report.ok = report.problems.empty();
  return report;
}

}  // namespace pome
