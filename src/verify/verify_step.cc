#include "verify/verify_step.h"

#include <algorithm>
#include <cmath>

#include "base/stopwatch.h"
#include "verify/cache_policy.h"

namespace pome {

namespace {

constexpr int64_t kPrompt = 8;

int32_t best_of(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// One token after the other, each the engine's choice where there is an engine, so that one token
// that differs does not make all that follow differ.
class Walk {
 public:
  Walk(Runner& step, Runner* engine, std::vector<std::string>* problems)
      : step_(step),
        engine_(engine),
        problems_(problems),
        mine_(static_cast<size_t>(step.info().vocab_size)),
        theirs_(mine_.size()) {}

  Status run(std::span<const int32_t> prompt, int64_t steps, const WorkContext& work,
             StepReport* report) {
    POME_RETURN_IF_ERROR(step_.truncate(0));
    if (engine_) POME_RETURN_IF_ERROR(engine_->truncate(0));
    Stopwatch watch;
    for (const int32_t id : prompt) {
      POME_RETURN_IF_ERROR(step_.decode(id, mine_));
      if (step_.position() == 1) report->first_ms = 1e3 * watch.seconds();
    }
    if (engine_) POME_RETURN_IF_ERROR(engine_->prefill(prompt, LogitsOf::kLast, theirs_));
    double seconds = 0;
    for (int64_t i = 0; i < steps; ++i) {
      POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
      if (!std::all_of(mine_.begin(), mine_.end(), [](float x) { return std::isfinite(x); })) {
        problems_->push_back("steps: the logits hold NaN or infinity at step " + std::to_string(i));
        return {};
      }
      const int32_t next = choose(i, report);
      watch.lap();
      POME_RETURN_IF_ERROR(step_.decode(next, mine_));
      seconds += watch.lap();
      if (engine_) POME_RETURN_IF_ERROR(engine_->decode(next, theirs_));
      ++report->steps;
    }
    if (steps > 0) report->mean_ms = 1e3 * seconds / static_cast<double>(steps);
    return {};
  }

 private:
  int32_t choose(int64_t index, StepReport* report) {
    const int32_t mine = best_of(mine_);
    if (!engine_) return mine;
    const int32_t theirs = best_of(theirs_);
    const double margin = static_cast<double>(theirs_[static_cast<size_t>(theirs)]) -
                          static_cast<double>(theirs_[static_cast<size_t>(mine)]);
    if (mine == theirs) {
      ++*report->same;
    } else if (margin < kStepTie) {
      ++*report->ties;
    } else {
      problems_->push_back("steps: step " + std::to_string(index) + " chooses token " +
                           std::to_string(mine) + ", the engine " + std::to_string(theirs) +
                           ", whose logit is larger by " + std::to_string(margin));
    }
    return theirs;
  }

  Runner& step_;
  Runner* engine_;
  std::vector<std::string>* problems_;
  std::vector<float> mine_, theirs_;
};

}  // namespace

Result<StepReport> check_steps(ExportedModel& model, const KvSidecars& sidecars, Runner* engine,
                               std::span<const int32_t> ids, const WorkContext& work,
                               std::vector<std::string>* problems) {
  StepReport report;
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> step, model.runner({}));
  report.logits_bytes = model.logits_bytes();
  if (engine) report.same = report.ties = 0;
  static constexpr int32_t kFirst[] = {0};
  // As long as no place of caches of fixed length is lost.
  const int64_t room = model.places() > 0 ? model.places() : step->info().capacity;
  const auto most = static_cast<size_t>(std::clamp(room - kStepsFedBack, int64_t{1}, kPrompt));
  const std::span<const int32_t> prompt =
      ids.empty() ? kFirst : ids.first(std::min(ids.size(), most));
  const int64_t steps = std::min(kStepsFedBack, room - static_cast<int64_t>(prompt.size()));
  POME_RETURN_IF_ERROR(Walk(*step, engine, problems).run(prompt, steps, work, &report));

  if (sidecars.quantization) {
    report.scheme = sidecars.quantization->scheme;
    report.group_size = sidecars.quantization->group_size;
  }
  if (sidecars.paging) {
    report.kept = sidecars.paging->kept();
    report.sinks = sidecars.paging->sink_tokens;
  }
  if (!sidecars.any() || engine == nullptr) return report;
  POME_ASSIGN_OR_RETURN(CachePolicy policy, cache_policy(sidecars));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> held, model.runner(std::move(policy)));
  const int64_t scored = std::min<int64_t>(
      {static_cast<int64_t>(ids.size()), held->info().capacity, engine->info().capacity});
  POME_ASSIGN_OR_RETURN(
      report.cost, compare_decode(*held, *engine, ids.first(static_cast<size_t>(scored)), work));
  return report;
}

}  // namespace pome
