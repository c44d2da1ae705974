#include <bit>
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

}  // namespace

std::string Tokenizer::digest() const {
  const TokenizerSource& s = source();
  Canonical out;
  out.text("pome tokenizer 1");
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
  for (const bool flag :
       {s.ignore_merges, s.byte_fallback, s.fuse_unknown, s.as_sentencepiece, s.add_prefix_space,
        s.prefix_unless_space, s.prefix_only_first, s.escape_whitespace, s.escape_in_normalizer,
        s.split_at_spaces, s.strip_first_space, s.remove_extra_whitespace, s.add_bos, s.add_eos}) {
    out.number(flag);
  }
  out.text(s.pre_name);
  out.number(static_cast<int64_t>(s.pre_patterns.size()));
  for (const std::string& pattern : s.pre_patterns) out.text(pattern);
  for (const auto& id : {s.bos, s.eos, s.unknown, s.padding, s.end_of_turn, s.end_of_message}) {
    out.id(id);
  }
  out.text(s.bos_text);
  out.text(s.eos_text);
  out.text(s.chat_template);
  out.number(static_cast<int64_t>(stop_ids().size()));
  for (const int32_t id : stop_ids()) out.number(id);
  return out.finish();
}

}  // namespace pome
