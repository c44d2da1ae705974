// Comparing a report with an earlier one.
#include <cmath>

#include "cli/cmd_bench.h"

namespace pome::cli {

namespace {

struct Figure {
  const char* key;
  bool more_is_better;
  double noise;  // a smaller difference means nothing
};
constexpr Figure kFigures[] = {{"prefill_tokens_per_s", true, 0},
                               {"decode_tokens_per_s", true, 0},
                               {"ttft_ms", false, 5},
                               {"load_ms", false, 5},
                               {"peak_memory_bytes", false, 4e6}};

// Speeds of other prompts, or of other arithmetic, say nothing about these.
constexpr const char* kSettings[] = {
    "prompt_tokens", "decode_tokens", "depth", "exact", "weights", "kv", "runner", "file_bytes"};

Status check_settings(const Json& report, const Json& baseline) {
  if (!baseline.is_object() || !baseline.contains("runs") || !baseline["runs"].is_array())
    return bad_input(Refusal::kType, "is not a report of bench")
        .hint("make one with `pome bench MODEL --json > F`");
  for (const char* key : kSettings) {
    if (!baseline.contains(key))
      return bad_input(Refusal::kType, "is not a report of bench").at("/" + std::string(key));
    if (report.contains(key) && baseline[key] != report[key])
      return bad_input(Refusal::kRange,
                       "was measured with other settings: " + dump_json(baseline[key]) + ", now " +
                           dump_json(report[key]))
          .at("/" + std::string(key))
          .hint("measure the baseline anew");
  }
  return {};
}

Result<const Json*> run_with(const Json& runs, const Json& threads) {
  for (const Json& run : runs)
    if (run.is_object() && run.contains("threads") && run["threads"] == threads) return &run;
  return bad_input(Refusal::kRange, "holds no figures for " + dump_json(threads) + " threads")
      .at("/runs")
      .hint("measure the baseline anew");
}

}  // namespace

Status check_baseline(const BenchOptions& options, const std::string& path) {
  POME_ASSIGN_OR_RETURN(const Json baseline, read_json_file(path));
  const Json known = {{"prompt_tokens", options.prompt}, {"decode_tokens", options.decode},
                      {"depth", options.depth},          {"exact", options.exact},
                      {"weights", options.weights},      {"kv", options.kv}};
  Status status = check_settings(known, baseline);
  for (size_t i = 0; status.ok() && i < options.threads.size(); ++i)
    status = run_with(baseline["runs"], options.threads[i]).status();
  return status.ok() ? status : std::move(status).in(path);
}

Result<std::vector<Change>> compare_with_baseline(const Json& report, const std::string& path,
                                                  double allowed_percent) {
  POME_ASSIGN_OR_RETURN(const Json baseline, read_json_file(path));
  Status settings = check_settings(report, baseline);
  if (!settings.ok()) return std::move(settings).in(path);
  std::vector<Change> changes;
  for (const Json& run : report["runs"]) {
    const auto earlier = run_with(baseline["runs"], run["threads"]);
    if (!earlier.ok()) return Status(earlier.status()).in(path);
    for (const Figure& figure : kFigures) {
      auto before = json_number(**earlier, figure.key);
      if (!before.ok()) return std::move(before).status().in(path);
      if (!*before || !run[figure.key].is_number()) continue;
      Change change;
      change.figure = figure.key;
      change.threads = run["threads"].get<int>();
      change.before = **before;
      change.now = run[figure.key].get<double>();
      if (change.before <= 0 || change.now <= 0) continue;
      // As time or memory: a rate that halves is twice as slow.
      const double ratio =
          figure.more_is_better ? change.before / change.now : change.now / change.before;
      change.percent = (ratio - 1) * 100;
      change.fails =
          change.percent > allowed_percent && std::abs(change.now - change.before) > figure.noise;
      changes.push_back(std::move(change));
    }
  }
  return changes;
}

Json to_json(const std::vector<Change>& changes, const std::string& path, double allowed_percent) {
  Json figures = Json::array();
  bool ok = true;
  for (const Change& change : changes) {
    ok = ok && !change.fails;
    figures.push_back({{"figure", change.figure},
                       {"threads", change.threads},
                       {"before", change.before},
                       {"now", change.now},
                       {"worse_percent", change.percent},
                       {"fails", change.fails}});
  }
  return {{"file", path}, {"fail_over_percent", allowed_percent}, {"ok", ok}, {"figures", figures}};
}

std::string to_text(const std::vector<Change>& changes) {
  if (changes.empty()) return "";
  std::string text = "\nagainst the baseline\n";
  for (const Change& change : changes) {
    std::string label = "  " + change.figure + ", " + std::to_string(change.threads) +
                        (change.threads == 1 ? " thread" : " threads");
    label.resize(std::max<size_t>(label.size() + 1, 36), ' ');
    text += label + fixed(change.before, 1) + " -> " + fixed(change.now, 1) + ", " +
            fixed(std::abs(change.percent), 1) + " % " + (change.percent > 0 ? "worse" : "better") +
            (change.fails ? "  FAILS" : "") + "\n";
  }
  return text;
}

}  // namespace pome::cli
