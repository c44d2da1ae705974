// What the caches of an artefact take, and how an app should hold those of a decode step: the flags
// --kv explicit, --kvq, --page-len and the like, --preset and --budget of convert.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "formats/kv_sidecars.h"
#include "graph/graph.h"
#include "pipeline/convert.h"
#include "pipeline/target.h"

namespace pome {

// Fills what a preset decides and the flags do not, and checks what belongs to --kv explicit.
// kUsage.
Status settle_kv(const TargetRow& row, ConvertOptions* options);

struct KvPlan {
  std::optional<KvQuantization> quantization;
  std::optional<KvPaging> paging;  // of a decode step
  int64_t tokens = 0;              // that the caches hold
  uint64_t cache_bytes = 0;        // as stored
  uint64_t step_bytes = 0;         // more, while a step runs
};
KvPlan plan_kv(const Graph& graph, const ConvertOptions& options, const TargetRow& row,
               int64_t context);

// Bytes that the constants of a graph take at least, in whatever target.
uint64_t least_weight_bytes(const Graph& graph);
// kDoesNotFit, which says by how much.
Status check_budget(const ConvertOptions& options, uint64_t weight_bytes, const KvPlan& plan);
// Of what was written; sizes of files are the caller's to add.
PackagingSummary summarise(const ConvertOptions& options, const KvPlan& plan);
// Sizes of the model's files below `folder`, and the sidecars of a decode step beside them.
Result<PackagingSummary> write_kv_sidecars(const std::string& folder, const std::string& model,
                                           const ConvertOptions& options, const KvPlan& plan);

}  // namespace pome
