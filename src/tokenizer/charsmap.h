// SentencePiece's precompiled map of characters: which sequences of characters a model replaces
// before anything else (`precompiled_charsmap` of tokenizer.model and tokenizer.json).
//
// Layout, little-endian: u32 size in bytes of a double array trie (the unit format of the
// darts-clone library); its units of four bytes; then the replacements, UTF-8 text of which each
// ends with NUL. The value of a key is the offset of its replacement.
//
// Thread safety: immutable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pome {

class CharsMap {
 public:
  // A map that replaces nothing.
  CharsMap() = default;
  // kTrunc, kBounds (units or replacements outside), kUtf8, kRange (a trie that leads back into
  // itself), kLimit (keys of more than 256 bytes). An empty `bytes` is an empty map.
  static Result<CharsMap> parse(std::string_view bytes);
  bool empty() const { return units_.empty(); }

  // As the sentencepiece library does: at each place the longest key that begins there is replaced;
  // a byte that is not UTF-8 becomes U+FFFD.
  std::string replace_longest(std::string_view text) const;
  // As Hugging Face's `Precompiled` does: a grapheme cluster of up to five bytes that begins with a
  // key is replaced as a whole by what the shortest such key gives; in other clusters each
  // character is looked up alone, again by its shortest key.
  std::string replace_graphemes(std::string_view text) const;

  struct Match {
    size_t size = 0;  // bytes of the key
    std::string_view replacement;
  };
  std::optional<Match> longest(std::string_view text) const;
  std::optional<Match> shortest(std::string_view text) const;

 private:
  template <typename Found>
  void walk(std::string_view text, const Found& found) const;
  Match match(size_t size, uint32_t value) const;
  Status check_trie() const;
  Status check_value(uint32_t value) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace pome
