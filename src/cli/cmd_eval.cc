#include <sys/stat.h>

#include <cstring>

#include "base/io.h"
#include "cli/app.h"
#include "cli/evaluate.h"
#include "cli/generation_flags.h"

namespace pome::cli {

namespace {

struct Options {
  std::string model, against, text, ids, logits, rule = "all", max_ppl_increase, kv;
  int64_t max_tokens = 0, context = 0;
  bool fast = false, reference = false, f16 = false, force = false;
};

// numpy's .npy, version 1.0: float32, C order.
std::string npy_header(int64_t rows, int64_t columns) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" +
                       std::to_string(rows) + ", " + std::to_string(columns) + "), }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string out = "\x93NUMPY";
  out += '\x01';
  out += '\0';
  out += static_cast<char>(header.size() & 0xFF);
  out += static_cast<char>(header.size() >> 8);
  return out + header;
}

Status write_logits(App& app, const Options& options, const std::vector<int32_t>& ids,
                    LoadedModel& model) {
  const int64_t vocab = model.runner->info().vocab_size, count = static_cast<int64_t>(ids.size());
  if (count == 0) return usage_error("no token ids").in(options.ids);
  if (count > model.runner->info().capacity)
    return usage_error(std::to_string(count) + " tokens do not fit the context of " +
                       std::to_string(model.runner->info().capacity))
        .in(options.ids)
        .hint("use a larger --context");
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(options.logits, io::Staged::Kind::kFile, options.force));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::OutputFile> file,
                        io::OutputFile::create(staged->path()));
  POME_RETURN_IF_ERROR(file->write(npy_header(count, vocab)));
  const int64_t step =
      std::max<int64_t>(1, std::min(model.runner->info().chunk, (int64_t{16} << 20) / vocab));
  std::vector<float> rows(static_cast<size_t>(step * vocab));
  for (int64_t at = 0; at < count; at += step) {
    POME_RETURN_IF_ERROR(check_cancelled(app.cancel()));
    const int64_t n = std::min(step, count - at);
    const std::span<float> out(rows.data(), static_cast<size_t>(n * vocab));
    POME_RETURN_IF_ERROR(model.runner->prefill(
        std::span(ids).subspan(static_cast<size_t>(at), static_cast<size_t>(n)), LogitsOf::kAll,
        out));
    POME_RETURN_IF_ERROR(file->write(std::as_bytes(out)));
  }
  POME_RETURN_IF_ERROR(file->close());
  POME_RETURN_IF_ERROR(staged->commit());
  if (app.common.json)
    app.print_json({{"tokens", count}, {"vocab_size", vocab}, {"logits", options.logits}});
  else
    app.print("wrote " + options.logits + ": logits of " + std::to_string(count) + " positions\n");
  return {};
}

