#include "cli/app.h"
#include "verify/verify.h"

namespace pome::cli {

namespace {

struct Options {
  VerifyOptions verify;
  std::string text, max_ppl_increase;
};

// null where there is nothing to report.
Json figure(double value, bool known) { return known ? Json(value) : Json(); }

Json step_to_json(const StepReport& step) {
  const auto count = [](const std::optional<int64_t>& value) {
    return value ? Json(*value) : Json();
  };
  Json out = {{"first_ms", step.first_ms},
              {"mean_ms", step.mean_ms},
              {"logits_bytes", step.logits_bytes},
              {"fed_back", step.steps},
              {"same_tokens", count(step.same)},
              {"ties", count(step.ties)},
              {"kv_scheme", step.scheme.empty() ? Json() : Json(step.scheme)},
              {"kv_group_size", step.group_size},
              {"kept_tokens", step.kept},
              {"sink_tokens", step.sinks},
              {"cost", nullptr}};
  if (step.cost)
    out["cost"] = {{"tokens", step.cost->artefact.tokens},
                   {"mean_kld", step.cost->mean_kld},
                   {"mean_kld_stderr", step.cost->mean_kld_stderr},
                   {"top1_agreement", step.cost->top1_agreement},
                   {"ppl_increase_percent", step.cost->ppl_increase_percent}};
  return out;
}

std::string step_to_text(const StepReport& step) {
  std::string text = "first step   " + fixed(step.first_ms, 2) + " ms here, logits of " +
                     std::to_string(step.logits_bytes) + " bytes; then " +
                     std::to_string(step.steps) + " fed back, " + fixed(step.mean_ms, 2) +
                     " ms each\n";
  if (step.same)
    text += "tokens       " + std::to_string(*step.same) + " of " + std::to_string(step.steps) +
            " are the engine's" +
            (*step.ties > 0 ? ", " + std::to_string(*step.ties) + " as good" : "") + "\n";
  if (!step.cost) return text;
  text +=
      "caches       " + (step.scheme.empty() ? "not rounded" : step.scheme) +
      (step.group_size > 0 ? " in groups of " + std::to_string(step.group_size) : "") + ", " +
      (step.kept > 0 ? "the newest " + std::to_string(step.kept - step.sinks) + " tokens" +
                           (step.sinks > 0 ? " and the first " + std::to_string(step.sinks) : "")
                     : "all tokens") +
      ": mean KL " + fixed(step.cost->mean_kld, 6) + " ± " + fixed(step.cost->mean_kld_stderr, 6) +
      ", same best token in " + fixed(100 * step.cost->top1_agreement, 2) + " %, perplexity " +
      (step.cost->ppl_increase_percent >= 0 ? "+" : "") +
      fixed(step.cost->ppl_increase_percent, 2) + " %, over " +
      std::to_string(step.cost->artefact.tokens) + " tokens\n";
  return text;
}

Json to_json(const VerifyReport& report) {
  Json integrity = Json::array(), functions = Json::array();
  for (const IntegrityFinding& finding : report.integrity)
    integrity.push_back({{"file", finding.file},
                         {"tensor", finding.tensor.empty() ? Json() : Json(finding.tensor)},
                         {"problem", finding.problem}});
  for (const FunctionReport& f : report.functions)
    functions.push_back({{"name", f.name},
                         {"ok", f.ok},
                         {"tokens", f.tokens},
                         {"max_abs_error", figure(f.max_abs_error, f.tokens > 0)},
                         {"mean_abs_error", figure(f.mean_abs_error, f.tokens > 0)},
                         {"mean_kld", figure(f.mean_kld, f.tokens > 0)},
                         {"top1_agreement", figure(f.top1_agreement, f.tokens > 0)}});
  Json out = {{"ok", report.ok},
              {"problems", report.problems},
              {"integrity", integrity},
              {"functions", functions},
              {"first_difference", nullptr},
              {"graph_hash", report.graph_hash},
              {"against_graph_hash", report.against.empty() ? Json() : Json(report.against)},
              {"source_hash", report.source_hash}};
  if (report.first_difference)
    out["first_difference"] = {{"function", report.first_difference->function},
                               {"value", report.first_difference->value},
                               {"relative_error", report.first_difference->relative_error}};
  const Comparison& c = report.against_original;
  const bool known = report.has_comparison;
  out["tokens"] = c.artefact.tokens;
  out["perplexity"] = figure(c.artefact.perplexity, known);
  out["perplexity_stderr"] = figure(c.artefact.perplexity_stderr, known);
  out["perplexity_original"] = figure(c.original.perplexity, known);
  out["ppl_increase_percent"] = figure(c.ppl_increase_percent, known);
  out["mean_kld"] = figure(c.mean_kld, known);
  out["mean_kld_stderr"] = figure(c.mean_kld_stderr, known);
  out["top1_agreement"] = figure(c.top1_agreement, known);
  out["max_abs_error"] = figure(c.max_abs_error, known);
  out["engine_max_abs_error"] = figure(report.engine_max_abs_error, known);
  if (report.step) out["step"] = step_to_json(*report.step);
  return out;
}

std::string to_text(const VerifyReport& report) {
  std::string text = "integrity    ";
  if (!report.has_manifest)
    text += "no manifest beside this package\n";
  else if (report.integrity.empty())
    text += "every file and tensor is what the manifest says\n";
  else
    text += std::to_string(report.integrity.size()) + " finding(s)\n";
  for (const FunctionReport& f : report.functions) {
    if (f.tokens == 0) {
      text += f.name + std::string(13 - std::min<size_t>(12, f.name.size()), ' ') +
              "gives NaN or infinity\n";
      continue;
    }
    char line[256];
    std::snprintf(line, sizeof line,
                  "%-12s %s the graph of its own weights: mean KL %.2e, largest logit error %.2e "
                  "(mean %.1e), over %lld tokens\n",
                  f.name.c_str(), f.ok ? "equals" : "DIFFERS from", f.mean_kld, f.max_abs_error,
                  f.mean_abs_error, static_cast<long long>(f.tokens));
    text += line;
  }
  if (report.step) text += step_to_text(*report.step);
  if (report.has_comparison) {
    const Comparison& c = report.against_original;
    text += "perplexity   " + fixed(c.artefact.perplexity, 4) + " ± " +
            fixed(c.artefact.perplexity_stderr, 4) + ", original " +
            fixed(c.original.perplexity, 4) + " (" + (c.ppl_increase_percent >= 0 ? "+" : "") +
            fixed(c.ppl_increase_percent, 2) + " %), over " + std::to_string(c.artefact.tokens) +
            " tokens\n";
    text += "KL, top-1    " + fixed(c.mean_kld, 6) + " ± " + fixed(c.mean_kld_stderr, 6) +
            " mean divergence, same best token in " + fixed(100 * c.top1_agreement, 2) + " %\n";
  }
  for (const std::string& problem : report.problems)
    text += "FAILED       " + escape_for_terminal(problem, 1024) + "\n";
  if (!report.against.empty())
    text += "against      another artefact, graph hash " + report.against.substr(0, 16) + "\n";
  if (!report.graph_hash.empty()) text += "graph hash   " + report.graph_hash.substr(0, 16) + "\n";
  return text + (report.ok ? "ok\n" : "");
}

Status run(App& app, Options& options) {
  options.verify.threads = app.common.threads;
  const VerifyOptions& v = options.verify;
  if (v.original.empty() && (v.max_ppl_increase_percent || v.max_mean_kld || v.min_top1_agreement ||
                             !options.max_ppl_increase.empty() || !options.text.empty()))
    return usage_error("gates and --text need --against MODEL")
        .hint("without it only the files are checked");
  POME_RETURN_IF_ERROR(require_artefact(v.artefact, "verify").status());
  POME_ASSIGN_OR_RETURN(options.verify.text, text_or_default(options.text));
  if (!options.max_ppl_increase.empty()) {
    POME_ASSIGN_OR_RETURN(options.verify.max_ppl_increase_percent,
                          parse_percent(options.max_ppl_increase, "--max-ppl-increase"));
  }
  auto verified = verify(options.verify, app.work());
  if (!verified.ok()) {
    Status status = std::move(verified).status();
    if (!options.text.empty() && status.file().empty() && status.code() == StatusCode::kBadInput)
      return std::move(status).in(options.text);
    return status;
  }
  const VerifyReport& report = *verified;
  if (app.common.json)
    app.print_json(to_json(report));
  else
    app.print(to_text(report));
  if (!report.ok)
    return gate_failed("verification failed: " + report.problems[0]).in(options.verify.artefact);
  return {};
}

}  // namespace

void add_verify(App& app) {
  auto options = std::make_shared<Options>();
  VerifyOptions& v = options->verify;
  CLI::App* command =
      app.add_command("verify", "run an artefact and the original side by side; report and gate",
                      [&app, options] { return run(app, *options); });
  command->add_option("artefact", v.artefact, "artefact folder, or the model file in it")
      ->required();
  command->add_option("--against", v.original,
                      "the original model, or another artefact of it (without: "
                      "integrity only)");
  command->add_option("--text", options->text, "held-out text (default: one is built in)");
  command->add_option("--max-tokens", v.max_tokens, "tokens scored against the original")
      ->capture_default_str()
      ->check(positive());
  command->add_option("--max-ppl-increase", options->max_ppl_increase,
                      "gate: fail (1) when perplexity rises by more, such as 3%");
  command->add_option("--max-kld", v.max_mean_kld,
                      "gate: fail (1) when the mean KL divergence is larger");
  command->add_option("--min-top1", v.min_top1_agreement,
                      "gate: fail (1) when the best token agrees less often (fraction)");
}

}  // namespace pome::cli
