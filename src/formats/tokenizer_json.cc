#include "formats/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/byte_source.h"
#include "formats/tokenizer_json_pipeline.h"
#include "tokenizer/byte_level.h"

namespace pome {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 22;
constexpr size_t kMaxMerges = size_t{1} << 23;
constexpr uint64_t kMaxTemplateBytes = uint64_t{1} << 20;

Status type_error(std::string where, std::string_view wanted) {
  return bad_input(Refusal::kType, "expected " + std::string(wanted)).at(where);
}

Result<int32_t> token_id(const Json& value, const std::string& where) {
  if (!value.is_number_integer()) return type_error(where, "a whole number as token id");
  const bool negative = !value.is_number_unsigned() && value.get<int64_t>() < 0;
  if (negative || value.get<uint64_t>() >= static_cast<uint64_t>(kMaxTokens)) {
    return bad_input(Refusal::kRange, "token id " + value.dump() + " is outside 0..4194303")
        .at(where);
  }
  return static_cast<int32_t>(value.get<int64_t>());
}

// A member that is a token: its text, or an object with "content".
Result<std::string> token_text(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  return type_error(std::string("/") + key, "a token");
}

Status place(TokenizerSource& source, std::vector<bool>& taken, int32_t id, const std::string& text,
             const std::string& where) {
  const auto i = static_cast<size_t>(id);
  if (i >= source.tokens.size()) {
    source.tokens.resize(i + 1);
    taken.resize(i + 1);
  }
  if (taken[i] && source.tokens[i] != text) {
    return bad_input(Refusal::kDup, "id " + std::to_string(id) + " belongs to \"" +
                                        escape_for_terminal(source.tokens[i], 60) + "\" and to \"" +
                                        escape_for_terminal(text, 60) + "\"")
        .at(where);
  }
  taken[i] = true;
  source.tokens[i] = text;
  return {};
}

Result<AddedToken> added_token(const Json& item, const std::string& where) {
  if (!item.is_object()) return type_error(where, "an object");
  AddedToken token;
  POME_ASSIGN_OR_RETURN(auto content, under(where, json_string(item, "content")));
  if (!content) return type_error(where + "/content", "a string");
  token.content = *std::move(content);
  if (token.content.empty()) {
    return bad_input(Refusal::kRange, "an added token needs a text").at(where + "/content");
  }
  if (!item.contains("id")) return type_error(where + "/id", "a whole number as token id");
  POME_ASSIGN_OR_RETURN(token.id, token_id(item["id"], where + "/id"));
  const std::pair<const char*, bool*> flags[] = {{"special", &token.special},
                                                 {"lstrip", &token.lstrip},
                                                 {"rstrip", &token.rstrip},
                                                 {"normalized", &token.normalized},
                                                 {"single_word", &token.single_word}};
  for (const auto& [key, flag] : flags) {
    POME_ASSIGN_OR_RETURN(const auto value, under(where, json_bool(item, key)));
    *flag = value.value_or(false);
  }
  return token;
}

// Tokens by id, from model.vocab and added_tokens; holes become unused tokens.
Status read_vocabulary(const Json& root, const Json& model, TokenizerSource& source) {
  const auto vocab = model.find("vocab");
  if (vocab == model.end() || !vocab->is_object()) return type_error("/model/vocab", "an object");
  std::vector<bool> taken;
  source.tokens.reserve(vocab->size());
  int64_t count = static_cast<int64_t>(vocab->size());
  const auto added = root.find("added_tokens");
  const bool has_added = added != root.end() && !added->is_null();
  if (has_added && !added->is_array()) return type_error("/added_tokens", "an array");
  if (has_added) count += static_cast<int64_t>(added->size());
  if (count > kMaxTokens) {
    return bad_input(Refusal::kLimit,
                     std::to_string(count) + " tokens; at most 4194304 are allowed")
        .at("/model/vocab");
  }
  const auto check_gap = [&](int32_t id, const std::string& where) -> Status {
    if (id < 2 * count) return {};
    return bad_input(Refusal::kRange, "id " + std::to_string(id) + " in a vocabulary of " +
                                          std::to_string(count) + " tokens")
        .at(where);
  };
  for (const auto& [text, value] : vocab->items()) {
    const std::string where = "/model/vocab/" + escape_for_terminal(text, 60);
    POME_ASSIGN_OR_RETURN(const int32_t id, token_id(value, where));
    POME_RETURN_IF_ERROR(check_gap(id, where));
    POME_RETURN_IF_ERROR(place(source, taken, id, text, where));
  }
  for (size_t i = 0; has_added && i < added->size(); ++i) {
    const std::string where = "/added_tokens/" + std::to_string(i);
    POME_ASSIGN_OR_RETURN(AddedToken token, added_token((*added)[i], where));
    POME_RETURN_IF_ERROR(check_gap(token.id, where));
    POME_RETURN_IF_ERROR(place(source, taken, token.id, token.content, where));
    source.added.push_back(std::move(token));
  }
  source.kinds.assign(source.tokens.size(), TokenKind::kNormal);
  for (size_t id = 0; id < taken.size(); ++id) {
    if (!taken[id]) source.kinds[id] = TokenKind::kUnused;
    if (source.byte_fallback && byte_of_placeholder(source.tokens[id])) {
      source.kinds[id] = TokenKind::kByte;
    }
  }
  for (const AddedToken& token : source.added) {
    source.kinds[static_cast<size_t>(token.id)] =
        token.special ? TokenKind::kControl : TokenKind::kUserDefined;
  }
  return {};
}

// "a b" or ["a", "b"].
Status read_merges(const Json& model, TokenizerSource& source) {
  const auto merges = model.find("merges");
  if (merges == model.end() || !merges->is_array()) return type_error("/model/merges", "an array");
  if (merges->size() > kMaxMerges) {
    return bad_input(Refusal::kLimit,
                     std::to_string(merges->size()) + " merges; at most 8388608 are allowed")
        .at("/model/merges");
  }
  source.merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const Json& item = (*merges)[i];
    const std::string where = "/model/merges/" + std::to_string(i);
    if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      source.merges.emplace_back(item[0].get<std::string>(), item[1].get<std::string>());
      continue;
    }
    if (!item.is_string()) return type_error(where, "two tokens");
    const auto& text = item.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return bad_input(Refusal::kRange, "\"" + escape_for_terminal(text, 80) +
                                            "\" is not two tokens with a space between")
          .at(where);
    }
    source.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  return {};
}

