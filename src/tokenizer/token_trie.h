// All tokens that a text begins with, found byte by byte. Nine bytes for each node: the nodes are
// numbered breadth first, so that the children of each stand together and those of its neighbours
// follow.
//
// Thread safety: immutable after construction.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace pome {

class TokenTrie {
 public:
  TokenTrie() = default;
  // (text, id); of equal texts the last one counts. Empty texts are left out.
  explicit TokenTrie(std::vector<std::pair<std::string_view, int32_t>> tokens);
  bool empty() const { return labels_.empty(); }

  // found(size, id) for each token that `text` begins with, the shortest first.
  template <typename Found>
  void walk(std::string_view text, const Found& found) const {
    if (text.empty() || empty()) return;
    uint32_t node = roots_[static_cast<uint8_t>(text[0])];
    for (size_t i = 1; node != kNone; ++i) {
      if (ids_[node] >= 0) found(i, ids_[node]);
      if (i == text.size()) return;
      const uint32_t begin = children_[node], count = children_[node + 1] - begin;
      const void* at =
          count == 0 ? nullptr : std::memchr(&labels_[begin], static_cast<uint8_t>(text[i]), count);
      if (at == nullptr) return;
      node = static_cast<uint32_t>(static_cast<const uint8_t*>(at) - labels_.data());
    }
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  std::array<uint32_t, 256> roots_{};
  std::vector<uint8_t> labels_;     // byte that leads to a node
  std::vector<int32_t> ids_;        // token that ends at it, or -1
  std::vector<uint32_t> children_;  // first child; the next node's first child is the end
};

}  // namespace pome
