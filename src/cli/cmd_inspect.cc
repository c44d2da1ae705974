#include <algorithm>
#include <map>

#include "base/sha256.h"
#include "cli/app.h"
#include "formats/mil.h"
#include "formats/onnx.h"
#include "interp/onnx_eval.h"
#include "models/models.h"
#include "verify/model.h"

namespace pome::cli {

namespace {

struct Options {
  std::string model;
  bool tensors = false, checksums = false;
};

std::string_view model_name(TokenizerSource::Model model) {
  static constexpr std::string_view kNames[] = {"none", "BPE", "unigram", "WordPiece",
                                                "word level"};
  return kNames[static_cast<size_t>(model)];
}

Json tokenizer_json(const TokenizerSource& source) {
  if (source.model == TokenizerSource::Model::kNone) return nullptr;
  Json out = {{"model", model_name(source.model)},
              {"vocab_size", source.tokens.size()},
              {"merges", source.merges.size()},
              {"added_tokens", source.added.size()},
              {"add_bos", source.add_bos()}};
  out["bos"] = source.bos ? Json(*source.bos) : Json();
  out["eos"] = source.eos ? Json(*source.eos) : Json();
  if (const auto tokenizer = Tokenizer::create(source); tokenizer.ok()) {
    out["stop_ids"] =
        std::vector<int32_t>((*tokenizer)->stop_ids().begin(), (*tokenizer)->stop_ids().end());
    out["digest"] = (*tokenizer)->digest();
  } else {
    out["problem"] = tokenizer.status().to_string();
  }
  return out;
}

Json config_json(const ModelInfo& info) {
  Json out = {{"vocab_size", info.vocab_size},
              {"hidden_size", info.hidden_size},
              {"intermediate_size", info.intermediate_size},
              {"num_hidden_layers", info.num_hidden_layers},
              {"num_attention_heads", info.num_attention_heads},
              {"num_key_value_heads", info.num_key_value_heads},
              {"head_dim", info.head_dim},
              {"max_position_embeddings", info.max_position_embeddings},
              {"tie_word_embeddings", info.tie_word_embeddings}};
  for (const auto& [key, value] : info.config)
    std::visit([&, k = key](const auto& v) { out[k] = v; }, value);
  return out;
}

// What running it takes: weights as stored, and an fp16 KV cache.
Json memory_json(uint64_t weight_bytes, const ModelInfo& info, int64_t cached_elements) {
  const int64_t per_token = 2 * cached_elements;
  const int64_t context = std::min<int64_t>(info.max_position_embeddings, 4096);
  return {{"weight_bytes", weight_bytes},
          {"kv_cache_bytes_per_token", per_token},
          {"context", context},
          {"total_bytes", weight_bytes + static_cast<uint64_t>(per_token * context)}};
}

// "decode(input_ids i32[1,1], ...) -> logits f16[1,1,4096]; states k_cache f16[...]"
std::string signature(const Json& function) {
  const auto list = [&](const char* key) {
    std::string out;
    for (const Json& feature : function[key])
      out += (out.empty() ? "" : ", ") + feature["name"].get<std::string>() + " " +
             feature["dtype"].get<std::string>() + dump_json(feature["shape"]);
    return out;
  };
  const std::string states = list("states");
  return function["name"].get<std::string>() + "(" + list("inputs") + ") -> " + list("outputs") +
         (states.empty() ? "" : "; states " + states);
}

void print_text(App& app, const Json& all, bool tensors) {
  std::string text;
  const auto row = [&](const std::string& key, const std::string& value) {
    text += key + std::string(key.size() < 18 ? 18 - key.size() : 1, ' ') +
            escape_for_terminal(value, 2048) + "\n";
  };
  const auto shown = [](const Json& value) {
    return value.is_string() ? value.get<std::string>() : dump_json(value);
  };
  for (const auto& [key, value] : all.items()) {
    if (value.is_null()) continue;
    if (key == "tensors") {
      row("tensors", std::to_string(value.size()));
    } else if (key == "parameters") {
      row(key, fixed(value.get<double>() / 1e6, 2) + " M");
    } else if (key == "estimated_memory") {
      row("memory", human_bytes(value["total_bytes"].get<uint64_t>()) + " = weights " +
                        human_bytes(value["weight_bytes"].get<uint64_t>()) +
                        " + fp16 KV cache of " + shown(value["context"]) + " tokens");
    } else if (key == "chat_template") {
      row(key, value["source"].get<std::string>().size() > 300
                   ? value["source"].get<std::string>().substr(0, 300) + " ..."
                   : value["source"].get<std::string>());
    } else if (key == "warnings") {
      for (const Json& warning : value) row("warning", shown(warning));
    } else if (key == "functions") {
      for (const Json& function : value) row("function", signature(function));
    } else if (value.is_object()) {
      text += key + "\n";
      for (const auto& [inner, v] : value.items()) row("  " + inner, shown(v));
    } else {
      row(key, shown(value));
    }
  }
  if (tensors)
    for (const Json& tensor : all["tensors"])
      text += "  " + escape_for_terminal(tensor["name"].get<std::string>(), 256) + "  " +
              (tensor.contains("dtype") ? shown(tensor["dtype"]) + " " + dump_json(tensor["shape"])
                                        : human_bytes(tensor["bytes"].get<uint64_t>())) +
              "\n";
  app.print(text);
}

void add_tokenizer(const TokenizerSource& source, Json* all) {
  (*all)["tokenizer"] = tokenizer_json(source);
  const std::string& chat = source.chat_template;
  (*all)["chat_template"] =
      chat.empty() ? Json() : Json{{"source", chat}, {"sha256", to_hex(sha256(chat))}};
}
void print(App& app, const Options& options, const Json& all) {
  if (app.common.json)
    app.print_json(all);
  else
    print_text(app, all, options.tensors);
}

Status inspect_checkpoint(App& app, const Options& options) {
  OpenOptions open;
  open.checksums = options.checksums;
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(options.model, open));
  std::vector<std::string> warnings = checkpoint.warnings;
  Json tensors = Json::array();
  std::map<std::string, int64_t> dtypes;
  int64_t parameters = 0;
  uint64_t bytes = 0;
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    const int64_t count = element_count(tensor.shape).value_or(0);
    tensors.push_back({{"name", tensor.name},
                       {"dtype", to_string(tensor.encoding)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes}});
    dtypes[to_string(tensor.encoding)] += count;
    parameters += count;
    bytes += tensor.bytes;
  }
  Json all = {{"format", checkpoint.format},
              {"family", nullptr},
              {"parameters", parameters},
              {"bytes", bytes},
              {"dtypes", dtypes},
              {"config", nullptr}};
  if (const auto metadata = checkpoint.metadata(); !metadata.empty()) all["metadata"] = metadata;
  if (const auto info = read_model_info(checkpoint); info.ok()) {
    all["family"] = info->family;
    all["config"] = config_json(*info);
    int64_t cached = 2 * info->num_hidden_layers * info->num_key_value_heads * info->head_dim;
    // Also says whether the tensors are the ones that the configuration asks for.
    if (const auto graph = build_graph(checkpoint); graph.ok()) {
      // Stored elements are not parameters where a byte holds two codes.
      all["parameters"] = parameter_count(*graph);
      cached = cache_elements_per_token(*graph);
    } else {
      warnings.push_back(graph.status().to_string());
    }
    all["estimated_memory"] = memory_json(bytes, *info, cached);
  } else {
    warnings.push_back(info.status().to_string());
    all["estimated_memory"] = nullptr;
  }
  add_tokenizer(checkpoint.tokenizer, &all);
  if (!warnings.empty()) all["warnings"] = warnings;
  all["tensors"] = tensors;
  print(app, options, all);
  return {};
}

