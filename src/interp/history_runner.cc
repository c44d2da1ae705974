#include "interp/history_runner.h"

#include "refops/refops.h"

namespace pome {

Status HistoryRunner::truncate(int64_t position) {
  if (position < 0 || position > this->position())
    return usage_error("cannot truncate " + std::to_string(this->position()) + " tokens to " +
                       std::to_string(position));
  forget(position);
  return {};
}

Tensor first_tokens(const Tensor& cache, int64_t count) {
  if (cache.dim(2) <= count) return cache;
  std::vector<int64_t> end(cache.shape());
  end[2] = count;
  return refops::slice(cache, std::vector<int64_t>(4, 0), end, std::vector<int64_t>(4, 1));
}

}  // namespace pome
