#include "tokenizer/added_tokens.h"

#include <string>

namespace pome {

TokenMatcher::TokenMatcher(const std::vector<std::string_view>& texts) {
  nodes_.emplace_back();
  for (size_t number = 0; number < texts.size(); ++number) {
    const std::string_view text = texts[number];
    if (text.empty()) continue;
    ends_with_[static_cast<uint8_t>(text.back())] = true;
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
    const auto byte = static_cast<uint8_t>(text[i]);
    if (node == 0 && !ends_with_[byte]) continue;
    node = step(node, byte);
    if (nodes_[node].length != 0) out.push_back({i, i + nodes_[node].length, nodes_[node].number});
  }
  return out;
}

}  // namespace pome
