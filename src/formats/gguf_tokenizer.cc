#include "formats/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "tokenizer/ggml_pre.h"

namespace pome {
namespace {

constexpr std::string_view kPrefix = "tokenizer.ggml.";
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

std::string key_of(std::string_view name) { return std::string(kPrefix).append(name); }

Status wrong_type(std::string_view key, std::string_view wanted) {
  return bad_input(Refusal::kType, "expected " + std::string(wanted)).at(key);
}

// The value of type T; nullptr when the key is absent.
template <typename T>
Result<const T*> get(const GgufFile& file, const std::string& key, std::string_view wanted) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return static_cast<const T*>(nullptr);
  const T* data = std::get_if<T>(&value->data);
  if (data == nullptr) return wrong_type(key, wanted);
  return data;
}

Result<std::optional<int32_t>> get_id(const GgufFile& file, std::string_view name) {
  const std::string key = key_of(name);
  const GgufValue* value = file.find(key);
  if (value == nullptr) return std::optional<int32_t>();
  uint64_t number = 0;
  if (const auto* as_unsigned = std::get_if<uint64_t>(&value->data)) {
    number = *as_unsigned;
  } else if (const auto* as_signed = std::get_if<int64_t>(&value->data)) {
    number =
        *as_signed < 0 ? std::numeric_limits<uint32_t>::max() : static_cast<uint64_t>(*as_signed);
  } else {
    return wrong_type(key, "a whole number");
  }
  // Old converters wrote -1 for "none".
  if (number == std::numeric_limits<uint32_t>::max()) return std::optional<int32_t>();
  if (number > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
    return bad_input(Refusal::kRange, std::to_string(number) + " is no token id").at(key);
  }
  return std::optional<int32_t>(static_cast<int32_t>(number));
}

Result<std::optional<bool>> get_bool(const GgufFile& file, std::string_view name) {
  POME_ASSIGN_OR_RETURN(const bool* value, get<bool>(file, key_of(name), "a bool"));
  return value ? std::optional<bool>(*value) : std::nullopt;
}

Status read_vocabulary(const GgufFile& file, TokenizerSource& source) {
  using Strings = std::vector<std::string>;
  POME_ASSIGN_OR_RETURN(const Strings* tokens,
                        get<Strings>(file, key_of("tokens"), "an array of strings"));
  if (tokens == nullptr) {
    return bad_input(Refusal::kRange, "the file names a tokenizer but has no tokens")
        .at(key_of("tokens"));
  }
  source.tokens = *tokens;
  POME_ASSIGN_OR_RETURN(const auto* scores,
                        get<std::vector<double>>(file, key_of("scores"), "an array of numbers"));
  if (scores != nullptr) source.scores = *scores;
  const std::string types_key = key_of("token_type");
  std::vector<int64_t> types;
  if (const GgufValue* value = file.find(types_key)) {
    if (const auto* as_signed = std::get_if<std::vector<int64_t>>(&value->data)) {
      types = *as_signed;
    } else if (const auto* as_unsigned = std::get_if<std::vector<uint64_t>>(&value->data)) {
      for (const uint64_t type : *as_unsigned) {
        types.push_back(static_cast<int64_t>(std::min<uint64_t>(type, 255)));
      }
    } else {
      return wrong_type(types_key, "an array of whole numbers");
    }
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 0 || types[i] > 6) {
      return bad_input(Refusal::kRange, "token type " + std::to_string(types[i]) + " of token " +
                                            std::to_string(i) + " is not 0..6")
          .at(types_key);
    }
    // 0 is "undefined", which old converters wrote for ordinary tokens.
    source.kinds.push_back(types[i] == 0 ? TokenKind::kNormal : static_cast<TokenKind>(types[i]));
  }
  for (const auto& [size, name] :
       {std::pair{source.scores.size(), std::string_view("scores")},
        std::pair{source.kinds.size(), std::string_view("token_type")}}) {
    if (size != 0 && size != source.tokens.size()) {
      return bad_input(Refusal::kRange, std::to_string(size) + " values for " +
                                            std::to_string(source.tokens.size()) + " tokens")
          .at(key_of(name));
    }
  }
  return {};
}

