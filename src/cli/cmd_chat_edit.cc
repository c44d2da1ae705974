// The line editor of `pome chat`: libedit, where it is there.
#include "cli/cmd_chat_input.h"

#ifdef POME_HAVE_LIBEDIT

#include <histedit.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/utf8.h"

namespace pome::cli {

namespace {

std::atomic<bool> g_resized{false}, g_resumed{false};
extern "C" void on_resize(int) { g_resized = true; }
extern "C" void on_resume(int) { g_resumed = true; }

constexpr char kEscape = '\1';  // encloses what of a prompt takes no room
constexpr wchar_t kReplacement = 0xFFFD;

class EditedInput final : public LineInput {
 public:
  EditedInput(App& app, bool history, std::vector<std::string> words)
      : app_(app), file_(history), words_(std::move(words)) {}
  ~EditedInput() override {
    if (edit_) el_end(edit_);
    if (history_) history_end(history_);
  }
  EditedInput(const EditedInput&) = delete;
  EditedInput& operator=(const EditedInput&) = delete;

  bool open() {
    // The editor converts between wide characters and those of the locale.
    if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1)
      std::setlocale(LC_CTYPE, "C.UTF-8");
    history_ = history_init();
    edit_ = history_ ? el_init("pome", stdin, stdout, stderr) : nullptr;
    if (!edit_) return false;
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_PROMPT_ESC, prompt_of, kEscape);
    el_set(edit_, EL_GETCFN, read_character);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_HIST, ::history, history_);
    HistEvent event;
    ::history(history_, &event, H_SETSIZE, 1000);
    ::history(history_, &event, H_SETUNIQUE, 1);
    for (const std::string& line : file_.lines())
      ::history(history_, &event, H_ENTER, line.c_str());
    el_set(edit_, EL_ADDFN, "pome-complete", "complete a command", complete);
    const char* const bindings[][2] = {{"^I", "pome-complete"},
                                       {"^R", "em-inc-search-prev"},
                                       {"\\e[3~", "ed-delete-next-char"},
                                       {"\\e[1;5C", "em-next-word"},
                                       {"\\e[1;5D", "ed-prev-word"}};
    for (const auto& [key, function] : bindings)
      el_set(edit_, EL_BIND, key, function, static_cast<char*>(nullptr));
    el_source(edit_, nullptr);  // the user's ~/.editrc
    struct sigaction action {};
    action.sa_handler = on_resize;
    sigaction(SIGWINCH, &action, nullptr);
    action.sa_handler = on_resume;
    sigaction(SIGCONT, &action, nullptr);
    return true;
  }

  Result<InputLine> read(const std::string& prompt) override {
    prompt_ = prompt;
    interrupted_ = false;
    typed_.clear();
    app_.print("", true);
    app_.hold_interrupts(true);
    int count = 0;
    const char* text = el_gets(edit_, &count);
    app_.hold_interrupts(false);
    if (interrupted_) {
      app_.print("^C\n", true);
      return InputLine{InputLine::Kind::kInterrupted, typed_};
    }
    if (!text || count <= 0) {
      app_.print("\n", true);
      return InputLine{};
    }
    InputLine line{InputLine::Kind::kLine, std::string(text, static_cast<size_t>(count))};
    while (!line.text.empty() && (line.text.back() == '\n' || line.text.back() == '\r'))
      line.text.pop_back();
    if (!line.text.empty()) {
      HistEvent event;
      ::history(history_, &event, H_ENTER, line.text.c_str());
      file_.add(line.text, app_);
    }
    return line;
  }

 private:
  static EditedInput* self(EditLine* edit) {
    void* data = nullptr;
    el_get(edit, EL_CLIENTDATA, &data);
    return static_cast<EditedInput*>(data);
  }
  static char* prompt_of(EditLine* edit) { return self(edit)->prompt_.data(); }

  // One byte: 1, at the end 0, -1 when Ctrl-C came or reading fails.
  int read_byte(unsigned char* byte) {
    while (true) {
      if (app_.cancel()->cancelled()) {
        const LineInfo* line = el_line(edit_);
        typed_.assign(line->buffer, static_cast<size_t>(line->lastchar - line->buffer));
        // What is shown next comes behind the line.
        const LineInfoW* wide = el_wline(edit_);
        el_cursor(edit_, static_cast<int>(wide->lastchar - wide->cursor));
        el_set(edit_, EL_REFRESH);
        interrupted_ = true;
        return -1;
      }
      if (g_resumed.exchange(false)) {
        el_set(edit_, EL_PREP_TERM, 1);
        el_set(edit_, EL_REFRESH);
      }
      if (g_resized.exchange(false)) el_resize(edit_);
      const ssize_t count = ::read(STDIN_FILENO, byte, 1);
      if (count >= 0) return static_cast<int>(count);
      if (errno != EINTR) return -1;
    }
  }

  static int read_character(EditLine* edit, wchar_t* out) {
    EditedInput* input = self(edit);
    unsigned char byte = 0;
    int count = input->read_byte(&byte);
    if (count != 1) return count;
    if (byte < 0x80) {
      *out = static_cast<wchar_t>(byte);
      return 1;
    }
    std::string sequence(1, static_cast<char>(byte));
    const int length = byte < 0xC2 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : byte < 0xF5 ? 4 : 1;
    while (static_cast<int>(sequence.size()) < length) {
      count = input->read_byte(&byte);
      if (count != 1) return count;
      sequence.push_back(static_cast<char>(byte));
    }
    if (length == 1 || utf8_sequence_length(sequence, 0) != sequence.size()) {
      *out = kReplacement;
      return 1;
    }
    wchar_t point = static_cast<unsigned char>(sequence[0]) & (0xFF >> (length + 1));
    for (size_t i = 1; i < sequence.size(); ++i)
      point = (point << 6) | (static_cast<unsigned char>(sequence[i]) & 0x3F);
    *out = point;
    return 1;
  }

  // Adds what all words that begin like the line have in common.
  static unsigned char complete(EditLine* edit, int) {
    const LineInfo* line = el_line(edit);
    const std::string typed(line->buffer, static_cast<size_t>(line->cursor - line->buffer));
    if (typed.empty() || typed[0] != '/' || line->cursor != line->lastchar) return CC_REFRESH_BEEP;
    std::string common;
    int found = 0;
    for (const std::string& word : self(edit)->words_) {
      if (word.rfind(typed, 0) != 0) continue;
      if (found++ == 0) {
        common = word;
        continue;
      }
      size_t same = 0;
      while (same < std::min(common.size(), word.size()) && common[same] == word[same]) ++same;
      common.resize(same);
    }
    if (found == 0) return CC_REFRESH_BEEP;
    if (found == 1) common += ' ';
    if (common.size() == typed.size()) return CC_REFRESH_BEEP;
    el_insertstr(edit, common.c_str() + typed.size());
    return CC_REFRESH;
  }

  App& app_;
  LineHistory file_;
  std::vector<std::string> words_;
  EditLine* edit_ = nullptr;
  History* history_ = nullptr;
  std::string prompt_, typed_;
  bool interrupted_ = false;
};

}  // namespace

std::unique_ptr<LineInput> edited_input(App& app, bool history, std::vector<std::string> words) {
  const char* terminal = std::getenv("TERM");
  if (!terminal || !*terminal || std::strcmp(terminal, "dumb") == 0) return nullptr;
  auto input = std::make_unique<EditedInput>(app, history, std::move(words));
  if (!input->open()) return nullptr;
  return input;
}

}  // namespace pome::cli

#else

namespace pome::cli {

std::unique_ptr<LineInput> edited_input(App&, bool, std::vector<std::string>) { return nullptr; }

}  // namespace pome::cli

#endif
