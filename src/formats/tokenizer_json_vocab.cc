// vocab.json and merges.txt: the files that GPT-2 was published as.
#include <algorithm>
#include <utility>

#include "base/byte_source.h"
#include "formats/tokenizer_json.h"
#include "formats/tokenizer_json_parts.h"
#include "formats/tokenizer_json_pipeline.h"
#include "tokenizer/ggml_pre.h"

namespace pome {
namespace {

constexpr uint64_t kMaxMergesBytes = uint64_t{64} << 20;
constexpr int64_t kMaxTokens = int64_t{1} << 22;

// How the class of a tokenizer cuts text: a name of tokenizer.ggml.pre. Empty: not known.
std::string_view cutting_of(const Json& config, const Json& tokenizer_config) {
  static constexpr std::pair<std::string_view, std::string_view> kClasses[] = {
      {"GPT2Tokenizer", "gpt-2"},    {"GPT2TokenizerFast", "gpt-2"},
      {"CodeGenTokenizer", "gpt-2"}, {"CodeGenTokenizerFast", "gpt-2"},
      {"Qwen2Tokenizer", "qwen2"},   {"Qwen2TokenizerFast", "qwen2"}};
  static constexpr std::pair<std::string_view, std::string_view> kModels[] = {
      {"gpt2", "gpt-2"}, {"gpt_neo", "gpt-2"}, {"gptj", "gpt-2"}, {"codegen", "gpt-2"},
      {"phi", "gpt-2"},  {"qwen2", "qwen2"},   {"qwen3", "qwen2"}};
  const auto find = [](const Json& json, const char* key, const auto& table) -> std::string_view {
    if (!json.is_object() || !json.contains(key) || !json[key].is_string()) return {};
    const auto& name = json[key].get_ref<const std::string&>();
    for (const auto& [known, cutting] : table) {
      if (known == name) return cutting;
    }
    return {};
  };
  const std::string_view found = find(tokenizer_config, "tokenizer_class", kClasses);
  return found.empty() ? find(config, "model_type", kModels) : found;
}

Status read_vocab(const std::string& path, TokenizerSource& source, std::vector<bool>& taken) {
  POME_ASSIGN_OR_RETURN(const Json vocab, read_json_file(path));
  const auto read = [&]() -> Status {
    if (!vocab.is_object()) return hf::type_error("", "an object");
    const auto count = static_cast<int64_t>(vocab.size());
    if (count > kMaxTokens) {
      return bad_input(Refusal::kLimit,
                       std::to_string(count) + " tokens; at most 4194304 are allowed");
    }
    for (const auto& [text, value] : vocab.items()) {
      const std::string where = "/" + escape_for_terminal(text, 60);
      POME_ASSIGN_OR_RETURN(const int32_t id, hf::token_id(value, where));
      if (id >= 2 * count) {
        return bad_input(Refusal::kRange, "id " + std::to_string(id) + " in a vocabulary of " +
                                              std::to_string(count) + " tokens")
            .at(where);
      }
      POME_RETURN_IF_ERROR(hf::place_token(source, taken, id, text, where));
    }
    return {};
  };
  if (Status status = read(); !status.ok()) return std::move(status).in(path);
  return {};
}

Status read_merge_lines(const std::string& path, TokenizerSource& source) {
  POME_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxMergesBytes));
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || line.substr(0, 8) == "#version") continue;
    auto merge = hf::merge_of_line(line, "line " + std::to_string(number));
    if (!merge.ok()) return std::move(merge).status().in(path);
    source.merges.push_back(*std::move(merge));
  }
  return {};
}

// Added tokens stand in tokenizer_config.json by id, or are the special tokens that it names.
Status read_added(const Json& config, TokenizerSource& source, std::vector<bool>& taken) {
  const auto add = [&](AddedToken token, const std::string& where) -> Status {
    const bool known = std::any_of(source.added.begin(), source.added.end(),
                                   [&](const AddedToken& old) { return old.id == token.id; });
    if (known) return {};
    POME_RETURN_IF_ERROR(hf::place_token(source, taken, token.id, token.content, where));
    source.added.push_back(std::move(token));
    return {};
  };
  if (config.is_object() && config.contains("added_tokens_decoder") &&
      config["added_tokens_decoder"].is_object()) {
    for (const auto& [key, item] : config["added_tokens_decoder"].items()) {
      const std::string where = "/added_tokens_decoder/" + escape_for_terminal(key, 20);
      POME_ASSIGN_OR_RETURN(AddedToken token, hf::added_token(item, where));
      const bool number = !key.empty() && key.size() < 8 &&
                          key.find_first_not_of("0123456789") == std::string::npos;
      if (!number || std::stol(key) >= 2 * static_cast<long>(source.tokens.size() + 4096)) {
        return bad_input(Refusal::kRange, "is no token id of this vocabulary").at(where);
      }
      token.id = static_cast<int32_t>(std::stol(key));
      POME_RETURN_IF_ERROR(add(std::move(token), where));
    }
  }
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    if (!config.is_object()) break;
    POME_ASSIGN_OR_RETURN(const std::string text, hf::token_text(config, key));
    const auto id = hf::find_token(source, text);
    if (!id) continue;
    AddedToken token;
    token.id = *id;
    token.content = text;
    token.special = true;
    POME_RETURN_IF_ERROR(add(std::move(token), std::string("/") + key));
  }
  return {};
}

}  // namespace

Result<TokenizerSource> read_vocab_and_merges(const std::string& folder, const Json& config,
                                              const Json& tokenizer_config) {
  const std::string path = folder + "/vocab.json";
  const std::string_view cutting = cutting_of(config, tokenizer_config);
  const auto pre = steps_of_ggml_pre(cutting);
  if (cutting.empty() || !pre) {
    return unsupported("these files do not say how text is cut, and the class is not known")
        .in(path)
        .hint("save the tokenizer as tokenizer.json");
  }
  TokenizerSource source;
  source.origin = path;
  source.model = TokenizerSource::Model::kBpe;
  std::vector<bool> taken;
  POME_RETURN_IF_ERROR(read_vocab(path, source, taken));
  POME_RETURN_IF_ERROR(read_merge_lines(folder + "/merges.txt", source));
  if (cutting == "gpt-2" && hf::find_token(source, "<|endoftext|>")) {
    // GPT-2's class knows its only special token without being told.
    AddedToken token;
    token.id = *hf::find_token(source, "<|endoftext|>");
    token.content = "<|endoftext|>";
    token.special = true;
    source.added.push_back(std::move(token));
  }
  Status added = read_added(tokenizer_config, source, taken);
  if (!added.ok()) return std::move(added).in(folder + "/tokenizer_config.json");
  hf::set_kinds(source, taken);
  source.normalizer = pre->normalizer;
  source.pre_tokenizer = pre->pre_tokenizer;
  source.decoder = {decoder::ByteLevel{}};
  if (tokenizer_config.is_object()) {
    POME_ASSIGN_OR_RETURN(const auto prefix, json_bool(tokenizer_config, "add_prefix_space"));
    if (prefix.value_or(false)) {
      std::get<pretokenizer::ByteLevel>(source.pre_tokenizer.back()).add_prefix_space = true;
    }
  }
  return source;
}

}  // namespace pome
