#include "cli/cmd_bench.h"

#include "cli/generation_flags.h"
#include "quantize/quantize.h"

namespace pome::cli {

namespace {

Status run(App& app, BenchOptions options) {
  if (options.threads.empty()) options.threads = {app.common.threads};
  if (options.prompt == 0 && options.decode == 0)
    return usage_error("-p 0 and -n 0 leave nothing to measure");
  if (!options.weights.empty()) POME_RETURN_IF_ERROR(parse_recipe(options.weights).status());
  POME_ASSIGN_OR_RETURN(const double allowed, parse_percent(options.fail_over, "--fail-over"));
  if (allowed < 0) return usage_error("--fail-over " + options.fail_over + " is negative");
  if (!options.baseline.empty()) POME_RETURN_IF_ERROR(check_baseline(options, options.baseline));
  POME_ASSIGN_OR_RETURN(const Bench bench, measure(app, options));
  Json report = to_json(bench, options);
  std::vector<Change> changes;
  if (!options.baseline.empty()) {
    POME_ASSIGN_OR_RETURN(changes, compare_with_baseline(report, options.baseline, allowed));
    report["baseline"] = to_json(changes, options.baseline, allowed);
  }
  if (app.common.json)
    app.print_json(report);
  else
    app.print(to_text(bench, options) + to_text(changes));
  std::string worse;
  for (const Change& change : changes) {
    if (!change.fails) continue;
    worse += (worse.empty() ? "" : ", ") + change.figure + " with " +
             std::to_string(change.threads) + (change.threads == 1 ? " thread" : " threads") +
             " by " + fixed(change.percent, 1) + " %";
  }
  if (worse.empty()) return {};
  return gate_failed("worse than the baseline by more than " + fixed(allowed, 1) + " %: " + worse)
      .in(options.baseline)
      .hint("measure again on a quiet machine");
}

}  // namespace

void add_bench(App& app) {
  auto options = std::make_shared<BenchOptions>();
  BenchOptions& o = *options;
  CLI::App* command =
      app.add_command("bench", "speed, memory, and how near they come to what the machine can do",
                      [&app, options] { return run(app, *options); });
  command->remove_option(command->get_option("--threads"));
  command
      ->add_option("-t,--threads", o.threads,
                   "threads, or a list such as 1,2 (default: all processors)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  command->add_option("model", o.model, "model or artefact")->required();
  command->add_option("-p,--prompt", o.prompt, "tokens of the prompt; 0 leaves prefill out")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command->add_option("-n,--decode", o.decode, "tokens decoded one by one; 0 leaves decode out")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command->add_option("-d,--depth", o.depth, "tokens already in the context when decoding")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command->add_option("-r,--repetitions", o.repetitions, "medians are taken over so many")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--weights", o.weights,
                      "as if converted with these (int4, lut4, ...): encoded in memory first");
  add_kv_flag(command, &o.kv);
  command->add_flag("--exact", o.exact,
                    "f32 activations, also where weights are quantised (slower)");
  command->add_flag("--profile", o.profile, "time by kind of step, measured in calls of their own");
  command->add_option("--baseline", o.baseline, "compare with what --json gave earlier");
  command
      ->add_option("--fail-over", o.fail_over,
                   "with --baseline: fail (1) when a figure is worse by more")
      ->capture_default_str()
      ->needs(command->get_option("--baseline"));
}

}  // namespace pome::cli
