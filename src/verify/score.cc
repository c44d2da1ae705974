#include "verify/score.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace pome {

namespace {

struct Moments {
  int64_t count = 0;
  double mean = 0, m2 = 0;
  void add(double x) {  // Welford 1962
    ++count;
    const double delta = x - mean;
    mean += delta / static_cast<double>(count);
    m2 += delta * (x - mean);
  }
  double stderr_of_mean() const {
    return count > 1 ? std::sqrt(m2 / static_cast<double>(count - 1) / static_cast<double>(count))
                     : 0;
  }
};

double log_sum_exp(std::span<const float> logits) {
  const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
  return largest + std::log(sum);
}

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

Score to_score(const Moments& nll) {
  Score out;
  out.tokens = nll.count;
  out.mean_nll = nll.mean;
  out.perplexity = std::exp(nll.mean);
  out.perplexity_stderr = out.perplexity * nll.stderr_of_mean();
  return out;
}

// Logits of two runners at one position that has a next token.
class PairTally {
 public:
  void add(std::span<const float> artefact, std::span<const float> original, int32_t target) {
    const double za = log_sum_exp(artefact), zo = log_sum_exp(original);
    const size_t t = static_cast<size_t>(target);
    nll_artefact_.add(za - static_cast<double>(artefact[t]));
    nll_original_.add(zo - static_cast<double>(original[t]));
    nll_difference_.add((za - static_cast<double>(artefact[t])) -
                        (zo - static_cast<double>(original[t])));
    double kld = 0, error = 0;
    size_t top_artefact = 0, top_original = 0;
    for (size_t i = 0; i < artefact.size(); ++i) {
      const double lo = static_cast<double>(original[i]) - zo,
                   la = static_cast<double>(artefact[i]) - za;
      kld += std::exp(lo) * (lo - la);
      const double difference =
          std::fabs(static_cast<double>(artefact[i]) - static_cast<double>(original[i]));
      error += difference;
      max_error_ = std::max(max_error_, difference);
      if (artefact[i] > artefact[top_artefact]) top_artefact = i;
      if (original[i] > original[top_original]) top_original = i;
    }
    finite_ = finite_ && std::isfinite(za) && all_finite(artefact);
    original_finite_ = original_finite_ && std::isfinite(zo) && all_finite(original);
    kld_.add(std::max(0.0, kld));
    klds_.push_back(static_cast<float>(kld));
    max_kld_ = std::max(max_kld_, kld);
    error_.add(error / static_cast<double>(artefact.size()));
    agree_ += top_artefact == top_original;
  }
  Result<Comparison> finish() const {
    if (!finite_ || !original_finite_)
      return bad_input(Refusal::kRange, std::string("the logits") +
                                            (original_finite_ ? "" : " of the original") +
                                            " hold NaN or infinity");
    Comparison out;
    out.artefact = to_score(nll_artefact_);
    out.original = to_score(nll_original_);
    out.mean_kld = kld_.mean;
    out.mean_kld_stderr = kld_.stderr_of_mean();
    out.max_kld = max_kld_;
    out.kld_999 = quantile(0.999);
    out.nll_difference = nll_difference_.mean;
    out.nll_difference_stderr = nll_difference_.stderr_of_mean();
    out.top1_agreement =
        kld_.count ? static_cast<double>(agree_) / static_cast<double>(kld_.count) : 1;
    out.max_abs_error = max_error_;
    out.mean_abs_error = error_.mean;
    out.ppl_increase_percent = 100 * (out.artefact.perplexity / out.original.perplexity - 1);
    return out;
  }

 private:
  double quantile(double share) const {
    if (klds_.empty()) return 0;
    std::vector<float> sorted = klds_;
    const auto at = static_cast<ptrdiff_t>(share * static_cast<double>(sorted.size() - 1));
    std::nth_element(sorted.begin(), sorted.begin() + at, sorted.end());
    return static_cast<double>(sorted[static_cast<size_t>(at)]);
  }

