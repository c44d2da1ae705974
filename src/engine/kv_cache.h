// The memory of a session's caches, which follows use.
//
// A cache slot is [heads, capacity, row]; rows of a head lie one behind the other. The whole is
// address space only: the system gives a page when a row in it is first written, so a session costs
// what its tokens take (and up to one page per head and slot). A table of pages would do the same
// with one more indirection in every kernel. Rows that are forgotten go back: those behind a
// truncation, and those that every later query of a sliding-window layer is past.
//
// Thread safety: one thread; rows may be written and read by several while none of this is called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "kernels/attention/kv_rows.h"

namespace pome {

struct CacheSlot {
  int64_t heads = 0, dim = 0;
  kernels::KvKind kind = kernels::KvKind::kF32;
  int64_t window = 0;  // > 0: a query sees this many keys at most, its own among them
  uint64_t offset = 0;
  int64_t row_bytes() const { return kernels::kv_row_bytes(kind, dim); }
};

// A cache that attention alone reads may be of any kind, and needs no more than the widest window
// that looks at it; one that other steps read too is f32 and whole. Its shape must be static.
CacheSlot cache_slot(const Graph& graph, const CachePair& pair, kernels::KvKind kind);
// Whether a node gives the first values of rows to attention alone: it reads them where they lie.
bool is_part_of_rows(const Graph& graph, const Node& node);

// Rows behind the window that stay, so that a context can be cut by as many tokens.
inline constexpr int64_t kWindowSlack = 1024;
// Rows are given back when so many can be.
inline constexpr int64_t kSlideStep = 256;

// Bytes that the slots take at most when the context is `tokens` long and calls have up to `chunk`.
uint64_t kv_bytes_at(const std::vector<CacheSlot>& slots, int64_t tokens, int64_t chunk);

class KvCache {
 public:
  // kDoesNotFit when there is not so much address space.
  static Result<KvCache> reserve(const std::vector<CacheSlot>& slots, int64_t capacity,
                                 uint64_t bytes);
  KvCache(KvCache&& other) noexcept;
  KvCache& operator=(KvCache&&) = delete;
  ~KvCache();

  std::byte* row(size_t slot, int64_t head, int64_t position) const;
  std::byte* base(size_t slot) const { return data_ + slots_[slot].offset; }
  const std::vector<CacheSlot>& slots() const { return slots_; }

  // Tokens before `position` are in the context, later rows are not needed.
  void set_used(int64_t position);
  int64_t used() const { return used_; }
  // The first row of a slot that is still there.
  int64_t first_row(size_t slot) const { return first_[slot]; }
  // Says that rows before `row` of a slot are not there: after loading.
  void set_first_row(size_t slot, int64_t row) { first_[slot] = row; }
  // Whether the context can be cut to `position`: no layer needs rows that are gone.
  bool can_cut(int64_t position) const;
  // Bytes that the system holds for the caches now (0 where it does not say).
  uint64_t resident_bytes() const;

 private:
  KvCache(const std::vector<CacheSlot>& slots, int64_t capacity, std::byte* data, size_t size);
  void release(size_t slot, int64_t begin, int64_t end);

  std::vector<CacheSlot> slots_;
  std::vector<int64_t> first_;
  int64_t capacity_ = 0, used_ = 0;  // rows from used_ on are not needed
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace pome
