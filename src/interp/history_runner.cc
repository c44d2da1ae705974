#include "interp/history_runner.h"

#include <algorithm>

#include "refops/refops.h"

namespace pome {

Status HistoryRunner::truncate(int64_t position) {
  if (position < 0 || position > this->position())
    return usage_error("cannot truncate " + std::to_string(this->position()) + " tokens to " +
                       std::to_string(position));
  if (!can_truncate(position))
    return usage_error("tokens before " + std::to_string(position) + " are no longer in the caches")
        .hint("truncate to 0 and prefill again");
  forget(position);
  return {};
}

int64_t metadata_number(const std::string& text) {
  const bool number =
      !text.empty() && text.size() < 10 &&
      std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  return number ? std::stoll(text) : 0;
}

Tensor first_tokens(const Tensor& cache, int64_t count) {
  if (cache.dim(2) <= count) return cache;
  std::vector<int64_t> end(cache.shape());
  end[2] = count;
  return refops::slice(cache, std::vector<int64_t>(4, 0), end, std::vector<int64_t>(4, 1));
}

}  // namespace pome
