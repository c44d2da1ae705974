#include "quantize/statistics.h"

namespace pome {

Moments Moments::centred() const {
  Moments out = *this;
  if (mean.empty()) return out;
  const auto n = static_cast<size_t>(columns);
  for (size_t i = 0; i < out.diagonal.size(); ++i) out.diagonal[i] -= mean[i] * mean[i];
  if (!out.second.empty())
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) out.second[i * n + j] -= mean[i] * mean[j];
  out.mean.assign(n, 0.0f);
  return out;
}

}  // namespace pome
