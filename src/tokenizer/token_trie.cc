#include "tokenizer/token_trie.h"

#include <algorithm>

namespace pome {

TokenTrie::TokenTrie(std::vector<std::pair<std::string_view, int32_t>> tokens) {
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // Of each node the tokens below it, and how many bytes of them lead to it.
  struct Span {
    size_t begin, end, depth;
  };
  std::vector<Span> spans;
  const auto add_children = [&](Span span) {
    while (span.begin < span.end) {
      const char byte = tokens[span.begin].first[span.depth];
      size_t end = span.begin;
      while (end < span.end && tokens[end].first[span.depth] == byte) ++end;
      labels_.push_back(static_cast<uint8_t>(byte));
      spans.push_back({span.begin, end, span.depth + 1});
      span.begin = end;
    }
  };
  roots_.fill(kNone);
  size_t first = 0;
  while (first < tokens.size() && tokens[first].first.empty()) ++first;
  add_children({first, tokens.size(), 0});
  for (size_t i = 0; i < labels_.size(); ++i) roots_[labels_[i]] = static_cast<uint32_t>(i);
  for (size_t node = 0; node < labels_.size(); ++node) {
    Span span = spans[node];
    int32_t id = -1;
    for (; span.begin < span.end && tokens[span.begin].first.size() == span.depth; ++span.begin) {
      id = tokens[span.begin].second;
    }
    ids_.push_back(id);
    children_.push_back(static_cast<uint32_t>(labels_.size()));
    add_children(span);
  }
  children_.push_back(static_cast<uint32_t>(labels_.size()));
}

}  // namespace pome