// What is known about the model beside its weights, from the artefact's metadata.
Status take_config(const std::map<std::string, std::string>& metadata, Json* all) {
  const auto text = metadata.find("pome.config");
  if (text == metadata.end()) return {};
  POME_ASSIGN_OR_RETURN(const Json config, parse_json(text->second, "pome.config"));
  (*all)["config"] = config;
  if (config.is_object() && config.contains("family")) (*all)["family"] = config["family"];
  (*all)["metadata"].erase("pome.config");
  return {};
}

// Adds what the manifest and the tokenizer say, and prints.
Status finish_artefact(App& app, const Options& options, const ArtefactPaths& paths,
                       uint64_t state_bytes, Json all) {
  Json tensors = Json::array();
  if (!paths.folder.empty()) {
    POME_ASSIGN_OR_RETURN(const Manifest manifest,
                          read_manifest(paths.folder + "/" + kManifestName));
    all["name"] = manifest.name;
    all["scheme"] = manifest.scheme;
    all["parameters"] = manifest.parameters;
    all["bits_per_weight"] = manifest.bits_per_weight;
    all["context"] = manifest.context;
    all["tree_hash"] = manifest.tree_hash;
    uint64_t bytes = 0;
    for (const ManifestFile& file : manifest.files) bytes += file.size;
    all["bytes"] = bytes;
    for (const ManifestTensor& tensor : manifest.tensors)
      tensors.push_back({{"name", tensor.name}, {"bytes", tensor.size}, {"sha256", tensor.sha256}});
    all["estimated_memory"] = {{"weight_bytes", bytes},
                               {"kv_cache_bytes", state_bytes},
                               {"context", manifest.context},
                               {"total_bytes", bytes + state_bytes}};
    if (const auto tokenizer = load_tokenizer(paths.folder); tokenizer.ok()) {
      add_tokenizer((*tokenizer)->source(), &all);
    }
  }
  all["tensors"] = tensors;
  print(app, options, all);
  return {};
}

