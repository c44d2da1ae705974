#include "pipeline/convert.h"

#include <algorithm>
#include <optional>

#include "base/io.h"
#include "formats/checkpoint.h"
#include "formats/manifest.h"
#include "pipeline/allocation.h"
#include "pipeline/calibrate.h"
#include "pipeline/frame.h"
#include "pipeline/kv_plan.h"
#include "pipeline/quality.h"
#include "pipeline/report.h"
#include "pipeline/round_weights.h"
#include "pipeline/target.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

std::string scheme_of(const ConvertOptions& options, Quality quality, const ConvertReport& report) {
  std::string transforms;
  for (const TransformChoice& choice : report.transforms)
    if (choice.used) transforms += "+" + choice.name;
  return (options.limit_text.empty() ? options.weights : options.limit_text) +
         (options.prune.empty() ? "" : "+prune:" + options.prune) +
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

// Writes the artefact into its staged place, and what lies beside the model.
Status write_artefact(TargetWriter* target, const Source& source, const ConvertOptions& options,
                      const KvPlan& kv, const std::string& path, const WorkContext& work,
                      ConvertReport* report) {
  POME_ASSIGN_OR_RETURN(const Written written, target->write(source, options, path, work, report));
  report->exported = written.exported;
  report->bytes = written.exported.bytes;
  if (target->one_file(options)) {
    report->packaging = summarise(options, kv);
    report->packaging.files = {{written.model, report->bytes}};
    return check_budget(options, report->bytes, kv);
  }
  POME_ASSIGN_OR_RETURN(report->packaging, write_kv_sidecars(path, written.model, options, kv));
  if (target->tokenizer_beside())
    POME_RETURN_IF_ERROR(write_tokenizer_files(source.checkpoint, path));
  return finish_folder(written, source, options, path, work, report);
}

// Whoever looks at the artefact before it is seen. What was finished for one that is refused is of
// no use any more.
Status ask_gate(const ConvertOptions& options, const std::string& path, ConvertReport* report) {
  if (!options.gate) return {};
  Status status = options.gate(path, report);
  if (status.code() == StatusCode::kGateFailed)
    POME_RETURN_IF_ERROR(io::remove_tree(work_folder(options)));
  return status;
}

// The long work: the same encodings, other roundings.
struct Rounded {
  Quantized quantized;
  std::string scheme;
  Int8Activations activations;
};
Result<Rounded> round(Graph graph, Quantized quantized, const Checkpoint& checkpoint,
                      const CalibrationText* text, ActivationStatistics statistics, Quality quality,
                      const TargetRow& row, TargetWriter* target, const ConvertOptions& options,
                      const WorkContext& work, ConvertReport* report) {
  Rounded out{std::move(quantized), {}, {}};
  if (options.transforms != "none") {
    POME_RETURN_IF_ERROR(
        transform_weights(out.quantized.graph, statistics, row.inserts, options, &graph, report));
    POME_ASSIGN_OR_RETURN(out.quantized, target->quantize(graph, options, report));
  }
  statistics.clear();  // what follows needs the memory
  out.scheme = scheme_of(options, quality, *report);
  const Graph nearest = out.quantized.graph;
  if (quality != Quality::kFast)
    POME_RETURN_IF_ERROR(round_weights(graph, &out.quantized.graph, checkpoint, *text, quality,
                                       target->scales_weights(), out.scheme, options, work,
                                       report));
  if (!options.activations.empty()) {
    POME_ASSIGN_OR_RETURN(out.activations,
                          int8_activations(graph, out.quantized.graph, text->ids,
                                           *parse_range_method(options.activation_range), work));
  }
  report->quality = std::string(to_string(quality));
  report->tensors = out.quantized.tensors;
  report->activations = std::move(out.activations.values);
  if (options.describe_weights) {
    Calibration known;
    if (text) {
      POME_ASSIGN_OR_RETURN(known, calibrate(graph, text->ids, {window_of(graph)}, work));
    }
    POME_ASSIGN_OR_RETURN(
        report->weight_figures,
        describe_weights(graph, nearest, out.quantized.graph, target->scales_weights(),
                         report->tensors, known.statistics, work));
  }
  return out;
}

}  // namespace

