#include "pipeline/convert.h"

#include "base/io.h"
#include "formats/checkpoint.h"
#include "pipeline/frame.h"
#include "pipeline/target.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

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

}  // namespace

Result<ConvertReport> convert(const ConvertOptions& given, const WorkContext& work) {
  ConvertOptions options = given;
  POME_ASSIGN_OR_RETURN(const TargetRow* const row, find_target(options));
  if (!is_semver(options.version))
    return usage_error("--artefact-version '" + options.version +
                       "' must be three numbers, such as 1.0.0");
  if (options.weights.empty()) options.weights = row->weights;
  if (options.chunk == 0) options.chunk = row->chunk;
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

  const bool one_file = target->one_file(options);
  POME_RETURN_IF_ERROR(check_replaceable(options));
  POME_ASSIGN_OR_RETURN(
      const std::unique_ptr<io::Staged> staged,
      io::Staged::create(options.output,
                         one_file ? io::Staged::Kind::kFile : io::Staged::Kind::kFolder,
                         options.force));
  POME_RETURN_IF_ERROR(
      check_disk(target->stored_bytes(quantized.graph), parent_of(options.output)));
  const Source source{quantized.graph, checkpoint,     scheme_of(options),
                      digest,          report.context, report.chunk};
  POME_ASSIGN_OR_RETURN(const Written written,
                        target->write(source, options, staged->path(), work, &report));
  report.exported = written.exported;
  report.bytes = written.exported.bytes;
  if (!one_file) {
    if (target->tokenizer_beside())
      POME_RETURN_IF_ERROR(write_tokenizer_files(checkpoint, staged->path()));
    POME_RETURN_IF_ERROR(finish_folder(written, source, options, staged->path(), work, &report));
  }
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  return report;
}

}  // namespace pome
