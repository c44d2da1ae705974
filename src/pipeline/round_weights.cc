#include "pipeline/round_weights.h"

#include <sys/stat.h>

#include <set>

#include "base/cpu_features.h"
#include "base/json.h"
#include "base/sha256.h"
#include "formats/manifest.h"

namespace pome {

namespace {

// What work on this model with these options is about, and what its bytes depend on.
std::string work_key(const Graph& graph, const Graph& quantised, const Checkpoint& checkpoint,
                     const CalibrationText& text, const std::string& scheme,
                     const StreamOptions& stream) {
  constexpr int kForm =
      2;  // of the stages, and of what each does: another one goes on with nothing
  Json key = {{"pome", kPomeVersion},
              {"form", kForm},
              {"scheme", scheme},
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

}  // namespace

std::string work_folder(const ConvertOptions& options) { return options.output + ".pome-work"; }

Status transform_weights(const Graph& quantised, const ActivationStatistics& statistics,
                         bool may_insert, const ConvertOptions& options, Graph* graph,
                         ConvertReport* report) {
  std::vector<Encoding> encodings;
  for (const Constant& constant : quantised.constants)
    encodings.push_back(constant.data->encoding());
  POME_ASSIGN_OR_RETURN(ChosenTransforms chosen,
                        choose_transforms(*graph, encodings, statistics,
                                          {options.transforms, may_insert, kTransformSeed}));
  *graph = std::move(chosen.graph);
  report->transforms = std::move(chosen.tried);
  return {};
}

Status round_weights(const Graph& graph, Graph* quantised, const Checkpoint& checkpoint,
                     const CalibrationText& text, Quality quality, bool scaled,
                     const std::string& scheme, const ConvertOptions& options,
                     const WorkContext& work, ConvertReport* report) {
  StreamOptions stream = stream_options(quality, graph);
  stream.scaled = scaled;
  stream.folder = work_folder(options);
  stream.key = work_key(graph, *quantised, checkpoint, text, scheme, stream);
  stream.release = [&checkpoint] {
    for (const CheckpointTensor& tensor : checkpoint.tensors)
      tensor.source->release(tensor.offset, tensor.bytes);
  };
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

}  // namespace pome
