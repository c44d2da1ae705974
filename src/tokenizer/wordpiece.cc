#include <string>
#include <string_view>
#include <utility>

#include "tokenizer/subword_model.h"
#include "tokenizer/token_trie.h"
#include "tokenizer/unicode.h"

namespace pome {
namespace {

class WordPiece final : public SubwordModel {
 public:
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const override {
    auto& ids = scratch.ids;
    ids.clear();
    bool known = !has_more_characters(piece, max_characters_);
    for (size_t at = 0; known && at < piece.size();) {
      size_t longest = 0;
      int32_t best = -1;
      (at == 0 ? first_ : following_).walk(piece.substr(at), [&](size_t size, int32_t id) {
        longest = size;
        best = id;
      });
      known = best >= 0;
      ids.push_back(best);
      at += longest;
    }
    if (known) {
      out.insert(out.end(), ids.begin(), ids.end());
    } else if (unknown_ >= 0) {
      out.push_back(unknown_);
    }
  }

  TokenTrie first_, following_;
  size_t max_characters_ = 0;
  int32_t unknown_ = -1;

 private:
  static bool has_more_characters(std::string_view text, size_t limit) {
    if (text.size() <= limit) return false;
    size_t count = 0;
    for (size_t at = 0; at < text.size() && count <= limit; ++count)
      at += decode_rune(text, at).size;
    return count > limit;
  }
};

}  // namespace

Result<std::unique_ptr<SubwordModel>> make_wordpiece(const TokenizerSource& source,
                                                     const std::vector<bool>& text_of_user) {
  auto model = std::make_unique<WordPiece>();
  const std::string_view prefix = source.continuing_subword_prefix;
  std::vector<std::pair<std::string_view, int32_t>> first, following;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    if (!text_of_user[id]) continue;
    const std::string_view token = source.tokens[id];
    first.emplace_back(token, static_cast<int32_t>(id));
    if (token.substr(0, prefix.size()) == prefix) {
      following.emplace_back(token.substr(prefix.size()), static_cast<int32_t>(id));
    }
  }
  model->first_ = TokenTrie(std::move(first));
  model->following_ = TokenTrie(std::move(following));
  model->max_characters_ = source.max_input_chars_per_word;
  model->unknown_ = source.unknown.value_or(-1);
  return std::unique_ptr<SubwordModel>(std::move(model));
}

}  // namespace pome
