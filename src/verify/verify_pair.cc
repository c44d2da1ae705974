// Models side by side, whatever kind each is: what they say of themselves, and what they compute.
#include <algorithm>

#include "base/thread_pool.h"
#include "models/models.h"
#include "verify/model.h"
#include "verify/verify_parts.h"

namespace pome {

namespace {

Identity identity_in(const std::map<std::string, std::string>& metadata) {
  const auto text = [&](const char* key) {
    const auto found = metadata.find(key);
    return found != metadata.end() ? found->second : std::string();
  };
  return {text("pome.graph_hash"), text("pome.source_hash")};
}

}  // namespace

Identity identity_of(const Checkpoint& checkpoint) { return identity_in(checkpoint.metadata()); }

Result<Identity> identity_of(const ArtefactPaths& paths) {
  if (paths.is_checkpoint()) {
    POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(paths.package));
    return identity_of(checkpoint);
  }
  POME_ASSIGN_OR_RETURN(const std::shared_ptr<ExportedModel> model, ExportedModel::open(paths));
  return identity_in(model->metadata());
}

Result<GraphHashes> hashes_of(const Checkpoint& checkpoint, int64_t context, int threads) {
  POME_ASSIGN_OR_RETURN(const Graph graph, build_graph(checkpoint, {context}));
  ThreadPool pool(std::max(1, threads));
  return hash_graph(graph, &pool);
}

Result<bool> is_made_from(const std::string& source_hash, const ArtefactPaths& model,
                          const Identity& identity, int threads) {
  if (source_hash.empty() || source_hash == identity.source_hash || !model.is_checkpoint())
    return false;
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(model.package));
  POME_ASSIGN_OR_RETURN(const GraphHashes hashes, hashes_of(checkpoint, 0, threads));
  return hashes.source_hash == source_hash;
}

Status compare_models(const VerifyOptions& options, const std::string& artefact,
                      const std::string& original, const WorkContext& work, VerifyReport* report) {
  LoadOptions load;
  load.threads = options.threads;
  POME_ASSIGN_OR_RETURN(const LoadedModel ours, load_model(artefact, load, work));
  load.declared_length = ours.context;
  POME_ASSIGN_OR_RETURN(const LoadedModel theirs, load_model(original, load, work));
  if (ours.runner->info().vocab_size != theirs.runner->info().vocab_size) {
    report->problems.push_back("semantics: " + std::to_string(ours.runner->info().vocab_size) +
                               " logits, the other has " +
                               std::to_string(theirs.runner->info().vocab_size));
    return {};
  }
  std::vector<int32_t> ids = theirs.tokenizer->encode(options.text);
  if (ours.tokenizer->encode(options.text) != ids)
    report->problems.push_back("tokenizer: the two encode the text into different ids");
  ids.resize(std::min(ids.size(), static_cast<size_t>(options.max_tokens)));
  ScoreOptions scoring;
  scoring.window =
      std::min<int64_t>({ours.runner->info().capacity, theirs.runner->info().capacity, 512});
  POME_ASSIGN_OR_RETURN(report->against_original,
                        compare(*ours.runner, *theirs.runner, ids, scoring, work));
  report->has_comparison = true;
  check_gates(options, report->against_original, &report->problems);
  return {};
}

Result<VerifyReport> verify_pair(const VerifyOptions& options, const ArtefactPaths& paths,
                                 const Identity& other, const WorkContext& work) {
  VerifyReport report;
  if (paths.is_checkpoint()) {
    VerifyOptions alone = options;
    alone.original.clear();
    POME_ASSIGN_OR_RETURN(report, verify_checkpoint(alone, paths, work));
  } else {
    POME_RETURN_IF_ERROR(check_files(paths.folder, work, &report));
    POME_ASSIGN_OR_RETURN(const Identity own, identity_of(paths));
    if (own.source_hash.empty())
      return unsupported("this model has no pome.source_hash: it is not one that convert wrote")
          .in(paths.package)
          .hint("compare it with `pome eval ARTEFACT --against MODEL`");
    if (report.has_manifest && own.graph_hash != report.graph_hash)
      report.problems.push_back("integrity: the model says the graph hash " +
                                own.graph_hash.substr(0, 16) + ", the manifest " +
                                report.graph_hash.substr(0, 16));
    report.graph_hash = own.graph_hash;
    report.source_hash = own.source_hash;
  }
  report.against = other.graph_hash;
  POME_ASSIGN_OR_RETURN(const bool parent,
                        is_made_from(other.source_hash, paths,
                                     {report.graph_hash, report.source_hash}, options.threads));
  if (other.source_hash != report.source_hash && !parent)
    report.problems.push_back("source: the two were made from different models");
  POME_RETURN_IF_ERROR(compare_models(options, options.artefact, options.original, work, &report));
  report.ok = report.problems.empty();
  return report;
}

}  // namespace pome
