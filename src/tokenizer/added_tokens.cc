#include "tokenizer/added_tokens.h"

#include <cstring>
#include <string>

namespace pome {

TokenMatcher::TokenMatcher(const std::vector<std::string_view>& texts) {
  nodes_.emplace_back();
  for (size_t number = 0; number < texts.size(); ++number) {
    const std::string_view text = texts[number];
    if (text.empty()) continue;
    const auto last = static_cast<uint8_t>(text.back());
    ends_with_[last] = true;
    if (last_two_.empty()) last_two_.resize(65536);
    for (size_t before = 0; before < 256; ++before) {
      const bool fits = text.size() == 1 || static_cast<uint8_t>(text[text.size() - 2]) == before;
      if (fits) last_two_[before << 8 | last] = true;
    }
    uint32_t node = 0;
    for (size_t i = text.size(); i-- > 0;) {
      const auto byte = static_cast<uint8_t>(text[i]);
      const auto [edge, added] =
          edges_.try_emplace(uint64_t{node} << 8 | byte, static_cast<uint32_t>(nodes_.size()));
      if (added) {
        Node fresh;
        fresh.parent = node;
        fresh.byte = byte;
        nodes_.push_back(fresh);
      }
      node = edge->second;
    }
    if (nodes_[node].length == 0) {
      nodes_[node].length = static_cast<uint32_t>(text.size());
      nodes_[node].number = static_cast<uint32_t>(number);
    }
  }
  for (int byte = 0, count = 0; byte < 256; ++byte) {
    if (!ends_with_[byte]) continue;
    only_end_ = ++count == 1 ? byte : -1;
  }
  // Breadth first, so that the failure of every parent is known before that of its children.
  std::vector<uint32_t> depth(nodes_.size(), 0);
  std::vector<uint32_t> order(nodes_.size());
  for (uint32_t node = 1; node < nodes_.size(); ++node)
    depth[node] = depth[nodes_[node].parent] + 1;
  // Counting sort by depth.
  uint32_t deepest = 0;
  for (const uint32_t d : depth) deepest = d > deepest ? d : deepest;
  std::vector<size_t> begin(size_t{deepest} + 2, 0);
  for (const uint32_t d : depth) ++begin[size_t{d} + 1];
  for (size_t d = 1; d < begin.size(); ++d) begin[d] += begin[d - 1];
  for (uint32_t node = 0; node < nodes_.size(); ++node) order[begin[depth[node]]++] = node;
  for (const uint32_t node : order) {
    if (node == 0) continue;
    Node& here = nodes_[node];
    if (here.parent != 0) here.fail = step(nodes_[here.parent].fail, here.byte);
    // A token that begins here is at most as long as the node is deep: its own, else that of the
    // longest suffix.
    if (here.length == 0) {
      here.length = nodes_[here.fail].length;
      here.number = nodes_[here.fail].number;
    }
  }
}

uint32_t TokenMatcher::child(uint32_t node, uint8_t byte) const {
  const auto found = edges_.find(uint64_t{node} << 8 | byte);
  return found == edges_.end() ? 0 : found->second;
}

uint32_t TokenMatcher::step(uint32_t node, uint8_t byte) const {
  while (true) {
    const uint32_t next = child(node, byte);
    if (next != 0 || node == 0) return next;
    node = nodes_[node].fail;
  }
}

// One behind the last place before `end` at which a text may end; 0: none.
size_t TokenMatcher::find_end_before(std::string_view text, size_t end) const {
  if (only_end_ >= 0) {
    constexpr uint64_t kOnes = 0x0101010101010101ull;
    const uint64_t wanted = kOnes * static_cast<uint64_t>(only_end_);
    for (; end >= 8; end -= 8) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + end - 8, 8);
      word ^= wanted;
      if (((word - kOnes) & ~word & (kOnes << 7)) != 0) break;  // one of the eight bytes is zero
    }
  }
  while (end > 0 && !ends_with_[static_cast<uint8_t>(text[end - 1])]) --end;
  return end;
}

std::vector<TokenMatcher::Match> TokenMatcher::longest_backwards(
    std::string_view text, std::span<const TextRange> closed) const {
  std::vector<Match> out;
  if (empty()) return out;
  uint32_t node = 0;
  size_t left = closed.size();
  for (size_t i = text.size(); i-- > 0;) {
    while (left > 0 && closed[left - 1].begin > i) --left;
    if (left > 0 && i < closed[left - 1].end) {
      node = 0;
      i = closed[left - 1].begin;
      continue;
    }
    if (node == 0) {
      // Whatever lies between is passed over, but not what is closed.
      const size_t found = find_end_before(text, i + 1);
      if (found <= i) {
        i = found;
        continue;
      }
      if (i > 0 && !last_two_[size_t{static_cast<uint8_t>(text[i - 1])} << 8 |
                              static_cast<uint8_t>(text[i])]) {
        continue;
      }
    }
    const auto byte = static_cast<uint8_t>(text[i]);
    node = step(node, byte);
    if (nodes_[node].length != 0) out.push_back({i, i + nodes_[node].length, nodes_[node].number});
  }
  return out;
}

}  // namespace pome
