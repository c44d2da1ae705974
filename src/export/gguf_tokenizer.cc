// TokenizerSource -> tokenizer.ggml.*: byte-level BPE with merges ("gpt2") and BPE over characters
// with U+2581 for spaces ("llama", by scores).
#include <algorithm>
#include <unordered_map>

#include "export/gguf.h"
#include "tokenizer/ggml_pre.h"

namespace pome {

namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

bool is_byte_token(std::string_view text) {
  return text.size() == 6 && text.substr(0, 3) == "<0x" && text[5] == '>';
}

bool marks_spaces(const TokenizerSource& source) {
  for (const NormalizerStep& step : source.normalizer) {
    if (const auto* replace = std::get_if<normalizer::Replace>(&step))
      if (replace->content == kSpaceMark && replace->pattern.text == " ") return true;
    if (std::holds_alternative<normalizer::SentencePiece>(step)) return true;
  }
  for (const PreTokenizerStep& step : source.pre_tokenizer)
    if (std::holds_alternative<pretokenizer::Metaspace>(step)) return true;
  return false;
}

bool puts_space_in_front(const TokenizerSource& source) {
  for (const NormalizerStep& step : source.normalizer) {
    if (std::holds_alternative<normalizer::Prepend>(step)) return true;
    if (const auto* piece = std::get_if<normalizer::SentencePiece>(&step))
      return piece->add_dummy_prefix;
  }
  for (const PreTokenizerStep& step : source.pre_tokenizer)
    if (const auto* space = std::get_if<pretokenizer::Metaspace>(&step))
      return space->prepend != PrependScheme::kNever;
  return false;
}

std::vector<TokenKind> kinds_of(const TokenizerSource& source) {
  std::vector<TokenKind> kinds = source.kinds;
  kinds.resize(source.tokens.size(), TokenKind::kNormal);
  for (const AddedToken& token : source.added)
    if (static_cast<size_t>(token.id) < kinds.size() &&
        kinds[static_cast<size_t>(token.id)] != TokenKind::kUnknown)
      kinds[static_cast<size_t>(token.id)] =
          token.special ? TokenKind::kControl : TokenKind::kUserDefined;
  for (size_t id = 0; id < kinds.size(); ++id)
    if (source.byte_fallback && is_byte_token(source.tokens[id])) kinds[id] = TokenKind::kByte;
  if (source.unknown && static_cast<size_t>(*source.unknown) < kinds.size() && source.byte_fallback)
    kinds[static_cast<size_t>(*source.unknown)] = TokenKind::kUnknown;
  return kinds;
}

// A pair merges earlier the higher the score of what it becomes.
std::vector<double> scores_of(const TokenizerSource& source) {
  if (!source.scores.empty()) return source.scores;
  std::unordered_map<std::string, double> by_text;
  for (size_t rank = 0; rank < source.merges.size(); ++rank)
    by_text.emplace(source.merges[rank].first + source.merges[rank].second,
                    -static_cast<double>(rank) - 1);
  std::vector<double> out(source.tokens.size(), 0.0);
  for (size_t id = 0; id < out.size(); ++id)
    if (const auto found = by_text.find(source.tokens[id]); found != by_text.end())
      out[id] = found->second;
  return out;
}

class Writer {
 public:
  Writer(const TokenizerSource& source, int64_t vocab_size)
      : source_(source), size_(static_cast<size_t>(std::max<int64_t>(0, vocab_size))) {}

