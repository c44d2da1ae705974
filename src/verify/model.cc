#include "verify/model.h"

#include <sys/stat.h>

#include "base/memory.h"
#include "base/stopwatch.h"
#include "formats/checkpoint.h"
#include "formats/mlc.h"
#include "interp/graph_eval.h"
#include "models/models.h"
#include "verify/cache_policy.h"

namespace pome {

namespace {

bool is_folder(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}
bool is_file(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}
std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}
std::string parent_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

Result<TokenizerSource> artefact_tokenizer(const std::string& folder) {
  Json config, generation_config;
  if (is_file(folder + "/config.json")) {
    POME_ASSIGN_OR_RETURN(config, read_json_file(folder + "/config.json"));
  }
  if (is_file(folder + "/generation_config.json")) {
    POME_ASSIGN_OR_RETURN(generation_config, read_json_file(folder + "/generation_config.json"));
  }
  return read_folder_tokenizer(folder, config, generation_config);
}

Status attach_tokenizer(TokenizerSource source, const LoadOptions& options, LoadedModel* model) {
  // In its place from the start: what ends an answer follows from the template too.
  if (options.chat_template) source.chat_template = *options.chat_template;
  const std::string chat_template = source.chat_template;
  POME_ASSIGN_OR_RETURN(model->tokenizer, Tokenizer::create(std::move(source)));
  if (chat_template.empty()) return {};
  auto parsed = ChatTemplate::parse(chat_template);
  if (!parsed.ok())
    return std::move(parsed)
        .status()
        .in(model->path)
        .at("chat_template")
        .hint("give another with --template, or run with --raw to leave it out");
  model->chat_template = std::move(*parsed);
  return {};
}

Result<LoadedModel> load_package(const std::string& path, const ArtefactPaths& paths,
                                 const LoadOptions& options) {
  LoadedModel model;
  model.path = path;
  model.kind = to_string(paths.target);
  if (!paths.folder.empty()) {
    POME_ASSIGN_OR_RETURN(model.manifest, read_manifest(paths.folder + "/" + kManifestName));
    if (is_file(paths.folder + "/generation_config.json")) {
      POME_ASSIGN_OR_RETURN(model.generation_config,
                            read_json_file(paths.folder + "/generation_config.json"));
    }
  }
  POME_ASSIGN_OR_RETURN(model.exported, ExportedModel::open(paths));
  POME_RETURN_IF_ERROR(model.exported->prepare(options.threads, options.round_f16));
  CachePolicy policy;
  if (model.exported->is_step()) {
    POME_ASSIGN_OR_RETURN(policy, read_cache_policy(paths.package));
  }
  POME_ASSIGN_OR_RETURN(model.runner, model.exported->runner(std::move(policy)));
  model.context = model.runner->info().capacity;
  if (options.context > model.runner->info().capacity)
    return usage_error("--context " + std::to_string(options.context) + " is more than the " +
                       std::to_string(model.runner->info().capacity) +
                       " tokens this artefact holds")
        .in(path)
        .hint("convert with a larger --context");
  if (options.need_tokenizer) {
    if (paths.folder.empty())
      return missing("this package has no tokenizer beside it")
          .in(path)
          .hint("give the artefact folder that convert wrote");
    POME_ASSIGN_OR_RETURN(TokenizerSource source, artefact_tokenizer(paths.folder));
    POME_RETURN_IF_ERROR(attach_tokenizer(std::move(source), options, &model));
  }
  return model;
}

Result<LoadedModel> load_checkpoint(const std::string& path, const LoadOptions& options,
                                    const WorkContext& work) {
  LoadedModel model;
  model.path = path;
  model.kind = "checkpoint";
  Stopwatch watch;
  OpenOptions open;
  open.need_tokenizer = options.need_tokenizer;
  open.read_tokenizer = options.read_tokenizer;
  POME_ASSIGN_OR_RETURN(Checkpoint checkpoint, open_checkpoint(path, open));
  // A package may be made for fewer positions than the model.
  model.context = stated_context(checkpoint);
  const int64_t context = options.context > 0 ? options.context : model.context;
  POME_ASSIGN_OR_RETURN(
      model.graph,
      build_graph(checkpoint, {options.declared_length > 0 ? options.declared_length : context}));
  if (options.rewrite) {
    POME_ASSIGN_OR_RETURN(model.graph, options.rewrite(*model.graph));
  }
  const int64_t positions =
      model.context > 0 ? model.context : model.graph->info.max_position_embeddings;
  if (positions > 0 && options.context > positions)
    return usage_error("--context " + std::to_string(options.context) + " is more than the " +
                       std::to_string(positions) + " positions this model was made for")
        .in(path);
  model.generation_config = checkpoint.generation_config;
  model.times.open = watch.lap();
  if (options.reference) {
    POME_ASSIGN_OR_RETURN(model.runner, reference_runner({*model.graph}, {options.threads, context,
                                                                          available_memory() / 2}));
  } else {
    PlanOptions plan;
    plan.threads = options.threads;
    // A declared length has settled the graph's positions, which may be fewer.
    plan.capacity = options.declared_length > 0 ? options.context : context;
    plan.exact = options.exact;
    plan.kv = options.kv;
    plan.profile = options.profile;
    POME_ASSIGN_OR_RETURN(model.plan, compile(*model.graph, plan, work));
    model.times.plan = watch.lap();
    POME_ASSIGN_OR_RETURN(model.runner, model.plan->new_session());
  }
  model.times.session = watch.lap();
  if (options.need_tokenizer)
    POME_RETURN_IF_ERROR(attach_tokenizer(std::move(checkpoint.tokenizer), options, &model));
  model.times.tokenizer = watch.lap();
  return model;
}

// Manifest.json with a capital M is Apple's, also where the file system takes both for one.
bool has_manifest(const std::string& folder) {
  return is_file(folder + "/" + kManifestName) && !is_file(folder + "/Manifest.json");
}

// What a bare model is, by its content; an ONNX file has no mark, only its ending.
Result<std::optional<Target>> target_of(const std::string& path) {
  if (is_file(path + "/Manifest.json") && is_folder(path + "/Data"))
    return std::optional(Target::kCoreml);
  if (!is_file(path)) return std::optional<Target>();
  if (path.ends_with(".onnx")) return std::optional(Target::kOnnx);
  char magic[4] = {};
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(path));
  if (source->size() < sizeof magic) return std::optional<Target>();
  POME_RETURN_IF_ERROR(source->read(0, std::as_writable_bytes(std::span(magic))));
  return std::string_view(magic, 4) == "GGUF" ? std::optional(Target::kGguf) : std::nullopt;
}

}  // namespace

