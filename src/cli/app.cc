#include "cli/app.h"

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/byte_source.h"
#include "base/thread_pool.h"
#include "cli/default_text.h"
#include "formats/manifest.h"

namespace pome::cli {

namespace {

CancelToken g_cancel;
std::atomic<bool> g_held{false};

extern "C" void on_interrupt(int) {
  // The second Ctrl-C leaves at once.
  if (g_cancel.cancelled() && !g_held.load(std::memory_order_relaxed)) _exit(130);
  g_cancel.cancel();
}

bool can_redraw() {
  const char* terminal = std::getenv("TERM");
  return terminal && std::strcmp(terminal, "dumb") != 0;
}

// One line on stderr, redrawn at most ten times a second, removed when the phase ends.
class TerminalProgress final : public Progress {
 public:
  void begin(std::string_view phase, uint64_t total, std::string_view unit) override {
    phase_ = phase;
    unit_ = unit;
    total_ = total;
    start_ = Clock::now();
    drawn_ = start_ - std::chrono::seconds(1);
    advance(0);
  }
  void advance(uint64_t done) override {
    const auto now = Clock::now();
    if (now - drawn_ < std::chrono::milliseconds(100)) return;
    drawn_ = now;
    const double fraction =
        total_ ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total_)) : 0;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double rate = seconds > 0.2 ? static_cast<double>(done) / seconds : 0;
    std::string line =
        "\r\x1b[K" + phase_ + " " + std::to_string(static_cast<int>(fraction * 100)) + "% ";
    constexpr int kWidth = 24;
    const int filled = static_cast<int>(fraction * kWidth);
    line += "[" + std::string(static_cast<size_t>(filled), '=') +
            std::string(static_cast<size_t>(kWidth - filled), ' ') + "]";
    if (rate > 0) {
      line += " " +
              (unit_ == "bytes" ? human_bytes(static_cast<uint64_t>(rate))
                                : fixed(rate, 0) + " " + unit_) +
              "/s";
      line +=
          ", " + fixed(static_cast<double>(total_ - std::min(done, total_)) / rate, 0) + " s left";
    }
    std::fputs(line.c_str(), stderr);
  }
  void end() override { std::fputs("\r\x1b[K", stderr); }

 private:
  using Clock = std::chrono::steady_clock;
  std::string phase_, unit_;
  uint64_t total_ = 0;
  Clock::time_point start_, drawn_;
};

}  // namespace

App::App()
    : root_("pome puts an open language model on a phone, and proves that what it ships works.") {
  root_.set_version_flag("--version", std::string("pome ") + kPomeVersion);
  root_.require_subcommand(1);
  root_.footer(
      "Exit codes: 0 done, 1 a gate failed, 2 usage or output exists, 3 bad or missing input, 4 "
      "does not fit,\n"
      "            5 not supported, 6 network or busy, 130 interrupted.");
  add_inspect(*this);
  add_tokenize(*this);
  add_graph(*this);
  add_convert(*this);
  add_calibrate(*this);
  add_verify(*this);
  add_eval(*this);
  add_run(*this);
  add_bench(*this);
  add_chat(*this);
  add_exec(*this);
}
App::~App() = default;

CLI::App* App::add_command(const std::string& name, const std::string& description,
                           std::function<Status()> body) {
  CLI::App* command = root_.add_subcommand(name, description);
  command->add_flag("--json", common.json, "one JSON object on stdout");
  command->add_option("-t,--threads", common.threads, "threads (default: all processors)")
      ->check(CLI::Range(1, 1024));
  command->callback([this, body = std::move(body)] { chosen_ = body; });
  return command;
}

int App::run(int argc, char** argv) {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  command_line_ = "pome";
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool quoted = argument.empty() || argument.find_first_of(" \t'\"") != std::string::npos;
    command_line_ += quoted ? " \"" + argument + "\"" : " " + argument;
  }
  if (argc > 1) {
    // CLI11 would only say that a command is required.
    const std::string first = argv[1];
    const bool is_flag = first.rfind('-', 0) == 0;
    const auto named = [&](const CLI::App* command) { return command->get_name() == first; };
    if (is_flag ? first != "-h" && first != "--help" && first != "--version"
                : root_.get_subcommands(named).empty()) {
      std::fprintf(stderr, "pome: there is no %s '%s'; pome --help lists them\n",
                   is_flag ? "option" : "command", escape_for_terminal(first, 64).c_str());
      return exit_code(StatusCode::kUsage);
    }
  }
  try {
    root_.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // CLI11 prints help to stdout and mistakes to stderr; only its exit code is not ours.
    return root_.exit(error) == 0 ? 0 : exit_code(StatusCode::kUsage);
  }
  if (common.threads == 0) common.threads = default_thread_count();
  if (isatty(STDERR_FILENO) && can_redraw() && !common.json)
    progress_ = std::make_unique<TerminalProgress>();
  Status status = chosen_();
  print("", true);
  if (status.ok()) status = output_status();
  if (status.ok()) return 0;
  if (progress_) progress_->end();
  if (common.json) {
    Json error = {{"error",
                   {{"message", status.to_string()},
                    {"code", exit_code(status.code())},
                    {"refusal", to_string(status.refusal())}}}};
    if (!status.file().empty()) error["error"]["file"] = status.file();
    if (!status.where().empty()) error["error"]["where"] = status.where();
    std::fprintf(stderr, "%s\n", dump_json(error).c_str());
  } else {
    std::fprintf(stderr, "pome: %s\n", status.to_string().c_str());
  }
  return exit_code(status.code());
}

