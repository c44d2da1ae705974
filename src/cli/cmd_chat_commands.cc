// The commands of a chat: lines that begin with a slash.
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "base/byte_source.h"
#include "base/io.h"
#include "cli/cmd_chat.h"
#include "cli/generation_flags.h"

namespace pome::cli {

namespace {

constexpr uint64_t kMaxFileBytes = 64 << 20;

struct Command {
  const char* name;
  const char* argument;  // as /help shows it; "" = takes none, "[...]" = may be left out
  const char* help;
  Status (*run)(Chat& chat, const std::string& argument);
};
struct Alias {
  const char *name, *meant;
};
constexpr Alias kAliases[] = {
    {"?", "help"}, {"bye", "exit"}, {"quit", "exit"}, {"regen", "regenerate"}};

// ---- /set

struct Setting {
  const char* name;
  double low, high;
  bool whole;
  double (*get)(const Chat& chat);
  void (*set)(Chat& chat, double value);
};
SamplerOptions& sampler(Chat& chat) { return chat.options.generate.sampler; }
const SamplerOptions& sampler(const Chat& chat) { return chat.options.generate.sampler; }

constexpr Setting kSettings[] = {
    {"temp", 0, kMaxTemperature, false, [](const Chat& c) { return sampler(c).temperature; },
     [](Chat& c, double v) { sampler(c).temperature = v; }},
    {"top_p", 0, 1, false, [](const Chat& c) { return sampler(c).top_p; },
     [](Chat& c, double v) { sampler(c).top_p = v; }},
    {"top_k", 0, static_cast<double>(kMaxTopK), true,
     [](const Chat& c) { return static_cast<double>(sampler(c).top_k); },
     [](Chat& c, double v) { sampler(c).top_k = static_cast<int64_t>(v); }},
    {"min_p", 0, 1, false, [](const Chat& c) { return sampler(c).min_p; },
     [](Chat& c, double v) { sampler(c).min_p = v; }},
    {"repeat_penalty", kMinPenalty, kMaxPenalty, false,
     [](const Chat& c) { return sampler(c).repeat_penalty; },
     [](Chat& c, double v) { sampler(c).repeat_penalty = v; }},
    {"max_tokens", 1, static_cast<double>(kMaxTokens), true,
     [](const Chat& c) { return static_cast<double>(c.options.generate.max_tokens); },
     [](Chat& c, double v) { c.options.generate.max_tokens = static_cast<int64_t>(v); }},
};

std::string number(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

Status set_seed(Chat& chat, const std::string& text) {
  errno = 0;
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text.c_str(), &end, 10);
  if (text.find_first_not_of("0123456789") != std::string::npos || errno != 0)
    return usage_error("seed takes a whole number below 2^64, not '" +
                       escape_for_terminal(text, 64) + "'");
  chat.seed = value;
  chat.drawn = 0;
  return {};
}

Status set(Chat& chat, const std::string& argument) {
  if (argument.empty()) {
    std::string out;
    for (const Setting& setting : kSettings)
      out += std::string(setting.name) + " " + number(setting.get(chat)) + "\n";
    chat.show(out + "seed " + std::to_string(chat.seed) + "\n");
    return {};
  }
  const size_t space = std::min(argument.find(' '), argument.size());
  std::string name = argument.substr(0, space);
  std::replace(name.begin(), name.end(), '-', '_');
  const size_t begin = argument.find_first_not_of(' ', space);
  const std::string value = begin == std::string::npos ? "" : argument.substr(begin);
  std::string names;
  for (const Setting& setting : kSettings) names += std::string(setting.name) + " ";
  if (value.empty())
    return usage_error("/set takes a name and a value").hint("the names are " + names + "seed");
  if (name == "seed") return set_seed(chat, value);
  for (const Setting& setting : kSettings) {
    if (name != setting.name) continue;
    char* end = nullptr;
    const double parsed = std::strtod(value.c_str(), &end);
    if (*end != '\0' || !(parsed >= setting.low && parsed <= setting.high) ||
        (setting.whole && parsed != std::floor(parsed)))
      return usage_error(name + " takes a " + (setting.whole ? "whole " : "") + "number from " +
                         number(setting.low) + " to " + number(setting.high) + ", not '" +
                         escape_for_terminal(value, 64) + "'");
    setting.set(chat, parsed);
    return {};
  }
  return usage_error("there is nothing called '" + escape_for_terminal(name, 64) + "' to set")
      .hint("the names are " + names + "seed");
}

// ---- files

std::string expanded(const std::string& path) {
  const char* home = std::getenv("HOME");
  return path.rfind("~/", 0) == 0 && home ? home + path.substr(1) : path;
}

Status save(Chat& chat, const std::string& argument) {
  constexpr std::string_view kForce = "--force ";
  const bool force = argument.rfind(kForce, 0) == 0;
  const std::string path = expanded(force ? argument.substr(kForce.size()) : argument);
  // A file that this chat has written or read is its own to replace.
  auto staged = io::Staged::create(path, io::Staged::Kind::kFile, force || path == chat.file);
  if (!staged.ok()) {
    Status status = std::move(staged).status();
    return status.code() == StatusCode::kExists
               ? Status(StatusCode::kExists, "exists").in(path).hint("/save --force replaces it")
               : status;
  }
  POME_RETURN_IF_ERROR(
      io::write_file((*staged)->path(), dump_json(chat.conversation.to_json(), 2) + "\n"));
  POME_RETURN_IF_ERROR((*staged)->commit());
  chat.file = path;
  chat.remark("saved " + std::to_string(chat.conversation.messages().size()) + " messages to " +
              path);
  return {};
}

Status load(Chat& chat, const std::string& argument) {
  const std::string path = expanded(argument);
  JsonLimits limits;
  limits.bytes = kMaxFileBytes;
  POME_ASSIGN_OR_RETURN(const Json json, read_json_file(path, limits));
  POME_ASSIGN_OR_RETURN(Conversation loaded, Conversation::from_json(json, path));
  if (!loaded.system().empty()) {
    Status checked = chat.session.check_system_message();
    if (!checked.ok()) return std::move(checked).in(path).at("/0");
  }
  chat.conversation = std::move(loaded);
  chat.file = path;
  chat.remark(std::to_string(chat.conversation.messages().size()) + " messages from " + path);
  return {};
}

// ---- the conversation

Status set_system(Chat& chat, const std::string& argument) {
  if (argument.empty()) {
    const std::string_view system = chat.conversation.system();
    chat.show(system.empty() ? "no system prompt\n" : std::string(system) + "\n");
    return {};
  }
  if (argument == "\"\"") {
    chat.conversation.set_system("");
    return {};
  }
  POME_RETURN_IF_ERROR(chat.session.check_system_message());
  chat.conversation.set_system(argument);
  return {};
}

Status clear(Chat& chat, const std::string&) {
  chat.conversation.clear();
  chat.last.reset();
  return {};
}

Status undo(Chat& chat, const std::string&) {
  if (!chat.conversation.undo()) return usage_error("there is no turn to take back");
  chat.remark(std::to_string(chat.conversation.turns()) + " turns are left");
  return {};
}

Status regenerate(Chat& chat, const std::string&) {
  if (!(sampler(chat).temperature > 0))
    chat.remark("at temperature 0 the answer is the same each time; /set temp 0.8 changes that");
  return chat.regenerate();
}

Status history(Chat& chat, const std::string&) {
  for (const ChatMessage& message : chat.conversation.messages())
    chat.show(message.role + ": " + message.content + "\n");
  if (chat.conversation.messages().empty()) chat.show("nothing was said yet\n");
  return {};
}

// ---- figures

std::string row(const char* name, const std::string& value) {
  std::string out = name;
  out.resize(std::max<size_t>(out.size() + 1, 14), ' ');
  return out + value + "\n";
}

Status stats(Chat& chat, const std::string&) {
  if (!chat.last) {
    chat.show("no answer yet\n");
    return {};
  }
  const ChatAnswer& last = *chat.last;
  const Generation& g = last.generation;
  const auto prompt = static_cast<int64_t>(last.prompt.ids.size());
  std::string out =
      row("prompt", std::to_string(prompt) + " tokens, " + std::to_string(last.reused_tokens) +
                        " of them still in the cache");
  out += row("first token", fixed(g.ttft_ms, 1) + " ms");
  out += row("prefill", fixed(g.prefill_tokens_per_s, 1) + " tokens/s");
  out += row("answer", std::to_string(g.ids.size()) + " tokens, ended by " +
                           std::string(last.finish_reason()));
  out += row("decode", fixed(g.decode_tokens_per_s, 1) + " tokens/s");
  out += row("context", std::to_string(chat.session.tokens()) + " of " +
                            std::to_string(chat.session.capacity()) + " tokens");
  out += row("seed", std::to_string(sampler(chat).seed));
  out += row("this chat", std::to_string(chat.answers) + " answers, " +
                              std::to_string(chat.answer_tokens) + " tokens");
  out += row("memory", "at most " + human_bytes(peak_memory_bytes()));
  chat.show(out);
  return {};
}

Status context(Chat& chat, const std::string&) {
  const int64_t capacity = chat.session.capacity();
  const int64_t room = ChatSession::room_of(chat.options, capacity);
  std::string out = row("context", std::to_string(capacity) + " tokens, " + std::to_string(room) +
                                       " of them kept for the answer");
  if (chat.conversation.turns() > 0) {
    POME_ASSIGN_OR_RETURN(const ChatPrompt prompt,
                          chat.session.prompt(chat.conversation.messages(), chat.options));
    std::string turns = std::to_string(chat.conversation.turns()) + " turns";
    if (prompt.dropped_turns > 0)
      turns += ", the oldest " + std::to_string(prompt.dropped_turns) + " of them left out";
    out += row("conversation", turns + ": " + std::to_string(prompt.ids.size()) + " tokens");
  } else {
    out += row("conversation", "0 turns");
  }
  out += row("cache", std::to_string(chat.session.tokens()) + " tokens");
  chat.show(out);
  return {};
}

Status help(Chat& chat, const std::string& argument);
Status leave(Chat& chat, const std::string&) {
  chat.finished = true;
  return {};
}

constexpr Command kCommands[] = {
    {"help", "[COMMAND]", "this list; also /?", help},
    {"exit", "", "leave; also /quit, /bye, Ctrl-D", leave},
    {"regenerate", "", "answer the last message again; also /regen", regenerate},
    {"undo", "", "take the last message and its answer back", undo},
    {"clear", "", "forget all messages; the system prompt stays", clear},
    {"system", "[TEXT]", "set the system prompt, \"\" for none; alone: show it", set_system},
    {"history", "", "what was said", history},
    {"save", "FILE", "write the messages as JSON; --force FILE replaces a file", save},
    {"load", "FILE", "go on from such a file", load},
    {"set", "[NAME VALUE]", "temp, top_p, top_k, min_p, repeat_penalty, max_tokens, seed", set},
    {"stats", "", "speed and tokens of the last answer", stats},
    {"context", "", "how full the context is", context},
};

std::string plain_name(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Alias& alias : kAliases)
    if (name == alias.name) return alias.meant;
  return name;
}

const Command* find(const std::string& name) {
  for (const Command& command : kCommands)
    if (name == command.name) return &command;
  return nullptr;
}

// Letters to add, drop or change to make one of the other.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row_of(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row_of[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row_of[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = std::exchange(row_of[j], std::min({changed, row_of[j] + 1, row_of[j - 1] + 1}));
    }
  }
  return row_of[b.size()];
}

