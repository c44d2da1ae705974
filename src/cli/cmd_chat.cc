#include "cli/cmd_chat.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "cli/cmd_chat_input.h"
#include "cli/generation_flags.h"

namespace pome::cli {

namespace {

struct Options {
  std::string model, system;
  GenerationFlags generation;
  bool no_history = false, raw = false, reference = false, f16 = false;
};

bool colours() {
  const char* off = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return !(off && *off) && terminal && std::string_view(terminal) != "dumb";
}

}  // namespace

std::string harmless(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool c1 = byte == 0xC2 && next >= 0x80 && next < 0xA0;
    if (c1) ++i;
    if (c1 || (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F)
      out += "\xEF\xBF\xBD";
    else
      out.push_back(text[i]);
  }
  return out;
}

Chat::Chat(App& app, LoadedModel loaded, ChatOptions chat_options, Mode mode)
    : model(std::move(loaded)),
      session(model.runner.get(), model.tokenizer, model.chat_template),
      options(std::move(chat_options)),
      seed(options.generate.sampler.seed),
      app_(app),
      mode_(mode),
      colour_(mode == Mode::kTerminal && colours()) {}

std::string Chat::dim(const std::string& text) const {
  return colour_ ? "\x1b[2m" + text + "\x1b[0m" : text;
}
std::string Chat::bold(const std::string& text) const {
  return colour_ ? "\x1b[1m" + text + "\x1b[0m" : text;
}

void Chat::show(std::string_view text) {
  if (on_terminal())
    app_.print(harmless(text), true);
  else
    std::fwrite(text.data(), 1, text.size(), stderr);
}

void Chat::remark(const std::string& text) {
  if (mode_ == Mode::kTerminal)
    app_.print(dim("(" + text + ")") + "\n", true);
  else if (mode_ == Mode::kScript)
    app_.note(text);
}

Status Chat::say(std::string text) {
  const Conversation before = conversation;
  conversation.add_user(std::move(text));
  return answer(before);
}

Status Chat::regenerate() {
  const Conversation before = conversation;
  if (!conversation.take_back_answer())
    return usage_error("there is no message to answer again").hint("say something first");
  return answer(before);
}

Status Chat::answer(const Conversation& before) {
  options.generate.sampler.seed = seed + drawn;
  const size_t dropped_before = last ? last->prompt.dropped_turns : 0;
  const auto show_piece = [&](std::string_view text) {
    return mode_ == Mode::kJson ||
           app_.print(on_terminal() ? harmless(text) : std::string(text), true);
  };
  auto reply = session.reply(conversation.messages(), options, show_piece, app_.cancel());
  if (!reply.ok()) {
    conversation = before;
    // A message that does not fit is no fault of the model's files.
    return reply.status().code() == StatusCode::kUsage ? reply.status()
                                                       : Status(reply.status()).in(model.path);
  }
  ++drawn;
  const Generation& generation = reply->generation;
  const bool interrupted = generation.finish_reason == FinishReason::kInterrupted;
  if (interrupted && generation.text.empty()) {
    conversation = before;
  } else {
    conversation.add_assistant(generation.text);
    ++answers;
    answer_tokens += static_cast<int64_t>(generation.ids.size());
  }
  last = std::move(*reply);
  report(*last, dropped_before);
  return {};
}

void Chat::report(const ChatAnswer& answer, size_t dropped_before) {
  const Generation& generation = answer.generation;
  if (mode_ == Mode::kJson) {
    app_.print_json({{"turn", conversation.turns()},
                     {"text", generation.text},
                     {"finish_reason", answer.finish_reason()},
                     {"context_full", answer.context_full()},
                     {"prompt_ids", answer.prompt.ids},
                     {"ids", generation.ids},
                     {"reused_tokens", answer.reused_tokens},
                     {"dropped_turns", answer.prompt.dropped_turns},
                     {"context_tokens", session.tokens()},
                     {"capacity", session.capacity()},
                     {"ttft_ms", generation.ttft_ms},
                     {"prefill_tokens_per_s", generation.prefill_tokens_per_s},
                     {"decode_tokens_per_s", generation.decode_tokens_per_s},
                     {"seed", options.generate.sampler.seed},
                     {"temperature", options.generate.sampler.temperature}});
    app_.print("", true);
    return;
  }
  app_.print("\n", true);
  if (answer.prompt.dropped_turns > dropped_before)
    remark("the context of " + std::to_string(session.capacity()) + " tokens holds no more: the " +
           std::to_string(answer.prompt.dropped_turns) + " oldest of " +
           std::to_string(conversation.turns()) + " turns are left out");
  switch (generation.finish_reason) {
    case FinishReason::kContextFull:
      remark("the answer ends here: the context of " + std::to_string(session.capacity()) +
             " tokens is full");
      break;
    case FinishReason::kLength:
      if (on_terminal())
        remark("the answer ends here, after " + std::to_string(options.generate.max_tokens) +
               " tokens; /set max_tokens allows more");
      break;
    case FinishReason::kInterrupted:
      if (!app_.cancel()->cancelled()) break;
      remark(generation.text.empty() ? "stopped; the message is taken back"
                                     : "stopped; what there is of the answer is kept");
      break;
    case FinishReason::kStop:
      break;
  }
}

namespace {

Status handle(Chat& chat, ChatInput& input) {
  if (input.kind == ChatInput::Kind::kCommand) return chat.command(input.text);
  if (input.text.find_first_not_of(" \t\r\n") == std::string::npos) return {};
  return chat.say(std::move(input.text));
}

// Until the input ends, Ctrl-C, the first error, or nobody reads any more.
Status run_script(App& app, Chat& chat) {
  const auto lines = plain_input(app, false);
  MessageReader reader(lines.get(), "", "");
  while (!chat.finished && app.print("", true)) {
    POME_ASSIGN_OR_RETURN(ChatInput input, reader.read());
    POME_RETURN_IF_ERROR(check_cancelled(app.cancel()));
    if (input.kind == ChatInput::Kind::kEnd) break;
    Status status = handle(chat, input);
    POME_RETURN_IF_ERROR(check_cancelled(app.cancel()));
    if (!status.ok())
      return status.file().empty()
                 ? std::move(status).in("stdin").at("line " + std::to_string(input.line))
                 : status;
  }
  return {};
}

// Until Ctrl-D, /exit, or Ctrl-C twice at the prompt. Errors are shown and the chat goes on.
Status run_terminal(App& app, Chat& chat, bool history) {
  std::unique_ptr<LineInput> lines = edited_input(app, history, chat_command_names());
  // The editor's way to say which bytes of a prompt take no room.
  const auto invisible = [&](std::string prompt) {
    if (!lines) return prompt;
    for (size_t at = 0; (at = prompt.find('\x1b', at)) != std::string::npos;) {
      const size_t end = prompt.find('m', at) + 1;
      prompt.insert(end, "\1");
      prompt.insert(at, "\1");
      at = end + 2;
    }
    return prompt;
  };
  const std::string prompt = invisible(chat.bold("> ")), more = invisible(chat.dim(". "));
  if (!lines) lines = plain_input(app, true);
  MessageReader reader(lines.get(), prompt, more);
  chat.remark("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves");
  bool warned = false;
  while (!chat.finished && app.print("", true)) {
    auto input = reader.read();
    if (app.take_interrupt() && input.ok() && input->kind == ChatInput::Kind::kInterrupted) {
      if (!input->text.empty()) continue;
      if (warned) return Status(StatusCode::kInterrupted, "interrupted");
      chat.remark("Ctrl-C again leaves, as does Ctrl-D");
      warned = true;
      continue;
    }
    warned = false;
    Status status = input.ok() ? Status() : Status(input.status());
    if (status.ok() && input->kind == ChatInput::Kind::kEnd) break;
    if (status.ok()) status = handle(chat, *input);
    app.take_interrupt();
    if (!status.ok()) app.note(status.to_string());
    if (!input.ok()) break;
    if (input->kind == ChatInput::Kind::kMessage && status.ok()) app.print("\n");
  }
  return {};
}

// The conversation travels in the file of the context, as its note.
Status resume(Chat& chat, const std::string& file) {
  POME_ASSIGN_OR_RETURN(const std::string note, resume_session(*chat.model.runner, file));
  if (note.empty()) return {};  // no file yet, or one of `pome run`: without a conversation
  POME_ASSIGN_OR_RETURN(const Json json, parse_json(note, file));
  POME_ASSIGN_OR_RETURN(chat.conversation, Conversation::from_json(json, file));
  chat.remark("going on after " + std::to_string(chat.conversation.turns()) + " turns, " +
              std::to_string(chat.session.tokens()) + " tokens");
  return {};
}

Status run(App& app, const Options& o) {
  if (o.raw)
    return usage_error("a chat needs the chat template; --raw is not for it")
        .hint("continue a text with pome run --raw");
  LoadOptions load;
  load.threads = app.common.threads;
  load.context = o.generation.context;
  load.exact = false;
  load.kv = chosen_kv(o.generation.kv);
  load.reference = o.reference;
  load.round_f16 = o.f16;
  POME_ASSIGN_OR_RETURN(load.chat_template, chosen_template(o.generation));
  POME_ASSIGN_OR_RETURN(LoadedModel model, load_model(o.model, load, app.work()));
  if (!model.chat_template)
    return unsupported("this model has no chat template")
        .in(o.model)
        .hint("continue a text with pome run, or give a template with --template");
  const bool terminal = isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0;
  ChatOptions options;
  options.generate = settle(o.generation, model.generation_config);
  Chat chat(app, std::move(model), std::move(options),
            app.common.json ? Chat::Mode::kJson
            : terminal      ? Chat::Mode::kTerminal
                            : Chat::Mode::kScript);
  const std::string& file = o.generation.session;
  if (!file.empty()) POME_RETURN_IF_ERROR(resume(chat, file));
  if (!o.system.empty()) {
    Status checked = chat.session.check_system_message();
    if (!checked.ok()) return std::move(checked).in(o.model).at("--system");
    chat.conversation.set_system(o.system);
  }
  Status status =
      chat.on_terminal() ? run_terminal(app, chat, !o.no_history) : run_script(app, chat);
  // Also after an error or Ctrl-C: what was said until then is kept.
  if (!file.empty()) {
    chat.model.runner->set_cancel(nullptr);
    Status kept = chat.model.runner->save_context(file, chat.conversation.to_json().dump());
    if (status.ok()) status = std::move(kept);
  }
  return status;
}

}  // namespace

void add_chat(App& app) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* command =
      app.add_command("chat", "talk to a model", [&app, options] { return run(app, *options); });
  command->add_option("model", o.model, "model or artefact")->required();
  command->add_option("--system", o.system, "system prompt");
  add_generation_flags(command, &o.generation);
  command->add_flag("--no-history", o.no_history,
                    "neither read nor write the file of lines typed in earlier chats");
  command->add_flag("--raw", o.raw)->group("");  // refused, with the way to go
  command->add_flag("--reference", o.reference,
                    "use the reference evaluator instead of the engine");
  command->add_flag("--f16", o.f16, "packages: round to fp16 after every op, as a device does");
  command->footer(
      "On a terminal: lines are edited and remembered; a line that ends in \\ goes on, \"\"\" "
      "begins "
      "and ends a\n"
      "message of several lines, /help lists the commands. Otherwise every line is a message, and "
      "--json gives\n"
      "one object a line and answer.");
}

}  // namespace pome::cli
