// Memory of a session: values whose lifetimes do not meet share work memory.
#include <algorithm>
#include <limits>

#include "base/checked.h"
#include "engine/buffer.h"
#include "engine/plan_impl.h"

namespace pome {

namespace {

constexpr uint64_t kMost = uint64_t{1} << 47;  // beyond any address space: stop adding

struct Lifetime {
  ValueId id = kNoValue;
  int64_t first = std::numeric_limits<int64_t>::max(), last = -1;  // step numbers
  uint64_t bytes = 0, offset = 0;
  bool meets(const Lifetime& other) const { return first <= other.last && other.first <= last; }
};

std::vector<Lifetime> lifetimes(const PlanData& plan) {
  std::vector<Lifetime> all(plan.slots.size());
  int64_t number = 0;
  const auto visit = [&](const PlannedStep& planned, int64_t end_of_reads) {
    for (const ValueId id : planned.writes) {
      Lifetime& life = all[static_cast<size_t>(root_of(plan, id))];
      life.first = std::min(life.first, number);
      life.last = std::max(life.last, number);
    }
    for (const ValueId id : planned.reads) {
      const ValueId root = root_of(plan, id);
      const bool across = end_of_reads >= 0 && !plan.slots[static_cast<size_t>(root)].tail;
      Lifetime& life = all[static_cast<size_t>(root)];
      life.last = std::max(life.last, across ? end_of_reads : number);
    }
    ++number;
  };
  // The tail runs several times per call: what it reads from the body lives to its end.
  const auto end = static_cast<int64_t>(plan.body.size() + plan.tail.size());
  for (const PlannedStep& planned : plan.body) visit(planned, -1);
  for (const PlannedStep& planned : plan.tail) visit(planned, end);
  all[static_cast<size_t>(root_of(plan, plan.output))].last = end;
  return all;
}

// Largest first, each at the lowest offset that is free during its lifetime.
Status place(std::vector<Lifetime>& wanted, uint64_t* total) {
  std::sort(wanted.begin(), wanted.end(), [](const Lifetime& a, const Lifetime& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.id < b.id;
  });
  std::vector<const Lifetime*> neighbours;
  for (size_t i = 0; i < wanted.size(); ++i) {
    neighbours.clear();
    for (size_t k = 0; k < i; ++k)
      if (wanted[k].meets(wanted[i])) neighbours.push_back(&wanted[k]);
    std::sort(neighbours.begin(), neighbours.end(),
              [](const Lifetime* a, const Lifetime* b) { return a->offset < b->offset; });
    uint64_t offset = 0;
    for (const Lifetime* other : neighbours) {
      if (offset + wanted[i].bytes <= other->offset) break;
      offset = std::max(offset, other->offset + other->bytes);
    }
    if (offset + wanted[i].bytes > kMost)
      return does_not_fit("the work memory of one session is beyond any machine's");
    wanted[i].offset = offset;
    *total = std::max(*total, offset + wanted[i].bytes);
  }
  return {};
}

Status plan_caches(PlanData* plan) {
  for (CacheSlot& cache : plan->caches) {
    cache.offset = plan->cache_bytes;
    auto bytes = checked_mul<uint64_t>(static_cast<uint64_t>(cache.heads),
                                       static_cast<uint64_t>(cache.row_bytes()));
    if (bytes) bytes = checked_mul<uint64_t>(*bytes, static_cast<uint64_t>(plan->capacity));
    if (bytes) bytes = checked_align(*bytes, AlignedBuffer::kAlignment);
    if (!bytes || *bytes > kMost || plan->cache_bytes + *bytes > kMost)
      return does_not_fit("the KV cache of " + std::to_string(plan->capacity) +
                          " tokens is beyond any machine's memory")
          .hint("use a smaller capacity");
    plan->cache_bytes += *bytes;
  }
  return {};
}

Status plan_scratch(PlanData* plan) {
  int64_t scratch = 0, workspace = 0;
  const auto ask = [&](const PlannedStep& planned, int64_t tokens) {
    const Limits limits{tokens, plan->capacity};
    scratch = std::max(scratch, planned.step->scratch_floats(limits));
    workspace = std::max(workspace, planned.step->workspace_floats(limits));
  };
  for (const PlannedStep& planned : plan->body) ask(planned, plan->chunk);
  for (const PlannedStep& planned : plan->tail) ask(planned, plan->tail_rows);
  constexpr int64_t kLine = AlignedBuffer::kAlignment / sizeof(float);
  plan->scratch_stride = (scratch + kLine - 1) / kLine * kLine;
  const auto bytes = checked_mul<uint64_t>(static_cast<uint64_t>(plan->scratch_stride) * 4,
                                           static_cast<uint64_t>(plan->threads));
  if (!bytes || *bytes > kMost) return does_not_fit("the scratch memory does not fit");
  plan->scratch_bytes = *bytes;
  plan->workspace_bytes = static_cast<uint64_t>(workspace) * 4;
  return {};
}

}  // namespace

ValueId root_of(const PlanData& plan, ValueId id) {
  while (plan.slots[static_cast<size_t>(id)].place == Slot::Place::kAlias)
    id = plan.slots[static_cast<size_t>(id)].alias_of;
  return id;
}

std::optional<uint64_t> largest_bytes(const PlanData& plan, const Slot& slot) {
  uint64_t bytes = static_cast<uint64_t>(bits_of(slot.type.dtype)) / 8;
  for (const Dim& dim : slot.type.shape) {
    int64_t size = dim.size;
    if (dim.symbol == Symbol::kBatch) size = 1;
    if (dim.symbol == Symbol::kTokens) size = slot.tail ? plan.tail_rows : plan.chunk;
    if (dim.symbol == Symbol::kPast || dim.symbol == Symbol::kTotal) size = plan.capacity;
    const auto product = checked_mul<uint64_t>(bytes, static_cast<uint64_t>(size));
    if (!product || *product > kMost) return std::nullopt;
    bytes = *product;
  }
  return checked_align(bytes, AlignedBuffer::kAlignment);
}

Status plan_memory(PlanData* plan) {
  std::vector<Lifetime> all = lifetimes(*plan), wanted;
  for (size_t id = 0; id < plan->slots.size(); ++id) {
    const Slot& slot = plan->slots[id];
    if (slot.place != Slot::Place::kArena || all[id].last < 0) continue;
    const auto bytes = largest_bytes(*plan, slot);
    if (!bytes) {
      return does_not_fit("value " + plan->names[id] + " " + to_string(slot.type.shape) +
                          " is beyond any machine's memory")
          .hint("use a smaller capacity");
    }
    all[id].id = static_cast<ValueId>(id);
    all[id].bytes = *bytes;
    wanted.push_back(all[id]);
  }
  POME_RETURN_IF_ERROR(place(wanted, &plan->arena_bytes));
  for (const Lifetime& life : wanted)
    plan->slots[static_cast<size_t>(life.id)].offset = static_cast<int64_t>(life.offset);

  POME_RETURN_IF_ERROR(plan_caches(plan));
  return plan_scratch(plan);
}

}  // namespace pome