Result<std::optional<ArtefactPaths>> find_artefact(const std::string& given) {
  const std::string path = without_slashes(given);
  POME_ASSIGN_OR_RETURN(const std::optional<Target> bare, target_of(path));
  if (bare) {
    const std::string parent = parent_of(path);
    if (has_manifest(parent)) {
      POME_ASSIGN_OR_RETURN(const Manifest manifest, read_manifest(parent + "/" + kManifestName));
      if (parent + "/" + manifest.model == path || (parent == "." && manifest.model == path))
        return std::optional(ArtefactPaths{parent, path, *bare});
    }
    return std::optional(ArtefactPaths{"", path, *bare});
  }
  if (!is_folder(path)) return std::optional<ArtefactPaths>();
  if (has_manifest(path)) {
    POME_ASSIGN_OR_RETURN(const Manifest manifest, read_manifest(path + "/" + kManifestName));
    const auto target = parse_target(manifest.target);
    if (target == Target::kMlc) return std::optional(ArtefactPaths{path, path, *target});
    if (target) return std::optional(ArtefactPaths{path, path + "/" + manifest.model, *target});
    return unsupported("artefact of target '" + escape_for_terminal(manifest.target, 64) + "'")
        .in(path)
        .hint("this version knows: " + target_names());
  }
  if (is_mlc_folder(path)) return std::optional(ArtefactPaths{"", path, Target::kMlc});
  for (const char* model : {"model.mlpackage", "model.onnx"})
    if (is_folder(path + "/" + model) || is_file(path + "/" + model))
      return missing(std::string(kManifestName) + " is not there, though " + model + " is")
          .in(path)
          .hint(std::string("convert again, or give ") + model +
                " itself, which is then not checked");
  return std::optional<ArtefactPaths>();
}

Result<LoadedModel> load_model(const std::string& path, const LoadOptions& options,
                               const WorkContext& work) {
  POME_ASSIGN_OR_RETURN(const std::optional<ArtefactPaths> artefact, find_artefact(path));
  const bool executed = artefact && !artefact->is_checkpoint();
  if (options.kv && (executed || options.reference))
    return usage_error("--kv is for the engine: " +
                       std::string(executed ? "this artefact has its own caches"
                                            : "the reference evaluator keeps f32"))
        .in(path);
  if (executed && options.rewrite)
    return usage_error("an artefact has its weights; others can be tried on checkpoints").in(path);
  if (executed) return load_package(path, *artefact, options);
  return load_checkpoint(artefact ? artefact->package : path, options, work);
}

Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const std::string& path) {
  POME_ASSIGN_OR_RETURN(const std::optional<ArtefactPaths> artefact, find_artefact(path));
  if (artefact && !artefact->is_checkpoint()) {
    if (artefact->folder.empty())
      return missing("this package has no tokenizer beside it")
          .in(path)
          .hint("give the artefact folder that convert wrote");
    POME_ASSIGN_OR_RETURN(TokenizerSource source, artefact_tokenizer(artefact->folder));
    return Tokenizer::create(std::move(source));
  }
  POME_ASSIGN_OR_RETURN(TokenizerSource source,
                        open_tokenizer(artefact ? artefact->package : path));
  return Tokenizer::create(std::move(source));
}

}  // namespace pome