Status inspect_package(App& app, const Options& options, const ArtefactPaths& paths) {
  POME_ASSIGN_OR_RETURN(const mil::Package package, mil::read_package(paths.package));
  Json functions = Json::array();
  const auto features = [](const std::vector<mil::Feature>& list) {
    Json out = Json::array();
    for (const mil::Feature& feature : list)
      out.push_back(
          {{"name", feature.name}, {"dtype", to_string(feature.dtype)}, {"shape", feature.shape}});
    return out;
  };
  for (const mil::FunctionDescription& description : package.model.descriptions)
    functions.push_back({{"name", description.name},
                         {"inputs", features(description.inputs)},
                         {"outputs", features(description.outputs)},
                         {"states", features(description.states)}});
  Json all = {{"format", "coreml"},
              {"family", nullptr},
              {"parameters", nullptr},
              {"specification_version", package.model.specification_version},
              {"metadata", package.model.user_metadata},
              {"functions", functions},
              {"config", nullptr},
              {"tokenizer", nullptr},
              {"chat_template", nullptr},
              {"estimated_memory", nullptr}};
  POME_RETURN_IF_ERROR(take_config(package.model.user_metadata, &all));
  std::map<std::string, uint64_t> dtypes;
  const auto count_blobs = [&](const mil::ValueData& value) {
    if (!std::holds_alternative<mil::BlobRef>(value.data)) return;
    dtypes[std::string(to_string(value.type.dtype))] +=
        static_cast<uint64_t>(element_count(value.type.dims).value_or(0));
  };
  // All functions share the weights, so the first one tells.
  if (!package.model.functions.empty())
    for (const mil::Operation& op : package.model.functions[0].operations) {
      for (const auto& [key, bindings] : op.inputs)
        for (const mil::Binding& binding : bindings)
          if (const auto* value = std::get_if<mil::ValueData>(&binding)) count_blobs(*value);
      for (const auto& [key, value] : op.attributes) count_blobs(value);
    }
  uint64_t state_bytes = 0;
  if (!package.model.descriptions.empty())
    for (const mil::Feature& state : package.model.descriptions[0].states)
      state_bytes +=
          storage_bytes(state.dtype, static_cast<uint64_t>(element_count(state.shape).value_or(0)))
              .value_or(0);
  all["dtypes"] = dtypes;
  return finish_artefact(app, options, paths, state_bytes, std::move(all));
}

// An ONNX model has one function; dimensions that a call decides are given by name.
Status inspect_onnx(App& app, const Options& options, const ArtefactPaths& paths) {
  POME_ASSIGN_OR_RETURN(const onnx::Package package, onnx::read_package(paths.package));
  const onnx::Model& model = package.model;
  uint64_t cache_bytes_per_token = 0;
  const auto features = [&](const std::vector<onnx::ValueInfo>& list) {
    Json out = Json::array();
    for (const onnx::ValueInfo& value : list) {
      Json shape = Json::array();
      for (const onnx::Dimension& dim : value.dims)
        shape.push_back(dim.size >= 0 ? Json(dim.size) : Json(dim.symbol));
      if (value.name.starts_with("past_key_values.") && value.dims.size() == 4)
        cache_bytes_per_token += static_cast<uint64_t>(
            std::max<int64_t>(value.dims[1].size * value.dims[3].size, 0) * 4);
      out.push_back({{"name", value.name}, {"dtype", to_string(value.dtype)}, {"shape", shape}});
    }
    return out;
  };
  Json all = {{"format", "onnx"},         {"family", nullptr},
              {"parameters", nullptr},    {"ir_version", model.ir_version},
              {"opsets", model.opsets},   {"metadata", model.metadata},
              {"config", nullptr},        {"tokenizer", nullptr},
              {"chat_template", nullptr}, {"estimated_memory", nullptr}};
  all["functions"] = Json::array({{{"name", "model"},
                                   {"inputs", features(model.graph.inputs)},
                                   {"outputs", features(model.graph.outputs)},
                                   {"states", Json::array()}}});
  POME_RETURN_IF_ERROR(take_config(model.metadata, &all));
  std::map<std::string, uint64_t> dtypes;
  for (const onnx::TensorData& tensor : model.graph.initializers)
    if (tensor.external)
      dtypes[std::string(to_string(tensor.dtype))] +=
          static_cast<uint64_t>(element_count(tensor.dims).value_or(0));
  all["dtypes"] = dtypes;
  const auto tokens = static_cast<uint64_t>(onnx_context(model));
  return finish_artefact(app, options, paths, cache_bytes_per_token * tokens, std::move(all));
}

}  // namespace

void add_inspect(App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_command(
      "inspect", "what is inside: family, parameters, tensors, tokenizer, memory",
      [&app, options]() -> Status {
        POME_ASSIGN_OR_RETURN(const std::optional<ArtefactPaths> artefact,
                              find_artefact(options->model));
        if (artefact && artefact->is_checkpoint()) options->model = artefact->package;
        if (!artefact || artefact->is_checkpoint()) return inspect_checkpoint(app, *options);
        return artefact->target == Target::kOnnx ? inspect_onnx(app, *options, *artefact)
                                                 : inspect_package(app, *options, *artefact);
      });
  command->add_option("model", options->model, "model or artefact")->required();
  command->add_flag("--tensors", options->tensors, "list every tensor");
  command->add_flag("--checksums", options->checksums,
                    "read everything and compare it with the checksums that a PyTorch file holds");
}

}  // namespace pome::cli
