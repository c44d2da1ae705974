#include "formats/tokenizer_json.h"

#include <algorithm>
#include <utility>

#include "formats/tokenizer_json_parts.h"
#include "formats/tokenizer_json_pipeline.h"
#include "tokenizer/byte_level.h"

namespace pome {
namespace hf {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 22;

}  // namespace

Result<int32_t> token_id(const Json& value, const std::string& where) {
  if (!value.is_number_integer()) return type_error(where, "a whole number as token id");
  const bool negative = !value.is_number_unsigned() && value.get<int64_t>() < 0;
  if (negative || value.get<uint64_t>() >= static_cast<uint64_t>(kMaxTokens)) {
    return bad_input(Refusal::kRange, "token id " + value.dump() + " is outside 0..4194303")
        .at(where);
  }
  return static_cast<int32_t>(value.get<int64_t>());
}

Result<std::string> token_text(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  return type_error(std::string("/") + key, "a token");
}

Status place_token(TokenizerSource& source, std::vector<bool>& taken, int32_t id,
                   const std::string& text, const std::string& where) {
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

std::optional<int32_t> find_token(const TokenizerSource& source, const std::string& text) {
  if (text.empty()) return std::nullopt;
  for (const AddedToken& token : source.added) {
    if (token.content == text) return token.id;
  }
  const auto found = std::find(source.tokens.begin(), source.tokens.end(), text);
  if (found == source.tokens.end()) return std::nullopt;
  return static_cast<int32_t>(found - source.tokens.begin());
}

void set_kinds(TokenizerSource& source, const std::vector<bool>& taken) {
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
}

Result<std::pair<std::string, std::string>> merge_of_line(std::string_view line,
                                                          const std::string& where) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    return bad_input(Refusal::kRange, "\"" + escape_for_terminal(line, 80) +
                                          "\" is not two tokens with a space between")
        .at(where);
  }
  return std::pair(std::string(line.substr(0, space)), std::string(line.substr(space + 1)));
}

}  // namespace hf

namespace {

using hf::token_id;
using hf::type_error;

constexpr int64_t kMaxTokens = int64_t{1} << 22;
constexpr size_t kMaxMerges = size_t{1} << 23;

// Collects tokens by id, from model.vocab and added_tokens.
class VocabularyReader {
 public:
  VocabularyReader(const Json& root, TokenizerSource& source) : root_(root), source_(source) {}

  Status read(const Json& model) {
    const auto vocab = model.find("vocab");
    const bool list = vocab != model.end() && vocab->is_array();
    const bool unigram = source_.model == TokenizerSource::Model::kUnigram;
    if (vocab == model.end() || (unigram ? !list : !vocab->is_object())) {
      return type_error("/model/vocab", unigram ? "an array" : "an object");
    }
    const auto added = root_.find("added_tokens");
    const bool has_added = added != root_.end() && !added->is_null();
    if (has_added && !added->is_array()) return type_error("/added_tokens", "an array");
    count_ = static_cast<int64_t>(vocab->size());
    if (has_added) count_ += static_cast<int64_t>(added->size());
    if (count_ > kMaxTokens) {
      return bad_input(Refusal::kLimit,
                       std::to_string(count_) + " tokens; at most 4194304 are allowed")
          .at("/model/vocab");
    }
    source_.tokens.reserve(vocab->size());
    POME_RETURN_IF_ERROR(unigram ? read_pieces(*vocab) : read_map(*vocab));
    for (size_t i = 0; has_added && i < added->size(); ++i) {
      POME_RETURN_IF_ERROR(read_added((*added)[i], "/added_tokens/" + std::to_string(i)));
    }
    hf::set_kinds(source_, taken_);
    if (unigram) source_.scores.resize(source_.tokens.size());
    return {};
  }

 private:
  Status put(int32_t id, const std::string& text, const std::string& where) {
    if (id >= 2 * count_) {
      return bad_input(Refusal::kRange, "id " + std::to_string(id) + " in a vocabulary of " +
                                            std::to_string(count_) + " tokens")
          .at(where);
    }
    return hf::place_token(source_, taken_, id, text, where);
  }
  Status read_map(const Json& vocab) {
    for (const auto& [text, value] : vocab.items()) {
      // The place is written out for errors only: there are many tokens.
      const auto where = [&text = text] { return "/model/vocab/" + escape_for_terminal(text, 60); };
      if (!value.is_number_unsigned() || value.template get<uint64_t>() >= kMaxTokens) {
        POME_ASSIGN_OR_RETURN(const int32_t id, token_id(value, where()));
        static_cast<void>(id);
      }
      const auto id = value.template get<int32_t>();
      if (Status status = put(id, text, ""); !status.ok()) return std::move(status).at(where());
    }
    return {};
  }
  Status read_pieces(const Json& vocab) {
    source_.scores.reserve(vocab.size());
    for (size_t i = 0; i < vocab.size(); ++i) {
      const Json& item = vocab[i];
      if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number()) {
        return type_error("/model/vocab/" + std::to_string(i), "a piece and its score");
      }
      POME_RETURN_IF_ERROR(put(static_cast<int32_t>(i), item[0].get<std::string>(),
                               "/model/vocab/" + std::to_string(i)));
      source_.scores.push_back(item[1].get<double>());
    }
    return {};
  }
  Status read_added(const Json& item, const std::string& where) {
    POME_ASSIGN_OR_RETURN(AddedToken token, hf::added_token(item, where));
    if (!item.contains("id")) return type_error(where + "/id", "a whole number as token id");
    POME_ASSIGN_OR_RETURN(token.id, token_id(item["id"], where + "/id"));
    POME_RETURN_IF_ERROR(put(token.id, token.content, where));
    source_.added.push_back(std::move(token));
    return {};
  }