Status read_merges(const GgufFile& file, TokenizerSource& source) {
  const std::string key = key_of("merges");
  POME_ASSIGN_OR_RETURN(const auto* merges,
                        get<std::vector<std::string>>(file, key, "an array of strings"));
  if (merges == nullptr) {
    return bad_input(Refusal::kRange, "a BPE tokenizer needs merges").at(key);
  }
  source.merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string& text = (*merges)[i];
    const size_t space = text.find(' ', 1);
    if (text.empty() || space == std::string::npos || space + 1 == text.size()) {
      return bad_input(Refusal::kRange, "\"" + escape_for_terminal(text, 80) +
                                            "\" is not two tokens with a space between")
          .at(key + "[" + std::to_string(i) + "]");
    }
    source.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  return {};
}

Status read_ids(const GgufFile& file, TokenizerSource& source) {
  const std::pair<std::string_view, std::optional<int32_t>*> ids[] = {
      {"bos_token_id", &source.bos},         {"eos_token_id", &source.eos},
      {"unknown_token_id", &source.unknown}, {"padding_token_id", &source.padding},
      {"eot_token_id", &source.end_of_turn}, {"eom_token_id", &source.end_of_message}};
  for (const auto& [name, id] : ids) {
    POME_ASSIGN_OR_RETURN(const auto value, get_id(file, name));
    // A key that is absent leaves the default of the model type.
    if (file.find(key_of(name)) != nullptr) *id = value;
    if (id->has_value() && static_cast<size_t>(**id) >= source.tokens.size()) {
      return bad_input(Refusal::kRange, "id " + std::to_string(**id) +
                                            " is outside the vocabulary of " +
                                            std::to_string(source.tokens.size()) + " tokens")
          .at(key_of(name));
    }
  }
  return {};
}

// Converters that find no sentencepiece model write one score for all pieces, which loses the order
// of the merges. The trainers number pieces in that order, so the ids bring it back.
void restore_scores(TokenizerSource& source) {
  std::optional<double> common;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    if (!source.kinds.empty() && source.kinds[id] != TokenKind::kNormal) continue;
    if (common.value_or(source.scores[id]) != source.scores[id]) return;
    common = source.scores[id];
  }
  for (size_t id = 0; id < source.scores.size(); ++id) {
    source.scores[id] = -static_cast<double>(id);
  }
}

// U+2581 for spaces, and bytes as tokens.
void read_characters(TokenizerSource& source) {
  source.normalizer.emplace_back(normalizer::Replace{{" ", false}, std::string(kSpaceMark)});
  source.decoder = {decoder::Replace{{std::string(kSpaceMark), false}, " "},
                    decoder::ByteFallback{}, decoder::Fuse{}};
}

Status read_sentencepiece(const GgufFile& file, TokenizerSource& source, bool& add_bos) {
  source.model = TokenizerSource::Model::kBpe;
  if (source.scores.empty()) {
    return bad_input(Refusal::kRange, "a SentencePiece tokenizer needs scores")
        .at(key_of("scores"));
  }
  restore_scores(source);
  source.unknown = 0;
  source.bos = 1;
  source.eos = 2;
  add_bos = true;
  source.byte_fallback = true;
  POME_ASSIGN_OR_RETURN(const auto prefix, get_bool(file, "add_space_prefix"));
  if (prefix.value_or(true)) source.normalizer.emplace_back(normalizer::Prepend{" "});
  read_characters(source);
  if (prefix.value_or(true)) source.decoder.emplace_back(decoder::Strip{" ", 1, 0});
  return {};
}

// The bytes of an array of numbers; empty when the key is absent.
Result<std::string> get_bytes(const GgufFile& file, std::string_view name) {
  const std::string key = key_of(name);
  const GgufValue* value = file.find(key);
  std::string out;
  if (value == nullptr) return out;
  if (const auto* numbers = std::get_if<std::vector<uint64_t>>(&value->data)) {
    for (const uint64_t number : *numbers) out.push_back(static_cast<char>(number & 0xFF));
    return out;
  }
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(&value->data)) {
    for (const int64_t number : *numbers) out.push_back(static_cast<char>(number & 0xFF));
    return out;
  }
  return wrong_type(key, "an array of bytes");
}