WorkContext App::work() { return {progress_.get(), &g_cancel, common.threads}; }
const CancelToken* App::cancel() const { return &g_cancel; }
bool App::take_interrupt() {
  const bool came = g_cancel.cancelled();
  g_cancel.reset();
  return came;
}
void App::hold_interrupts(bool held) { g_held.store(held, std::memory_order_relaxed); }
void App::print_json(const Json& value) { print(dump_json(value) + "\n"); }
bool App::print(std::string_view text, bool flush) {
  if (output_error_ != 0) return false;
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
      (!flush || std::fflush(stdout) == 0))
    return true;
  output_error_ = errno != 0 ? errno : EIO;
  return false;
}
Status App::output_status() const {
  // Who closed the pipe has read enough.
  if (output_error_ == 0 || output_error_ == EPIPE) return {};
  return does_not_fit(std::string("cannot write: ") + std::strerror(output_error_)).in("stdout");
}
void App::note(const std::string& text) const { std::fprintf(stderr, "pome: %s\n", text.c_str()); }

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

uint64_t peak_memory_bytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return static_cast<uint64_t>(usage.ru_maxrss);
#else
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
#endif
}

Result<std::string> text_or_default(const std::string& path) {
  if (path.empty()) return std::string(default_text());
  return read_text_file(path, uint64_t{1} << 30);
}

Result<std::string> read_stdin(const CancelToken* cancel) {
  constexpr size_t kMax = size_t{1} << 30;
  std::string text;
  char buffer[65536];
  while (const size_t count = std::fread(buffer, 1, sizeof buffer, stdin)) {
    text.append(buffer, count);
    if (text.size() > kMax) return bad_input(Refusal::kLimit, "more than 1 GB of text").in("stdin");
  }
  POME_RETURN_IF_ERROR(check_cancelled(cancel));
  if (std::ferror(stdin))
    return bad_input(Refusal::kNone, std::string("cannot be read: ") + std::strerror(errno))
        .in("stdin");
  return text;
}

Result<std::vector<int32_t>> parse_ids(const std::string& text, const std::string& name) {
  std::vector<int32_t> ids;
  for (size_t at = 0; at < text.size();) {
    if (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') {
      ++at;
      continue;
    }
    size_t end = at;
    int64_t value = 0;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9' && end - at < 11)
      value = value * 10 + (text[end++] - '0');
    const bool terminated = end == text.size() || text[end] == ' ' || text[end] == '\n' ||
                            text[end] == '\t' || text[end] == '\r';
    if (end == at || !terminated || value > INT32_MAX)
      return bad_input(Refusal::kType, "expected token ids separated by white space")
          .in(name)
          .at_offset(at);
    ids.push_back(static_cast<int32_t>(value));
    at = end;
  }
  return ids;
}

CLI::Validator positive() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        const bool number = !text.empty() && text.size() <= 18 &&
                            text.find_first_not_of("0123456789") == std::string::npos &&
                            text.find_first_not_of('0') != std::string::npos;
        return number ? "" : "'" + text + "' is not a whole number of at least 1";
      },
      "", "positive");
}

Result<std::string> checkpoint_path(const std::string& path, const std::string& command) {
  POME_ASSIGN_OR_RETURN(const std::optional<ArtefactPaths> artefact, find_artefact(path));
  if (!artefact) return path;
  if (artefact->is_checkpoint()) return artefact->package;
  return unsupported("this is an artefact that convert wrote; " + command +
                     " takes the model that it was made from")
      .in(path);
}

Result<ArtefactPaths> require_artefact(const std::string& path, const std::string& command) {
  POME_ASSIGN_OR_RETURN(const std::optional<ArtefactPaths> artefact, find_artefact(path));
  if (artefact) return *artefact;
  if (access(path.c_str(), F_OK) != 0)
    return missing("there is no such file or folder").in(path).hint("check the path");
  return unsupported(command + " takes an artefact that convert wrote, or the model file in it")
      .in(path);
}

Result<double> parse_percent(const std::string& text, const std::string& option) {
  const std::string number =
      !text.empty() && text.back() == '%' ? text.substr(0, text.size() - 1) : text;
  char* end = nullptr;
  const double value = std::strtod(number.c_str(), &end);
  if (number.empty() || *end != '\0' || !std::isfinite(value))
    return usage_error(option + " '" + text + "' must be a percentage, such as 3%");
  return value;
}

}  // namespace pome::cli