  const Json& root_;
  TokenizerSource& source_;
  std::vector<bool> taken_;
  int64_t count_ = 0;
};

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
    if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      source.merges.emplace_back(item[0].get<std::string>(), item[1].get<std::string>());
      continue;
    }
    const std::string where = "/model/merges/" + std::to_string(i);
    if (!item.is_string()) return type_error(where, "two tokens");
    POME_ASSIGN_OR_RETURN(auto merge, hf::merge_of_line(item.get_ref<const std::string&>(), where));
    source.merges.push_back(std::move(merge));
  }
  return {};
}

Result<TokenizerSource::Model> model_kind(const Json& model) {
  using Model = TokenizerSource::Model;
  POME_ASSIGN_OR_RETURN(const auto type, under("/model", json_string(model, "type")));
  std::string kind;
  if (type) {
    kind = *type;
  } else if (model.contains("merges")) {  // files of the first versions have no type
    kind = "BPE";
  } else if (model.contains("vocab") && model["vocab"].is_array()) {
    kind = "Unigram";
  } else if (model.contains("continuing_subword_prefix")) {
    kind = "WordPiece";
  }
  static constexpr std::pair<std::string_view, Model> kKinds[] = {{"BPE", Model::kBpe},
                                                                  {"Unigram", Model::kUnigram},
                                                                  {"WordPiece", Model::kWordPiece},
                                                                  {"WordLevel", Model::kWordLevel}};
  for (const auto& [name, known] : kKinds) {
    if (kind == name) return known;
  }
  return unsupported("tokenizer model \"" + escape_for_terminal(kind, 60) + "\" is not supported")
      .at("/model/type");
}

Status read_options(const Json& model, TokenizerSource& source) {
  const bool word_piece = source.model == TokenizerSource::Model::kWordPiece;
  POME_ASSIGN_OR_RETURN(auto prefix,
                        under("/model", json_string(model, "continuing_subword_prefix")));
  source.continuing_subword_prefix = std::move(prefix).value_or(word_piece ? "##" : "");
  POME_ASSIGN_OR_RETURN(auto suffix, under("/model", json_string(model, "end_of_word_suffix")));
  source.end_of_word_suffix = std::move(suffix).value_or("");
  POME_ASSIGN_OR_RETURN(const auto dropout, under("/model", json_number(model, "dropout")));
  if (dropout.value_or(0) > 0) {
    return unsupported("dropout makes ids random").at("/model/dropout");
  }
  POME_ASSIGN_OR_RETURN(const auto longest,
                        under("/model", json_int(model, "max_input_chars_per_word")));
  if (longest.value_or(1) < 0 || longest.value_or(1) > (int64_t{1} << 31)) {
    return bad_input(Refusal::kRange, std::to_string(*longest) + " is no number of characters")
        .at("/model/max_input_chars_per_word");
  }
  source.max_input_chars_per_word = static_cast<uint32_t>(longest.value_or(100));
  const std::pair<const char*, bool*> flags[] = {{"fuse_unk", &source.fuse_unknown},
                                                 {"byte_fallback", &source.byte_fallback},
                                                 {"ignore_merges", &source.ignore_merges}};
  for (const auto& [key, flag] : flags) {
    POME_ASSIGN_OR_RETURN(const auto value, under("/model", json_bool(model, key)));
    *flag = value.value_or(false);
  }
  return {};
}

Status read_unknown(const Json& model, TokenizerSource& source) {
  if (source.model == TokenizerSource::Model::kUnigram) {
    source.fuse_unknown = true;
    if (!model.contains("unk_id") || model["unk_id"].is_null()) return {};
    POME_ASSIGN_OR_RETURN(const int32_t id, token_id(model["unk_id"], "/model/unk_id"));
    source.unknown = id;
    return {};
  }
  POME_ASSIGN_OR_RETURN(const std::string text,
                        under("/model", hf::token_text(model, "unk_token")));
  source.unknown = hf::find_token(source, text);
  return {};
}

}  // namespace

Result<TokenizerSource> parse_tokenizer_json(const Json& json, const std::string& name) {
  TokenizerSource source;
  source.origin = name;
  const auto parse = [&]() -> Status {
    if (!json.is_object()) return type_error("", "an object");
    const auto model = json.find("model");
    if (model == json.end() || !model->is_object()) return type_error("/model", "an object");
    POME_ASSIGN_OR_RETURN(source.model, model_kind(*model));
    POME_RETURN_IF_ERROR(read_options(*model, source));
    POME_RETURN_IF_ERROR(VocabularyReader(json, source).read(*model));
    if (source.model == TokenizerSource::Model::kBpe) {
      POME_RETURN_IF_ERROR(read_merges(*model, source));
    }
    POME_RETURN_IF_ERROR(read_unknown(*model, source));
    POME_RETURN_IF_ERROR(read_normalizer(json, source));
    POME_RETURN_IF_ERROR(read_pre_tokenizer(json, source));
    POME_RETURN_IF_ERROR(read_decoder(json, source));
    POME_RETURN_IF_ERROR(read_post_processor(json, source));
    if (!source.prefix_ids.empty()) source.bos = source.prefix_ids.front();
    if (!source.suffix_ids.empty()) source.eos = source.suffix_ids.back();
    return {};
  };
  if (Status status = parse(); !status.ok()) return std::move(status).in(name);
  return source;
}

}  // namespace pome
