#include "tokenizer/merge_table.h"

#include <algorithm>
#include <array>
#include <functional>

namespace pome {
MergeTable::MergeTable(size_t count) {
  size_t capacity = 16;
  while (capacity * 4 < count * 5) capacity *= 2;
  slots_.resize(capacity);
  mask_ = capacity - 1;
  while ((size_t{1} << log_bits_) < capacity * 8) ++log_bits_;
  bits_.resize(size_t{1} << (log_bits_ - 6));
}

MergeTable::MergeTable(const std::vector<Merge>& merges) {
  if (merges.empty()) return;
  *this = MergeTable(merges.size());
  for (const Merge& merge : merges) insert(merge);
}

void MergeTable::insert(const Merge& merge) {
  const uint64_t key = key_of(merge.left, merge.right);
  const uint64_t hashed = hash(key);
  const uint64_t bit = hashed >> (64 - log_bits_);
  bits_[bit >> 6] |= uint64_t{1} << (bit & 63);
  size_t i = hashed & mask_;
  while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
  slots_[i] = {key, merge.rank, merge.merged};
}

void MergeTable::apply(std::vector<int32_t>& ids, std::vector<uint32_t>* starts,
                       Scratch& scratch) const {
  if (ids.size() < 2 || slots_.empty()) return;
  if (ids.size() <= kScanLimit) {
    apply_by_scanning(ids, starts);
  } else {
    apply_by_heap(ids, starts, scratch);
  }
}

void MergeTable::apply_by_scanning(std::vector<int32_t>& ids, std::vector<uint32_t>* starts) const {
  // By the left symbol of a pair: its rank, kNoPair when it does not join, and what it becomes.
  constexpr uint64_t kNoPair = ~uint64_t{0};
  std::array<uint64_t, kScanLimit> ranks;
  std::array<int32_t, kScanLimit> merged;
  const auto look_at = [&](size_t i) {
    ranks[i] = kNoPair;
    if (ids[i] < 0 || ids[i + 1] < 0) return;
    const std::optional<Found> found = find(ids[i], ids[i + 1]);
    if (!found) return;
    ranks[i] = found->rank;
    merged[i] = found->merged;
  };
  size_t pairs = ids.size() - 1;
  for (size_t i = 0; i < pairs; ++i) look_at(i);
  while (pairs > 0) {
    size_t best = 0;
    for (size_t i = 1; i < pairs; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNoPair) break;
    ids[best] = merged[best];
    for (size_t i = best + 1; i < pairs; ++i) {
      ids[i] = ids[i + 1];
      ranks[i - 1] = ranks[i];
      merged[i - 1] = merged[i];
    }
    if (starts != nullptr) starts->erase(starts->begin() + static_cast<ptrdiff_t>(best) + 1);
    --pairs;
    if (best > 0) look_at(best - 1);
    if (best < pairs) look_at(best);
  }
  ids.resize(pairs + 1);
}

void MergeTable::apply_by_heap(std::vector<int32_t>& ids, std::vector<uint32_t>* starts,
                               Scratch& scratch) const {
  const auto count = static_cast<int32_t>(ids.size());
  auto& next = scratch.next;
  auto& previous = scratch.previous;
  auto& heap = scratch.heap;
  next.resize(ids.size());
  previous.resize(ids.size());
  heap.clear();
  // An entry is rank and position in one number: the smallest is the best pair, the leftmost of
  // equals. Whether it still holds is seen by looking its pair up again.
  const auto entry_at = [&](int32_t i) -> std::optional<uint64_t> {
    if (next[static_cast<size_t>(i)] == count) return std::nullopt;
    const int32_t left = ids[static_cast<size_t>(i)];
    const int32_t right = ids[static_cast<size_t>(next[static_cast<size_t>(i)])];
    if (left < 0 || right < 0) return std::nullopt;
    const std::optional<Found> found = find(left, right);
    if (!found) return std::nullopt;
    return static_cast<uint64_t>(found->rank) << 32 | static_cast<uint32_t>(i);
  };
  const auto push = [&](int32_t i) {
    if (const auto entry = entry_at(i)) {
      heap.push_back(*entry);
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  };
  for (int32_t i = 0; i < count; ++i) {
    next[static_cast<size_t>(i)] = i + 1;
    previous[static_cast<size_t>(i)] = i - 1;
  }
  for (int32_t i = 0; i + 1 < count; ++i) {
    if (const auto entry = entry_at(i)) heap.push_back(*entry);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());

  constexpr int32_t kGone = -2;  // in next[]: this symbol was joined to its left neighbour
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t entry = heap.back();
    heap.pop_back();
    const auto at = static_cast<int32_t>(entry & 0xFFFFFFFF);
    const auto i = static_cast<size_t>(at);
    if (next[i] == kGone || entry_at(at) != entry) continue;
    const auto right = static_cast<size_t>(next[i]);
    ids[i] = find(ids[i], ids[right])->merged;
    next[i] = next[right];
    next[right] = kGone;
    if (next[i] != count) previous[static_cast<size_t>(next[i])] = at;
    push(at);
    if (previous[i] >= 0) push(previous[i]);
  }
  size_t kept = 0;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    if (next[i] == kGone) continue;
    ids[kept] = ids[i];
    if (starts != nullptr) (*starts)[kept] = (*starts)[i];
    ++kept;
  }
  ids.resize(kept);
  if (starts != nullptr) starts->resize(kept);
}

}  // namespace pome
