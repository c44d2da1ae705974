// A context in a file: ids, and the rows of all caches, so that going on needs no prefill.
//
//   0   8 bytes   "POMECTX\n"
//   8   u32       version, 1
//  12   u32       kind of the caches (KvKind)
//  16   64 bytes  fingerprint of the graph, hex
//  80   u64       tokens
//  88   u64       bytes of the note
//  96   u32       slots; u32 0
// 104   u64[slots] first row that is there (more than 0 where a sliding window is past the others)
//  ..   i32[tokens] ids, the note, then per slot and head the rows [first, tokens)
//  end  32 bytes  SHA-256 of all before
//
// All numbers are little-endian. The fingerprint covers ops, shapes and encodings of the graph and
// the first and last rows of every weight: hashing a checkpoint whole would take longer than the
// prefill that the file saves.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/plan_impl.h"

namespace pome {

inline constexpr uint64_t kMaxNoteBytes = uint64_t{64} << 20;

// Replaces the file as a whole when it is complete; readers see the old one or the new one.
Status save_context_file(const std::string& path, const PlanData& plan, const KvCache& cache,
                         std::span<const int32_t> ids, std::string_view note);

struct SavedContext {
  std::vector<int32_t> ids;
  std::string note;
};
// Everything is checked, the digest included, before the cache is touched. kMagic, kVersion,
// kTrunc, kBounds, kLimit, kRange, kIntegrity as docs/errors.md says; kUsage when the context does
// not fit the session.
Result<SavedContext> load_context_file(const std::string& path, const PlanData& plan,
                                       KvCache* cache);

}  // namespace pome
