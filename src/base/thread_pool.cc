#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace pome {
namespace {

using Clock = std::chrono::steady_clock;

// How long a thread looks before it sleeps. Decoding calls the pool hundreds of times per token,
// microseconds apart; a wake-up through the kernel costs more than the work. Sampling and showing a
// token fit in as well, waiting for a person to type does not.
constexpr std::chrono::microseconds kLook{200};
constexpr int kPausesPerLook = 32;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// The pool whose body this thread is in, and as which of its threads: a nested call runs inline
// instead of waiting for itself.
thread_local const void* current_pool = nullptr;
thread_local int current_thread = 0;

constexpr uint64_t kShrinking = uint64_t{1} << 63;

}  // namespace

// A call publishes its task, then the number of pieces nobody has taken yet (`left`). Whoever takes
// one holds the call open until the piece is finished, so what the task consists of is only read
// between taking and finishing, and only written when no piece is open. A worker that comes late
// finds nothing left and touches nothing.
struct ThreadPool::Impl {
  // Of the running call.
  Task task;
  int64_t count = 0, grain = 1, pieces = 0;
  // On lines of their own: everybody writes them.
  alignas(64) std::atomic<uint64_t> left{0};  // and kShrinking
  alignas(64) std::atomic<int64_t> open{0};   // pieces that are not finished
  alignas(64) std::atomic<int> sleepers{0};
  std::atomic<bool> caller_sleeps{false}, stop{false};
  std::mutex mutex;  // of the condition variables
  std::condition_variable work_ready, work_done;
  bool look = false;  // where there are processors enough
  int threads = 1;
  std::vector<std::thread> workers;

  // True as soon as found() is; false when it is time to sleep.
  template <typename Found>
  bool look_for(const Found& found) const {
    if (found()) return true;
    if (!look) return false;
    const auto end = Clock::now() + kLook;
    do {
      for (int i = 0; i < kPausesPerLook; ++i) {
        pause_briefly();
        if (found()) return true;
      }
    } while (Clock::now() < end);
    return false;
  }

  // Takes pieces and runs them until none is left.
  void drain(int thread) {
    uint64_t word = left.load(std::memory_order_relaxed);
    while (true) {
      const auto rest = static_cast<int64_t>(word & ~kShrinking);
      if (rest == 0) return;
      const int64_t taken = word & kShrinking ? std::max<int64_t>(1, rest / (2 * threads)) : 1;
      if (!left.compare_exchange_weak(word, word - static_cast<uint64_t>(taken),
                                      std::memory_order_acquire, std::memory_order_relaxed))
        continue;
      const int64_t begin = (pieces - rest) * grain;
      // Several pieces are taken at once only where the grain is 1: this does not overflow.
      task.call(task.body, begin, begin + std::min(count - begin, grain * taken), thread);
      if (open.fetch_sub(taken) == taken && caller_sleeps.load()) {
        { const std::lock_guard lock(mutex); }
        work_done.notify_one();
      }
      word = left.load(std::memory_order_relaxed);
    }
  }

  void worker(int thread) {
    current_pool = this;
    current_thread = thread;
    const auto called = [this] { return (left.load() & ~kShrinking) != 0 || stop.load(); };
    while (!stop.load()) {
      if (!look_for(called)) {
        std::unique_lock lock(mutex);
        sleepers.fetch_add(1);  // before the last look: either it finds the call, or the call it
        work_ready.wait(lock, called);
        sleepers.fetch_sub(1);
      }
      drain(thread);
    }
  }

