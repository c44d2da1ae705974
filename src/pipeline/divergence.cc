#include "pipeline/divergence.h"

#include <algorithm>
#include <cmath>

#include "engine/engine.h"
#include "pipeline/run_text.h"

namespace pome {

namespace {

constexpr int64_t kWindow = 256, kPiece = 128;
constexpr int64_t kMostProbabilities = int64_t{64} << 20;

// log of the sum of exp(logits).
double log_sum_exp(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += static_cast<double>(std::exp(x - largest));
  return static_cast<double>(largest) + std::log(sum);
}

}  // namespace

Divergence::Divergence(const WorkContext& work, int threads) : work_(work), pool_(threads) {
  work_.progress = nullptr;  // the caller counts runs
}

template <typename Use>
Status Divergence::run(const Graph& graph, const Use& use) {
  PlanOptions options;
  options.threads = work_.threads;
  options.capacity = window_;
  options.chunk = kPiece;
  POME_ASSIGN_OR_RETURN(const auto plan, compile(graph, options, work_));
  POME_ASSIGN_OR_RETURN(const auto runner, plan->new_session());
  const auto vocab = static_cast<size_t>(vocab_);
  return run_text(
      *runner, ids_, window_, kPiece, work_, [&](size_t first, std::span<const float> rows) {
        pool_.parallel_for(
            static_cast<int64_t>(rows.size() / vocab), 1, [&](int64_t begin, int64_t end) {
              for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
                use(first + i, rows.subspan(i * vocab, vocab));
            });
      });
}

Result<std::unique_ptr<Divergence>> Divergence::create(const Graph& original,
                                                       std::span<const int32_t> ids, int64_t tokens,
                                                       const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_text_length(ids.size()));
  std::unique_ptr<Divergence> out(new Divergence(work, work.threads));
  out->vocab_ = original.info.vocab_size;
  const auto given = static_cast<int64_t>(ids.size());
  tokens = std::max<int64_t>(2, std::min({tokens, given, kMostProbabilities / out->vocab_}));
  out->window_ = std::min({kWindow, original.info.max_position_embeddings, tokens});
  const int64_t windows = tokens / out->window_;
  for (int64_t w = 0; w < windows; ++w) {
    const int64_t first =
        windows > 1 ? (given - out->window_) / (windows - 1) * w : (given - out->window_) / 2;
    const auto window = ids.subspan(static_cast<size_t>(first), static_cast<size_t>(out->window_));
    out->ids_.insert(out->ids_.end(), window.begin(), window.end());
  }
  const auto vocab = static_cast<size_t>(out->vocab_);
  out->probabilities_.resize(out->ids_.size() * vocab);
  out->negative_entropy_.resize(out->ids_.size());
  const Status status = out->run(original, [&](size_t position, std::span<const float> logits) {
    const double z = log_sum_exp(logits);
    double sum = 0;
    float* const p = out->probabilities_.data() + position * vocab;
    for (size_t i = 0; i < vocab; ++i) {
      const double log_p = static_cast<double>(logits[i]) - z;
      p[i] = static_cast<float>(std::exp(log_p));
      sum += static_cast<double>(p[i]) * log_p;
    }
    out->negative_entropy_[position] = sum;
  });
  POME_RETURN_IF_ERROR(status);
  return out;
}

Result<double> Divergence::of(const Graph& graph) {
  std::vector<double> divergences(ids_.size());
  const auto vocab = static_cast<size_t>(vocab_);
  POME_RETURN_IF_ERROR(run(graph, [&](size_t position, std::span<const float> logits) {
    const double z = log_sum_exp(logits);
    const float* const p = probabilities_.data() + position * vocab;
    double cross = 0;  // sum of p log q
    for (size_t i = 0; i < vocab; ++i)
      cross += static_cast<double>(p[i]) * (static_cast<double>(logits[i]) - z);
    divergences[position] = negative_entropy_[position] - cross;
  }));
  double sum = 0;
  for (const double one : divergences) sum += one;
  const double mean = sum / static_cast<double>(divergences.size());
  if (!std::isfinite(mean))
    return bad_input(Refusal::kRange, "predictions for the calibration text are not finite");
  return std::max(0.0, mean);
}

}  // namespace pome
