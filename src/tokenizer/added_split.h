// Cuts text at the added tokens of a tokenizer, with the rules of Hugging Face: the leftmost, then
// the longest; tokens may swallow white space on either side, and may want to stand alone.
//
// Thread safety: immutable after construction.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/tokenizer.h"

namespace pome {

class AddedGroup {
 public:
  AddedGroup() = default;
  // `texts[i]` is what tokens[i] is found by; `special[i]` whether it is a special token.
  AddedGroup(std::vector<AddedToken> tokens, const std::vector<std::string>& texts,
             const std::vector<bool>& special);
  bool empty() const { return special_.empty() && plain_.empty(); }
  bool has_special() const { return !special_.empty(); }

  // Calls on_text(begin, end) and on_token(id) in the order of the text. Special tokens are found
  // when `parse_special`, and never where they touch a range of `closed` (sorted, not overlapping).
  template <typename OnText, typename OnToken>
  void cut(std::string_view text, bool parse_special, std::span<const TextRange> closed,
           const OnText& on_text, const OnToken& on_token) const {
    size_t done = 0;  // text before this has been given out
    if (!empty()) {
      for (const Found& found : find(text, parse_special, closed)) {
        const AddedToken& token = tokens_[found.number];
        if (token.single_word && !stands_alone(text, found.begin, found.end)) continue;
        const size_t begin = token.lstrip ? space_before(text, found.begin, done) : found.begin;
        if (done < begin) on_text(done, begin);
        on_token(token.id);
        done = token.rstrip ? space_after(text, found.end) : found.end;
      }
    }
    if (done < text.size()) on_text(done, text.size());
  }

 private:
  struct Found {
    size_t begin = 0, end = 0;
    uint32_t number = 0;  // in tokens_
  };
  std::vector<Found> find(std::string_view text, bool parse_special,
                          std::span<const TextRange> closed) const;
  static size_t space_before(std::string_view text, size_t end, size_t limit);
  static size_t space_after(std::string_view text, size_t begin);
  static bool stands_alone(std::string_view text, size_t begin, size_t end);

  std::vector<AddedToken> tokens_;
  TokenMatcher special_, plain_;
  std::vector<uint32_t> special_numbers_, plain_numbers_;  // of their texts in tokens_
};

}  // namespace pome