std::optional<int32_t> find_token(const TokenizerSource& source, const std::string& text) {
  if (text.empty()) return std::nullopt;
  for (const AddedToken& token : source.added) {
    if (token.content == text) return token.id;
  }
  const auto found = std::find(source.tokens.begin(), source.tokens.end(), text);
  if (found == source.tokens.end()) return std::nullopt;
  return static_cast<int32_t>(found - source.tokens.begin());
}

Status read_bpe_options(const Json& model, TokenizerSource& source) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    POME_ASSIGN_OR_RETURN(const auto text, under("/model", json_string(model, key)));
    if (text && !text->empty()) {
      return unsupported(std::string(key) + " is not supported").at(std::string("/model/") + key);
    }
  }
  POME_ASSIGN_OR_RETURN(const auto dropout, under("/model", json_number(model, "dropout")));
  if (dropout.value_or(0) > 0) {
    return unsupported("dropout makes ids random").at("/model/dropout");
  }
  const std::pair<const char*, bool*> flags[] = {{"fuse_unk", &source.fuse_unknown},
                                                 {"byte_fallback", &source.byte_fallback},
                                                 {"ignore_merges", &source.ignore_merges}};
  for (const auto& [key, flag] : flags) {
    POME_ASSIGN_OR_RETURN(const auto value, under("/model", json_bool(model, key)));
    *flag = value.value_or(false);
  }
  return {};
}

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