// T5 and its kin: unigram as the sentencepiece library does it.
Status read_unigram(const GgufFile& file, TokenizerSource& source) {
  source.model = TokenizerSource::Model::kUnigram;
  if (source.scores.empty()) {
    return bad_input(Refusal::kRange, "a unigram tokenizer needs scores").at(key_of("scores"));
  }
  source.padding = 0;
  source.eos = 1;
  source.unknown = 2;
  source.as_sentencepiece = source.fuse_unknown = true;
  source.byte_fallback =
      std::find(source.kinds.begin(), source.kinds.end(), TokenKind::kByte) != source.kinds.end();
  normalizer::SentencePiece step;
  POME_ASSIGN_OR_RETURN(step.charsmap, get_bytes(file, "precompiled_charsmap"));
  POME_ASSIGN_OR_RETURN(const auto prefix, get_bool(file, "add_space_prefix"));
  POME_ASSIGN_OR_RETURN(const auto extra, get_bool(file, "remove_extra_whitespaces"));
  step.add_dummy_prefix = prefix.value_or(true);
  step.remove_extra_whitespaces = extra.value_or(false);
  for (size_t id = 0; id < source.kinds.size(); ++id) {
    if (source.kinds[id] == TokenKind::kUserDefined) {
      step.user_defined.push_back(source.tokens[id]);
    }
  }
  const bool strip = step.add_dummy_prefix;
  source.normalizer.emplace_back(std::move(step));
  source.decoder.emplace_back(decoder::Replace{{std::string(kSpaceMark), false}, " "});
  if (source.byte_fallback) source.decoder.emplace_back(decoder::ByteFallback{});
  source.decoder.emplace_back(decoder::Fuse{});
  if (strip) source.decoder.emplace_back(decoder::Strip{" ", 1, 0});
  return {};
}

// BERT. Converters write U+2581 before tokens that begin a word and drop the "##" of the others.
Status read_word_piece(const GgufFile& file, TokenizerSource& source) {
  source.model = TokenizerSource::Model::kWordPiece;
  source.scores.clear();
  source.continuing_subword_prefix = "##";
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const TokenKind kind = source.kinds.empty() ? TokenKind::kNormal : source.kinds[id];
    std::string& token = source.tokens[id];
    if (kind != TokenKind::kNormal || token.empty()) continue;
    if (token.compare(0, kSpaceMark.size(), kSpaceMark) == 0) {
      token.erase(0, kSpaceMark.size());
    } else {
      token.insert(0, "##");
    }
  }
  POME_ASSIGN_OR_RETURN(const auto lowercase, get_bool(file, "normalizer.lowercase"));
  POME_ASSIGN_OR_RETURN(const auto accents, get_bool(file, "normalizer.strip_accents"));
  normalizer::Bert step;
  step.lowercase = lowercase.value_or(true);
  step.strip_accents = accents.value_or(step.lowercase);
  source.normalizer.emplace_back(step);
  source.pre_tokenizer.emplace_back(pretokenizer::Bert{});
  source.decoder.emplace_back(decoder::WordPiece{});
  source.bos = 101;
  source.unknown = 100;
  source.padding = 0;
  source.eos = 102;
  // The key is spelled like this.
  for (const char* name : {"seperator_token_id", "eos_token_id"}) {
    POME_ASSIGN_OR_RETURN(const auto id, get_id(file, name));
    if (id) source.eos = id;
  }
  POME_ASSIGN_OR_RETURN(const auto cls, get_id(file, "cls_token_id"));
  if (cls) source.bos = cls;
  return {};
}

Status read_bpe(const GgufFile& file, TokenizerSource& source, bool& add_bos) {
  source.model = TokenizerSource::Model::kBpe;
  POME_RETURN_IF_ERROR(read_merges(file, source));
  source.scores.clear();  // merges say it all
  POME_ASSIGN_OR_RETURN(const auto* model, get<std::string>(file, key_of("model"), "a string"));
  POME_ASSIGN_OR_RETURN(const auto* pre, get<std::string>(file, key_of("pre"), "a string"));
  POME_ASSIGN_OR_RETURN(const auto* architecture,
                        get<std::string>(file, "general.architecture", "a string"));
  std::string name;
  if (*model == "gemma4") {
    name = *model;
  } else if (pre != nullptr) {
    name = *pre;
  } else if (architecture != nullptr && *architecture == "gpt2") {
    name = "gpt-2";
  } else {
    return unsupported("the file does not say how its BPE tokenizer cuts text")
        .at(key_of("pre"))
        .hint("convert the model again with a tool that writes this key");
  }
  auto steps = steps_of_ggml_pre(name);
  if (!steps) {
    return Status(StatusCode::kUnsupported,
                  "pre-tokenizer \"" + escape_for_terminal(name, 80) + "\" is not known",
                  Refusal::kRegex)
        .at(key_of("pre"));
  }
  source.normalizer = std::move(steps->normalizer);
  source.pre_tokenizer = std::move(steps->pre_tokenizer);
  source.ignore_merges = steps->ignore_merges;
  add_bos = steps->add_bos;
  if (steps->characters) {
    source.byte_fallback = true;
    source.normalizer.clear();
    read_characters(source);
  } else {
    source.decoder = {decoder::ByteLevel{}};
  }
  return {};
}

