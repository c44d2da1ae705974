#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/byte_source.h"
#include "formats/sentencepiece_model.h"
#include "formats/tiktoken.h"
#include "formats/tokenizer_json.h"
#include "formats/tokenizer_json_parts.h"

namespace pome {
namespace {

using hf::find_token;
using hf::token_id;
using hf::type_error;

constexpr uint64_t kMaxTemplateBytes = uint64_t{1} << 20;

// One id or a list of ids of config.json or generation_config.json.
Status add_stop_ids(const Json& config, const char* file, TokenizerSource& source) {
  if (!config.is_object() || !config.contains("eos_token_id")) return {};
  const Json& value = config["eos_token_id"];
  if (value.is_null()) return {};
  const Json list = value.is_array() ? value : Json::array({value});
  for (const Json& item : list) {
    auto id = token_id(item, "/eos_token_id");
    if (!id.ok()) return std::move(id).status().in(file);
    if (static_cast<size_t>(*id) >= source.tokens.size()) {
      return bad_input(Refusal::kRange, "id " + std::to_string(*id) +
                                            " is outside the vocabulary of " +
                                            std::to_string(source.tokens.size()) + " tokens")
          .in(file)
          .at("/eos_token_id");
    }
    if (std::find(source.stop_ids.begin(), source.stop_ids.end(), *id) == source.stop_ids.end()) {
      source.stop_ids.push_back(*id);
    }
  }
  return {};
}

// A text, or a list of {"name", "template"} of which "default" counts.
Result<std::string> template_text(const Json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return type_error("/chat_template", "a string");
  for (const Json& item : *found) {
    if (!item.is_object() || !item.contains("name") || !item.contains("template")) {
      return type_error("/chat_template", "objects with name and template");
    }
    if (item["name"] == "default" && item["template"].is_string()) {
      return item["template"].get<std::string>();
    }
  }
  return std::string();
}

Result<Json> read_optional_json(const std::string& path) {
  auto json = read_json_file(path);
  if (!json.ok() && json.status().code() == StatusCode::kMissing) return Json();
  return json;
}

}  // namespace

Status apply_tokenizer_config(const Json& tokenizer_config, const Json& special_map,
                              TokenizerSource& source) {
  const auto named = [&](const char* key) -> Result<std::string> {
    for (const Json* json : {&tokenizer_config, &special_map}) {
      if (!json->is_object()) continue;
      POME_ASSIGN_OR_RETURN(std::string text, hf::token_text(*json, key));
      if (!text.empty()) return text;
    }
    return std::string();
  };
  POME_ASSIGN_OR_RETURN(source.bos_text, named("bos_token"));
  POME_ASSIGN_OR_RETURN(source.eos_text, named("eos_token"));
  POME_ASSIGN_OR_RETURN(const std::string padding, named("pad_token"));
  // What the post-processor puts around a text keeps its place: it is what encoding does.
  if (source.prefix_ids.empty()) source.bos = find_token(source, source.bos_text);
  if (source.suffix_ids.empty()) source.eos = find_token(source, source.eos_text);
  source.padding = find_token(source, padding);
  if (!tokenizer_config.is_object()) return {};

  POME_ASSIGN_OR_RETURN(source.chat_template, template_text(tokenizer_config));
  // These classes build the post-processor anew from two flags.
  POME_ASSIGN_OR_RETURN(const auto type, json_string(tokenizer_config, "tokenizer_class"));
  if (type == "LlamaTokenizer" || type == "LlamaTokenizerFast" || type == "GemmaTokenizer" ||
      type == "GemmaTokenizerFast") {
    POME_ASSIGN_OR_RETURN(const auto add_bos, json_bool(tokenizer_config, "add_bos_token"));
    POME_ASSIGN_OR_RETURN(const auto add_eos, json_bool(tokenizer_config, "add_eos_token"));
    const auto set = [](std::vector<int32_t>& ids, bool add, const std::optional<int32_t>& id) {
      ids.clear();
      if (add && id) ids.push_back(*id);
    };
    if (add_bos) set(source.prefix_ids, *add_bos, source.bos);
    if (add_eos) set(source.suffix_ids, *add_eos, source.eos);
  }
  return {};
}

namespace {

bool is_there(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

// Files of this ending are tiktoken's: qwen.tiktoken, o200k_base.tiktoken. Empty: none.
std::string tiktoken_file(const std::string& folder) {
  std::string found;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() != ".tiktoken") continue;
    // The first in order, whatever order the folder has.
    if (found.empty() || entry->path().string() < found) found = entry->path().string();
  }
  return found;
}

// tokenizer.model is SentencePiece's, or tiktoken's (Llama 3).
Result<TokenizerSource> read_model_file(const std::string& path, const Json& config) {
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(path));
  if (looks_like_tiktoken(*source)) return read_tiktoken(source, config);
  return read_sentencepiece_model(source);
}

