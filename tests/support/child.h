// Runs a program as a child: arguments, standard input, environment, signals; what it wrote and how
// it ended.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace pome::test {

struct Ended {
  int code = -1;   // exit status, -1 when a signal ended it
  int signal = 0;  // that signal
  std::string out, err;
  double ms = 0;
};

class Child {
 public:
  using Environment = std::vector<std::pair<std::string, std::string>>;

  explicit Child(std::vector<std::string> arguments, const Environment& environment = {}) {
    int in[2], out[2], err[2];
    if (::pipe(in) != 0 || ::pipe(out) != 0 || ::pipe(err) != 0) std::abort();
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    start_ = Clock::now();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::dup2(err[1], 2);
      for (const int fd : {in[0], in[1], out[0], out[1], err[0], err[1]}) ::close(fd);
      for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    ::close(err[1]);
    in_ = in[1];
    out_ = out[0];
    err_ = err[0];
    for (const int fd : {in_, out_, err_}) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  ~Child() {
    if (pid_ > 0) finish();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void write(const std::string& text) const {
    // A child that does not read must not end the test program.
    const auto before = ::signal(SIGPIPE, SIG_IGN);
    for (size_t at = 0; at < text.size();) {
      const ssize_t n = ::write(in_, text.data() + at, text.size() - at);
      if (n <= 0) break;
      at += static_cast<size_t>(n);
    }
    ::signal(SIGPIPE, before);
  }
  void close_input() { close_fd(&in_); }
  void close_output() { close_fd(&out_); }
  void kill(int signal) const { ::kill(pid_, signal); }
  // Waits until `text` was seen on stdout, for 20 seconds at most.
  bool wait_for_output(const std::string& text) {
    const auto end = Clock::now() + std::chrono::seconds(20);
    while (ended_.out.find(text) == std::string::npos) {
      if (Clock::now() > end || !pump(100)) return ended_.out.find(text) != std::string::npos;
    }
    return true;
  }
  // Closes its input, reads all it writes and waits for its end; kills it after `seconds`.
  Ended finish(int seconds = 120) {
    close_input();
    const auto limit = Clock::now() + std::chrono::seconds(seconds);
    while (pump(200))
      if (Clock::now() > limit) {
        ADD_FAILURE() << "the program did not end in " << seconds << " s";
        kill(SIGKILL);
        break;
      }
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    close_fd(&out_);
    close_fd(&err_);
    ended_.ms = std::chrono::duration<double, std::milli>(Clock::now() - start_).count();
    if (WIFEXITED(status)) ended_.code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) ended_.signal = WTERMSIG(status);
    return ended_;
  }

 private:
  using Clock = std::chrono::steady_clock;

  static void close_fd(int* fd) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
  // Takes what is there; false when both streams have ended.
  bool pump(int wait_ms) {
    pollfd fds[2] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};
    if (out_ < 0 && err_ < 0) return false;
    if (::poll(fds, 2, wait_ms) <= 0) return true;
    const auto take = [](int* fd, short events, std::string* text) {
      if (*fd < 0 || events == 0) return;
      char buffer[65536];
      const ssize_t n = ::read(*fd, buffer, sizeof buffer);
      if (n > 0)
        text->append(buffer, static_cast<size_t>(n));
      else if (n == 0 || errno != EINTR)
        close_fd(fd);
    };
    take(&out_, fds[0].revents, &ended_.out);
    take(&err_, fds[1].revents, &ended_.err);
    return true;
  }

  pid_t pid_ = -1;
  int in_ = -1, out_ = -1, err_ = -1;
  Clock::time_point start_;
  Ended ended_;
};

inline Ended run_program(std::vector<std::string> arguments, const std::string& input = "",
                         const Child::Environment& environment = {}) {
  Child child(std::move(arguments), environment);
  child.write(input);
  return child.finish();
}

}  // namespace pome::test
