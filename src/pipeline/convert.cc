#include "pipeline/convert.h"

#include "base/io.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "formats/manifest.h"
#include "pipeline/frame.h"
#include "pipeline/kv_plan.h"
#include "pipeline/target.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

// The tokenizer of a GGUF file as a GGUF file of its own, without tensors.
Status write_gguf_tokenizer(const Checkpoint& checkpoint, const std::string& folder) {
  if (checkpoint.tensors.empty()) return {};
  POME_ASSIGN_OR_RETURN(const GgufFile file, read_gguf(checkpoint.tensors[0].source));
  std::vector<std::pair<std::string, GgufValue>> kept;
  for (const char* key : {"general.architecture", "general.name"})
    if (const GgufValue* value = file.find(key)) kept.emplace_back(key, *value);
  for (auto& entry : tokenizer_keys(file)) kept.push_back(std::move(entry));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<GgufWriter> writer,
                        GgufWriter::create(folder + "/tokenizer.gguf", kept, {}));
  return writer->finish();
}

Status write_tokenizer_files(const Checkpoint& checkpoint, const std::string& folder) {
  if (checkpoint.format == "gguf")
    return checkpoint.tokenizer.model == TokenizerSource::Model::kNone
               ? Status()
               : write_gguf_tokenizer(checkpoint, folder);
  for (const auto& [name, path] : checkpoint.sidecars)
    POME_RETURN_IF_ERROR(io::copy_file(path, folder + "/" + name));
  return {};
}

std::string scheme_of(const ConvertOptions& options) {
  return options.weights + (options.embedding ? "+embedding:" + *options.embedding : "") +
         (options.imatrix.empty() ? "" : "+imatrix");
}

Result<std::string> digest_of(const TokenizerSource& source, ConvertReport* report) {
  if (source.model == TokenizerSource::Model::kNone) {
    report->warnings.push_back(
        "the checkpoint has no tokenizer: the artefact can be run on token ids only");
    return std::string();
  }
  POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer,
                        Tokenizer::create(source));
  return tokenizer->digest();
}

// Tokenizer files and the manifest, which is written last.
Status complete_folder(const Written& written, const Source& source, const ConvertOptions& options,
                       bool tokenizer_beside, const std::string& folder, const WorkContext& work,
                       ConvertReport* report) {
  if (tokenizer_beside) POME_RETURN_IF_ERROR(write_tokenizer_files(source.checkpoint, folder));
  Manifest manifest = manifest_of(written, source, options);
  POME_RETURN_IF_ERROR(fill_digests(folder, &manifest, work));
  const std::string text = to_json(manifest);
  POME_RETURN_IF_ERROR(io::write_file(folder + "/" + kManifestName, text));
  report->bytes = text.size();
  for (const ManifestFile& file : manifest.files) report->bytes += file.size;
  report->tree_hash = manifest.tree_hash;
  return {};
}

}  // namespace

Result<ConvertReport> convert(const ConvertOptions& given, const WorkContext& work) {
  ConvertOptions options = given;
  POME_ASSIGN_OR_RETURN(const TargetRow* const row, find_target(options));
  if (!is_semver(options.version))
    return usage_error("--artefact-version '" + options.version +
                       "' must be three numbers, such as 1.0.0");
  if (options.weights.empty()) options.weights = row->weights;
  POME_RETURN_IF_ERROR(settle_kv(*row, &options));
  const std::unique_ptr<TargetWriter> target = row->make();
  ConvertReport report;
  report.output = options.output;
  POME_RETURN_IF_ERROR(target->prepare(options, &report));
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(options.model));
  report.warnings = checkpoint.warnings;
  POME_ASSIGN_OR_RETURN(const Graph graph, target->build(checkpoint, options, &report));
  POME_ASSIGN_OR_RETURN(const std::string digest, digest_of(checkpoint.tokenizer, &report));
  POME_ASSIGN_OR_RETURN(Quantized quantized, target->quantize(graph, options, &report));
  report.tensors = std::move(quantized.tensors);

  const KvPlan kv = plan_kv(quantized.graph, options, *row, report.context);
  POME_RETURN_IF_ERROR(check_budget(options, least_weight_bytes(quantized.graph), kv));

  const bool one_file = target->one_file(options);
  POME_RETURN_IF_ERROR(check_replaceable(options));
  POME_ASSIGN_OR_RETURN(
      const std::unique_ptr<io::Staged> staged,
      io::Staged::create(options.output,
                         one_file ? io::Staged::Kind::kFile : io::Staged::Kind::kFolder,
                         options.force));
  POME_RETURN_IF_ERROR(check_disk(quantized.graph, parent_of(options.output)));
  const Source source{quantized.graph, checkpoint,   scheme_of(options), digest,
                      report.context,  report.chunk, kv.tokens};
  POME_ASSIGN_OR_RETURN(const Written written,
                        target->write(source, options, staged->path(), work, &report));
  report.exported = written.exported;
  report.bytes = written.exported.bytes;
  if (one_file) {
    report.packaging = summarise(options, kv);
    report.packaging.files = {{written.model, report.bytes}};
    POME_RETURN_IF_ERROR(check_budget(options, report.bytes, kv));
  } else {
    POME_ASSIGN_OR_RETURN(report.packaging,
                          write_kv_sidecars(staged->path(), written.model, options, kv));
    POME_RETURN_IF_ERROR(complete_folder(written, source, options, target->tokenizer_beside(),
                                         staged->path(), work, &report));
  }
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  return report;
}

}  // namespace pome