// The flags of Phi-3's added tokens do not travel in GGUF; readers know the model by its name.
bool is_phi3(const GgufFile& file) {
  const auto name = get<std::string>(file, "general.name", "a string");
  if (!name.ok() || *name == nullptr) return false;
  std::string lower = **name;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower.find("phi-3") != std::string::npos || lower.find("phi3") != std::string::npos;
}

void add_tokens(const GgufFile& file, TokenizerSource& source) {
  const bool phi3 = is_phi3(file);
  for (size_t id = 0; id < source.kinds.size(); ++id) {
    const TokenKind kind = source.kinds[id];
    const bool control = kind == TokenKind::kControl || kind == TokenKind::kUnknown;
    if ((!control && kind != TokenKind::kUserDefined) || source.tokens[id].empty()) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = source.tokens[id];
    token.special = control;
    token.rstrip = phi3 && token.content != "<unk>" && token.content != "<s>" &&
                   token.content != "<|endoftext|>";
    source.added.push_back(std::move(token));
  }
}

}  // namespace

Result<TokenizerSource> read_gguf_tokenizer(const GgufFile& file) {
  TokenizerSource source;
  source.origin = file.source ? file.source->name() : std::string("GGUF");
  const auto read = [&]() -> Status {
    const std::string key = key_of("model");
    POME_ASSIGN_OR_RETURN(const auto* model, get<std::string>(file, key, "a string"));
    if (model == nullptr) return {};
    const bool bpe = *model == "gpt2" || *model == "gemma4";
    const bool bert = *model == "bert", unigram = *model == "t5";
    if (*model != "llama" && !bpe && !bert && !unigram) {
      return unsupported("tokenizer model \"" + escape_for_terminal(*model, 60) +
                         "\" is not supported")
          .at(key);
    }
    POME_RETURN_IF_ERROR(read_vocabulary(file, source));
    bool bos_by_default = bert;
    if (bert) {
      POME_RETURN_IF_ERROR(read_word_piece(file, source));
    } else if (unigram) {
      POME_RETURN_IF_ERROR(read_unigram(file, source));
    } else {
      POME_RETURN_IF_ERROR(bpe ? read_bpe(file, source, bos_by_default)
                               : read_sentencepiece(file, source, bos_by_default));
    }
    POME_RETURN_IF_ERROR(read_ids(file, source));
    POME_ASSIGN_OR_RETURN(const auto add_bos, get_bool(file, "add_bos_token"));
    POME_ASSIGN_OR_RETURN(const auto add_eos, get_bool(file, "add_eos_token"));
    if (add_bos.value_or(bos_by_default) && source.bos) source.prefix_ids = {*source.bos};
    if (add_eos.value_or(bert || unigram) && source.eos) source.suffix_ids = {*source.eos};
    add_tokens(file, source);
    const auto text_of = [&](const std::optional<int32_t>& id) {
      return id ? source.tokens[static_cast<size_t>(*id)] : std::string();
    };
    source.bos_text = text_of(source.bos);
    source.eos_text = text_of(source.eos);
    POME_ASSIGN_OR_RETURN(const auto* chat,
                          get<std::string>(file, "tokenizer.chat_template", "a string"));
    if (chat != nullptr) source.chat_template = *chat;
    return {};
  };
  if (Status status = read(); !status.ok()) return std::move(status).in(source.origin);
  return source;
}

std::vector<std::pair<std::string, GgufValue>> tokenizer_keys(const GgufFile& file) {
  std::vector<std::pair<std::string, GgufValue>> out;
  for (const auto& entry : file.metadata)
    if (entry.first.starts_with("tokenizer.")) out.push_back(entry);
  return out;
}

}  // namespace pome
