// What runners share that keep the ids of their context beside its caches.
#pragma once

#include <string>
#include <vector>

#include "graph/runner.h"
#include "tensor/tensor.h"

namespace pome {

class HistoryRunner : public Runner {
 public:
  const RunnerInfo& info() const final { return info_; }
  int64_t position() const final { return static_cast<int64_t>(history_.size()); }
  std::span<const int32_t> history() const final { return history_; }
  Status decode(int32_t id, std::span<float> logits) final {
    return prefill({&id, 1}, LogitsOf::kLast, logits);
  }
  Status truncate(int64_t position) final;

 protected:
  // Drops what stands behind the first `position` tokens; callers who have caches drop their rows.
  virtual void forget(int64_t position) { history_.resize(static_cast<size_t>(position)); }

  RunnerInfo info_;
  std::vector<int32_t> history_;
};

// A number that stands in the metadata of a model; 0 where it is none.
int64_t metadata_number(const std::string& text);

// The first `count` tokens of a cache [batch, heads, tokens, size]; itself where it has no more.
Tensor first_tokens(const Tensor& cache, int64_t count);

}  // namespace pome
