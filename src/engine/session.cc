// A session: one KV cache, one context, the steps of a plan run over chunks of tokens.
#include <algorithm>
#include <cstring>

#include "base/memory.h"
#include "engine/buffer.h"
#include "engine/context_file.h"
#include "engine/plan_impl.h"

namespace pome {

namespace {

class Session final : public Runner {
 public:
  Session(std::shared_ptr<const PlanImpl> plan, AlignedBuffer arena, KvCache cache,
          AlignedBuffer scratch, AlignedBuffer workspace)
      : plan_(std::move(plan)),
        data_(plan_->data()),
        pool_(data_.threads),
        arena_(std::move(arena)),
        cache_(std::move(cache)),
        scratch_(std::move(scratch)),
        workspace_(std::move(workspace)),
        input_(static_cast<size_t>(data_.chunk * std::max<int64_t>(1, data_.hidden_columns)) *
               sizeof(float)) {
    info_ = {"engine", data_.vocab_size, data_.capacity, data_.chunk};
    // No token should wait for memory; a context of more than this grows as it goes.
    history_.reserve(static_cast<size_t>(std::min<int64_t>(data_.capacity, 1 << 20)));
    frame_.views.resize(data_.slots.size());
    frame_.pool = &pool_;
    frame_.scratch = reinterpret_cast<float*>(scratch_.data());
    frame_.scratch_stride = data_.scratch_stride;
    frame_.workspace = reinterpret_cast<float*>(workspace_.data());
  }

  const RunnerInfo& info() const override { return info_; }
  int64_t position() const override { return position_; }
  std::span<const int32_t> history() const override { return history_; }
  bool can_truncate(int64_t position) const override {
    return position >= 0 && position <= position_ &&
           (position == position_ || cache_.can_cut(position));
  }

  Status prefill(std::span<const int32_t> ids, LogitsOf which, std::span<float> logits) override {
    POME_RETURN_IF_ERROR(check_prefill(info_, position_, ids, which, logits.size()));
    return advance(std::as_bytes(ids), static_cast<int64_t>(ids.size()), ids, which, logits.data());
  }

  // `input`: of `count` tokens, what the graph takes of each. An error or an interruption leaves
  // the context as it was.
  Status advance(std::span<const std::byte> input, int64_t count, std::span<const int32_t> ids,
                 LogitsOf which, float* out) {
    const int64_t start = position_;
    const size_t token_bytes = input.size() / static_cast<size_t>(std::max<int64_t>(1, count));
    for (int64_t done = 0; done < count; done += data_.chunk) {
      const int64_t tokens = std::min(data_.chunk, count - done);
      const bool last = done + tokens == count;
      const LogitsOf wanted = which == LogitsOf::kLast && !last ? LogitsOf::kNone : which;
      float* to = which == LogitsOf::kAll ? out + done * data_.output_columns : out;
      Status status = run_chunk(input.subspan(static_cast<size_t>(done) * token_bytes,
                                              static_cast<size_t>(tokens) * token_bytes),
                                tokens, wanted, to);
      if (!status.ok()) {
        // Windows may have slid past what the old context needs: then nothing is left of it.
        position_ = can_truncate(start) ? start : 0;
        history_.resize(std::min(history_.size(), static_cast<size_t>(position_)));
        cache_.set_used(position_);
        return status;
      }
      position_ += tokens;
      if (!ids.empty())
        history_.insert(history_.end(), ids.begin() + done, ids.begin() + done + tokens);
      cache_.set_used(position_);
    }
    return {};
  }

  Status decode(int32_t id, std::span<float> logits) override {
    return prefill(std::span(&id, 1), LogitsOf::kLast, logits);
  }

  bool keeps_contexts() const override { return true; }
  Status save_context(const std::string& path, std::string_view note) override {
    return save_context_file(path, data_, cache_, history_, note);
  }
  Result<std::string> load_context(const std::string& path) override {
    auto loaded = load_context_file(path, data_, &cache_);
    if (!loaded.ok()) {
      // Nothing was touched unless the file could not be read to its end.
      if (cache_.used() == 0) forget();
      return std::move(loaded).status();
    }
    history_.assign(loaded->ids.begin(), loaded->ids.end());
    position_ = static_cast<int64_t>(history_.size());
    return std::move(loaded->note);
  }

  Status truncate(int64_t position) override {
    if (position < 0 || position > position_) {
      return usage_error("cannot truncate " + std::to_string(position_) + " tokens to " +
                         std::to_string(position));
    }
    if (!can_truncate(position))
      return usage_error("the rows that sliding windows need before token " +
                         std::to_string(position) + " are gone")
          .hint("truncate to 0 and prefill again");
    position_ = position;
    history_.resize(std::min(history_.size(), static_cast<size_t>(position)));
    cache_.set_used(position);
    return {};
  }

 private:
  void forget() {
    position_ = 0;
    history_.clear();
  }

