// The ids of words that were seen already, by their bytes: most words of a text are a few hundred.
//
// Direct-mapped: a word that hashes to the place of another one replaces it.
// Thread safety: one thread.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace pome {

class WordCache {
 public:
  static constexpr size_t kMaxWord = 15, kMaxIds = 3;
  struct Key {
    uint64_t low = 0, high = 0;  // the bytes, then their number
  };
  struct Slot {
    Key key;
    int32_t ids[kMaxIds] = {};
    uint32_t count = 0;
  };
  static_assert(sizeof(Slot) == 32);

  // `readable`: so many bytes may be read from the beginning of the word (which has 1 to kMaxWord).
  static Key key_of(std::string_view word, size_t readable) {
    Key key;
    const size_t size = word.size();
    if (std::endian::native == std::endian::little && readable >= 16) {
      std::memcpy(&key.low, word.data(), 8);
      std::memcpy(&key.high, word.data() + 8, 8);
      if (size < 8) {
        key.low &= ~uint64_t{0} >> (64 - 8 * size);
        key.high = 0;
      } else {
        key.high &= size == 8 ? 0 : ~uint64_t{0} >> (128 - 8 * size);
      }
    } else {
      char bytes[16] = {};
      std::memcpy(bytes, word.data(), size);
      std::memcpy(&key.low, bytes, 8);
      std::memcpy(&key.high, bytes + 8, 8);
    }
    key.high ^= std::endian::native == std::endian::little ? uint64_t{size} << 56 : size;
    return key;
  }
  Slot& slot(const Key& key) {
    const uint64_t hash = (key.low ^ key.high * 0xC2B2AE3D27D4EB4Full) * 0x9E3779B97F4A7C15ull;
    return slots_[hash >> (64 - kLogSlots)];
  }
  static bool holds(const Slot& slot, const Key& key) {
    return slot.key.low == key.low && slot.key.high == key.high;
  }

 private:
  static constexpr int kLogSlots = 15;
  std::vector<Slot> slots_ = std::vector<Slot>(size_t{1} << kLogSlots);
};

}  // namespace pome
