// A compiled plan: where every value lives, the steps in order, and the memory of a session.
//
// Steps come in two sections. The *tail* is what stands behind the last mixing of tokens: all of
// its steps treat rows of [B, T, ..] on their own, and only the output needs them. So it runs for
// the rows whose logits are asked for, a few at a time, and not at all when none are. The *body* is
// the rest. Logits are written where the caller wants them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/frame.h"
#include "engine/kv_cache.h"
#include "engine/step.h"
#include "engine/weights.h"

namespace pome {

struct Slot {
  enum class Place : uint8_t {
    kNone,      // never looked at (a weight that steps read in its encoding)
    kArena,     // work memory, shared with values of other times
    kConstant,  // decoded
    kCache,     // rows of a cache: its graph input (P rows) or what kv_write gives (P + T rows)
    kTokens,    // the ids of the call, or the rows of the hidden state that a part takes
    kPosition,
    kOutput,  // the caller's logits
    kAlias    // another shape of `alias_of`
  };
  Place place = Place::kNone;
  ValueType type;
  int64_t offset = 0;  // kArena: bytes; kCache: index into Plan::caches
  const float* constant = nullptr;
  ValueId alias_of = kNoValue;
  bool tail = false;      // belongs to the tail: T = rows of a block
  bool on_past = false;   // dimensions or address change from call to call with P
  bool external = false;  // kOutput or an alias of it: the address changes from call to call
};

struct PlannedStep {
  StepPtr step;
  std::vector<ValueId> reads, writes;
};

struct PlanData {
  std::string name;  // of the model
  Isa isa = Isa::kPortable;
  int threads = 1;
  bool exact = true;
  KvKind kv = KvKind::kF32;  // of caches that attention alone reads; others are f32
  Graph graph;               // as compiled: what a saved context belongs to is told from it
  int64_t capacity = 0, chunk = 0, tail_rows = 0, vocab_size = 0;
  int64_t output_columns = 0;  // vocab_size of a whole graph
  int64_t hidden_columns = 0;  // of the rows that a part takes; 0: ids
  std::vector<Slot> slots;     // by ValueId; added values behind the graph's
  std::vector<std::string> names;
  std::vector<CacheSlot> caches;
  std::vector<PlannedStep> body, tail;
  std::vector<ValueId> frontier;  // values of the body that the tail reads row by row
  ValueId output = kNoValue;
  WeightStore weights;
  // cache_bytes: address space; what a full context takes may be less (kv_bytes_at).
  uint64_t arena_bytes = 0, cache_bytes = 0, scratch_bytes = 0, workspace_bytes = 0;
  int64_t scratch_stride = 0;
};

// kUnsupported where the engine cannot run a graph of this form.
Status check_graph(const Graph& graph);
// Fills what the options say; kUsage.
Status read_options(const PlanOptions& options, const Graph& graph, PlanData* plan);
// Assigns kArena offsets by lifetime, sizes scratch and cache memory. kDoesNotFit when sizes
// overflow.
Status plan_memory(PlanData* plan);
// Bytes a value can need at most; nullopt on overflow.
std::optional<uint64_t> largest_bytes(const PlanData& plan, const Slot& slot);
ValueId root_of(const PlanData& plan, ValueId id);
// How many experts the router of a mixture chooses; 0 when it cannot be told.
int64_t experts_per_token(const Graph& graph, const Node& moe);
Work work_of(const PlanData& plan, int64_t tokens, int64_t past);
// From now on every step adds its time to the profile.
void profile_steps(PlanData* plan, const std::shared_ptr<StepProfile>& profile);

class PlanImpl;
Result<std::unique_ptr<Runner>> make_session(std::shared_ptr<const PlanImpl> plan);
Result<std::unique_ptr<PartRunner>> make_part(std::shared_ptr<const PlanImpl> plan);

class PlanImpl final : public Plan, public std::enable_shared_from_this<PlanImpl> {
 public:
  explicit PlanImpl(std::unique_ptr<PlanData> data) : data_(std::move(data)) {}
  std::string describe() const override;
  uint64_t weight_bytes() const override { return data_->weights.bytes(); }
  uint64_t session_bytes() const override;
  Isa isa() const override { return data_->isa; }
  Work work(int64_t tokens, int64_t past) const override { return work_of(*data_, tokens, past); }
  Result<std::unique_ptr<Runner>> new_session() const override {
    return make_session(shared_from_this());
  }
  Result<std::unique_ptr<PartRunner>> new_part() const override {
    return make_part(shared_from_this());
  }
  const PlanData& data() const { return *data_; }

 private:
  std::unique_ptr<PlanData> data_;
};

}  // namespace pome
