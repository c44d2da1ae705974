// A MODEL or an ARTEFACT, opened: one runner, its tokenizer and template, and what is known about
// it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/progress.h"
#include "base/status.h"
#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "formats/manifest.h"
#include "graph/graph.h"
#include "graph/runner.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"
#include "verify/exported.h"

namespace pome {

struct LoadOptions {
  int threads = 1;
  // Tokens; 0 = min(max_position_embeddings, 4096). An artefact has its own: more is kUsage.
  int64_t context = 0;
  // The length for which rope factors are chosen (BuildOptions); 0 = context.
  int64_t declared_length = 0;
  bool exact = true;         // PlanOptions::exact of the engine
  std::optional<KvKind> kv;  // PlanOptions::kv of the engine; kUsage for other runners
  bool reference = false;    // the reference evaluator instead of the engine (checkpoints only)
  bool round_f16 = false;    // packages: fp16 rounding after every op
  bool need_tokenizer = true;
  bool read_tokenizer = true;  // false: checkpoints come without, even where there is one
  // Checkpoints: what the graph becomes before it runs, such as one of other weights. Null: itself.
  std::function<Result<Graph>(const Graph&)> rewrite;
  std::shared_ptr<StepProfile> profile;  // PlanOptions::profile
  // Jinja source of a chat template instead of the model's own.
  std::optional<std::string> chat_template;
};

// Seconds of load_model. `plan` is what reads and repacks the weights.
struct LoadTimes {
  double open = 0, plan = 0, session = 0, tokenizer = 0;
};

struct LoadedModel {
  std::string path, kind;  // kind: "checkpoint", "coreml" or "onnx"
  // Positions of an artefact that was made for a number of them, by which rope factors are chosen;
  // 0: for any that the model has.
  int64_t context = 0;
  std::unique_ptr<Runner> runner;
  std::shared_ptr<const Tokenizer> tokenizer;         // null when there is none and none was needed
  std::shared_ptr<const ChatTemplate> chat_template;  // null when there is none
  Json generation_config;                             // null when absent
  std::optional<Manifest> manifest;                   // artefacts
  std::optional<Graph> graph;                         // checkpoints
  std::shared_ptr<const Plan> plan;                   // what the engine runs, else null
  std::shared_ptr<ExportedModel> exported;            // artefacts that an interpreter runs
  LoadTimes times;                                    // checkpoints
};

// What `path` is: an artefact folder or the model in it, or a bare .mlpackage, .onnx or GGUF file,
// whoever wrote it. nullopt for all else (then it is a checkpoint).
Result<std::optional<ArtefactPaths>> find_artefact(const std::string& path);

Result<LoadedModel> load_model(const std::string& path, const LoadOptions& options,
                               const WorkContext& work);
// The tokenizer alone, of a checkpoint or an artefact.
Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const std::string& path);

}  // namespace pome
