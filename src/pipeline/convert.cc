#include "pipeline/convert.h"

#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "base/byte_source.h"
#include "base/cpu_features.h"
#include "base/io.h"
#include "base/json.h"
#include "base/sha256.h"
#include "formats/checkpoint.h"
#include "formats/manifest.h"
#include "pipeline/frame.h"
#include "pipeline/kv_plan.h"
#include "pipeline/quality.h"
#include "pipeline/target.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

std::string scheme_of(const ConvertOptions& options, Quality quality) {
  return options.weights + (options.embedding ? "+embedding:" + *options.embedding : "") +
         (options.imatrix.empty() ? "" : "+imatrix") +
         (quality == Quality::kFast ? "" : "+" + std::string(to_string(quality)));
}

// Where long work leaves what it has finished.
std::string work_folder(const ConvertOptions& options) { return options.output + ".pome-work"; }

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

// What work on this model with these options is about, and what its bytes depend on.
std::string work_key(const Graph& graph, const Graph& quantised, const Checkpoint& checkpoint,
                     const ConvertOptions& options, const CalibrationText& text,
                     const StreamOptions& stream) {
  Json key = {{"pome", kPomeVersion},
              {"target", options.target},
              {"graph", to_hex(sha256(print(graph)))},
              {"text", text.digest},
              {"window", stream.window},
              {"behind_quantised", stream.behind_quantised},
              {"most_bytes", stream.most_bytes},
              {"rounds", stream.rounding.rounds}};
  if (const auto isa = selected_isa(); isa.ok()) key["isa"] = std::string(to_string(*isa));
  std::set<std::string> files;
  for (const CheckpointTensor& tensor : checkpoint.tensors) files.insert(tensor.source->name());
  for (const std::string& file : files) {
    struct stat found = {};
    if (stat(file.c_str(), &found) != 0) continue;
    key["files"].push_back({file, found.st_size, found.st_mtim.tv_sec, found.st_mtim.tv_nsec});
  }
  for (const Constant& constant : quantised.constants)
    key["constants"].push_back({constant.name, to_string(constant.data->encoding())});
  return dump_json(key);
}

// Replaces the data of `quantised` by what rounding with the statistics of a text gives.
Status calibrate_weights(const Graph& graph, Graph* quantised, const Checkpoint& checkpoint,
                         const Tokenizer* tokenizer, const TargetWriter& target,
                         const ConvertOptions& options, Quality quality, const WorkContext& work,
                         ConvertReport* report) {
  StreamOptions stream = stream_options(quality);
  stream.window = std::min<int64_t>(stream.window, graph.info.max_position_embeddings);
  const int64_t tokens =
      options.calibrate_tokens > 0 ? options.calibrate_tokens : default_tokens(quality);
  POME_ASSIGN_OR_RETURN(const CalibrationText text,
                        read_calibration_text(options.calibrate, tokenizer, checkpoint.tokenizer,
                                              tokens, stream.window));
  stream.scaled = target.scales_weights();
  stream.folder = work_folder(options);
  stream.key = work_key(graph, *quantised, checkpoint, options, text, stream);
  const auto count = static_cast<int64_t>(text.ids.size());
  if (options.say)
    options.say(describe(estimate_stream(graph, count, stream), quality, count, work.threads));
  auto done = round_streamed(graph, quantised, text.ids, stream, work);
  if (!done.ok())
    return Status(done.status())
        .hint("what was finished is kept in " + stream.folder +
              ": the same command goes on from there");
  if (options.say && done->resumed > 0)
    options.say("went on behind " + std::to_string(done->resumed) + " of " +
                std::to_string(done->parts) + " parts that an earlier run had finished");
  report->quality = std::string(to_string(quality));
  report->calibrated_tokens = done->tokens;
  report->calibration_text = text.name;
  report->calibration_digest = text.digest;
  if (done->diagonal > 0)
    report->warnings.push_back(
        std::to_string(done->diagonal) +
        " weights are rounded without error feedback: they are so wide that their second moments "
        "do not fit in memory");
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
  POME_ASSIGN_OR_RETURN(const Graph graph, target->build(checkpoint, options, &report));
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
  // The same encodings, other roundings: long work, so all that can be refused was before it.
  if (quality != Quality::kFast)
    POME_RETURN_IF_ERROR(calibrate_weights(graph, &quantized.graph, checkpoint, tokenizer.get(),
                                           *target, options, quality, work, &report));
  report.tensors = std::move(quantized.tensors);
  const Source source{quantized.graph, checkpoint,     tokenizer.get(), scheme_of(options, quality),
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
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  POME_RETURN_IF_ERROR(io::remove_tree(work_folder(options)));
  return report;
}

}  // namespace pome
