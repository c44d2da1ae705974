#include "base/units.h"
#include "cli/app.h"
#include "pipeline/importance.h"

namespace pome::cli {

namespace {

Status run(App& app, ImportanceOptions options) {
  POME_ASSIGN_OR_RETURN(options.model, checkpoint_path(options.model, "calibrate"));
  POME_ASSIGN_OR_RETURN(const ImportanceReport report, write_importance(options, app.work()));
  if (app.common.json) {
    app.print_json({{"output", options.output},
                    {"tokens", report.tokens},
                    {"weights", report.weights},
                    {"experts_without_tokens", report.unmet},
                    {"bytes", report.bytes},
                    {"text_digest", report.text_digest}});
    return {};
  }
  if (report.unmet > 0)
    app.note("warning: no token reached " + std::to_string(report.unmet) +
             " experts; more --tokens or another text would");
  app.print("wrote " + options.output + "\n  weights          " + std::to_string(report.weights) +
            "\n  tokens           " + std::to_string(report.tokens) + " of " +
            (options.text.empty() ? "the built-in text" : escape_for_terminal(options.text)) +
            "\n  size             " + human_bytes(report.bytes) + "\n");
  return {};
}

}  // namespace

void add_calibrate(App& app) {
  auto options = std::make_shared<ImportanceOptions>();
  ImportanceOptions& o = *options;
  CLI::App* command = app.add_command(
      "calibrate",
      "write an importance matrix: how large the activations are that meet each weight",
      [&app, options] { return run(app, *options); });
  command->add_option("model", o.model, "folder, .safetensors or .gguf file")->required();
  command->add_option("-o,--output", o.output, "file to write")->required();
  command->add_option("--text", o.text, "text to run (default: one is built in)");
  command->add_option("--tokens", o.tokens, "of that text, at most")
      ->capture_default_str()
      ->check(positive());
  command->add_option("--window", o.window, "tokens that see each other")
      ->capture_default_str()
      ->check(positive());
  command
      ->add_option_function<std::string>(
          "--form",
          [options](const std::string& form) {
            options->form = form == "dat" ? ImatrixForm::kDat : ImatrixForm::kGguf;
          },
          "gguf, or dat for llama.cpp before 2025")
      ->check(CLI::IsMember({"gguf", "dat"}));
  command->add_flag("--force", o.force, "replace an existing file");
}

}  // namespace pome::cli
