// Finds added tokens (special ones and others) in text: the leftmost, and of those that begin there
// the longest, in time linear in the text whatever the tokens are (Aho-Corasick over the reversed
// tokens: reading backwards, the automaton knows at each position the longest token that begins
// there).
//
// Thread safety: immutable after construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace pome {

class TokenMatcher {
 public:
  TokenMatcher() = default;
  // `texts[i]` is found as number i. Empty texts are never found; of equal texts the first is.
  explicit TokenMatcher(const std::vector<std::string_view>& texts);
  bool empty() const { return nodes_.size() <= 1; }

  struct Match {
    size_t begin = 0, end = 0;
    uint32_t number = 0;
  };
  // The longest text that begins at each position where one does, from the last position to the
  // first. A text that touches a range of `closed` (sorted, not overlapping) is not seen.
  std::vector<Match> longest_backwards(std::string_view text,
                                       std::span<const TextRange> closed = {}) const;

 private:
  struct Node {
    uint32_t fail = 0;
    uint32_t length = 0;  // of the longest text that ends here, reading backwards; 0: none
    uint32_t number = 0;
    uint32_t parent = 0;
    uint8_t byte = 0;
  };
  uint32_t child(uint32_t node, uint8_t byte) const;  // 0: none
  uint32_t step(uint32_t node, uint8_t byte) const;
  std::vector<Node> nodes_;
  std::unordered_map<uint64_t, uint32_t> edges_;
  size_t find_end_before(std::string_view text, size_t end) const;
  bool ends_with_[256] = {};    // whether a text ends with this byte
  int only_end_ = -1;           // the byte that all texts end with, or -1
  std::vector<bool> last_two_;  // by 256 * last byte but one + last byte: whether a text ends so
};

}  // namespace pome
