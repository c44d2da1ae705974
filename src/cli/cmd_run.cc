#include <unistd.h>

#include "cli/app.h"
#include "cli/generation_flags.h"
#include "engine/generate.h"
#include "tokenizer/stop_ids.h"
#include "verify/model.h"

namespace pome::cli {

namespace {

struct Options {
  std::string model, prompt, file;
<<<<<<< HEAD
  int64_t max_tokens = 0, context = 0;
  std::optional<double> temperature, top_p, min_p, repeat_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool raw = false, exact = false, reference = false, f16 = false;
=======
  GenerationFlags generation;
  bool raw = false, reference = false, f16 = false;
>>>>>>> chat
};

Result<std::string> read_prompt(const Options& options, const CancelToken* cancel) {
  if (!options.file.empty()) return read_text_file(options.file, 64 << 20);
  if (options.prompt.empty() && !isatty(STDIN_FILENO)) return read_stdin(cancel);
  return options.prompt;
}

Result<std::vector<int32_t>> prompt_ids(const LoadedModel& model, const std::string& prompt,
                                        bool raw) {
  if (raw || !model.chat_template) return model.tokenizer->encode(prompt);
  POME_ASSIGN_OR_RETURN(
      const std::vector<TemplateSpan> spans,
      model.chat_template->render({{"user", prompt}}, true, model.tokenizer->source()));
  return encode_spans(*model.tokenizer, spans);
}

Status run(App& app, const Options& options) {
  POME_ASSIGN_OR_RETURN(const std::string prompt, read_prompt(options, app.cancel()));
  if (prompt.empty() && !options.raw)
    return usage_error("no prompt").hint("give one with -p, -f or on stdin");
  LoadOptions load;
  load.threads = app.common.threads;
<<<<<<< HEAD
  load.context = options.context;
  load.exact = options.exact;
=======
  load.context = options.generation.context;
>>>>>>> chat
  load.reference = options.reference;
  load.round_f16 = options.f16;
  POME_ASSIGN_OR_RETURN(load.chat_template, chosen_template(options.generation));
  POME_ASSIGN_OR_RETURN(LoadedModel model, load_model(options.model, load, app.work()));
  POME_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, prompt_ids(model, prompt, options.raw));
  GenerateOptions settings = settle(options.generation, model.generation_config);
  settings.continues_text = options.raw || !model.chat_template;
  if (!settings.continues_text) {
    const std::string end = find_stop_text(*model.tokenizer, *model.chat_template);
    if (!end.empty()) settings.stop.push_back(end);
  }
  const bool stream = !app.common.json;
  const auto generated = generate(
      *model.runner, model.tokenizer, ids, settings,
      // A closed pipe ends the generation quietly.
      [&](std::string_view text) { return !stream || app.print(text, true); }, app.cancel());
  if (!generated.ok()) return Status(generated.status()).in(options.model);
  const Generation& result = *generated;
  if (stream) {
    app.print("\n");
  } else {
    app.print_json({{"prompt_ids", ids},
                    {"ids", result.ids},
                    {"text", result.text},
                    {"finish_reason", to_string(result.finish_reason)},
                    {"ttft_ms", result.ttft_ms},
                    {"prefill_tokens_per_s", result.prefill_tokens_per_s},
                    {"decode_tokens_per_s", result.decode_tokens_per_s},
                    {"seed", settings.sampler.seed},
                    {"temperature", settings.sampler.temperature}});
  }
  if (result.finish_reason == FinishReason::kInterrupted && app.cancel()->cancelled())
    return Status(StatusCode::kInterrupted, "interrupted");
  if (stream && result.finish_reason == FinishReason::kContextFull)
    app.note("the context of " + std::to_string(model.runner->info().capacity) + " tokens is full");
  return {};
}

}  // namespace

void add_run(App& app) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* command =
      app.add_command("run", "generate text", [&app, options] { return run(app, *options); });
  command->add_option("model", o.model, "model or artefact")->required();
  command->add_option("-p,--prompt", o.prompt, "prompt (default: stdin)");
  command->add_option("-f,--file", o.file, "read the prompt from a file");
<<<<<<< HEAD
  command
      ->add_option("-n,--max-tokens", o.max_tokens,
                   "tokens to generate (default: generation_config.json, else 256)")
      ->check(positive());
  command->add_option("--context", o.context, "tokens the KV cache holds")->check(positive());
  command->add_option("--temp", o.temperature, "temperature; 0 = greedy")
      ->check(CLI::Range(0.0, kMaxTemperature));
  command->add_option("--top-k", o.top_k, "keep the k most likely; 0 = all")
      ->check(CLI::Range(int64_t{0}, kMaxTopK));
  command->add_option("--top-p", o.top_p, "keep the smallest set with this probability")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--min-p", o.min_p, "drop what is less likely than this fraction of the best")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--repeat-penalty", o.repeat_penalty, "divide the logits of recent tokens")
      ->check(CLI::Range(kMinPenalty, kMaxPenalty));
  command->add_option("--seed", o.seed, "seed of the sampler");
  command->add_option("--stop", o.stop, "text that ends the answer (may be given several times)");
  command->add_flag("--raw", o.raw, "no chat template: continue the text");
  command->add_flag("--exact", o.exact,
                    "f32 activations, also where weights are quantised (slower)");
=======
  add_generation_flags(command, &o.generation);
  command->add_flag("--raw", o.raw, "no chat template: continue the text")
      ->excludes(command->get_option("--template"));
>>>>>>> chat
  command->add_flag("--reference", o.reference,
                    "use the reference evaluator instead of the engine");
  command->add_flag("--f16", o.f16, "packages: round to fp16 after every op, as a device does");
}

}  // namespace pome::cli