// The file of the folder that holds the vocabulary: tokenizer.json, else a model of SentencePiece
// or tiktoken, else vocab.json and merges.txt.
Result<TokenizerSource> read_vocabulary_files(const std::string& folder, const Json& config,
                                              const Json& tokenizer_config) {
  const std::string path = folder + "/tokenizer.json";
  auto json = read_json_file(path);
  if (json.ok()) return parse_tokenizer_json(*json, path);
  if (json.status().code() != StatusCode::kMissing) return std::move(json).status();
  for (const char* name : {"/tokenizer.model", "/spiece.model", "/sentencepiece.bpe.model"}) {
    if (is_there(folder + name)) return read_model_file(folder + name, config);
  }
  if (const std::string tiktoken = tiktoken_file(folder); !tiktoken.empty()) {
    return read_model_file(tiktoken, config);
  }
  if (is_there(folder + "/vocab.json") && is_there(folder + "/merges.txt")) {
    return read_vocab_and_merges(folder, config, tokenizer_config);
  }
  return std::move(json).status();
}

}  // namespace

Result<TokenizerSource> read_hf_tokenizer(const std::string& folder, const Json& config,
                                          const Json& generation_config) {
  const std::string config_path = folder + "/tokenizer_config.json";
  POME_ASSIGN_OR_RETURN(const Json tokenizer_config, read_optional_json(config_path));
  POME_ASSIGN_OR_RETURN(TokenizerSource source,
                        read_vocabulary_files(folder, config, tokenizer_config));
  POME_ASSIGN_OR_RETURN(const Json special_map,
                        read_optional_json(folder + "/special_tokens_map.json"));
  if (Status status = apply_tokenizer_config(tokenizer_config, special_map, source); !status.ok()) {
    return std::move(status).in(config_path);
  }
  auto jinja = read_text_file(folder + "/chat_template.jinja", kMaxTemplateBytes);
  if (jinja.ok()) {
    source.chat_template = *std::move(jinja);
  } else if (jinja.status().code() != StatusCode::kMissing) {
    return std::move(jinja).status();
  }
  POME_RETURN_IF_ERROR(add_stop_ids(config, "config.json", source));
  POME_RETURN_IF_ERROR(add_stop_ids(generation_config, "generation_config.json", source));
  const auto text_of = [&](const std::optional<int32_t>& id) {
    return id ? source.tokens[static_cast<size_t>(*id)] : std::string();
  };
  if (!source.eos && !source.stop_ids.empty()) source.eos = source.stop_ids.front();
  if (!source.bos && config.is_object() && config.contains("bos_token_id") &&
      config["bos_token_id"].is_number_integer()) {
    auto id = token_id(config["bos_token_id"], "/bos_token_id");
    if (!id.ok()) return std::move(id).status().in("config.json");
    if (static_cast<size_t>(*id) < source.tokens.size()) source.bos = *id;
  }
  if (source.bos_text.empty()) source.bos_text = text_of(source.bos);
  if (source.eos_text.empty()) source.eos_text = text_of(source.eos);
  return source;
}

}  // namespace pome
