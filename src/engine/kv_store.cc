#include "engine/kv_store.h"

#include <algorithm>
#include <array>

namespace pome {

bool is_kv_group(int64_t group) { return group == 16 || group == 32 || group == kernels::kKvGroup; }

void kv_round_row(KvKind kind, int64_t group, std::span<float> row) {
  POME_CHECK(is_kv_group(group));
  // A piece of at most kKvGroup values is a row with one group.
  alignas(4) std::array<std::byte, 4 * kernels::kKvGroup> stored;
  for (size_t begin = 0; begin < row.size(); begin += static_cast<size_t>(group)) {
    const auto piece = row.subspan(begin, std::min(static_cast<size_t>(group), row.size() - begin));
    const auto size = static_cast<int64_t>(piece.size());
    kernels::kv_pack_row(kind, piece.data(), size, stored.data());
    kernels::kv_unpack_row(kind, stored.data(), size, size, piece.data());
  }
}

int64_t kv_stored_bytes(KvKind kind, int64_t group, int64_t dim) {
  const int64_t parameters = (dim + group - 1) / group * 4;
  switch (kind) {
    case KvKind::kF32:
      return 4 * dim;
    case KvKind::kF16:
      return 2 * dim;
    case KvKind::kQ8:
      return parameters + dim;
    case KvKind::kQ4:
      return parameters + (dim + 1) / 2;
  }
  return 0;
}

std::span<const float> kv_levels(KvKind kind) {
  return kind == KvKind::kQ4 ? std::span<const float>(kernels::kNf4) : std::span<const float>();
}

}  // namespace pome