Status run(App& app, const Options& options) {
  if (options.text.empty() == options.ids.empty())
    return usage_error("give either --text F or --ids F --logits OUT.npy");
  if (!options.ids.empty() && options.logits.empty())
    return usage_error("--ids needs --logits OUT.npy");
  if (options.ids.empty() && !options.logits.empty()) return usage_error("--logits needs --ids F");
  double limit = 0;
  if (!options.max_ppl_increase.empty()) {
    if (options.against.empty()) return usage_error("--max-ppl-increase needs --against M");
    POME_ASSIGN_OR_RETURN(limit, parse_percent(options.max_ppl_increase, "--max-ppl-increase"));
  }
  Evaluation evaluation{options.model, options.against,   options.text, {},
                        options.rule,  options.max_tokens};
  LoadOptions& load = evaluation.load;
  load.threads = app.common.threads;
  load.exact = !options.fast;
  load.kv = chosen_kv(options.kv);
  load.reference = options.reference;
  load.round_f16 = options.f16;
  load.context = options.context;
  if (!options.ids.empty()) {
    load.need_tokenizer = false;
    POME_ASSIGN_OR_RETURN(const std::string listed, read_text_file(options.ids, 64 << 20));
    POME_ASSIGN_OR_RETURN(const std::vector<int32_t> given, parse_ids(listed, options.ids));
    load.declared_length = static_cast<int64_t>(given.size());
    POME_ASSIGN_OR_RETURN(LoadedModel model, load_model(options.model, load, app.work()));
    return write_logits(app, options, given, model);
  }
  POME_ASSIGN_OR_RETURN(Opened opened, open_to_score(app, evaluation));
  const ScoreOptions& scoring = opened.scoring;
  if (options.against.empty()) {
    const auto scored = score(*opened.model.runner, opened.ids, scoring, app.work());
    if (!scored.ok()) return Status(scored.status()).in(options.model);
    const Score& result = *scored;
    if (app.common.json) {
      app.print_json({{"tokens", result.tokens},
                      {"mean_nll", result.mean_nll},
                      {"perplexity", result.perplexity},
                      {"perplexity_stderr", result.perplexity_stderr},
                      {"context", scoring.window},
                      {"runner", opened.model.runner->info().kind}});
    } else {
      app.print("perplexity " + fixed(result.perplexity, 4) + " ± " +
                fixed(result.perplexity_stderr, 4) + " over " + std::to_string(result.tokens) +
                " tokens (windows of " + std::to_string(scoring.window) + ")\n");
    }
    return {};
  }
  POME_ASSIGN_OR_RETURN(const Comparison c, compare_with_original(app, evaluation, &opened));
  if (app.common.json) {
    app.print_json({{"tokens", c.artefact.tokens},
                    {"perplexity", c.artefact.perplexity},
                    {"perplexity_stderr", c.artefact.perplexity_stderr},
                    {"perplexity_original", c.original.perplexity},
                    {"ppl_increase_percent", c.ppl_increase_percent},
                    {"mean_kld", c.mean_kld},
                    {"mean_kld_stderr", c.mean_kld_stderr},
                    {"max_kld", c.max_kld},
                    {"kld_999", c.kld_999},
                    {"nll_difference", c.nll_difference},
                    {"nll_difference_stderr", c.nll_difference_stderr},
                    {"top1_agreement", c.top1_agreement},
                    {"max_abs_error", c.max_abs_error},
                    {"context", scoring.window}});
  } else {
    app.print("perplexity " + fixed(c.artefact.perplexity, 4) + " ± " +
              fixed(c.artefact.perplexity_stderr, 4) + ", original " +
              fixed(c.original.perplexity, 4) + " (" + (c.ppl_increase_percent >= 0 ? "+" : "") +
              fixed(c.ppl_increase_percent, 2) + " %)\n" + "mean KL divergence " +
              fixed(c.mean_kld, 6) + " ± " + fixed(c.mean_kld_stderr, 6) + ", same best token " +
              fixed(100 * c.top1_agreement, 2) + " %, over " + std::to_string(c.artefact.tokens) +
              " tokens\n");
  }
  return options.max_ppl_increase.empty() ? ok_status() : check_increase(c, limit);
}

}  // namespace

void add_eval(App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_command("eval", "perplexity, KL divergence, logits",
                                      [&app, options] { return run(app, *options); });
  command->add_option("model", options->model, "model or artefact")->required();
  command->add_option("--text", options->text, "text to score");
  command->add_option("--against", options->against, "original to compare with");
  command->add_option("--max-tokens", options->max_tokens, "use the first N tokens of the text")
      ->check(positive());
  command
      ->add_option("--context", options->context,
                   "window (default: min(512, capacity)); with --ids the capacity")
      ->check(positive());
  command
      ->add_option("--score", options->rule,
                   "all: every token after the first of a window; second-half: as llama-perplexity")
      ->check(CLI::IsMember({"all", "second-half"}))
      ->capture_default_str();
  command->add_option("--max-ppl-increase", options->max_ppl_increase,
                      "gate: fail (1) when perplexity rises by more, such as 3%");
  command->add_option("--ids", options->ids, "token ids, separated by white space");
  command->add_option("--logits", options->logits,
                      "with --ids: write float32 [T, vocab_size] as .npy");
  command->add_flag("--force", options->force, "replace an existing --logits file");
  command->add_flag("--fast", options->fast,
                    "int8 activations where weights are quantised, as run and chat compute");
  add_kv_flag(command, &options->kv);
  command->add_flag("--reference", options->reference,
                    "use the reference evaluator instead of the engine");
  command->add_flag("--f16", options->f16,
                    "packages: round to fp16 after every op, as a device does");
}

}  // namespace pome::cli
