// Rows of caches that an app keeps outside of a model, in the encodings of the engine's own caches
// (kernels/attention/kv_rows.h), with groups of 16, 32 or 64 values.
#pragma once

#include <cstdint>
#include <span>

#include "engine/engine.h"

namespace pome {

bool is_kv_group(int64_t group);
// What a row becomes that is stored as `kind`, in place.
void kv_round_row(KvKind kind, int64_t group, std::span<float> row);
// Bytes of such a row without padding: two bfloat16 a group, then the codes.
int64_t kv_stored_bytes(KvKind kind, int64_t group, int64_t dim);
// Levels of the codes of q4; empty for others.
std::span<const float> kv_levels(KvKind kind);

}  // namespace pome
