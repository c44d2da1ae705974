#include <iostream>

#include "cli/app.h"
#include "verify/model.h"

namespace pome::cli {

namespace {

struct Options {
  std::string model, text;
  bool decode = false, lines = false, no_special = false;
};

// stdin: one JSON value a line; stdout: one JSON value a line.
Status run_lines(App& app, const Options& options, const Tokenizer& tokenizer) {
  const EncodeOptions encode{!options.no_special, !options.no_special};
  std::string line;
  for (uint64_t number = 1; std::getline(std::cin, line); ++number) {
    const std::string at = "stdin line " + std::to_string(number);
    POME_ASSIGN_OR_RETURN(const Json value, parse_json(line, at));
    if (!options.decode) {
      if (!value.is_string()) return bad_input(Refusal::kType, "expected a JSON string").in(at);
      app.print_json(tokenizer.encode(value.get<std::string>(), encode));
      continue;
    }
    if (!value.is_array()) return bad_input(Refusal::kType, "expected a JSON array of ids").in(at);
    std::vector<int32_t> ids;
    for (const Json& id : value) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
        return bad_input(Refusal::kType, "expected token ids").in(at);
      ids.push_back(id.get<int32_t>());
    }
    auto text = tokenizer.decode(ids, options.no_special);
    if (!text.ok()) return std::move(text).status().in(at);
    app.print_json(*text);
  }
  return check_cancelled(app.cancel());
}

Status run(App& app, const Options& options) {
  POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer,
                        load_tokenizer(options.model));
  if (options.lines) return run_lines(app, options, *tokenizer);
  std::string input;
  if (options.text.empty()) {
    POME_ASSIGN_OR_RETURN(input, read_stdin(app.cancel()));
  } else {
    POME_ASSIGN_OR_RETURN(input, text_or_default(options.text));
  }
  if (options.decode) {
    POME_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                          parse_ids(input, options.text.empty() ? "stdin" : options.text));
    POME_ASSIGN_OR_RETURN(const std::string text, tokenizer->decode(ids, options.no_special));
    if (app.common.json)
      app.print_json({{"text", text}});
    else
      app.print(text + "\n");
    return {};
  }
  const std::vector<int32_t> ids =
      tokenizer->encode(input, {!options.no_special, !options.no_special});
  if (app.common.json) {
    app.print_json({{"ids", ids}});
    return {};
  }
  std::string text;
  for (const int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  app.print(text + "\n");
  return {};
}

}  // namespace

void add_tokenize(App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_command("tokenize", "text to token ids and back",
                                      [&app, options] { return run(app, *options); });
  command->add_option("model", options->model, "model or artefact")->required();
  command->add_option("--text", options->text, "file to read (default: stdin)");
  command->add_flag("--decode", options->decode, "ids to text");
  command->add_flag(
      "--lines", options->lines,
      "stdin: one JSON string a line; stdout: one array of ids a line (with --decode the reverse)");
  command->add_flag(
      "--no-special", options->no_special,
      "no BOS; special tokens in the text are plain text (decoding: they are left out)");
}

}  // namespace pome::cli