  Status run_chunk(std::span<const std::byte> input, int64_t tokens, LogitsOf which,
                   float* logits) {
    std::copy(input.begin(), input.end(), input_.begin());
    rope_position_ = static_cast<int32_t>(position_);
    frame_.bindings = {1, tokens, position_};
    frame_.cancel = cancel_;
    bind_body(tokens);
    POME_RETURN_IF_ERROR(run_steps(data_.body));
    if (which == LogitsOf::kNone) return {};
    const int64_t first = which == LogitsOf::kLast ? tokens - 1 : 0;
    if (!data_.slots[static_cast<size_t>(data_.output)].tail) {
      const float* from = frame_.view(data_.output).as<const float>();
      std::copy(from + first * data_.output_columns, from + tokens * data_.output_columns, logits);
      return {};
    }
    for (int64_t row = first; row < tokens; row += data_.tail_rows) {
      const int64_t rows = std::min(data_.tail_rows, tokens - row);
      float* to = logits + (row - first) * data_.output_columns;
      frame_.bindings.tokens = rows;
      bind_tail(row, rows, tokens, to);
      POME_RETURN_IF_ERROR(run_steps(data_.tail));
      const View& output = frame_.view(data_.output);
      if (!data_.slots[static_cast<size_t>(data_.output)].external)
        std::copy_n(output.as<const float>(), rows * data_.output_columns, to);
    }
    return {};
  }

  Status run_steps(const std::vector<PlannedStep>& steps) const {
    for (const PlannedStep& planned : steps) {
      POME_RETURN_IF_ERROR(check_cancelled(cancel_));
      POME_RETURN_IF_ERROR(planned.step->run(frame_));
    }
    return check_cancelled(cancel_);  // the last step may have been cut short
  }

  void bind_body(int64_t tokens) {
    const bool all = tokens != bound_tokens_ || frontier_moved_;
    for (size_t id = 0; id < data_.slots.size(); ++id) {
      const Slot& slot = data_.slots[id];
      if (!slot.tail && (all || slot.on_past)) bind(static_cast<ValueId>(id), nullptr);
    }
    bound_tokens_ = tokens;
    frontier_moved_ = false;
  }

  // Rows [row, row + rows) of the `tokens` rows that the body has left.
  void bind_tail(int64_t row, int64_t rows, int64_t tokens, float* output) {
    const bool moved = row != 0 || rows != tokens;
    const bool all = moved || rows != bound_rows_ || frontier_moved_;
    if (all) {
      // One frontier value may be an alias of another: all are set before any moves.
      for (const ValueId id : data_.frontier) bind(id, nullptr);
      for (const ValueId id : data_.frontier) {
        View& view = frame_.views[static_cast<size_t>(id)];
        const Slot& slot = data_.slots[static_cast<size_t>(id)];
        view.data += row * view.strides[1] * bits_of(slot.type.dtype) / 8;
      }
    }
    for (size_t id = 0; id < data_.slots.size(); ++id) {
      const Slot& slot = data_.slots[id];
      if (slot.tail && (all || slot.external)) bind(static_cast<ValueId>(id), output);
    }
    bound_rows_ = moved ? -1 : rows;
    frontier_moved_ = moved;
  }

  // Sets the view of a value for the current bindings.
  void bind(ValueId id, float* output) {
    const Slot& slot = data_.slots[static_cast<size_t>(id)];
    View& view = frame_.views[static_cast<size_t>(id)];
    switch (slot.place) {
      case Slot::Place::kNone:
        return;
      case Slot::Place::kAlias:
        return bind_alias(slot, &view);
      case Slot::Place::kArena:
        view.data = arena_.data() + slot.offset;
        break;
      case Slot::Place::kConstant:
        view.data = reinterpret_cast<std::byte*>(const_cast<float*>(slot.constant));
        break;
      case Slot::Place::kTokens:
        view.data = input_.data();
        break;
      case Slot::Place::kPosition:
        view.data = reinterpret_cast<std::byte*>(&rope_position_);
        break;
      case Slot::Place::kOutput:
        view.data = reinterpret_cast<std::byte*>(output);
        break;
      case Slot::Place::kCache:
        view.data = cache_.base(static_cast<size_t>(slot.offset));
        break;
    }
    set_contiguous(&view, slot.type.shape, frame_.bindings);
    if (slot.place == Slot::Place::kCache) {  // parts of rows lie as far apart as the rows
      view.strides[2] = data_.caches[static_cast<size_t>(slot.offset)].dim;
      view.strides[1] = data_.capacity * view.strides[2];
    }
  }