  void text(const char* name, std::string value) {
    out_.emplace_back(key(name), GgufValue::string(std::move(value)));
  }
  void flag(const char* name, bool value) {
    out_.emplace_back(key(name), GgufValue::boolean(value));
  }
  void id(const char* name, const std::optional<int32_t>& value) {
    if (value && *value >= 0 && static_cast<size_t>(*value) < size_)
      out_.emplace_back(key(name), GgufValue::u32(static_cast<uint32_t>(*value)));
  }
  void vocabulary(bool scored) {
    std::vector<std::string> tokens = source_.tokens;
    std::vector<int64_t> types;
    for (const TokenKind kind : kinds_of(source_)) types.push_back(static_cast<int64_t>(kind));
    const size_t known = std::min(tokens.size(), size_);
    tokens.resize(size_);
    types.resize(size_, static_cast<int64_t>(TokenKind::kUnused));
    for (size_t i = 0; i < size_; ++i) {
      // Rows without a token, and holes: every text must be one of its own.
      if (i < known && !tokens[i].empty()) continue;
      tokens[i] = "[PAD" + std::to_string(i) + "]";
      types[i] = static_cast<int64_t>(TokenKind::kUnused);
    }
    out_.emplace_back(key("tokens"), GgufValue::strings(std::move(tokens)));
    if (scored) {
      std::vector<double> scores = scores_of(source_);
      scores.resize(size_, -1e4);
      out_.emplace_back(key("scores"), GgufValue::f32s(std::move(scores)));
    }
    out_.emplace_back(key("token_type"), GgufValue::i32s(std::move(types)));
  }
  void merges() {
    std::vector<std::string> lines;
    for (const auto& [left, right] : source_.merges) lines.push_back(left + " " + right);
    out_.emplace_back(key("merges"), GgufValue::strings(std::move(lines)));
  }
  void ends_and_template() {
    id("bos_token_id", source_.bos);
    id("eos_token_id", source_.eos);
    id("unknown_token_id", source_.unknown);
    id("padding_token_id", source_.padding);
    // Other tokens that end a turn: readers know one such key.
    std::optional<int32_t> turn = source_.end_of_turn;
    for (const int32_t stop : source_.stop_ids)
      if (!turn && stop != source_.eos) turn = stop;
    id("eot_token_id", turn);
    id("eom_token_id", source_.end_of_message);
    flag("add_bos_token", source_.add_bos());
    flag("add_eos_token", source_.add_eos());
    if (!source_.chat_template.empty())
      out_.emplace_back("tokenizer.chat_template", GgufValue::string(source_.chat_template));
  }
  GgufMetadata take() { return std::move(out_); }

 private:
  static std::string key(const char* name) { return std::string("tokenizer.ggml.") + name; }
  const TokenizerSource& source_;
  size_t size_;
  GgufMetadata out_;
};

}  // namespace

std::string gguf_model_name(const std::string& name, const TokenizerSource& source) {
  std::string lower = name;
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  const size_t dashed = lower.find("phi-3"), plain = lower.find("phi3");
  const bool named = dashed != std::string::npos || plain != std::string::npos;
  bool possible = true;
  for (const char* token : {"</s>", "<unk>", "<s>", "<|endoftext|>"})
    possible = possible &&
               std::find(source.tokens.begin(), source.tokens.end(), token) != source.tokens.end();
  const bool wanted = possible && std::any_of(source.added.begin(), source.added.end(),
                                              [](const AddedToken& token) { return token.rstrip; });
  if (named && !possible) {
    std::string other = name;
    other[dashed != std::string::npos ? dashed + 3 : plain + 2] = '_';
    return other;
  }
  return wanted && !named ? name + " phi-3" : name;
}

Result<GgufMetadata> gguf_tokenizer(const TokenizerSource& source, int64_t vocab_size,
                                    std::vector<std::string>* warnings) {
  Writer writer(source, vocab_size);
  if (source.model == TokenizerSource::Model::kNone) return writer.take();
  const auto refuse = [&](const std::string& what) {
    return unsupported("GGUF has no form for " + what)
        .in(source.origin)
        .hint("convert to coreml or onnx, where the tokenizer's own files travel along");
  };
  if (source.model != TokenizerSource::Model::kBpe) return refuse("a tokenizer that is not BPE");
  if (!source.end_of_word_suffix.empty() || !source.continuing_subword_prefix.empty())
    return refuse("BPE with marks at word ends");
  if (marks_spaces(source)) {
    writer.text("model", "llama");
    writer.text("pre", "default");
    writer.vocabulary(true);
    writer.flag("add_space_prefix", puts_space_in_front(source));
  } else {
    if (source.merges.empty()) return refuse("byte-level BPE without merges");
    const auto pre = ggml_pre_of(source.pre_tokenizer, source.ignore_merges);
    if (!pre)
      warnings->push_back(
          "llama.cpp has no name for how this tokenizer cuts text: it will cut some texts "
          "otherwise");
    writer.text("model", "gpt2");
    writer.text("pre", std::string(pre.value_or("default")));
    writer.vocabulary(false);
    writer.merges();
  }
  writer.ends_and_template();
  return writer.take();
}

}  // namespace pome
