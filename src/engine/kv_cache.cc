#include "engine/kv_cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

namespace pome {

namespace {

#if defined(MAP_NORESERVE)
constexpr int kMapFlags = MAP_PRIVATE | MAP_ANON | MAP_NORESERVE;
#else
constexpr int kMapFlags = MAP_PRIVATE | MAP_ANON;
#endif

size_t page_bytes() {
  static const auto kBytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return kBytes;
}

}  // namespace

namespace {

// Who reads rows of a cache.
struct Readers {
  bool only_attention = true, only_windows = true;
  int64_t window = 0;
};
void look_at_readers(const Graph& graph, ValueId rows, Readers* out) {
  if (rows == graph.output) out->only_attention = false;
  for (const Node& node : graph.nodes) {
    for (size_t i = 0; i < node.operands.size(); ++i) {
      if (node.operands[i] != rows || is_part_of_rows(graph, node)) continue;
      const auto* op = std::get_if<AttentionOp>(&node.op);
      if (!op || (i != 1 && i != 2)) {
        out->only_attention = false;
      } else {
        out->only_windows = out->only_windows && op->window > 0;
        out->window = std::max(out->window, op->window);
      }
    }
  }
}

}  // namespace

bool is_part_of_rows(const Graph& graph, const Node& node) {
  const auto* slice = std::get_if<SliceOp>(&node.op);
  if (!slice || (slice->axis != -1 && slice->axis != 3) || slice->begin != 0 || slice->step != 1)
    return false;
  const auto is_output = [&](const CachePair& pair) { return pair.output == node.operands[0]; };
  if (std::none_of(graph.caches.begin(), graph.caches.end(), is_output)) return false;
  if (node.result == graph.output) return false;
  return std::all_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& user) {
    for (size_t i = 0; i < user.operands.size(); ++i)
      if (user.operands[i] == node.result &&
          !(std::holds_alternative<AttentionOp>(user.op) && (i == 1 || i == 2)))
        return false;
    return true;
  });
}

CacheSlot cache_slot(const Graph& graph, const CachePair& pair, kernels::KvKind kind) {
  const SymShape& shape = graph.type(pair.input).shape;
  CacheSlot out{shape[1].size, shape[3].size, kind, 0, 0};
  Readers readers;
  look_at_readers(graph, pair.output, &readers);
  for (const Node& node : graph.nodes) {
    for (const ValueId id : node.operands) {
      if (id == pair.input && !std::holds_alternative<KvWriteOp>(node.op))
        readers.only_attention = false;
      if (id == pair.output && is_part_of_rows(graph, node))
        look_at_readers(graph, node.result, &readers);
    }
  }
  if (!readers.only_attention) out.kind = kernels::KvKind::kF32;
  if (readers.only_attention && readers.only_windows) out.window = readers.window;
  return out;
}

uint64_t kv_bytes_at(const std::vector<CacheSlot>& slots, int64_t tokens, int64_t chunk) {
  uint64_t total = 0;
  for (const CacheSlot& slot : slots) {
    const int64_t kept = slot.window > 0
                             ? std::min(tokens, slot.window + kWindowSlack + kSlideStep + chunk)
                             : tokens;
    total += static_cast<uint64_t>(slot.heads * kept) * static_cast<uint64_t>(slot.row_bytes());
  }
  return total;
}

Result<KvCache> KvCache::reserve(const std::vector<CacheSlot>& slots, int64_t capacity,
                                 uint64_t bytes) {
  if (bytes == 0) return KvCache(slots, capacity, nullptr, 0);
  const auto size = static_cast<size_t>(bytes);
  void* const data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, kMapFlags, -1, 0);
  if (data == MAP_FAILED)
    return does_not_fit("address space of " + std::to_string(bytes) + " bytes for a KV cache of " +
                        std::to_string(capacity) + " tokens is not available")
        .hint("use a smaller --context");
#if defined(MADV_NOHUGEPAGE)
  // A large page would be taken whole for the first row in it.
  ::madvise(data, size, MADV_NOHUGEPAGE);
#endif
  return KvCache(slots, capacity, static_cast<std::byte*>(data), size);
}

KvCache::KvCache(const std::vector<CacheSlot>& slots, int64_t capacity, std::byte* data,
                 size_t size)
    : slots_(slots), first_(slots.size(), 0), capacity_(capacity), data_(data), size_(size) {}

KvCache::KvCache(KvCache&& other) noexcept
    : slots_(std::move(other.slots_)),
      first_(std::move(other.first_)),
      capacity_(other.capacity_),
      used_(other.used_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

KvCache::~KvCache() {
  if (data_) ::munmap(data_, size_);
}

std::byte* KvCache::row(size_t slot, int64_t head, int64_t position) const {
  const CacheSlot& at = slots_[slot];
  return data_ + at.offset +
         static_cast<uint64_t>(head * capacity_ + position) * static_cast<uint64_t>(at.row_bytes());
}

void KvCache::set_used(int64_t position) {
  const bool back = position < used_;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (back) release(i, position, used_);
    if (position == 0) first_[i] = 0;
    if (slots_[i].window <= 0) continue;
    const int64_t needed = position - slots_[i].window - kWindowSlack;
    if (needed - first_[i] < kSlideStep) continue;
    release(i, first_[i], needed);
    first_[i] = needed;
  }
  used_ = position;
}

bool KvCache::can_cut(int64_t position) const {
  if (position == 0) return true;
  for (size_t i = 0; i < slots_.size(); ++i) {
    // The query at `position` sees keys from here on.
    const int64_t oldest = std::max<int64_t>(0, position + 1 - slots_[i].window);
    if (first_[i] > 0 && oldest < first_[i]) return false;
  }
  return true;
}

void KvCache::release(size_t slot, int64_t begin, int64_t end) {
  const uintptr_t page = page_bytes();
  for (int64_t h = 0; h < slots_[slot].heads; ++h) {
    const auto from = reinterpret_cast<uintptr_t>(row(slot, h, begin));
    const auto to = reinterpret_cast<uintptr_t>(row(slot, h, end));
    const uintptr_t first = (from + page - 1) / page * page, last = to / page * page;
    if (first >= last) continue;
    void* const start = reinterpret_cast<void*>(first);
#if defined(__linux__)
    ::madvise(start, last - first, MADV_DONTNEED);
#else
    // Elsewhere the advice may be put off; a new mapping in the same place is not.
    ::mmap(start, last - first, PROT_READ | PROT_WRITE, kMapFlags | MAP_FIXED, -1, 0);
#endif
  }
}

uint64_t KvCache::resident_bytes() const {
#if defined(__linux__)
  if (!data_) return 0;
  const size_t page = page_bytes(), pages = (size_ + page - 1) / page;
  std::vector<unsigned char> present(std::min<size_t>(pages, size_t{1} << 20));
  uint64_t total = 0;
  for (size_t at = 0; at < pages; at += present.size()) {
    const size_t count = std::min(present.size(), pages - at);
    if (::mincore(data_ + at * page, count * page, present.data()) != 0) return 0;
    for (size_t i = 0; i < count; ++i) total += (present[i] & 1) * page;
  }
  return total;
#else
  return 0;
#endif
}

}  // namespace pome
