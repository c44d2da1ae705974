#include "tokenizer/charsmap.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/utf8.h"
#include "tokenizer/grapheme.h"
#include "tokenizer/unicode.h"

namespace pome {
namespace {

constexpr size_t kMaxKeyBytes = 256;  // a step of text looks at no more than this
constexpr size_t kMaxResults = 32;    // of keys at one place; the library ignores the others
constexpr size_t kGraphemeLimit = 6;

// A unit of the trie: nine bits of label and kind, or 31 bits of a value.
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FF; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << (unit >> 6 & 8); }

}  // namespace

// found(size, value) -> whether to go on, for each key that `text` begins with.
template <typename Found>
void CharsMap::walk(std::string_view text, const Found& found) const {
  if (units_.empty()) return;
  uint32_t at = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (byte == 0 || at >= units_.size() || label_of(units_[at]) != byte) return;
    const bool leaf = has_leaf(units_[at]);
    at ^= offset_of(units_[at]);
    if (leaf && !found(i + 1, value_of(units_[at]))) return;
  }
}

CharsMap::Match CharsMap::match(size_t size, uint32_t value) const {
  return {size, std::string_view(replacements_.c_str() + value)};
}

std::optional<CharsMap::Match> CharsMap::longest(std::string_view text) const {
  std::optional<Match> out;
  size_t results = 0;
  walk(text, [&](size_t size, uint32_t value) {
    out = match(size, value);
    return ++results < kMaxResults;
  });
  return out;
}

std::optional<CharsMap::Match> CharsMap::shortest(std::string_view text) const {
  std::optional<Match> out;
  walk(text, [&](size_t size, uint32_t value) {
    out = match(size, value);
    return false;
  });
  return out;
}

Status CharsMap::check_value(uint32_t value) const {
  if (value >= replacements_.size()) {
    return bad_input(Refusal::kBounds, "replacement at " + std::to_string(value) + " of " +
                                           std::to_string(replacements_.size()) + " bytes");
  }
  if ((static_cast<uint8_t>(replacements_[value]) & 0xC0) == 0x80) {
    return bad_input(Refusal::kUtf8, "a replacement begins inside a character");
  }
  return {};
}

// Walks all paths from the root, each node once, and finds the longest way down from each. Nodes
// may be shared between paths, so that the longest way may be far longer than the trie is deep at
// first sight; a way that meets itself has no end.
Status CharsMap::check_trie() const {
  constexpr uint32_t kOpen = UINT32_MAX, kNone = UINT32_MAX;
  struct Frame {
    uint32_t base;
    uint32_t next = 1;  // label to look at next
    uint32_t depth = 0;
  };
  std::vector<uint32_t> depths(units_.size(), 0);  // by unit, plus one; 0: not seen
  std::vector<Frame> path{{offset_of(units_[0])}};
  while (!path.empty()) {
    Frame& frame = path.back();
    uint32_t child = kNone;
    for (; frame.next < 256 && child == kNone; ++frame.next) {
      const uint32_t at = frame.base ^ frame.next;
      if (at < units_.size() && label_of(units_[at]) == frame.next) child = at;
    }
    if (child == kNone) {
      const uint32_t depth = frame.depth;
      if (depth > kMaxKeyBytes) {
        return bad_input(Refusal::kLimit, "keys of more than 256 bytes");
      }
      path.pop_back();
      if (path.empty()) break;
      Frame& parent = path.back();
      depths[parent.base ^ (parent.next - 1)] = depth + 1;
      parent.depth = std::max(parent.depth, depth + 1);
      continue;
    }
    if (depths[child] == kOpen) {
      return bad_input(Refusal::kRange, "the trie leads back into itself");
    }
    if (depths[child] != 0) {
      frame.depth = std::max(frame.depth, depths[child]);
      continue;
    }
    depths[child] = kOpen;
    const uint32_t base = child ^ offset_of(units_[child]);
    if (has_leaf(units_[child])) {
      if (base >= units_.size()) {
        return bad_input(Refusal::kBounds, "a value outside of the trie");
      }
      POME_RETURN_IF_ERROR(check_value(value_of(units_[base])));
    }
    path.push_back({base});
  }
  return {};
}

Result<CharsMap> CharsMap::parse(std::string_view bytes) {
  CharsMap out;
  if (bytes.empty()) return out;
  const auto number_at = [&](size_t at) {
    const auto byte = [&](size_t i) { return uint32_t{static_cast<uint8_t>(bytes[at + i])}; };
    return byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
  };
  if (bytes.size() < 4) return bad_input(Refusal::kTrunc, "a map of less than 4 bytes");
  const uint32_t trie_bytes = number_at(0);
  if (trie_bytes > bytes.size() - 4) {
    return bad_input(Refusal::kTrunc, "a trie of " + std::to_string(trie_bytes) +
                                          " bytes in a map of " + std::to_string(bytes.size()));
  }
  if (trie_bytes == 0 || trie_bytes % 4 != 0) {
    return bad_input(Refusal::kRange, "a trie of " + std::to_string(trie_bytes) +
                                          " bytes is no whole number of units");
  }
  out.units_.resize(trie_bytes / 4);
  for (size_t i = 0; i < out.units_.size(); ++i) out.units_[i] = number_at(4 + 4 * i);
  out.replacements_ = bytes.substr(4 + size_t{trie_bytes});
  if (utf8_first_error(out.replacements_) != out.replacements_.size()) {
    return bad_input(Refusal::kUtf8, "the replacements are not UTF-8");
  }
  if (!out.replacements_.empty() && out.replacements_.back() != '\0') {
    return bad_input(Refusal::kTrunc, "the last replacement has no end");
  }
  POME_RETURN_IF_ERROR(out.check_trie());
  return out;
}

std::string CharsMap::replace_longest(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    if (const auto found = longest(text.substr(at))) {
      out += found->replacement;
      at += found->size;
      continue;
    }
    const Rune rune = decode_rune(text, at);
    append_utf8(out, rune.point);
    at += rune.size;
  }
  return out;
}

std::string CharsMap::replace_graphemes(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t end = next_grapheme(text, at);
    if (end - at < kGraphemeLimit) {
      if (const auto found = shortest(text.substr(at, end - at))) {
        out += found->replacement;
        at = end;
        continue;
      }
    }
    while (at < end) {
      const std::string_view character = text.substr(at, decode_rune(text, at).size);
      const auto found = shortest(character);
      out += found ? found->replacement : character;
      at += character.size();
    }
  }
  return out;
}

}  // namespace pome
