#include "verify/cache_policy.h"

#include <cmath>

#include "engine/kv_store.h"

namespace pome {

Result<CachePolicy> cache_policy(const KvSidecars& sidecars) {
  CachePolicy out;
  if (sidecars.paging) {
    out.kept = sidecars.paging->kept();
    out.sinks = sidecars.paging->sink_tokens;
  }
  if (!sidecars.quantization) return out;
  const KvQuantization& how = *sidecars.quantization;
  if (!is_kv_group(how.group_size))
    return unsupported("groups of " + std::to_string(how.group_size) +
                       " values are not supported, expected 16, 32 or 64")
        .at("/group_size");
  const KvKind kind = how.scheme == "u8" ? KvKind::kQ8 : KvKind::kQ4;
  const std::span<const float> levels = kv_levels(kind);
  for (size_t i = 0; i < how.codebook.size(); ++i)
    if (i >= levels.size() || std::abs(how.codebook[i] - static_cast<double>(levels[i])) > 1e-6)
      return unsupported("the codebook is not that of " + how.scheme + " here").at("/codebook");
  out.store = [kind, group = how.group_size](std::span<float> row) {
    kv_round_row(kind, group, row);
  };
  return out;
}

Result<CachePolicy> read_cache_policy(const std::string& model) {
  POME_ASSIGN_OR_RETURN(const KvSidecars sidecars, read_kv_sidecars(model));
  auto policy = cache_policy(sidecars);
  if (!policy.ok()) return std::move(policy).status().in(kvq_path(model));
  return policy;
}

}  // namespace pome
