// What all commands share: the terminal, progress, interruption, and how a Status becomes an exit
// code.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/status.h"
#include "base/units.h"
#include "verify/model.h"

namespace pome::cli {

// Options every command takes.
struct Common {
  bool json = false;
  int threads = 0;  // 0 = all processors
};

class App {
 public:
  App();
  ~App();
  int run(int argc, char** argv);
  // As it was typed, arguments with blanks in quotes.
  const std::string& command_line() const { return command_line_; }

  Common common;
  WorkContext work();  // progress on stderr when it is a terminal, cancellation by Ctrl-C
  const CancelToken* cancel() const;
  // For commands that go on after Ctrl-C: whether it came since the last call.
  bool take_interrupt();
  // While held, a second Ctrl-C does not leave at once: the terminal is not as it was found.
  void hold_interrupts(bool held);
  // One JSON object on stdout.
  void print_json(const Json& value);
  // stdout; false when nobody reads any more (closed pipe) or the disk is full. run() reports the
  // latter.
  bool print(std::string_view text, bool flush = false);
  void note(const std::string& text) const;  // stderr: warnings and hints

  // Adds a command whose work is `body`.
  CLI::App* add_command(const std::string& name, const std::string& description,
                        std::function<Status()> body);

 private:
  CLI::App root_;
  Status output_status() const;

  std::unique_ptr<Progress> progress_;
  std::function<Status()> chosen_;
  std::string command_line_;
  int output_error_ = 0;  // errno of the first write to stdout that failed
};

// Each adds its commands to the app (one file per command).
void add_inspect(App& app);
void add_tokenize(App& app);
void add_graph(App& app);
void add_convert(App& app);
void add_calibrate(App& app);
void add_verify(App& app);
void add_eval(App& app);
void add_run(App& app);
void add_bench(App& app);
void add_chat(App& app);
void add_exec(App& app);

std::string fixed(double value, int digits);
uint64_t peak_memory_bytes();
// A text file, or the text embedded for verification when `path` is empty.
Result<std::string> text_or_default(const std::string& path);
// kInterrupted when Ctrl-C came while waiting.
Result<std::string> read_stdin(const CancelToken* cancel);
// Whitespace-separated integers.
Result<std::vector<int32_t>> parse_ids(const std::string& text, const std::string& name);

// An option check: a whole number of at least 1.
CLI::Validator positive();
// For commands that take checkpoints only: what to open, or that `path` is something else that
// convert wrote.
Result<std::string> checkpoint_path(const std::string& path, const std::string& command);
// For commands that take artefacts only.
Result<ArtefactPaths> require_artefact(const std::string& path, const std::string& command);

// "3%" or "3": 3. `option` is for the message.
Result<double> parse_percent(const std::string& text, const std::string& option);

}  // namespace pome::cli
