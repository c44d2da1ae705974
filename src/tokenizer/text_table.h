// A hash table from texts to ids, flat and quick to build: the vocabularies of tokenizers.
//
// Thread safety: immutable after the last insert().
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace pome {

// Not for keys that an attacker may choose without limit: tables hold vocabularies.
inline uint64_t hash_text(std::string_view text) {
  constexpr uint64_t kA = 0x9E3779B97F4A7C15ull, kB = 0xC2B2AE3D27D4EB4Full;
  const char* p = text.data();
  size_t left = text.size();
  uint64_t hash = left * kA;
  while (left >= 8) {
    uint64_t word = 0;
    std::memcpy(&word, p, 8);
    hash = (hash ^ word) * kB;
    hash ^= hash >> 29;
    p += 8;
    left -= 8;
  }
  if (left != 0) {
    uint64_t word = 0;
    std::memcpy(&word, p, left);
    hash = (hash ^ word) * kB;
    hash ^= hash >> 29;
  }
  hash *= kA;
  return hash ^ hash >> 32;
}

// The texts themselves stay where they are: text_of(id) gives them.
class TextTable {
 public:
  explicit TextTable(size_t count = 0) {
    size_t capacity = 16;
    while (capacity * 3 < count * 4 + 4) capacity *= 2;
    slots_.resize(capacity);
  }
  // The id that has the text already, or -1 when `id` is its id from now on. At most as many as the
  // table was made for.
  template <typename TextOf>
  int32_t insert(std::string_view text, int32_t id, const TextOf& text_of) {
    const uint64_t hash = hash_text(text);
    for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
      Slot& slot = slots_[i];
      if (slot.id < 0) {
        slot = {static_cast<uint32_t>(hash >> 32), id};
        return -1;
      }
      if (slot.tag == hash >> 32 && text_of(slot.id) == text) return slot.id;
    }
  }
  template <typename TextOf>
  int32_t find(std::string_view text, const TextOf& text_of) const {  // -1: none
    const uint64_t hash = hash_text(text);
    for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[i];
      if (slot.id < 0) return -1;
      if (slot.tag == hash >> 32 && text_of(slot.id) == text) return slot.id;
    }
  }

 private:
  struct Slot {
    uint32_t tag = 0;  // the upper half of the hash
    int32_t id = -1;
  };
  std::vector<Slot> slots_;
};

}  // namespace pome
