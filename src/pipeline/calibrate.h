// Runs a text through a model and notes what its weights are multiplied with.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/progress.h"
#include "base/status.h"
#include "engine/engine.h"
#include "graph/graph.h"
#include "quantize/statistics.h"

namespace pome {

struct CalibrationOptions {
  int64_t window = 512;  // tokens that see each other
  // Of all second moments; those of the widest weights are left out first.
  uint64_t most_bytes = uint64_t{2} << 30;
};
struct Calibration {
  ActivationStatistics statistics;
  int64_t tokens = 0;
  int64_t left_out = 0;  // weights whose second moments would have been too large
};
// Second moments of what meets every weight of a linear product and of the experts of a mixture,
// from the exact plan of the graph as it is. Deterministic for every number of threads. kUsage for
// less than two tokens; what compile() says.
Result<Calibration> calibrate(const Graph& graph, std::span<const int32_t> ids,
                              const CalibrationOptions& options, const WorkContext& work);

// Runs a text through the exact plan of a graph, in windows of so many tokens that see each other,
// under the eyes of `observer`. kUsage for less than two tokens; what compile() says.
Status observe_text(const Graph& graph, std::span<const int32_t> ids, int64_t window,
                    std::shared_ptr<ActivationObserver> observer, const char* stage,
                    const WorkContext& work);

}  // namespace pome
