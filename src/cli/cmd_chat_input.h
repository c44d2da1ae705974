// Where the lines of `pome chat` come from: an editor, a plain terminal, or a pipe; and how lines
// become messages.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/app.h"

namespace pome::cli {

// The lines typed in earlier chats, one a line, the oldest first; readable by the user only.
class LineHistory {
 public:
  // $XDG_STATE_HOME/pome/chat_history, ~/.local/state without the variable. `enabled` = false, or
  // no home: nothing is read and nothing written.
  explicit LineHistory(bool enabled);
  const std::vector<std::string>& lines() const { return lines_; }
  // Also writes the file; what another chat has added meanwhile stays. Says the first time that it
  // cannot.
  void add(const std::string& line, const App& app);

 private:
  std::string path_;
  std::vector<std::string> lines_;
};

struct InputLine {
  enum class Kind { kLine, kEnd, kInterrupted };
  Kind kind = Kind::kEnd;
  // Without the line end. kInterrupted: what had been typed, where that is known.
  std::string text;
};

class LineInput {
 public:
  virtual ~LineInput() = default;
  virtual Result<InputLine> read(const std::string& prompt) = 0;
};
// `shows_prompt`: standard input is a terminal.
std::unique_ptr<LineInput> plain_input(App& app, bool shows_prompt);
// Null where there is no editor: built without one, or a terminal that cannot do it. Tab completes
// `words` at the beginning of a line.
std::unique_ptr<LineInput> edited_input(App& app, bool history, std::vector<std::string> words);

struct ChatInput {
  enum class Kind { kMessage, kCommand, kEnd, kInterrupted };
  Kind kind = Kind::kEnd;
  std::string text;  // a command without its slash; kInterrupted: what is lost by it
  size_t line = 0;   // number of its first line
};

// Puts lines together: a line that ends in a backslash goes on in the next one, and from a line
// that begins with """ all lines up to one that ends with """ are one message. A message that
// begins with a slash is a command; with two, a message that begins with one.
class MessageReader {
 public:
  MessageReader(LineInput* input, std::string prompt, std::string continued)
      : input_(input), prompt_(std::move(prompt)), continued_(std::move(continued)) {}
  // kTrunc when the input ends inside """.
  Result<ChatInput> read();

 private:
  Result<InputLine> next(const std::string& prompt);
  Result<ChatInput> read_block(std::string text, size_t first_line);

  LineInput* input_;
  std::string prompt_, continued_;
  size_t line_ = 0;
};

}  // namespace pome::cli
