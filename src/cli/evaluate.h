// Scoring a model on a text, alone or against its original: what eval does, and convert before what
// it wrote becomes visible.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/app.h"
#include "verify/model.h"
#include "verify/score.h"

namespace pome::cli {

struct Evaluation {
  std::string model, against, text;  // text: a file; empty: the embedded one
  LoadOptions load;                  // of `model`; threads and context included
  std::string rule = "all";          // or "second-half"
  int64_t max_tokens = 0;            // 0: all
};
// The tokens of the window when none is asked for.
inline constexpr int64_t kDefaultWindow = 512;

struct Opened {
  LoadedModel model;
  std::vector<int32_t> ids;
  ScoreOptions scoring;
};
Result<Opened> open_to_score(App& app, const Evaluation& evaluation);
Result<Comparison> compare_with_original(App& app, const Evaluation& evaluation, Opened* opened);
// kGateFailed, with both figures, where perplexity rises by more than `limit` percent.
Status check_increase(const Comparison& comparison, double limit);

}  // namespace pome::cli
