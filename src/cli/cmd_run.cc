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
  GenerationFlags generation;
  bool raw = false, exact = false, reference = false, f16 = false;
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
  load.context = options.generation.context;
  load.exact = options.exact;
  load.kv = chosen_kv(options.generation.kv);
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
    settings.reply = ReplyFormat::of(*model.tokenizer, *model.chat_template);
  }
  const std::string& session = options.generation.session;
  if (!session.empty()) POME_RETURN_IF_ERROR(resume_session(*model.runner, session).status());
  const bool stream = !app.common.json;
  const auto generated = generate(
      *model.runner, model.tokenizer, ids, settings,
      // A closed pipe ends the generation quietly.
      [&](std::string_view text) { return !stream || app.print(text, true); }, app.cancel());
  if (!generated.ok()) return Status(generated.status()).in(options.model);
  const Generation& result = *generated;
  if (!session.empty()) POME_RETURN_IF_ERROR(model.runner->save_context(session, ""));
  if (stream) {
    app.print("\n");
  } else {
    Json json = {{"prompt_ids", ids},
                 {"ids", result.ids},
                 {"text", result.text},
                 {"finish_reason", to_string(result.finish_reason)},
                 {"reused_tokens", result.reused_tokens},
                 {"ttft_ms", result.ttft_ms},
                 {"prefill_tokens_per_s", result.prefill_tokens_per_s},
                 {"decode_tokens_per_s", result.decode_tokens_per_s},
                 {"seed", settings.sampler.seed},
                 {"temperature", settings.sampler.temperature}};
    if (!result.thinking.empty()) json["thinking"] = result.thinking;
    app.print_json(json);
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
  add_generation_flags(command, &o.generation);
  command->add_flag("--raw", o.raw, "no chat template: continue the text")
      ->excludes(command->get_option("--template"));
  command->add_flag("--exact", o.exact,
                    "f32 activations, also where weights are quantised (slower)");
  command->add_flag("--reference", o.reference,
                    "use the reference evaluator instead of the engine");
  command->add_flag("--f16", o.f16, "packages: round to fp16 after every op, as a device does");
}

}  // namespace pome::cli
