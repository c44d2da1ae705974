#include "pipeline/convert.h"

#include <algorithm>
#include <optional>

#include "base/io.h"
#include "formats/checkpoint.h"
#include "formats/manifest.h"
#include "pipeline/frame.h"
#include "pipeline/kv_plan.h"
#include "pipeline/quality.h"
#include "pipeline/round_weights.h"
#include "pipeline/target.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

std::string scheme_of(const ConvertOptions& options, Quality quality, const ConvertReport& report) {
  std::string transforms;
  for (const TransformChoice& choice : report.transforms)
    if (choice.used) transforms += "+" + choice.name;
  return options.weights + (options.prune.empty() ? "" : "+prune:" + options.prune) +
         (options.prune_below > 0 ? "+prune-below:" + std::to_string(options.prune_below) : "") +
         (options.embedding ? "+embedding:" + *options.embedding : "") +
         (options.imatrix.empty() ? "" : "+imatrix") + transforms +
         (quality == Quality::kFast ? "" : "+" + std::string(to_string(quality))) +
         (options.activations.empty() ? "" : "+activations:" + options.activations);
}

// Null where the checkpoint has none.
Result<std::shared_ptr<const Tokenizer>> tokenizer_of(const TokenizerSource& source,
                                                      ConvertReport* report) {
  if (source.model == TokenizerSource::Model::kNone) {
    report->warnings.push_back(
        "the checkpoint has no tokenizer: the artefact can be run on token ids only");
    return std::shared_ptr<const Tokenizer>();
  }
  return Tokenizer::create(source);
}

}  // namespace

Result<ConvertReport> convert(const ConvertOptions& given, const WorkContext& work) {
  ConvertOptions options = given;
  POME_ASSIGN_OR_RETURN(const TargetRow* const row, find_target(options));
  if (!is_semver(options.version))
    return usage_error("--artefact-version '" + options.version +
                       "' must be three numbers, such as 1.0.0");
  POME_RETURN_IF_ERROR(check_transforms(options.transforms));
  if (options.weights.empty()) options.weights = row->weights;
  if (options.chunk == 0) options.chunk = row->chunk;
  POME_RETURN_IF_ERROR(settle_kv(*row, &options));
  POME_ASSIGN_OR_RETURN(const Quality quality,
                        parse_quality(options.quality, !options.calibrate.empty()));
  const std::unique_ptr<TargetWriter> target = row->make();
  ConvertReport report;
  report.output = options.output;
  POME_RETURN_IF_ERROR(target->prepare(options, &report));
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(options.model));
  report.warnings = checkpoint.warnings;
  POME_ASSIGN_OR_RETURN(Graph graph, target->build(checkpoint, options, &report));
  POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer,
                        tokenizer_of(checkpoint.tokenizer, &report));
  const std::string digest = tokenizer ? tokenizer->digest() : "";
  POME_ASSIGN_OR_RETURN(Quantized quantized, target->quantize(graph, options, &report));
  const KvPlan kv = plan_kv(quantized.graph, options, *row, report.context);
  POME_RETURN_IF_ERROR(check_budget(options, least_weight_bytes(quantized.graph), kv));
  POME_RETURN_IF_ERROR(check_replaceable(options));
  const bool one_file = target->one_file(options);
  POME_ASSIGN_OR_RETURN(
      const std::unique_ptr<io::Staged> staged,
      io::Staged::create(options.output,
                         one_file ? io::Staged::Kind::kFile : io::Staged::Kind::kFolder,
                         options.force));
  POME_RETURN_IF_ERROR(
      check_disk(target->stored_bytes(quantized.graph), parent_of(options.output)));
  // Long work, so all that can be refused was before it: the same encodings, other roundings.
  std::optional<CalibrationText> text;
  if (quality != Quality::kFast || !options.activations.empty()) {
    const int64_t most =
        options.calibrate_tokens > 0 ? options.calibrate_tokens : default_tokens(quality);
    POME_ASSIGN_OR_RETURN(
        text, read_calibration_text(options.calibrate, tokenizer.get(), checkpoint.tokenizer, most,
                                    window_of(graph)));
  }
  if (options.transforms != "none") {
    POME_RETURN_IF_ERROR(transform_weights(quantized.graph, text ? &*text : nullptr, row->inserts,
                                           options, work, &graph, &report));
    POME_ASSIGN_OR_RETURN(quantized, target->quantize(graph, options, &report));
  }
  const std::string scheme = scheme_of(options, quality, report);
  if (quality != Quality::kFast)
    POME_RETURN_IF_ERROR(round_weights(graph, &quantized.graph, checkpoint, *text, quality,
                                       target->scales_weights(), scheme, options, work, &report));
  Int8Activations activations;
  if (!options.activations.empty()) {
    POME_ASSIGN_OR_RETURN(activations,
                          int8_activations(graph, quantized.graph, text->ids,
                                           *parse_range_method(options.activation_range), work));
  }
  report.quality = std::string(to_string(quality));
  report.tensors = std::move(quantized.tensors);
  report.activations = std::move(activations.values);
  const Source source{quantized.graph, checkpoint, tokenizer.get(),
                      scheme,          digest,     report.context,
                      report.chunk,    kv.tokens,  std::move(activations.grids)};
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
    if (target->tokenizer_beside())
      POME_RETURN_IF_ERROR(write_tokenizer_files(checkpoint, staged->path()));
    POME_RETURN_IF_ERROR(finish_folder(written, source, options, staged->path(), work, &report));
  }
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  POME_RETURN_IF_ERROR(io::remove_tree(work_folder(options)));
  return report;
}

}  // namespace pome
