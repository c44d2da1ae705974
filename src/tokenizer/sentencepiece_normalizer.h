// What the sentencepiece library does to a text before it looks for pieces: its map of characters,
// spaces at the ends and runs of spaces, the dummy prefix, and U+2581 for spaces. Linear time.
//
// Thread safety: immutable.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/token_trie.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_steps.h"

namespace pome {

class SentencePieceNormalizer {
 public:
  // Refusals are those of CharsMap::parse.
  static Result<SentencePieceNormalizer> create(const normalizer::SentencePiece& step);

  // `ranges` (null, or sorted and not overlapping) of the text become those of the result that came
  // from them; a replacement belongs to a range when any part of what it replaces does.
  std::string run(std::string_view text, std::vector<TextRange>* ranges = nullptr) const;

 private:
  struct Part {
    std::string_view text;  // what stands for the next `size` bytes
    size_t size = 0;
  };
  Part next_part(std::string_view text) const;

  normalizer::SentencePiece options_;
  CharsMap map_;
  TokenTrie user_defined_;
};

}  // namespace pome