Result<ConvertReport> convert(const ConvertOptions& given, const WorkContext& work) {
  ConvertOptions options = given;
  POME_ASSIGN_OR_RETURN(const TargetRow* const row, find_target(options));
  if (!is_semver(options.version))
    return usage_error("--artefact-version '" + options.version +
                       "' must be three numbers, such as 1.0.0");
  POME_RETURN_IF_ERROR(check_transforms(options.transforms));
  POME_RETURN_IF_ERROR(settle_limit(*row, &options));
  if (options.weights.empty()) options.weights = row->weights;
  if (options.chunk == 0) options.chunk = row->chunk;
  POME_RETURN_IF_ERROR(settle_kv(*row, &options));
  POME_ASSIGN_OR_RETURN(const Quality quality,
                        parse_quality(options.quality, !options.calibrate.empty()));
  if (options.split && quality == Quality::kFast)
    return usage_error("--split measures with a text which parts of weights matter")
        .hint("give --quality good, or --calibrate TEXT");
  const std::unique_ptr<TargetWriter> target = row->make();
  ConvertReport report;
  report.output = options.output;
  POME_RETURN_IF_ERROR(target->prepare(options, &report));
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(options.model));
  report.warnings = checkpoint.warnings;
  for (const CheckpointTensor& tensor : checkpoint.tensors) report.source_bytes += tensor.bytes;
  POME_ASSIGN_OR_RETURN(Graph graph, target->build(checkpoint, options, &report));
  POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer,
                        tokenizer_of(checkpoint.tokenizer, &report));
  POME_RETURN_IF_ERROR(check_replaceable(options));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(options.output,
                                           target->one_file(options) ? io::Staged::Kind::kFile
                                                                     : io::Staged::Kind::kFolder,
                                           options.force));
  if (options.split) {
    ThreadPool pool(work.threads);
    POME_ASSIGN_OR_RETURN(Split split, split_weights(graph, &pool));
    graph = std::move(split.graph);
    report.split_networks = split.networks;
    report.split_tables = split.tables;
  }
  std::optional<CalibrationText> text;
  if (quality != Quality::kFast || !options.activations.empty()) {
    const int64_t most =
        options.calibrate_tokens > 0 ? options.calibrate_tokens : default_tokens(quality);
    POME_RETURN_IF_ERROR(check_has_tokenizer(checkpoint));
    POME_ASSIGN_OR_RETURN(
        text, read_calibration_text(options.calibrate, *tokenizer, checkpoint.tokenizer, most,
                                    window_of(graph)));
  }
  // What allocating and choosing transforms look at.
  Calibration known;
  if (text && (!options.limit_text.empty() || options.transforms == "auto")) {
    POME_ASSIGN_OR_RETURN(known, calibrate(graph, text->ids, {window_of(graph)}, work));
  }
  const std::span<const int32_t> ids =
      text ? std::span<const int32_t>(text->ids) : std::span<const int32_t>();
  POME_RETURN_IF_ERROR(allocate_bits(graph, checkpoint, ids, known.statistics, *row, options,
                                     target.get(), work, &report));
  POME_ASSIGN_OR_RETURN(Quantized quantized, target->quantize(graph, options, &report));
  const KvPlan kv = plan_kv(quantized.graph, options, *row, report.context);
  POME_RETURN_IF_ERROR(check_budget(options, least_weight_bytes(quantized.graph), kv));
  POME_RETURN_IF_ERROR(
      check_disk(target->stored_bytes(quantized.graph), parent_of(options.output)));
  // All that can be refused was before this.
  POME_ASSIGN_OR_RETURN(
      const Rounded rounded,
      round(graph, std::move(quantized), checkpoint, text ? &*text : nullptr,
            std::move(known.statistics), quality, *row, target.get(), options, work, &report));
  const Source source{rounded.quantized.graph,
                      checkpoint,
                      tokenizer.get(),
                      rounded.scheme,
                      tokenizer ? tokenizer->digest() : "",
                      report.context,
                      report.chunk,
                      kv.tokens,
                      rounded.activations.grids};
  POME_RETURN_IF_ERROR(
      write_artefact(target.get(), source, options, kv, staged->path(), work, &report));
  POME_RETURN_IF_ERROR(check_limit(options, report));
  POME_RETURN_IF_ERROR(ask_gate(options, staged->path(), &report));
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  POME_RETURN_IF_ERROR(io::remove_tree(work_folder(options)));
  return report;
}

}  // namespace pome