  void wait() {
    const auto done = [this] { return open.load() == 0; };
    if (look_for(done)) return;
    std::unique_lock lock(mutex);
    caller_sleeps.store(true);
    work_done.wait(lock, done);
    caller_sleeps.store(false);
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  POME_CHECK(threads >= 1);
  impl_->threads = threads;
  // More threads than processors would look for work in each other's way.
  impl_->look = threads <= default_thread_count();
  impl_->workers.reserve(static_cast<size_t>(threads) - 1);
  for (int i = 1; i < threads; ++i)
    impl_->workers.emplace_back([impl = impl_.get(), i] { impl->worker(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stop.store(true);
  }
  impl_->work_ready.notify_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

int ThreadPool::threads() const { return impl_->threads; }

void ThreadPool::run(int64_t count, int64_t grain, bool shrinking, const Task& task) {
  POME_CHECK(grain >= 1);
  if (count <= 0) return;
  Impl& impl = *impl_;
  const int64_t pieces = (count - 1) / grain + 1;
  const bool nested = current_pool == &impl;
  if (impl.workers.empty() || nested || pieces == 1) {
    const int thread = nested ? current_thread : 0;
    if (shrinking) return task.call(task.body, 0, count, thread);
    for (int64_t begin = 0; begin < count;) {
      const int64_t end = grain > count - begin ? count : begin + grain;
      task.call(task.body, begin, end, thread);
      begin = end;
    }
    return;
  }
  POME_CHECK(impl.open.load() == 0);  // one caller at a time
  impl.task = task;
  impl.count = count;
  impl.grain = grain;
  impl.pieces = pieces;
  impl.open.store(pieces, std::memory_order_relaxed);
  impl.left.store(static_cast<uint64_t>(pieces) | (shrinking ? kShrinking : 0));
  if (impl.sleepers.load() > 0) {
    { const std::lock_guard lock(impl.mutex); }
    impl.work_ready.notify_all();
  }
  const void* const outer = current_pool;
  const int outer_thread = current_thread;
  current_pool = &impl;
  current_thread = 0;
  impl.drain(0);
  current_pool = outer;
  current_thread = outer_thread;
  impl.wait();
}

Status ThreadPool::ordered(int64_t count, int64_t window,
                           const std::function<Status(int64_t, int64_t)>& produce,
                           const std::function<Status(int64_t, int64_t)>& consume) {
  POME_CHECK(window >= 1);
  if (count <= 0) return {};
  window = std::min(window, count);
  struct {
    std::mutex mutex;
    std::condition_variable changed;
    int64_t next_produced = 0, next_consumed = 0;
    bool consuming = false;
    std::vector<char> ready;
    int64_t end = 0;  // items from here on are not wanted: count, or the lowest failed item
    Status error;
  } state;
  state.ready.assign(static_cast<size_t>(window), 0);
  state.end = count;
  const auto failed = [&state](int64_t i, Status status) {
    if (i >= state.end) return;
    state.end = i;
    state.error = std::move(status);
  };
  const auto work = [&] {
    std::unique_lock lock(state.mutex);
    // Items below the lowest failed one are still finished: one of them may fail as well, and the
    // answer must not depend on who was faster.
    while (state.next_consumed < state.end) {
      const int64_t c = state.next_consumed, p = state.next_produced;
      if (!state.consuming && state.ready[static_cast<size_t>(c % window)]) {
        state.consuming = true;
        lock.unlock();
        Status status = consume(c, c % window);
        lock.lock();
        state.consuming = false;
        state.ready[static_cast<size_t>(c % window)] = 0;
        ++state.next_consumed;
        if (!status.ok()) failed(c, std::move(status));
        state.changed.notify_all();
      } else if (p < state.end && p - c < window) {
        ++state.next_produced;
        lock.unlock();
        Status status = produce(p, p % window);
        lock.lock();
        if (status.ok())
          state.ready[static_cast<size_t>(p % window)] = 1;
        else
          failed(p, std::move(status));
        state.changed.notify_all();
      } else {
        state.changed.wait(lock);
      }
    }
  };
  // A piece for each thread; one that comes after the end finds nothing to do.
  parallel_for(threads(), 1, [&](int64_t, int64_t) { work(); });
  return state.error;
}

int default_thread_count() {
  int count = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
  // hardware_concurrency() of some libraries ignores the affinity mask.
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) count = std::max(1, CPU_COUNT(&set));
  // A container's share of processor time (cgroup v2: "max 100000" or "quota period").
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
    long long quota = 0, period = 0;
    if (std::fscanf(file, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0)
      count = static_cast<int>(
          std::clamp<long long>((quota + period - 1) / period, 1, static_cast<long long>(count)));
    std::fclose(file);
  }
#endif
  return count;
}

}  // namespace pome