  void bind_alias(const Slot& slot, View* view) const {
    const View& from = frame_.view(slot.alias_of);
    view->data = from.data;
    set_contiguous(view, slot.type.shape, frame_.bindings);
    if (from.contiguous()) return;
    // Only axes of size one came or went: the others keep their strides, in order.
    int axis = from.rank;
    for (size_t i = static_cast<size_t>(view->rank); i-- > 0;) {
      if (view->dims[i] == 1) continue;
      do --axis;
      while (axis > 0 && from.dim(axis) == 1);
      view->strides[i] = from.stride(axis);
    }
  }

  std::shared_ptr<const PlanImpl> plan_;
  const PlanData& data_;
  RunnerInfo info_;
  ThreadPool pool_;
  AlignedBuffer arena_;
  KvCache cache_;
  AlignedBuffer scratch_, workspace_;
  std::vector<std::byte> input_;  // of a chunk: ids, or rows of a hidden state
  int32_t rope_position_ = 0;
  int64_t position_ = 0;
  std::vector<int32_t> history_;
  Frame frame_;
  // What the views were last set for.
  int64_t bound_tokens_ = -1, bound_rows_ = -1;
  bool frontier_moved_ = false;
};

Result<std::unique_ptr<Session>> new_session_of(std::shared_ptr<const PlanImpl> plan) {
  const PlanData& data = plan->data();
  const uint64_t wanted = plan->session_bytes(), available = available_memory();
  if (wanted > available)
    return does_not_fit("a session of " + std::to_string(data.capacity) + " tokens takes " +
                        std::to_string(wanted) + " bytes, of which the full KV cache (" +
                        std::string(kernels::to_string(data.kv)) + ") is " +
                        std::to_string(kv_bytes_at(data.caches, data.capacity, data.chunk)) + "; " +
                        std::to_string(available) + " bytes are available")
        .hint("use a smaller --context, or --kv q8");
  POME_ASSIGN_OR_RETURN(AlignedBuffer arena, AlignedBuffer::allocate(data.arena_bytes, "work"));
  POME_ASSIGN_OR_RETURN(KvCache cache,
                        KvCache::reserve(data.caches, data.capacity, data.cache_bytes));
  POME_ASSIGN_OR_RETURN(AlignedBuffer scratch,
                        AlignedBuffer::allocate(data.scratch_bytes, "scratch"));
  POME_ASSIGN_OR_RETURN(AlignedBuffer workspace,
                        AlignedBuffer::allocate(data.workspace_bytes, "work"));
  return std::make_unique<Session>(std::move(plan), std::move(arena), std::move(cache),
                                   std::move(scratch), std::move(workspace));
}

class Part final : public PartRunner {
 public:
  Part(std::unique_ptr<Session> session, const PlanData& data)
      : session_(std::move(session)), data_(data) {}

  Status run(std::span<const int32_t> ids, std::span<float> out) override {
    POME_CHECK(data_.hidden_columns == 0);
    for (const int32_t id : ids)
      if (id < 0 || id >= data_.vocab_size)
        return usage_error("token id " + std::to_string(id) + " is outside the vocabulary of " +
                           std::to_string(data_.vocab_size));
    return advance(std::as_bytes(ids), static_cast<int64_t>(ids.size()), ids, out);
  }
  Status run(std::span<const float> hidden, std::span<float> out) override {
    POME_CHECK(data_.hidden_columns > 0);
    const auto count = static_cast<int64_t>(hidden.size()) / data_.hidden_columns;
    POME_CHECK(count * data_.hidden_columns == static_cast<int64_t>(hidden.size()));
    return advance(std::as_bytes(hidden), count, {}, out);
  }
  void restart() override { POME_CHECK(session_->truncate(0).ok()); }
  void set_cancel(const CancelToken* token) override { session_->set_cancel(token); }

 private:
  Status advance(std::span<const std::byte> input, int64_t count, std::span<const int32_t> ids,
                 std::span<float> out) {
    POME_CHECK(static_cast<int64_t>(out.size()) == count * data_.output_columns);
    if (count > data_.capacity - session_->position())
      return usage_error(std::to_string(session_->position() + count) +
                         " tokens do not fit the context of " + std::to_string(data_.capacity));
    return session_->advance(input, count, ids, LogitsOf::kAll, out.data());
  }

  std::unique_ptr<Session> session_;
  const PlanData& data_;  // the session keeps its plan alive
};

}  // namespace

Result<std::unique_ptr<Runner>> make_session(std::shared_ptr<const PlanImpl> plan) {
  const PlanData& data = plan->data();
  if (data.hidden_columns > 0 || data.output_columns != data.vocab_size)
    return unsupported("sessions run whole graphs, not a part of a cut one");
  POME_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, new_session_of(std::move(plan)));
  return std::unique_ptr<Runner>(std::move(session));
}

Result<std::unique_ptr<PartRunner>> make_part(std::shared_ptr<const PlanImpl> plan) {
  const PlanData& data = plan->data();
  POME_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, new_session_of(std::move(plan)));
  return std::unique_ptr<PartRunner>(std::make_unique<Part>(std::move(session), data));
}

}  // namespace pome
