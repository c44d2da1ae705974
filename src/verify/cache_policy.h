// Sidecars of a decode step as what they make of its caches.
#pragma once

#include "base/status.h"
#include "formats/kv_sidecars.h"
#include "interp/step_runner.h"

namespace pome {

// kUnsupported: a group size or codebook that these caches do not have.
Result<CachePolicy> cache_policy(const KvSidecars& sidecars);
// Of those that lie beside a model.
Result<CachePolicy> read_cache_policy(const std::string& model);

}  // namespace pome
