#include "interp/step_runner.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "interp/history_runner.h"

namespace pome {
namespace {

// Finite in fp16, and far below every score: softmax gives such keys exactly nothing.
constexpr float kMasked = -3e4f;

// The tokens of a cache [1, heads, places, dim] are the last `used` of its places.
class StepRunner final : public HistoryRunner {
 public:
  StepRunner(StepInterface interface, StepCall call, CachePolicy policy)
      : interface_(std::move(interface)), call_(std::move(call)), policy_(std::move(policy)) {
    info_.kind = interface_.kind;
    info_.vocab_size = interface_.vocab_size;
    info_.capacity = interface_.capacity;
    info_.chunk = 1;
    most_ = std::numeric_limits<int64_t>::max();
    for (const int64_t limit : {policy_.kept, interface_.places})
      if (limit > 0) most_ = std::min(most_, limit);
    clear();
  }

  Status prefill(std::span<const int32_t> ids, LogitsOf which, std::span<float> logits) override {
    POME_RETURN_IF_ERROR(check_prefill(info_, position(), ids, which, logits.size()));
    const int64_t before = position();
    const size_t vocab = static_cast<size_t>(info_.vocab_size);
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool last = i + 1 == ids.size();
      const bool wanted = which == LogitsOf::kAll || (which == LogitsOf::kLast && last);
      const size_t row = which == LogitsOf::kAll ? i : 0;
      Status status = check_cancelled(cancel_);
      if (status.ok())
        status = step(ids[i], wanted ? logits.subspan(row * vocab, vocab) : std::span<float>());
      if (!status.ok()) {
        forget(can_truncate(before) ? before : 0);
        return status;
      }
    }
    return {};
  }

  bool can_truncate(int64_t position) const override {
    return position == 0 || position == this->position() ||
           (dropped_ == 0 && position < this->position());
  }

 private:
  void clear() {
    caches_.clear();
    for (const StepCache& cache : interface_.caches)
      caches_.push_back(Tensor::zeros(DType::kF32, {1, cache.heads, interface_.places, cache.dim}));
    used_ = dropped_ = 0;
  }

  void forget(int64_t position) override {
    const int64_t back = this->position() - position;
    HistoryRunner::forget(position);
    if (position == 0) {
      clear();
    } else if (back > 0) {
      used_ -= back;
      for (Tensor& cache : caches_) take_out(cache, used_, back);
    }
  }

  // Takes `count` tokens out, from the `first` on; where the places are fixed, those before them
  // move back. `used_` is what remains.
  void take_out(Tensor& cache, int64_t first, int64_t count) const {
    const int64_t heads = cache.dim(1), places = cache.dim(2), dim = cache.dim(3);
    const int64_t begin = interface_.places > 0 ? places - used_ - count : 0;
    Tensor out = cache;
    if (interface_.places == 0)
      out = Tensor::zeros(DType::kF32, {1, heads, used_, dim});
    else if (!out.sole_owner() && first > 0)
      out = out.clone();
    const std::span<const float> from = cache.f32();
    const auto row = [&](int64_t head, int64_t all, int64_t place) {
      return static_cast<ptrdiff_t>((head * all + place) * dim);
    };
    for (int64_t h = 0; h < heads; ++h) {
      if (interface_.places > 0) {
        if (first == 0) break;
        const auto to = out.mutable_as<float>().begin();
        std::copy_backward(to + row(h, places, begin), to + row(h, places, begin + first),
                           to + row(h, places, begin + first + count));
      } else {
        const auto to = out.mutable_as<float>().begin() + row(h, used_, 0);
        std::copy_n(from.begin() + row(h, places, 0), first * dim, to);
        std::copy(from.begin() + row(h, places, first + count),
                  from.begin() + row(h + 1, places, 0), to + static_cast<ptrdiff_t>(first * dim));
      }
    }
    cache = std::move(out);
  }

  // One place for the token that comes; the oldest that need not stay goes.
  void make_room() {
    if (used_ < most_) return;
    --used_;
    ++dropped_;
    for (Tensor& cache : caches_) take_out(cache, std::min(policy_.sinks, used_), 1);
  }

