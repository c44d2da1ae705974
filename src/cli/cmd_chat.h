// One chat at the command line: the model, the conversation, and how answers and notes are shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/app.h"
#include "engine/chat.h"
#include "engine/conversation.h"
#include "verify/model.h"

namespace pome::cli {

class Chat {
 public:
  enum class Mode : uint8_t { kTerminal, kScript, kJson };

  Chat(App& app, LoadedModel model, ChatOptions options, Mode mode);

  // A message of the user: answers it. After an error the conversation is as it was.
  Status say(std::string text);
  Status regenerate();
  Status command(std::string_view line);  // without its slash (cmd_chat_commands.cc)

  // What a command has to say: on stdout for a person, on stderr when stdout is for answers alone.
  void show(std::string_view text);
  // A remark in brackets: nothing for --json, whose keys tell it.
  void remark(const std::string& text);
  std::string dim(const std::string& text) const;
  std::string bold(const std::string& text) const;
  bool on_terminal() const { return mode_ == Mode::kTerminal; }

  LoadedModel model;
  ChatSession session;
  Conversation conversation;
  ChatOptions options;
  uint64_t seed = 0;  // answer n of a chat draws with seed + n
  uint64_t drawn = 0;
  std::optional<ChatAnswer> last;
  int64_t answers = 0, answer_tokens = 0;
  std::string file;       // last saved to or loaded from
  bool finished = false;  // /exit

 private:
  Status answer(const Conversation& before);
  void report(const ChatAnswer& answer, size_t dropped_before);

  App& app_;
  Mode mode_;
  bool colour_ = false;
};

std::vector<std::string> chat_command_names();  // "/help" ...
// Without what a terminal would obey: control characters but for line ends and tabs become U+FFFD.
std::string harmless(std::string_view text);

}  // namespace pome::cli
