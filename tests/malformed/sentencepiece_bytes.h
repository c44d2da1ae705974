// Builds SentencePiece models and their maps of characters byte by byte, so that every field can be
// made wrong. Shares nothing with the readers.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pome::malformed {

// --- protobuf

inline std::string pb_varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
inline std::string pb_number(uint32_t field, uint64_t value) {
  return pb_varint(field << 3) + pb_varint(value);
}
inline std::string pb_bytes(uint32_t field, std::string_view bytes) {
  return pb_varint(field << 3 | 2) + pb_varint(bytes.size()) + std::string(bytes);
}
inline std::string pb_float(uint32_t field, float value) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &value, 4);
  return pb_varint(field << 3 | 5) + bits;
}

// --- map of characters

inline std::string le32(uint32_t value) {
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift));
  return out;
}

// The double array trie of `keys` with their values, by putting each node's children at the first
// base where they fit.
inline std::vector<uint32_t> trie_units(const std::map<std::string, uint32_t>& keys) {
  std::vector<uint32_t> units(1, 0);
  std::vector<bool> taken(1, true);
  std::set<uint32_t> bases;  // no two nodes may share one, or they would share their children
  struct Node {
    std::string prefix;
    uint32_t at;
  };
  std::vector<Node> open{{"", 0}};
  while (!open.empty()) {
    const Node node = open.back();
    open.pop_back();
    std::map<uint8_t, bool> labels;  // 0: the value
    for (const auto& [key, value] : keys) {
      if (key.substr(0, node.prefix.size()) != node.prefix) continue;
      const size_t at = node.prefix.size();
      labels[key.size() == at ? uint8_t{0} : static_cast<uint8_t>(key[at])] = true;
    }
    uint32_t base = 1;
    const auto fits = [&] {
      if (bases.count(base) != 0) return false;
      for (const auto& [label, there] : labels) {
        if ((base ^ label) < taken.size() && taken[base ^ label]) return false;
      }
      return true;
    };
    while (!fits()) ++base;
    bases.insert(base);
    units[node.at] |= (node.at ^ base) << 10;
    if (labels.count(0) != 0) units[node.at] |= 1u << 8;
    for (const auto& [label, there] : labels) {
      const uint32_t at = base ^ label;
      if (at >= units.size()) {
        units.resize(at + 1, 0);
        taken.resize(at + 1, false);
      }
      taken[at] = true;
      if (label == 0) {
        units[at] = keys.at(node.prefix) | 1u << 31;
      } else {
        units[at] = label;
        open.push_back({node.prefix + static_cast<char>(label), at});
      }
    }
  }
  return units;
}

inline std::string charsmap_of(const std::vector<uint32_t>& units, std::string_view replacements) {
  std::string out = le32(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) out += le32(unit);
  return out + std::string(replacements);
}
inline std::string charsmap_of(const std::map<std::string, std::string>& replaced) {
  std::string blob;
  std::map<std::string, uint32_t> keys;
  for (const auto& [key, replacement] : replaced) {
    keys[key] = static_cast<uint32_t>(blob.size());
    blob += replacement + '\0';
  }
  return charsmap_of(trie_units(keys), blob);
}

// --- model

struct SentencePieceBytes {
  struct Piece {
    std::string text;
    float score = 0;
    uint64_t type = 1;
    std::string bytes() const {
      return pb_bytes(1, text) + pb_float(2, score) + pb_number(3, type);
    }
  };
  std::vector<Piece> pieces;
  std::string more_pieces;  // messages behind them
  std::string trainer, normalizer;
  std::string end;  // behind all

  std::string build() const {
    std::string out;
    for (const Piece& piece : pieces) out += pb_bytes(1, piece.bytes());
    return out + more_pieces + pb_bytes(2, trainer) + pb_bytes(3, normalizer) + end;
  }
};

// BPE (type 2) or unigram (1) over a few letters.
inline SentencePieceBytes valid_sentencepiece(uint64_t model_type = 2) {
  SentencePieceBytes out;
  out.pieces = {{"<unk>", 0, 2},
                {"<s>", 0, 3},
                {"</s>", 0, 3},
                {"\xE2\x96\x81"
                 "ab",
                 -1},
                {"ab", -2},
                {"\xE2\x96\x81", -3},
                {"a", -4},
                {"b", -5},
                {"<x>", 0, 4}};
  out.trainer = pb_number(3, model_type);
  out.normalizer =
      pb_bytes(2, charsmap_of({{"A", "a"}})) + pb_number(3, 1) + pb_number(4, 1) + pb_number(5, 1);
  return out;
}
// The same with a piece for each byte.
inline SentencePieceBytes sentencepiece_with_bytes() {
  SentencePieceBytes out = valid_sentencepiece();
  const char* digits = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    out.pieces.push_back({std::string("<0x") + digits[byte >> 4] + digits[byte & 15] + ">", 0, 6});
  }
  out.trainer += pb_number(35, 1);
  return out;
}

}  // namespace pome::malformed
