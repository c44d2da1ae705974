// The engine: a graph compiled once into a plan, and sessions that run it.
//
// A Plan is immutable and shared by any number of sessions. A Session owns its KV cache and belongs
// to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/cpu_features.h"
#include "base/progress.h"
#include "base/status.h"
#include "graph/graph.h"
#include "graph/runner.h"
#include "kernels/attention/kv_rows.h"

namespace pome {

using kernels::KvKind;

struct PlanOptions {
  int threads = 1;
  std::optional<Isa> isa;  // default: selected_isa()
  int64_t capacity = 0;    // tokens per session; 0 = min(max_position_embeddings, 4096)
  int64_t chunk = 128;     // tokens per prefill step
  // f32 activations and weights as stored, the same results however tokens are cut into calls.
  // Otherwise int8 activations where the instruction set has kernels for them; see
  // docs/performance.md for what that costs in accuracy.
  bool exact = true;
  // How keys and values are cached (kernels/attention/kv_rows.h). Default: f32 when exact, else
  // f16.
  std::optional<KvKind> kv;
  bool fuse = true;  // false: every composite is a step of its own; for measuring
};

class Plan {
 public:
  virtual ~Plan() = default;
  virtual std::string describe() const = 0;  // steps, kernels, memory
  virtual uint64_t weight_bytes() const = 0;
  // KV cache and work memory of one session whose context is full.
  virtual uint64_t session_bytes() const = 0;
  virtual Isa isa() const = 0;
  virtual Result<std::unique_ptr<Runner>> new_session() const = 0;
};
// kUnsupported names an op the engine cannot run. Reads all weights.
Result<std::shared_ptr<const Plan>> compile(const Graph& graph, const PlanOptions& options,
                                            const WorkContext& work = {});

}  // namespace pome
