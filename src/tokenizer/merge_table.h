// The merges of a BPE model, (left id, right id) -> (rank, merged id), and the merge loop.
//
// Each step joins the pair of lowest rank, the leftmost of equals (Sennrich et al. 2016, as
// Hugging Face tokenizers and llama.cpp apply it). O(n log n) for n symbols, constant stack.
// Thread safety: immutable after building; each thread brings its own Scratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace pome {

struct Merge {
  int32_t left = 0, right = 0, merged = 0;
  uint32_t rank = 0;  // pairs may share a rank
};

class MergeTable {
 public:
  MergeTable() = default;
  // Of merges with one and the same pair the last one counts. Ids are not negative.
  explicit MergeTable(const std::vector<Merge>& merges);
  // An empty table with room for so many.
  explicit MergeTable(size_t count);
  void insert(const Merge& merge);

  struct Found {
    uint32_t rank = 0;
    int32_t merged = 0;
  };
  std::optional<Found> find(int32_t left, int32_t right) const {
    if (slots_.empty()) return std::nullopt;
    const uint64_t key = key_of(left, right);
    const uint64_t hashed = hash(key);
    if (!may_have(hashed)) return std::nullopt;
    for (size_t i = hashed & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.key == key) return Found{slot.rank, slot.merged};
      if (slot.key == kEmpty) return std::nullopt;
    }
  }

  // Working memory of apply(), reused between calls.
  struct Scratch {
    std::vector<int32_t> next, previous;
    std::vector<uint64_t> heap;
  };
  // Merges `ids` in place; a negative id never merges. `starts`, where given, holds the text offset
  // of each symbol and keeps that of the leftmost part.
  void apply(std::vector<int32_t>& ids, std::vector<uint32_t>* starts, Scratch& scratch) const;
  // The two ways that apply() chooses between by length; the results are equal. Scanning takes up
  // to kScanLimit symbols.
  static constexpr size_t kScanLimit = 32;
  void apply_by_scanning(std::vector<int32_t>& ids, std::vector<uint32_t>* starts) const;
  void apply_by_heap(std::vector<int32_t>& ids, std::vector<uint32_t>* starts,
                     Scratch& scratch) const;

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    uint32_t rank = 0;
    int32_t merged = 0;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  static uint64_t hash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15ull;
    return key >> 32 ^ key << 12;
  }
  // Most pairs that are asked for do not join. A bit for each hash keeps them away from the slots,
  // which are too many for the caches near the processor.
  bool may_have(uint64_t hashed) const {
    const uint64_t bit = hashed >> (64 - log_bits_);
    return (bits_[bit >> 6] >> (bit & 63) & 1) != 0;
  }
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  std::vector<uint64_t> bits_;
  int log_bits_ = 6;
};

}  // namespace pome