Status unknown(const std::string& name) {
  // Those that are nearest, when they are near at all; an abbreviation is nearer than a slip.
  constexpr size_t kFar = 3, kLongest = 32;
  std::string close;
  size_t least = kFar;
  for (const Command& command : kCommands) {
    const std::string other = command.name;
    const bool begins = name.size() >= 2 && other.rfind(name, 0) == 0;
    const size_t far = begins ? 0 : name.size() > kLongest ? kFar : distance(name, other);
    if (far >= kFar || far > least) continue;
    close = (far < least || close.empty() ? "did you mean /" : close + " or /") + other;
    least = far;
  }
  return usage_error("there is no command '/" + escape_for_terminal(name, 64) + "'")
      .hint((close.empty() ? "" : close + "? ") +
            "/help lists them; a message that begins with a slash is sent with two");
}

Status help(Chat& chat, const std::string& argument) {
  const std::string wanted =
      plain_name(argument.rfind('/', 0) == 0 ? argument.substr(1) : argument);
  if (!wanted.empty() && !find(wanted)) return unknown(wanted);
  std::string out;
  for (const Command& command : kCommands) {
    if (!wanted.empty() && wanted != command.name) continue;
    std::string name = std::string("/") + command.name + " " + command.argument;
    name.resize(std::max<size_t>(name.size() + 1, 22), ' ');
    out += name + command.help + "\n";
  }
  if (wanted.empty())
    out +=
        "A message that begins with a slash: //. One of several lines: \"\"\" before and behind, "
        "or a "
        "backslash\nat the end of a line.\n";
  chat.show(out);
  return {};
}

}  // namespace

Status Chat::command(std::string_view line) {
  const size_t space = std::min(line.find_first_of(" \t\n"), line.size());
  const std::string name = plain_name(std::string(line.substr(0, space)));
  const size_t begin = line.find_first_not_of(" \t\n", space);
  std::string argument(begin == std::string_view::npos ? "" : line.substr(begin));
  argument.resize(argument.find_last_not_of(" \t\n") + 1);
  const Command* command = find(name);
  if (!command) return unknown(name);
  const std::string_view takes = command->argument;
  if (takes.empty() && !argument.empty()) return usage_error("/" + name + " stands alone");
  if (!takes.empty() && takes.front() != '[' && argument.empty())
    return usage_error("/" + name + " needs a " + std::string(takes));
  return command->run(*this, argument);
}

std::vector<std::string> chat_command_names() {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.push_back(std::string("/") + command.name);
  return names;
}

}  // namespace pome::cli
