#include "pipeline/convert.h"

#include <algorithm>

#include "base/byte_source.h"
#include "base/io.h"
#include "formats/checkpoint.h"
#include "formats/manifest.h"
#include "pipeline/allocation.h"
#include "pipeline/calibrate.h"
#include "pipeline/frame.h"
#include "pipeline/kv_plan.h"
#include "pipeline/sample_error.h"
#include "pipeline/target.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

std::string scheme_of(const ConvertOptions& options) {
  return (options.limit_text.empty() ? options.weights : options.limit_text) +
         (options.embedding ? "+embedding:" + *options.embedding : "") +
         (options.imatrix.empty() ? "" : "+imatrix") +
         (options.calibrate.empty() ? "" : "+calibrated");
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

Result<std::vector<int32_t>> calibration_ids(const Tokenizer* tokenizer,
                                             const ConvertOptions& options) {
  if (options.calibrate.empty()) return std::vector<int32_t>();
  if (!tokenizer)
    return usage_error("--calibrate needs a tokenizer, which the checkpoint does not have")
        .in(options.calibrate);
  // A token is seldom more bytes than these.
  constexpr uint64_t kTokenBytes = 64, kMostTextBytes = uint64_t{1} << 30;
  POME_ASSIGN_OR_RETURN(const std::string text, read_text_file(options.calibrate, kMostTextBytes));
  const size_t wanted = std::min(static_cast<size_t>(options.calibrate_tokens), text.size());
  std::vector<int32_t> ids =
      tokenizer->encode(std::string_view(text).substr(0, wanted * kTokenBytes));
  ids.resize(std::min(ids.size(), wanted));
  return ids;
}

Result<ActivationStatistics> statistics_of(const Graph& graph, std::span<const int32_t> ids,
                                           const ConvertOptions& options, const WorkContext& work,
                                           ConvertReport* report) {
  auto made = calibrate(graph, ids, {}, work);
  if (!made.ok()) return Status(made.status()).in(options.calibrate);
  report->calibrated_tokens = made->tokens;
  if (made->left_out > 0)
    report->warnings.push_back(std::to_string(made->left_out) +
                               " weights are rounded without calibration: they are so wide that "
                               "their statistics do not fit in memory");
  return std::move(made->statistics);
}

}  // namespace

Result<ConvertReport> convert(const ConvertOptions& given, const WorkContext& work) {
  ConvertOptions options = given;
  POME_ASSIGN_OR_RETURN(const TargetRow* const row, find_target(options));
  if (!is_semver(options.version))
    return usage_error("--artefact-version '" + options.version +
                       "' must be three numbers, such as 1.0.0");
  POME_RETURN_IF_ERROR(settle_limit(*row, &options));
  if (options.weights.empty()) options.weights = row->weights;
  if (options.chunk == 0) options.chunk = row->chunk;
  POME_RETURN_IF_ERROR(settle_kv(*row, &options));
  const std::unique_ptr<TargetWriter> target = row->make();
  ConvertReport report;
  report.output = options.output;
  POME_RETURN_IF_ERROR(target->prepare(options, &report));
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(options.model));
  report.warnings = checkpoint.warnings;
  POME_ASSIGN_OR_RETURN(const Graph graph, target->build(checkpoint, options, &report));
  POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer,
                        tokenizer_of(checkpoint.tokenizer, &report));
  const std::string digest = tokenizer ? tokenizer->digest() : "";
  POME_RETURN_IF_ERROR(check_replaceable(options));
  POME_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, calibration_ids(tokenizer.get(), options));
  POME_RETURN_IF_ERROR(
      allocate_bits(graph, checkpoint, ids, *row, options, target.get(), work, &report));
  POME_ASSIGN_OR_RETURN(Quantized quantized, target->quantize(graph, options, &report));
  const KvPlan kv = plan_kv(quantized.graph, options, *row, report.context);
  POME_RETURN_IF_ERROR(check_budget(options, least_weight_bytes(quantized.graph), kv));
  const bool one_file = target->one_file(options);
  POME_ASSIGN_OR_RETURN(
      const std::unique_ptr<io::Staged> staged,
      io::Staged::create(options.output,
                         one_file ? io::Staged::Kind::kFile : io::Staged::Kind::kFolder,
                         options.force));
  POME_RETURN_IF_ERROR(
      check_disk(target->stored_bytes(quantized.graph), parent_of(options.output)));
  const Graph nearest = quantized.graph;
  ActivationStatistics statistics;
  if (!options.calibrate.empty()) {
    // The same encodings, other roundings: long work, so all that can be refused was before it.
    POME_ASSIGN_OR_RETURN(statistics, statistics_of(graph, ids, options, work, &report));
    POME_RETURN_IF_ERROR(apply_feedback(&quantized.graph, statistics));
  }
  report.tensors = std::move(quantized.tensors);
  if (options.describe_weights) {
    POME_ASSIGN_OR_RETURN(
        report.weight_figures,
        describe_weights(graph, nearest, quantized.graph, target->scales_weights(), report.tensors,
                         statistics, work));
  }
  const Source source{quantized.graph, checkpoint,     tokenizer.get(), scheme_of(options),
                      digest,          report.context, report.chunk,    kv.tokens};
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
  POME_RETURN_IF_ERROR(check_limit(options, report));
  if (options.gate) POME_RETURN_IF_ERROR(options.gate(staged->path(), &report));
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  return report;
}

}  // namespace pome