Result<TokenizerSource> parse_tokenizer_json(const Json& json, const std::string& name) {
  TokenizerSource source;
  source.origin = name;
  const auto parse = [&]() -> Status {
    if (!json.is_object()) return type_error("", "an object");
    const auto model = json.find("model");
    if (model == json.end() || !model->is_object()) return type_error("/model", "an object");
    POME_ASSIGN_OR_RETURN(const auto type, under("/model", json_string(*model, "type")));
    // Files of the first versions have no type; only BPE has merges.
    const std::string kind = type.value_or(model->contains("merges") ? "BPE" : "");
    if (kind != "BPE") {
      return unsupported("tokenizer model \"" + escape_for_terminal(kind, 60) +
                         "\" is not supported")
          .at("/model/type");
    }
    POME_RETURN_IF_ERROR(read_bpe_options(*model, source));
    POME_RETURN_IF_ERROR(read_vocabulary(json, *model, source));
    POME_RETURN_IF_ERROR(read_merges(*model, source));
    POME_ASSIGN_OR_RETURN(const std::string unknown,
                          under("/model", token_text(*model, "unk_token")));
    source.unknown = find_token(source, unknown);
    bool byte_level = false;
    POME_RETURN_IF_ERROR(read_normalizer(json, source));
    POME_RETURN_IF_ERROR(read_pre_tokenizer(json, source, byte_level));
    if (!byte_level && !source.escape_whitespace) {
      return unsupported(
                 "BPE over plain characters (neither ByteLevel nor U+2581) is not supported")
          .at("/pre_tokenizer");
    }
    source.model =
        byte_level ? TokenizerSource::Model::kByteBpe : TokenizerSource::Model::kSentencePieceBpe;
    POME_RETURN_IF_ERROR(read_decoder(json, source));
    return read_post_processor(json, source);
  };
  if (Status status = parse(); !status.ok()) return std::move(status).in(name);
  return source;
}

Status apply_tokenizer_config(const Json& tokenizer_config, const Json& special_map,
                              TokenizerSource& source) {
  const auto named = [&](const char* key) -> Result<std::string> {
    for (const Json* json : {&tokenizer_config, &special_map}) {
      if (!json->is_object()) continue;
      POME_ASSIGN_OR_RETURN(std::string text, token_text(*json, key));
      if (!text.empty()) return text;
    }
    return std::string();
  };
  POME_ASSIGN_OR_RETURN(source.bos_text, named("bos_token"));
  POME_ASSIGN_OR_RETURN(source.eos_text, named("eos_token"));
  POME_ASSIGN_OR_RETURN(const std::string padding, named("pad_token"));
  // What the post-processor puts around a text keeps its place: it is what encoding does.
  if (!source.add_bos) source.bos = find_token(source, source.bos_text);
  if (!source.add_eos) source.eos = find_token(source, source.eos_text);
  source.padding = find_token(source, padding);
  if (!tokenizer_config.is_object()) return {};

  POME_ASSIGN_OR_RETURN(source.chat_template, template_text(tokenizer_config));
  // These classes build the post-processor anew from two flags.
  POME_ASSIGN_OR_RETURN(const auto type, json_string(tokenizer_config, "tokenizer_class"));
  if (type == "LlamaTokenizer" || type == "LlamaTokenizerFast" || type == "GemmaTokenizer" ||
      type == "GemmaTokenizerFast") {
    POME_ASSIGN_OR_RETURN(const auto add_bos, json_bool(tokenizer_config, "add_bos_token"));
    POME_ASSIGN_OR_RETURN(const auto add_eos, json_bool(tokenizer_config, "add_eos_token"));
    source.add_bos = add_bos.value_or(source.add_bos) && source.bos;
    source.add_eos = add_eos.value_or(source.add_eos) && source.eos;
  }
  return {};
}

Result<TokenizerSource> read_hf_tokenizer(const std::string& folder, const Json& config,
                                          const Json& generation_config) {
  const std::string path = folder + "/tokenizer.json";
  POME_ASSIGN_OR_RETURN(const Json json, read_json_file(path));
  POME_ASSIGN_OR_RETURN(TokenizerSource source, parse_tokenizer_json(json, path));
  const std::string config_path = folder + "/tokenizer_config.json";
  POME_ASSIGN_OR_RETURN(const Json tokenizer_config, read_optional_json(config_path));
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
