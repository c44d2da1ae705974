// Scoring a text: perplexity of one runner, and the Kullback-Leibler divergence of a second one
// from it.
//
// Natural logarithms throughout. KL is KL(original || artefact), per position, over the whole
// vocabulary.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/progress.h"
#include "base/status.h"
#include "graph/runner.h"

namespace pome {

enum class ScoreRule : uint8_t {
  kAll,         // windows that do not overlap; every token after the first of a window is scored
  kSecondHalf,  // llama-perplexity: the first id of a window becomes BOS, targets window/2+1 ..
                // window-1 are scored
};
struct ScoreOptions {
  int64_t window = 512;
  ScoreRule rule = ScoreRule::kAll;
  std::optional<int32_t> bos;  // for kSecondHalf
};
struct Score {
  int64_t tokens = 0;  // scored
  double mean_nll = 0, perplexity = 0, perplexity_stderr = 0;
};
struct Comparison {
  Score artefact, original;
  double mean_kld = 0, mean_kld_stderr = 0, max_kld = 0;
  double kld_999 = 0;  // that 99.9 % of the positions stay below
  // Of the negative log-likelihoods, artefact less original, position by position: its error is
  // much smaller than those of the two perplexities, which vary together.
  double nll_difference = 0, nll_difference_stderr = 0;
  double top1_agreement = 0;  // fraction of positions with the same most likely token
  double max_abs_error = 0, mean_abs_error = 0;  // of logits
  double ppl_increase_percent = 0;
};

Result<Score> score(Runner& runner, std::span<const int32_t> ids, const ScoreOptions& options,
                    const WorkContext& work);
// Both runners see the same ids in the same pieces.
Result<Comparison> compare(Runner& artefact, Runner& original, std::span<const int32_t> ids,
                           const ScoreOptions& options, const WorkContext& work);
// As compare, but the artefact sees one token at a time (its decode path).
Result<Comparison> compare_decode(Runner& artefact, Runner& original, std::span<const int32_t> ids,
                                  const WorkContext& work);

}  // namespace pome
