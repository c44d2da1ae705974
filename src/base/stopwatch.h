// Seconds since it was made or last started.
#pragma once

#include <chrono>
#include <utility>

namespace pome {

class Stopwatch {
 public:
  double seconds() const { return since(start_, Clock::now()); }
  // Gives the seconds and starts anew.
  double lap() {
    const Clock::time_point now = Clock::now();
    return since(std::exchange(start_, now), now);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double since(Clock::time_point start, Clock::time_point end) {
    return std::chrono::duration<double>(end - start).count();
  }
  Clock::time_point start_ = Clock::now();
};

}  // namespace pome
