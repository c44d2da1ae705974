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
  bool exact = true;       // PlanOptions::exact of the engine
  bool reference = false;  // the reference evaluator instead of the engine (checkpoints only)
  bool round_f16 = false;  // packages: fp16 rounding after every op
  bool need_tokenizer = true;
  // Jinja source of a chat template instead of the model's own.
  std::optional<std::string> chat_template;
};

struct LoadedModel {
  std::string path, kind;  // kind: "checkpoint", "coreml" or "onnx"
  std::unique_ptr<Runner> runner;
  std::shared_ptr<const Tokenizer> tokenizer;         // null when there is none and none was needed
  std::shared_ptr<const ChatTemplate> chat_template;  // null when there is none
  Json generation_config;                             // null when absent
  std::optional<Manifest> manifest;                   // artefacts
  std::optional<Graph> graph;                         // checkpoints
  std::shared_ptr<ExportedModel> exported;            // artefacts
};

// nullopt when `path` is not something convert wrote (then it is a checkpoint).
Result<std::optional<ArtefactPaths>> find_artefact(const std::string& path);

Result<LoadedModel> load_model(const std::string& path, const LoadOptions& options,
                               const WorkContext& work);
// The tokenizer alone, of a checkpoint or an artefact.
Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const std::string& path);

}  // namespace pome
