#include <bit>
#include <span>
#include <vector>

#include "base/sha256.h"
#include "tokenizer/tokenizer.h"

namespace pome {
namespace {

// Every field with its length in front, so that no two different sources give the same bytes.
class Canonical {
 public:
  void text(std::string_view value) {
    sha_.update_u64(value.size());
    sha_.update(value);
  }
  void number(int64_t value) { sha_.update_u64(static_cast<uint64_t>(value)); }
  void id(const std::optional<int32_t>& value) {
    number(value ? 1 : 0);
    number(value.value_or(0));
  }
  std::string finish() { return to_hex(sha_.finish()); }

 private:
  Sha256 sha_;
};

// Every step with its number in the variant and all its fields.
struct StepDigest {
  Canonical& out;
  void pattern(const TextPattern& value) const {
    out.text(value.text);
    out.number(value.regex);
  }
  void operator()(const normalizer::UnicodeForm& s) const { out.number(static_cast<int>(s.form)); }
  void operator()(const normalizer::Lowercase& /*s*/) const {}
  void operator()(const normalizer::Strip& s) const { out.number(s.left | s.right << 1); }
  void operator()(const normalizer::StripAccents& /*s*/) const {}
  void operator()(const normalizer::Nmt& /*s*/) const {}
  void operator()(const normalizer::Prepend& s) const { out.text(s.text); }
  void operator()(const normalizer::Replace& s) const {
    pattern(s.pattern);
    out.text(s.content);
  }
  void operator()(const normalizer::Precompiled& s) const { out.text(s.charsmap); }
  void operator()(const normalizer::Bert& s) const {
    out.number(s.clean_text | s.handle_chinese_chars << 1 | s.strip_accents << 2 |
               s.lowercase << 3);
  }
  void operator()(const normalizer::ByteLevel& /*s*/) const {}
  void operator()(const normalizer::SentencePiece& s) const {
    out.text(s.charsmap);
    out.number(s.add_dummy_prefix | s.remove_extra_whitespaces << 1 | s.escape_whitespaces << 2 |
               s.treat_whitespace_as_suffix << 3);
    out.number(static_cast<int64_t>(s.user_defined.size()));
    for (const std::string& piece : s.user_defined) out.text(piece);
  }

  void operator()(const pretokenizer::ByteLevel& s) const {
    out.number(s.add_prefix_space | s.use_regex << 1);
  }
  void operator()(const pretokenizer::Metaspace& s) const {
    out.text(s.replacement);
    out.number(static_cast<int>(s.prepend) | s.split << 4);
  }
  void operator()(const pretokenizer::Whitespace& /*s*/) const {}
  void operator()(const pretokenizer::WhitespaceSplit& /*s*/) const {}
  void operator()(const pretokenizer::Bert& /*s*/) const {}
  void operator()(const pretokenizer::Punctuation& s) const {
    out.number(static_cast<int>(s.behavior));
  }
  void operator()(const pretokenizer::Digits& s) const { out.number(s.individual); }
  void operator()(const pretokenizer::Split& s) const {
    pattern(s.pattern);
    out.number(static_cast<int>(s.behavior) | s.invert << 4);
  }
  void operator()(const pretokenizer::CharDelimiter& s) const { out.text(s.delimiter); }
  void operator()(const pretokenizer::UnicodeScripts& /*s*/) const {}
  void operator()(const pretokenizer::FixedLength& s) const { out.number(s.length); }

  void operator()(const decoder::ByteLevel& /*s*/) const {}
  void operator()(const decoder::WordPiece& s) const {
    out.text(s.prefix);
    out.number(s.cleanup);
  }
  void operator()(const decoder::Metaspace& s) const {
    out.text(s.replacement);
    out.number(s.drop_in_first);
  }
  void operator()(const decoder::Bpe& s) const { out.text(s.suffix); }
  void operator()(const decoder::ByteFallback& /*s*/) const {}
  void operator()(const decoder::Fuse& /*s*/) const {}
  void operator()(const decoder::Strip& s) const {
    out.text(s.content);
    out.number(s.start);
    out.number(s.stop);
  }
  void operator()(const decoder::Replace& s) const {
    pattern(s.pattern);
    out.text(s.content);
  }
  void operator()(const decoder::Ctc& s) const {
    out.text(s.pad_token);
    out.text(s.word_delimiter_token);
    out.number(s.cleanup);
  }
  void operator()(const decoder::JoinWithSpaces& /*s*/) const {}
};

template <typename Step>
void add_steps(Canonical& out, const std::vector<Step>& steps) {
  out.number(static_cast<int64_t>(steps.size()));
  for (const Step& step : steps) {
    out.number(static_cast<int64_t>(step.index()));
    std::visit(StepDigest{out}, step);
  }
}

void add_ids(Canonical& out, std::span<const int32_t> ids) {
  out.number(static_cast<int64_t>(ids.size()));
  for (const int32_t id : ids) out.number(id);
}

}  // namespace

std::string Tokenizer::digest() const {
  const TokenizerSource& s = source();
  Canonical out;
  out.text("pome tokenizer 2");
  out.number(static_cast<int64_t>(s.model));
  out.number(static_cast<int64_t>(s.tokens.size()));
  for (const std::string& token : s.tokens) out.text(token);
  out.number(static_cast<int64_t>(s.scores.size()));
  for (const double score : s.scores) out.number(std::bit_cast<int64_t>(score));
  out.number(static_cast<int64_t>(s.kinds.size()));
  for (const TokenKind kind : s.kinds) out.number(static_cast<int64_t>(kind));
  out.number(static_cast<int64_t>(s.merges.size()));
  for (const auto& [left, right] : s.merges) {
    out.text(left);
    out.text(right);
  }
  out.number(static_cast<int64_t>(s.added.size()));
  for (const AddedToken& token : s.added) {
    out.number(token.id);
    out.text(token.content);
    out.number(token.special | token.lstrip << 1 | token.rstrip << 2 | token.normalized << 3 |
               token.single_word << 4);
  }
  out.number(s.ignore_merges | s.byte_fallback << 1 | s.fuse_unknown << 2 |
             s.as_sentencepiece << 3);
  out.text(s.continuing_subword_prefix);
  out.text(s.end_of_word_suffix);
  out.number(s.max_input_chars_per_word);
  add_steps(out, s.normalizer);
  add_steps(out, s.pre_tokenizer);
  add_steps(out, s.decoder);
  add_ids(out, s.prefix_ids);
  add_ids(out, s.suffix_ids);
  for (const auto& id : {s.bos, s.eos, s.unknown, s.padding, s.end_of_turn, s.end_of_message}) {
    out.id(id);
  }
  out.text(s.bos_text);
  out.text(s.eos_text);
  out.text(s.chat_template);
  add_ids(out, stop_ids());
  return out.finish();
}

}  // namespace pome
