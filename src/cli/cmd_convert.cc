#include <algorithm>
#include <cstdio>
#include <limits>
#include <map>

#include "base/stopwatch.h"
#include "cli/evaluate.h"
#include "pipeline/convert.h"
#include "pipeline/report.h"

namespace pome::cli {

namespace {

// Weights as they are named in the file, with what rounding cost each.
Json describe_errors(const ConvertReport& report) {
  Json out = Json::array();
  for (const TensorError& tensor : report.errors)
    out.push_back({{"name", tensor.name},
                   {"encoding", tensor.encoding},
                   {"bytes", tensor.bytes},
                   {"relative_error", tensor.relative_error}});
  return out;
}

Json describe_activations(const ConvertReport& report) {
  Json out = Json::array();
  for (const ActivationValue& value : report.activations) {
    const ActivationChoice& choice = value.choice;
    out.push_back({{"weights", value.weights},
                   {"int8", choice.grid.has_value()},
                   {"range", to_string(choice.method)},
                   {"scale", choice.grid ? choice.grid->scale : 0},
                   {"zero_point", choice.grid ? choice.grid->zero_point : 0},
                   {"affine", choice.grid && choice.grid->is_affine},
                   {"relative_error", choice.error.all},
                   {"typical_error", choice.error.typical},
                   {"reason", choice.reason}});
  }
  return out;
}

// How many values are told in eight bits, and what is special about which.
std::string describe_activation_lines(const ConvertReport& report) {
  if (report.activations.empty()) return {};
  int64_t told = 0;
  std::string special;
  for (const ActivationValue& value : report.activations) {
    const ActivationChoice& choice = value.choice;
    told += choice.grid ? 1 : 0;
    if (!choice.reason.empty())
      special += "  activations      " + value.weights.front() + " reads " +
                 (choice.grid ? "int8 (" + std::string(to_string(choice.method)) + ")" : "f16") +
                 ": " + choice.reason + "\n";
  }
  return "  activations      " + std::to_string(told) + " of " +
         std::to_string(report.activations.size()) + " values that int8 weights read are int8\n" +
         special;
}

Json describe_transforms(const ConvertReport& report) {
  Json out = Json::array();
  for (const TransformChoice& choice : report.transforms)
    out.push_back({{"name", choice.name},
                   {"used", choice.used},
                   {"places", choice.places},
                   {"predicted_loss", choice.loss},
                   {"obstacle", choice.obstacle}});
  return out;
}

std::string describe_worst(const ConvertReport& report) {
  const auto worst = std::max_element(report.errors.begin(), report.errors.end(),
                                      [](const TensorError& a, const TensorError& b) {
                                        return a.relative_error < b.relative_error;
                                      });
  if (worst == report.errors.end() || worst->relative_error == 0) return {};
  return "  largest error    " + fixed(100 * worst->relative_error, 2) + " % in " + worst->name +
         " (" + worst->encoding + ")\n";
}

// What a decode step takes in memory.
std::string describe_step(const ConvertReport& report) {
  const PackagingSummary& p = report.packaging;
  return "  caches           " + human_bytes(p.kv_cache_bytes) + " of " +
         std::to_string(p.kv_tokens) + " tokens, " + human_bytes(p.kv_step_bytes) +
         " more while a step runs; with the weights " + human_bytes(p.total_bytes()) +
         (p.budget_bytes ? " of " + human_bytes(*p.budget_bytes) : "") + "\n";
}

// Looking at what was written, before it is seen.
struct Looking {
  std::string report, max_ppl_increase, text;
  int64_t tokens = 8192;
};

Result<TextFigures> figures_of(App& app, const Looking& looking, const std::string& model,
                               const std::string& path, Comparison* c) {
  Evaluation evaluation{path, model, looking.text, {}, "all", looking.tokens};
  evaluation.load.threads = app.common.threads;
  POME_ASSIGN_OR_RETURN(Opened opened, open_to_score(app, evaluation));
  POME_ASSIGN_OR_RETURN(*c, compare_with_original(app, evaluation, &opened));
  TextFigures out;
  out.tokens = c->artefact.tokens;
  out.text = looking.text.empty() ? "built in" : looking.text;
  out.mean_kld = c->mean_kld;
  out.mean_kld_stderr = c->mean_kld_stderr;
  out.kld_999 = c->kld_999;
  out.max_kld = c->max_kld;
  out.top1_agreement = c->top1_agreement;
  out.perplexity = c->artefact.perplexity;
  out.perplexity_original = c->original.perplexity;
  out.ppl_increase_percent = c->ppl_increase_percent;
  out.nll_difference = c->nll_difference;
  out.nll_difference_stderr = c->nll_difference_stderr;
  return out;
}

Status set_gate(App& app, const Looking& looking, ConvertOptions* options) {
  double limit = std::numeric_limits<double>::infinity();
  if (!looking.max_ppl_increase.empty()) {
    POME_ASSIGN_OR_RETURN(limit, parse_percent(looking.max_ppl_increase, "--max-ppl-increase"));
  } else if (looking.report.empty()) {
    return {};
  }
  if (!looking.report.empty()) POME_RETURN_IF_ERROR(check_report(looking.report, options->force));
  options->describe_weights = !looking.report.empty();
  const bool gated = !looking.max_ppl_increase.empty();
  options->gate = [&app, looking, limit, gated, model = options->model](
                      const std::string& path, ConvertReport* report) -> Status {
    Comparison compared;
    auto figures = figures_of(app, looking, model, path, &compared);
    if (!figures.ok()) {
      if (gated) return Status(figures.status()).hint("without --max-ppl-increase nobody looks");
      report->warnings.push_back("not evaluated: " + std::string(figures.status().message()));
      return {};
    }
    report->figures = std::move(*figures);
    return check_increase(compared, limit);
  };
  return {};
}

Status write_report_of(const App& app, const Looking& looking, const ConvertOptions& options,
                       const ConvertReport& report, double seconds) {
  ReportFrame frame;
  frame.model = options.model;
  frame.command = app.command_line();
  frame.seconds = seconds;
  frame.peak_memory_bytes = peak_memory_bytes();
  return write_report(looking.report, options.force, report, frame);
}

std::string describe_allocation(const AllocationReport& allocation) {
  if (allocation.limit == 0) return {};
  char loss[32];
  std::snprintf(loss, sizeof loss, "%.3g", allocation.loss);
  return "  allocated        " + human_bytes(allocation.bytes) + " of " +
         human_bytes(allocation.limit) + " for weights, expected loss " + loss + " (" +
         allocation.measured + ")\n";
}

std::string describe_figures(const TextFigures& f) {
  if (f.tokens == 0) return {};
  return "  held-out text    perplexity " + std::string(f.ppl_increase_percent >= 0 ? "+" : "") +
         fixed(f.ppl_increase_percent, 2) + " %, mean KL divergence " + fixed(f.mean_kld, 6) +
         " over " + std::to_string(f.tokens) + " tokens\n";
}

Status run(App& app, ConvertOptions options, const Looking& looking) {
  POME_ASSIGN_OR_RETURN(options.model, checkpoint_path(options.model, "convert"));
  POME_RETURN_IF_ERROR(set_gate(app, looking, &options));
  if (!app.common.json) options.say = [&app](const std::string& text) { app.note(text); };
  const Stopwatch watch;
  POME_ASSIGN_OR_RETURN(const ConvertReport report, convert(options, app.work()));
  const double seconds = watch.seconds();
  if (!looking.report.empty())
    POME_RETURN_IF_ERROR(write_report_of(app, looking, options, report, seconds));
  std::map<std::string, int64_t> encodings;
  Json fallbacks = Json::array();
  int64_t kept = 0;
  for (const TensorChoice& tensor : report.tensors) {
    encodings[to_string(tensor.used)] += tensor.rows * tensor.columns;
    if (tensor.kept_integers) kept += tensor.rows * tensor.columns;
    if (!tensor.fallback.empty())
      fallbacks.push_back({{"tensor", tensor.name},
                           {"encoding", to_string(tensor.used)},
                           {"reason", tensor.fallback}});
  }
  if (app.common.json) {
    app.print_json(
        {{"output", report.output},
         {"graph_hash", report.exported.hashes.graph_hash},
         {"source_hash", report.exported.hashes.source_hash},
         {"tree_hash", report.tree_hash},
         {"bytes", report.bytes},
         {"weight_bytes", report.exported.weight_bytes},
         {"parameters", report.exported.parameters},
         {"bits_per_weight", report.exported.bits_per_weight},
         {"context", report.context},
         {"chunk", report.chunk},
         {"kv_tokens", report.packaging.kv_tokens},
         {"kv_cache_bytes", report.packaging.kv_cache_bytes},
         {"kv_step_bytes", report.packaging.kv_step_bytes},
         {"total_bytes", report.packaging.total_bytes()},
         {"encodings", encodings},
         {"fallbacks", fallbacks},
         {"tensors", describe_errors(report)},
         {"kept_integers", kept},
         {"quality", report.quality},
         {"calibrated_tokens", report.calibrated_tokens},
         {"calibration_digest", report.calibration_digest},
         {"activations", describe_activations(report)},
         {"transforms", describe_transforms(report)},
         {"split", {{"networks", report.split_networks}, {"tables", report.split_tables}}},
         {"allocation", allocation_json(report.allocation)},
         {"held_out", text_json(report.figures)},
         {"warnings", report.warnings},
         {"notes", report.notes},
         {"seconds", seconds},
         {"peak_memory_bytes", peak_memory_bytes()}});
    return {};
  }
  for (const std::string& warning : report.warnings)
    app.note("warning: " + escape_for_terminal(warning, 1024));
  std::string text = "wrote " + report.output + "\n";
  text += "  size             " + human_bytes(report.bytes) + " (" +
          fixed(report.exported.bits_per_weight, 2) + " bits per weight, " +
          fixed(static_cast<double>(report.exported.parameters) / 1e6, 2) + " M parameters)\n";
  for (const auto& [name, count] : encodings)
    text += "  " + name + std::string(name.size() < 16 ? 16 - name.size() : 1, ' ') + " " +
            (count < 100000 ? std::to_string(count) + " values\n"
                            : fixed(static_cast<double>(count) / 1e6, 2) + " M values\n");
  if (kept > 0)
    text += "  not rounded      " + std::to_string(kept) +
            " values are the checkpoint's own integers\n";
  for (const Json& fallback : fallbacks)
    text += "  fallback         " + fallback["tensor"].get<std::string>() + " as " +
            fallback["encoding"].get<std::string>() + ": " + fallback["reason"].get<std::string>() +
            "\n";
  text += describe_worst(report);
  text += describe_allocation(report.allocation);
  text += describe_figures(report.figures);
  if (report.calibrated_tokens > 0)
    text += "  calibrated       on " + std::to_string(report.calibrated_tokens) + " tokens of " +
            report.calibration_text + ", " + report.quality + " quality\n";
  text += describe_activation_lines(report);
  for (const TransformChoice& choice : report.transforms)
    if (choice.used || options.transforms != "auto")
      text += "  transform        " + choice.name + " in " + std::to_string(choice.places) +
              " places" + (choice.obstacle.empty() ? "" : "; " + choice.obstacle) + "\n";
  if (options.split)
    text += "  split            " + std::to_string(report.split_networks) +
            " feed-forward networks and " + std::to_string(report.split_tables) +
            " tables of the vocabulary\n";
  text += "  context          " + std::to_string(report.context) +
          " tokens, prefill in chunks of " + std::to_string(report.chunk) + "\n";
  if (options.kv == "explicit" || !options.preset.empty()) text += describe_step(report);
  for (const std::string& note : report.notes) text += "  note             " + note + "\n";
  text += "  graph hash       " + report.exported.hashes.graph_hash.substr(0, 16) + "\n";
  text += "  time, memory     " + fixed(seconds, 2) + " s, peak " +
          human_bytes(peak_memory_bytes()) + "\n";
  app.print(text);
  return {};
}

}  // namespace

void add_convert(App& app) {
  auto options = std::make_shared<ConvertOptions>();
  auto looking = std::make_shared<Looking>();
  ConvertOptions& c = *options;
  CLI::App* command =
      app.add_command("convert", "write what a phone runs",
                      [&app, options, looking] { return run(app, *options, *looking); });
  command->add_option("model", c.model, "folder, .safetensors or .gguf file")->required();
  command->add_option("-o,--output", c.output, "artefact folder to write")->required();
  command->add_option("--to", c.target, "target: " + target_names())->capture_default_str();
  command->add_option("--weights", c.weights,
                      "scheme: f16 f32 int8 int4 lut8 lut6 lut4 lut3 lut2, coreml: lut4x2 lut6x2 "
                      "lut8x2 lut8x4 sparse-int4 and the like (default int4), or bits per weight "
                      "such as 3.7bpw; gguf: a "
                      "type or mixture such as q8_0 or q4_k_m (default); mlc: q4f16_1 (default) "
                      "q4f16_2 q0f16 q0f32");
  command->add_option_function<std::string>(
      "--size-limit",
      [options](const std::string& text) {
        const auto bytes = parse_bytes(text, "--size-limit");
        if (!bytes.ok())
          throw CLI::ValidationError("--size-limit", std::string(bytes.status().message()));
        options->size_limit = *bytes;
      },
      "a scheme for each weight so that the artefact is no larger and loses least, such as 1.5GB; "
      "--weights 3.7bpw says the same of the weights");
  command->add_option("--imatrix", c.imatrix, "gguf: importance matrix of llama.cpp, either form");
  command->add_option("--quality", c.quality,
                      "fast: round to the nearest (default); good: with error feedback for the "
                      "activations of a text (default with --calibrate); best: behind quantised "
                      "layers, and refined");
  command->add_option("--calibrate", c.calibrate, "that text (default: one is built in)");
  command
      ->add_option("--calibrate-tokens", c.calibrate_tokens,
                   "of that text, at most (default: 4096 for good, 8192 for best)")
      ->check(positive());
  command->add_option("--prune", c.prune,
                      "coreml: zeros among the weights, such as 0.5 of each row, or 2:4 (of each 4 "
                      "columns 2 stay)");
  command->add_option("--prune-below", c.prune_below, "coreml: zero for smaller magnitudes")
      ->check(CLI::PositiveNumber);
  command->add_option("--activations", c.activations, "coreml: int8 for what int8 weights read");
  command
      ->add_option("--activation-range", c.activation_range,
                   "of --activations: minmax, percentile or entropy")
      ->capture_default_str();
  command
      ->add_option("--transforms", c.transforms,
                   "exact changes before rounding: none, auto (those that are foretold to pay), or "
                   "a list of norms residual values order scale with commas")
      ->capture_default_str();
  command->add_flag("--split", c.split,
                    "coreml and onnx, with a limit: parts of feed-forward networks and of the "
                    "vocabulary get bits of their own");
  command->add_option_function<std::string>(
      "--embedding", [options](const std::string& scheme) { options->embedding = scheme; },
      "scheme of the embedding and a tied head (default: as --weights)");
  command
      ->add_option("--context", c.context,
                   "tokens the KV cache holds (default: min(max_position_embeddings, 4096))")
      ->check(positive());
  command->add_option("--chunk", c.chunk, "tokens per prefill call (default: 64, of mlc 2048)")
      ->check(positive());
  command->add_option_function<std::string>(
      "--functions",
      [options](const std::string& which) {
        if (which != "two" && which != "one")
          throw CLI::ValidationError("--functions", "must be one or two");
        options->one_function = which == "one";
      },
      "two (prefill and decode, default) or one");
  command->add_option("--profile", c.profile,
                      "variant of the target; onnx: ort (default) or plain (no operators of "
                      "com.microsoft)");
  command->add_option("--graph", c.graph, "onnx: logits-only (input_ids to logits, no caches)");
  command->add_option(
      "--kv", c.kv, "explicit: one decode step whose caches are inputs and outputs (coreml onnx)");
  command->add_option(
      "--cache", c.cache,
      "of --kv explicit: fixed (coreml, default) or dynamic length (onnx, default)");
  command->add_option("--kvq", c.kvq,
                      "of --kv explicit: how an app stores the caches, u8 or nf4 (default: as they "
                      "are)");
  command->add_option("--kvq-group", c.kvq_group, "values that share a scale: 16, 32 or 64")
      ->capture_default_str();
  command->add_option("--page-len", c.page_len,
                      "of --kv explicit: tokens of a page; the newest pages stay (default: all)");
  command->add_option("--max-pages", c.max_pages, "pages that stay (default 4)");
  command->add_option("--sink-tokens", c.sink_tokens, "first tokens that stay beside the pages");
  command->add_option(
      "--preset", c.preset,
      "--kv explicit for a phone: mobile_4gb or mobile_2gb (context, caches, budget)");
  command->add_option_function<std::string>(
      "--budget",
      [options](const std::string& text) {
        const auto bytes = parse_bytes(text, "--budget");
        if (!bytes.ok())
          throw CLI::ValidationError("--budget", std::string(bytes.status().message()));
        options->budget = *bytes;
      },
      "fail (4) when weights and caches take more, such as 3GB");
  command->add_option("--block", c.block, "onnx: columns that share a scale, 16 to 256");
  command->add_option("--artefact-version", c.version, "semantic version of the artefact")
      ->capture_default_str();
  command->add_option("--license", c.license_id,
                      "licence of the weights (SPDX id), for the manifest");
  command->add_option("--license-source", c.license_source, "where that licence is stated");
  command->add_option("--report", looking->report,
                      "write what each weight became and what the model lost: F (Markdown), and "
                      "beside it .json and .svg");
  command->add_option("--max-ppl-increase", looking->max_ppl_increase,
                      "gate: fail (1) and leave nothing when perplexity rises by more, such as 3%");
  command->add_option("--eval-text", looking->text,
                      "text for those two (default: one is built in)");
  command->add_option("--eval-tokens", looking->tokens, "of that text, at most")
      ->capture_default_str()
      ->check(positive());
  command->add_flag("--force", c.force, "replace an existing output");
  command->footer("Example: pome convert models/tales -o out/tales --weights lut4");
}

}  // namespace pome::cli