  Tensor integer(int64_t value) const {
    Tensor out = Tensor::zeros(interface_.ids, {1, 1});
    if (interface_.ids == DType::kI64)
      out.mutable_as<int64_t>()[0] = value;
    else
      out.mutable_as<int32_t>()[0] = static_cast<int32_t>(value);
    return out;
  }

  Status step(int32_t id, std::span<float> logits) {
    make_room();
    NamedTensors inputs = {{"input_ids", integer(id)}, {"position_ids", integer(position())}};
    if (!interface_.mask.empty()) {
      Tensor mask = Tensor::zeros(DType::kF32, {1, 1, 1, interface_.places});
      const std::span<float> to = mask.mutable_as<float>();
      std::fill(to.begin(), to.end() - static_cast<ptrdiff_t>(used_ + 1), kMasked);
      inputs.emplace_back(interface_.mask, std::move(mask));
    }
    for (size_t i = 0; i < caches_.size(); ++i)
      inputs.emplace_back(interface_.caches[i].past, caches_[i]);
    POME_ASSIGN_OR_RETURN(NamedTensors outputs, call_(inputs));
    inputs.clear();
    POME_RETURN_IF_ERROR(take_logits(outputs, logits));
    std::vector<Tensor> next;
    for (const StepCache& cache : interface_.caches) {
      POME_ASSIGN_OR_RETURN(Tensor value, take_cache(outputs, cache));
      next.push_back(std::move(value));
    }
    caches_ = std::move(next);
    ++used_;
    history_.push_back(id);
    return {};
  }

  static Tensor* find(NamedTensors& list, const std::string& name) {
    for (auto& [entry, tensor] : list)
      if (entry == name) return &tensor;
    return nullptr;
  }

  Status take_logits(NamedTensors& outputs, std::span<float> logits) const {
    const Tensor* value = find(outputs, "logits");
    if (value == nullptr || value->dtype() != DType::kF32 ||
        value->shape() != Shape{1, 1, info_.vocab_size})
      return bad_input(Refusal::kRange,
                       "a step gives no logits [1, 1, " + std::to_string(info_.vocab_size) + "]");
    if (!logits.empty()) std::copy_n(value->f32().begin(), logits.size(), logits.begin());
    return {};
  }

  // What a step gives for a cache, its new row stored as the policy says.
  Result<Tensor> take_cache(NamedTensors& outputs, const StepCache& cache) const {
    Tensor* value = find(outputs, cache.present);
    const int64_t places = interface_.places > 0 ? interface_.places : used_ + 1;
    const Shape wanted = {1, cache.heads, places, cache.dim};
    if (value == nullptr || value->dtype() != DType::kF32 || value->shape() != wanted)
      return bad_input(Refusal::kRange,
                       "a step gives no cache " + cache.present + " " + to_string(wanted));
    Tensor out = std::move(*value);
    if (!policy_.store) return out;
    if (!out.sole_owner()) out = out.clone();
    const std::span<float> rows = out.mutable_as<float>();
    for (int64_t h = 0; h < cache.heads; ++h)
      policy_.store(rows.subspan(static_cast<size_t>(((h + 1) * places - 1) * cache.dim),
                                 static_cast<size_t>(cache.dim)));
    return out;
  }

  StepInterface interface_;
  StepCall call_;
  CachePolicy policy_;
  std::vector<Tensor> caches_;
  int64_t most_ = 0;     // tokens that the caches hold
  int64_t used_ = 0;     // of their places
  int64_t dropped_ = 0;  // tokens of the context that are no longer in them
};

}  // namespace

std::optional<std::string> present_name(const std::string& past) {
  if (past.starts_with("k_lat_") || past.starts_with("v_lat_")) return "n" + past;
  const std::string stem = "past_key_values";
  if (past.starts_with(stem + ".") || past.starts_with(stem + "_"))
    return "present" + past.substr(stem.size());
  return std::nullopt;
}

std::unique_ptr<Runner> step_runner(StepInterface interface, StepCall call, CachePolicy policy) {
  return std::make_unique<StepRunner>(std::move(interface), std::move(call), std::move(policy));
}

}  // namespace pome
