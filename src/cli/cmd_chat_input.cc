#include "cli/cmd_chat_input.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/byte_source.h"
#include "base/io.h"

namespace pome::cli {

namespace {

constexpr size_t kMaxLine = 64 << 20;
constexpr size_t kMaxHistoryLines = 1000, kMaxHistoryLine = 4096;
constexpr uint64_t kMaxHistoryBytes = kMaxHistoryLines * (kMaxHistoryLine + 1);
constexpr std::string_view kBlock = "\"\"\"";

std::string history_path() {
  const auto from = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  // The XDG rules: a path that is not absolute counts as absent.
  if (const std::string state = from("XDG_STATE_HOME"); !state.empty() && state.front() == '/')
    return state + "/pome/chat_history";
  const std::string home = from("HOME");
  return home.empty() ? "" : home + "/.local/state/pome/chat_history";
}

std::vector<std::string> read_lines(const std::string& path) {
  std::vector<std::string> lines;
  const auto text = read_text_file(path, kMaxHistoryBytes);
  if (!text.ok()) return lines;
  for (size_t at = 0; at < text->size();) {
    const size_t end = std::min(text->find('\n', at), text->size());
    if (end > at) lines.push_back(text->substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

Status write_lines(const std::string& path, const std::vector<std::string>& lines) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string folder = path.substr(0, slash);
    if (::access(folder.c_str(), F_OK) != 0) POME_RETURN_IF_ERROR(io::make_folder(folder));
  }
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(path, io::Staged::Kind::kFile, true));
  POME_RETURN_IF_ERROR(io::write_file(staged->path(), text));
  if (::chmod(staged->path().c_str(), 0600) != 0)
    return bad_input(Refusal::kNone, std::string("cannot be made private: ") + std::strerror(errno))
        .in(path);
  return staged->commit();
}

class PlainInput final : public LineInput {
 public:
  PlainInput(App& app, bool shows_prompt) : app_(app), shows_prompt_(shows_prompt) {}

  Result<InputLine> read(const std::string& prompt) override {
    if (shows_prompt_) app_.print(prompt, true);
    while (true) {
      if (const size_t end = buffer_.find('\n', searched_); end != std::string::npos) {
        InputLine line{InputLine::Kind::kLine, buffer_.substr(0, end)};
        buffer_.erase(0, end + 1);
        searched_ = 0;
        if (!line.text.empty() && line.text.back() == '\r') line.text.pop_back();
        return line;
      }
      searched_ = buffer_.size();
      if (buffer_.size() > kMaxLine)
        return bad_input(Refusal::kLimit, "a line of more than 64 MB").in("stdin");
      if (app_.cancel()->cancelled()) return interrupted();
      char chunk[65536];
      const ssize_t count = ::read(STDIN_FILENO, chunk, sizeof chunk);
      if (count > 0) {
        buffer_.append(chunk, static_cast<size_t>(count));
      } else if (count == 0) {
        if (buffer_.empty()) return InputLine{};
        searched_ = 0;
        return InputLine{InputLine::Kind::kLine, std::exchange(buffer_, {})};
      } else if (errno != EINTR) {
        return bad_input(Refusal::kNone, std::string("cannot be read: ") + std::strerror(errno))
            .in("stdin");
      }
    }
  }

 private:
  InputLine interrupted() {
    searched_ = 0;
    return {InputLine::Kind::kInterrupted, std::exchange(buffer_, {})};
  }

  App& app_;
  bool shows_prompt_;
  std::string buffer_;
  size_t searched_ = 0;
};

}  // namespace

LineHistory::LineHistory(bool enabled) {
  if (!enabled) return;
  path_ = history_path();
  if (!path_.empty()) lines_ = read_lines(path_);
}

void LineHistory::add(const std::string& line, const App& app) {
  if (path_.empty() || line.empty() || line.size() > kMaxHistoryLine) return;
  lines_ = read_lines(path_);
  if (!lines_.empty() && lines_.back() == line) return;
  lines_.push_back(line);
  if (lines_.size() > kMaxHistoryLines)
    lines_.erase(lines_.begin(),
                 lines_.end() - static_cast<std::ptrdiff_t>(size_t{kMaxHistoryLines}));
  const Status written = write_lines(path_, lines_);
  if (written.ok()) return;
  app.note(written.to_string() + "; what is typed is not remembered");
  path_.clear();
}

std::unique_ptr<LineInput> plain_input(App& app, bool shows_prompt) {
  return std::make_unique<PlainInput>(app, shows_prompt);
}

Result<InputLine> MessageReader::next(const std::string& prompt) {
  ++line_;
  return input_->read(prompt);
}

Result<ChatInput> MessageReader::read() {
  POME_ASSIGN_OR_RETURN(InputLine line, next(prompt_));
  const size_t first = line_;
  if (line.kind == InputLine::Kind::kLine && line.text.rfind(kBlock, 0) == 0)
    return read_block(line.text.substr(kBlock.size()), first);
  std::string text;
  while (line.kind == InputLine::Kind::kLine) {
    const size_t end = line.text.find_last_not_of('\\');
    const size_t backslashes = line.text.size() - (end == std::string::npos ? 0 : end + 1);
    if (backslashes % 2 == 0) break;
    line.text.back() = '\n';
    text += line.text;
    POME_ASSIGN_OR_RETURN(line, next(continued_));
  }
  if (line.kind == InputLine::Kind::kInterrupted)
    return ChatInput{ChatInput::Kind::kInterrupted, text + line.text, first};
  if (line.kind == InputLine::Kind::kEnd && text.empty()) return ChatInput{};
  text += line.text;
  if (text.rfind("//", 0) == 0) return ChatInput{ChatInput::Kind::kMessage, text.substr(1), first};
  if (text.rfind('/', 0) == 0) return ChatInput{ChatInput::Kind::kCommand, text.substr(1), first};
  return ChatInput{ChatInput::Kind::kMessage, std::move(text), first};
}

Result<ChatInput> MessageReader::read_block(std::string text, size_t first_line) {
  const auto closed = [&] {
    return text.size() >= kBlock.size() &&
           text.compare(text.size() - kBlock.size(), kBlock.size(), kBlock) == 0;
  };
  while (!closed()) {
    POME_ASSIGN_OR_RETURN(const InputLine line, next(continued_));
    if (line.kind == InputLine::Kind::kInterrupted)
      return ChatInput{ChatInput::Kind::kInterrupted, text + "\n" + line.text, first_line};
    if (line.kind == InputLine::Kind::kEnd)
      return bad_input(Refusal::kTrunc, "the input ends inside a message that began with \"\"\"")
          .in("stdin")
          .at("line " + std::to_string(first_line));
    text += "\n" + line.text;
    if (text.size() > kMaxLine)
      return bad_input(Refusal::kLimit, "a message of more than 64 MB")
          .in("stdin")
          .at("line " + std::to_string(first_line));
  }
  text.resize(text.size() - kBlock.size());
  // The line ends beside the marks are not part of the message.
  if (!text.empty() && text.front() == '\n') text.erase(0, 1);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return ChatInput{ChatInput::Kind::kMessage, std::move(text), first_line};
}

}  // namespace pome::cli