  Moments nll_artefact_, nll_original_, nll_difference_, kld_, error_;
  std::vector<float> klds_;
  double max_error_ = 0, max_kld_ = 0;
  int64_t agree_ = 0;
  bool finite_ = true, original_finite_ = true;
};

using Rows =
    std::function<void(std::span<const float> rows, std::span<const float> other, int32_t target)>;

// Walks the windows; calls `each` with the logits that predict each scored target.
Status walk(Runner& runner, Runner* other, std::span<const int32_t> ids,
            const ScoreOptions& options, const WorkContext& work, const Rows& each) {
  const int64_t vocab = runner.info().vocab_size;
  if (other && other->info().vocab_size != vocab)
    return usage_error("vocabularies differ: " + std::to_string(vocab) + " and " +
                       std::to_string(other->info().vocab_size));
  if (options.window < 2) return usage_error("the window must hold at least 2 tokens");
  for (const Runner* r : {static_cast<const Runner*>(&runner), static_cast<const Runner*>(other)})
    if (r && options.window > r->info().capacity)
      return usage_error("a window of " + std::to_string(options.window) +
                         " tokens does not fit the context of " +
                         std::to_string(r->info().capacity))
          .hint("use a smaller --context");
  const bool half = options.rule == ScoreRule::kSecondHalf;
  if (half && !options.bos)
    return usage_error("--score second-half needs a tokenizer with a BOS token");
  const int64_t total = static_cast<int64_t>(ids.size());
  // 64 MB of logits at most per runner.
  const int64_t step = std::max<int64_t>(
      1, std::min({runner.info().chunk, options.window, (int64_t{16} << 20) / vocab}));
  std::vector<float> rows(static_cast<size_t>(step * vocab)), other_rows(other ? rows.size() : 0);
  if (work.progress) work.progress->begin("score", static_cast<uint64_t>(total), "tokens");
  for (int64_t begin = 0; begin + 2 <= total; begin += options.window) {
    const int64_t length = std::min(options.window, total - begin);
    if (half && length < options.window) break;
    std::vector<int32_t> window(ids.begin() + begin, ids.begin() + begin + length);
    if (half) window[0] = *options.bos;
    POME_RETURN_IF_ERROR(runner.truncate(0));
    if (other) POME_RETURN_IF_ERROR(other->truncate(0));
    for (int64_t at = 0; at < length; at += step) {
      POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
      const int64_t count = std::min(step, length - at);
      const std::span<const int32_t> piece(window.data() + at, static_cast<size_t>(count));
      const std::span<float> mine(rows.data(), static_cast<size_t>(count * vocab));
      POME_RETURN_IF_ERROR(runner.prefill(piece, LogitsOf::kAll, mine));
      const std::span<float> theirs(other_rows.data(), other ? mine.size() : 0);
      if (other) POME_RETURN_IF_ERROR(other->prefill(piece, LogitsOf::kAll, theirs));
      for (int64_t i = 0; i < count; ++i) {
        const int64_t position = at + i;
        if (position + 1 >= length || (half && position < options.window / 2)) continue;
        const auto row = [&](std::span<float> all) {
          return all.empty()
                     ? all
                     : all.subspan(static_cast<size_t>(i * vocab), static_cast<size_t>(vocab));
        };
        each(row(mine), row(theirs), window[static_cast<size_t>(position + 1)]);
      }
      if (work.progress) work.progress->advance(static_cast<uint64_t>(begin + at + count));
    }
  }
  if (work.progress) work.progress->end();
  return {};
}

}  // namespace

Result<Score> score(Runner& runner, std::span<const int32_t> ids, const ScoreOptions& options,
                    const WorkContext& work) {
  Moments nll;
  bool finite = true;
  POME_RETURN_IF_ERROR(
      walk(runner, nullptr, ids, options, work,
           [&](std::span<const float> row, std::span<const float>, int32_t target) {
             const double loss =
                 log_sum_exp(row) - static_cast<double>(row[static_cast<size_t>(target)]);
             finite = finite && std::isfinite(loss);
             nll.add(loss);
           }));
  if (nll.count == 0) return usage_error("the text has too few tokens to score");
  if (!finite) return bad_input(Refusal::kRange, "the logits hold NaN or infinity");
  return to_score(nll);
}

Result<Comparison> compare(Runner& artefact, Runner& original, std::span<const int32_t> ids,
                           const ScoreOptions& options, const WorkContext& work) {
  PairTally tally;
  int64_t count = 0;
  POME_RETURN_IF_ERROR(
      walk(artefact, &original, ids, options, work,
           [&](std::span<const float> mine, std::span<const float> theirs, int32_t target) {
             tally.add(mine, theirs, target);
             ++count;
           }));
  if (count == 0) return usage_error("the text has too few tokens to score");
  return tally.finish();
}

Result<Comparison> compare_decode(Runner& artefact, Runner& original, std::span<const int32_t> ids,
                                  const WorkContext& work) {
  const size_t vocab = static_cast<size_t>(artefact.info().vocab_size);
  if (original.info().vocab_size != artefact.info().vocab_size)
    return usage_error("vocabularies differ");
  PairTally tally;
  std::vector<float> mine(vocab), theirs(vocab);
  POME_RETURN_IF_ERROR(artefact.truncate(0));
  POME_RETURN_IF_ERROR(original.truncate(0));
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
    POME_RETURN_IF_ERROR(artefact.decode(ids[i], mine));
    POME_RETURN_IF_ERROR(original.decode(ids[i], theirs));
    tally.add(mine, theirs, ids[i + 1]);
  }
  return tally.finish();
}

}  // namespace pome
