// verify: does the artefact on disk do what the original does? Two answers.
//
//   integrity   every file and tensor against the manifest
//   semantics   the package, executed, against the graph rebuilt from the package's own
//               constants. Quantisation cannot differ there, so the two must agree tightly,
//               whatever the scheme
// Against the original, differences are expected; they are reported, and judged by the limits that
// the caller sets. The original may be another artefact of the same model: then the source hashes
// of both must be equal, and semantics is left out, since no weights but their own are known.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "formats/manifest.h"
#include "verify/score.h"
#include "verify/verify_step.h"

namespace pome {

struct VerifyOptions {
  std::string artefact, original;  // original: a model or an artefact; empty: integrity only
  std::string text;                // held-out text
  int64_t max_tokens = 2048;       // scored against the original
  std::optional<double> max_ppl_increase_percent, max_mean_kld, min_top1_agreement;
  int threads = 1;
};

// How far package and rebuilt graph may differ. The package keeps cosines and sines in fp16, the
// graph does not; all else is the same numbers, multiplied in f32 in another order
// (docs/coreml.md).
inline constexpr double kMaxOwnMeanKld = 1e-4;
inline constexpr double kMinOwnTop1Agreement = 0.97;

struct FunctionReport {
  std::string name;    // "prefill", "decode"
  int64_t tokens = 0;  // 0 when its logits hold NaN or infinity: then no figure is set
  double max_abs_error = 0, mean_abs_error = 0, mean_kld = 0, top1_agreement = 1;
  bool ok = true;
};
struct FirstDifference {
  std::string function, value;  // MIL value name
  double relative_error = 0;    // |package - graph| / |graph|, Euclidean, where either is finite
};
struct VerifyReport {
  bool ok = true;
  std::vector<std::string> problems;  // one line each, what made ok false
  std::vector<IntegrityFinding> integrity;
  bool has_manifest = true;
  bool has_semantics = false;   // the package could be called
  bool has_comparison = false;  // against_original is set: its logits were finite
  std::vector<FunctionReport> functions;
  std::optional<StepReport> step;  // of a decode step with explicit caches
  std::optional<FirstDifference> first_difference;
  Comparison against_original;
  double engine_max_abs_error = 0;  // engine against the reference evaluator, both on the original
  std::string graph_hash, source_hash;
  std::string against;  // graph hash of the other artefact; empty where it is a model
};

// An error Status is for what cannot be judged (a truncated or missing file, an unreadable
// original); a package that can be read but is wrong, or cannot be executed, gives ok = false.
Result<VerifyReport> verify(const VerifyOptions& options, const WorkContext& work);

}  // namespace pome
