// The ids of words that were seen already, by their bytes: most words of a text are a few hundred.
//
// Two words share a place; a third one replaces the one that was not asked for last. Thread safety:
// one thread.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

namespace pome {

// Words of up to 8 * kUnits - 1 bytes that become up to kIds tokens.
template <size_t kUnits, size_t kIds, int kLogPlaces>
class WordCache {
 public:
  static constexpr size_t kMaxWord = 8 * kUnits - 1, kMaxIds = kIds;
  using Key = std::array<uint64_t, kUnits>;  // the bytes, then their number
  struct Slot {
    Key key{};
    std::array<int32_t, kIds> ids{};
    uint32_t count = 0;
  };
  struct Place {
    std::array<Slot, 2> slots;
  };
  static_assert(sizeof(Slot) == 8 * kUnits + 4 * kIds + 4);

  // `readable`: so many bytes may be read from the beginning of the word (which has 1 to kMaxWord).
  static Key key_of(std::string_view word, size_t readable) {
    Key key{};
    const size_t size = word.size();
    if (std::endian::native == std::endian::little && readable >= sizeof(Key)) {
      std::memcpy(key.data(), word.data(), sizeof(Key));
      for (size_t i = 0; i < kUnits; ++i) {
        const size_t begin = 8 * i;
        const uint64_t all = ~uint64_t{0};
        key[i] &= size <= begin ? 0 : size >= begin + 8 ? all : all >> (64 - 8 * (size - begin));
      }
    } else {
      std::memcpy(key.data(), word.data(), size);
    }
    key.back() ^= std::endian::native == std::endian::little ? uint64_t{size} << 56 : size;
    return key;
  }
  Place* place(const Key& key) {
    uint64_t hash = 0;
    for (const uint64_t unit : key) hash = (hash ^ hash >> 32 ^ unit) * 0x9E3779B97F4A7C15ull;
    return &places_[hash >> (64 - kLogPlaces)];
  }
  // nullptr: not there.
  static const Slot* find(Place* place, const Key& key) {
    Slot& first = place->slots[0];
    if (equal(first.key, key)) return &first;
    if (!equal(place->slots[1].key, key)) return nullptr;
    std::swap(first, place->slots[1]);
    return &first;
  }
  static void put(Place* place, const Key& key, const int32_t* ids, size_t count) {
    place->slots[1] = place->slots[0];
    Slot& slot = place->slots[0];
    slot.key = key;
    slot.count = static_cast<uint32_t>(count);
    for (size_t i = 0; i < count; ++i) slot.ids[i] = ids[i];
  }

 private:
  static bool equal(const Key& a, const Key& b) {
    uint64_t difference = 0;
    for (size_t i = 0; i < kUnits; ++i) difference |= a[i] ^ b[i];
    return difference == 0;
  }
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  // Zeros are empty slots. Pages that no word falls on are never touched.
  std::unique_ptr<Place[], Free> places_{
      static_cast<Place*>(std::calloc(size_t{1} << kLogPlaces, sizeof(Place)))};
};

using ShortWordCache = WordCache<2, 3, 15>;
using LongWordCache = WordCache<4, 7, 11>;

}  // namespace pome
