// The engine: a graph compiled once into a plan, and sessions that run it.
//
// A Plan is immutable and shared by any number of sessions. A Session owns its KV cache and belongs
// to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "base/progress.h"
#include "base/status.h"
#include "graph/graph.h"
#include "graph/runner.h"
#include "kernels/attention/kv_rows.h"

namespace pome {

using kernels::KvKind;

// What a call of steps touches and multiplies, for stating speed as a fraction of what the machine
// can do. Products are those of the model's formula, one multiply-add each, whatever a kernel makes
// of them.
struct Work {
  uint64_t weight_bytes = 0;  // of weights, as they lie in memory, each byte once
  uint64_t cache_bytes = 0;   // of the KV cache, each byte once
  // Multiply-adds with weights, by what their kernels compute in, and those of attention (f32).
  uint64_t int8_macs = 0, bf16_macs = 0, f32_macs = 0, attention_macs = 0;

  uint64_t bytes() const { return weight_bytes + cache_bytes; }
  uint64_t weight_macs() const { return int8_macs + bf16_macs + f32_macs; }
  Work& operator+=(const Work& other);
};

// Time by step, filled by the sessions of a plan that was compiled with it (one at a time).
struct StepProfile {
  struct Entry {
    std::string kind;  // "linear", "attention", ... ; "linear (logits)" of the last step
    uint64_t calls = 0;
    double seconds = 0;
    Work work;  // of all calls
  };
  std::vector<Entry> steps;  // in order
  void reset();              // keeps the kinds
};

// Sees what weights are multiplied with.
class ActivationObserver {
 public:
  virtual ~ActivationObserver() = default;
  // Rows of x, [rows, columns of the weight], that meet this weight next; of a stacked one, this
  // expert's. Logits that nobody asks for meet no head.
  virtual void see(const std::string& weight, int64_t expert, const float* x, int64_t rows) = 0;
};

struct PlanOptions {
  int threads = 1;
  std::optional<Isa> isa;  // default: selected_isa()
  int64_t capacity = 0;    // tokens per session; 0 = min(max_position_embeddings, 4096)
  int64_t chunk = 256;     // tokens per prefill step
  // f32 activations and weights as stored, the same results however tokens are cut into calls.
  // Otherwise int8 activations where the instruction set has kernels for them; see
  // docs/engine.md for what that costs in accuracy.
  bool exact = true;
  // How keys and values are cached (kernels/attention/kv_rows.h). Default: f32 when exact, else
  // f16.
  std::optional<KvKind> kv;
  bool fuse = true;  // false: every composite is a step of its own; for measuring
  // Attention that expands keys and values from a latent caches the latent instead
  // (engine/latent.h). Plans that are exact never do. false: the graph's own caches; for measuring.
  bool latent = true;
  // Where every step adds its time; costs two looks at the clock per step. Null: nothing.
  std::shared_ptr<StepProfile> profile;
  // Called by the sessions of the plan (one at a time), which must be exact. Null: nobody.
  std::shared_ptr<ActivationObserver> observer;
};

// Runs a part of a cut graph (graph/passes.h), or a whole one by rows: one context, one thread.
class PartRunner {
 public:
  virtual ~PartRunner() = default;
  // The next tokens: ids of a part that begins with them, rows of its hidden_in [T, columns]
  // otherwise. `out` takes the rows of its output, [T, columns].
  virtual Status run(std::span<const int32_t> ids, std::span<float> out) = 0;
  virtual Status run(std::span<const float> hidden, std::span<float> out) = 0;
  virtual void restart() = 0;  // with an empty context
  virtual void set_cancel(const CancelToken* token) = 0;
};

class Plan {
 public:
  virtual ~Plan() = default;
  virtual std::string describe() const = 0;  // steps, kernels, memory
  virtual uint64_t weight_bytes() const = 0;
  // KV cache and work memory of one session whose context is full.
  virtual uint64_t session_bytes() const = 0;
  virtual Isa isa() const = 0;
  // Of one call of `tokens` tokens behind `past` others, logits of the last one included.
  virtual Work work(int64_t tokens, int64_t past) const = 0;
  // kUnsupported for a part of a cut graph.
  virtual Result<std::unique_ptr<Runner>> new_session() const = 0;
  virtual Result<std::unique_ptr<PartRunner>> new_part() const = 0;
};
// A whole graph, or a part of a cut one. kUnsupported names an op the engine cannot run. Reads all
// weights.
Result<std::shared_ptr<const Plan>> compile(const Graph& graph, const PlanOptions& options,
                                            const WorkContext& work = {});

}  // namespace pome
