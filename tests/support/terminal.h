// Runs a program in a terminal of its own (a pty), as a person sees it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace pome::test {

class Terminal {
 public:
  using Environment = std::vector<std::pair<std::string, std::string>>;

  explicit Terminal(std::vector<std::string> arguments, const Environment& environment = {}) {
    fd_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd_ < 0 || ::grantpt(fd_) != 0 || ::unlockpt(fd_) != 0) std::abort();
    const std::string name = ::ptsname(fd_);
    winsize size{};
    size.ws_row = 50;
    size.ws_col = 200;
    ::ioctl(fd_, TIOCSWINSZ, &size);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::setsid();
      const int tty = ::open(name.c_str(), O_RDWR);  // becomes the controlling terminal
      if (tty < 0) ::_exit(127);
      ::ioctl(tty, TIOCSCTTY, 0);
      for (int fd = 0; fd < 3; ++fd) ::dup2(tty, fd);
      if (tty > 2) ::close(tty);
      ::setenv("TERM", "xterm", 1);
      // Whole stacks, so that a leak is known by the library that leaks.
      ::setenv("ASAN_OPTIONS", "fast_unwind_on_malloc=0", 1);
      ::setenv("LSAN_OPTIONS",
               "print_suppressions=0:suppressions=" POME_SOURCE_DIR "/tests/support/leaks.txt", 1);
      for (const auto& [key, value] : environment) ::setenv(key.c_str(), value.c_str(), 1);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
  }
  ~Terminal() {
    if (pid_ > 0) finish();
    if (fd_ >= 0) ::close(fd_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // As a person does: a moment after the screen has come to rest. An editor prints its prompt
  // before it has taken the terminal over, and what is typed in between is edited by the terminal.
  void type(const std::string& keys) {
    const auto end = Clock::now() + std::chrono::milliseconds(500);
    for (size_t before = 0; Clock::now() < end;) {
      before = screen_.size();
      if (!pump(150) || screen_.size() == before) break;
    }
    EXPECT_EQ(::write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  // Waits for `text` behind what earlier calls have waited for, for 20 seconds at most.
  bool wait_for(const std::string& text) {
    const auto end = Clock::now() + std::chrono::seconds(20);
    while (true) {
      if (const size_t found = screen_.find(text, seen_); found != std::string::npos) {
        seen_ = found + text.size();
        return true;
      }
      if (Clock::now() > end || !pump(100)) {
        ADD_FAILURE() << "waited for '" << text << "' behind\n" << screen_.substr(seen_);
        return false;
      }
    }
  }
  // All that was written so far, with the line ends of a terminal made plain.
  const std::string& screen() const { return screen_; }
  // Waits for its end; the exit code, or -1 when a signal or this call ended it.
  int finish(int seconds = 20) {
    const auto end = Clock::now() + std::chrono::seconds(seconds);
    while (pump(100))
      if (Clock::now() > end) {
        ADD_FAILURE() << "the program did not end; it wrote\n" << screen_;
        ::kill(pid_, SIGKILL);
        break;
      }
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  using Clock = std::chrono::steady_clock;

  // Takes what is there; false when the other side is closed.
  bool pump(int wait_ms) {
    pollfd fd{fd_, POLLIN, 0};
    if (::poll(&fd, 1, wait_ms) <= 0) return true;
    char buffer[65536];
    const ssize_t count = ::read(fd_, buffer, sizeof buffer);
    for (ssize_t i = 0; i < count; ++i)
      if (buffer[i] != '\r') screen_.push_back(buffer[i]);
    return count > 0 || (count < 0 && errno == EINTR);
  }

  int fd_ = -1;
  pid_t pid_ = -1;
  std::string screen_;
  size_t seen_ = 0;
};

}  // namespace pome::test
