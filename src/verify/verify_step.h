// A decode step with explicit caches, run as an app would run it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/kv_sidecars.h"
#include "verify/exported.h"
#include "verify/score.h"

namespace pome {

inline constexpr int64_t kStepsFedBack = 64;
// Two tokens whose logits lie closer than this are as good as one another.
inline constexpr double kStepTie = 0.01;

struct StepReport {
  double first_ms = 0;        // the first step: empty caches, or none of their places seen
  double mean_ms = 0;         // of those that follow; both of the interpreter on this computer
  uint64_t logits_bytes = 0;  // of one step, as the package declares them
  int64_t steps = 0;          // fed back, greedily
  std::optional<int64_t> same, ties;  // of them: the engine's token, one as good; with an original
  // What the sidecars say, and what holding the caches so costs against caches that are neither
  // rounded nor cut.
  std::string scheme;
  int64_t group_size = 0, kept = 0, sinks = 0;  // kept: 0 = all
  std::optional<Comparison> cost;
};

// `engine` runs the graph of the package's own weights; null without an original. `ids` is text to
// start from and to measure on; may be empty. Problems go to `problems`.
Result<StepReport> check_steps(ExportedModel& model, const KvSidecars& sidecars, Runner* engine,
                               std::span<const int32_t> ids, const WorkContext& work,
                               std::vector<std::string>* problems);

}  // namespace pome
