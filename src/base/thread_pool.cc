#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace pome {
namespace {

// How long a worker looks for new work before it sleeps. Decoding calls the pool hundreds of times
// per token, microseconds apart; a wake-up through the kernel costs more than the work.
constexpr int kSpins = 2000;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// The pool whose body this thread is in: a nested call runs inline instead of waiting for itself.
thread_local const void* current_pool = nullptr;

}  // namespace

struct ThreadPool::Impl {
  std::mutex mutex;
  std::condition_variable work_ready, work_done;
  std::atomic<uint64_t> generation{0};
  const std::function<void()>* task = nullptr;  // null: nothing to join
  int running = 0;                              // workers inside *task
  bool stop = false;
  bool spin = false;
  std::vector<std::thread> workers;

  void worker() {
    uint64_t seen = 0;
    std::unique_lock lock(mutex);
    while (true) {
      if (spin && !stop && generation.load(std::memory_order_relaxed) == seen) {
        lock.unlock();
        for (int i = 0; i < kSpins && generation.load(std::memory_order_relaxed) == seen; ++i)
          pause_briefly();
        lock.lock();
      }
      work_ready.wait(lock,
                      [&] { return stop || generation.load(std::memory_order_relaxed) != seen; });
      if (stop) return;
      seen = generation.load(std::memory_order_relaxed);
      if (task == nullptr) continue;  // woke after the others had finished it
      const std::function<void()>* const mine = task;
      ++running;
      lock.unlock();
      (*mine)();
      lock.lock();
      if (--running == 0) work_done.notify_one();
    }
  }

  // Runs `body` on the caller and on every worker that wakes in time. `body` must return on its own
  // when nothing is left; a worker that comes late finds task == null and is not waited for.
  void run(const std::function<void()>& body) {
    const auto joined = [this, &body] {
      const void* const outer = current_pool;
      current_pool = this;
      body();
      current_pool = outer;
    };
    if (workers.empty() || current_pool == this) return joined();
    const std::function<void()> shared = joined;
    {
      const std::lock_guard lock(mutex);
      POME_CHECK(task == nullptr);  // one caller at a time
      task = &shared;
      generation.fetch_add(1, std::memory_order_relaxed);
    }
    work_ready.notify_all();
    joined();
    std::unique_lock lock(mutex);
    task = nullptr;
    work_done.wait(lock, [&] { return running == 0; });
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  POME_CHECK(threads >= 1);
  // More threads than processors would spin in each other's way.
  impl_->spin = threads <= default_thread_count();
  impl_->workers.reserve(static_cast<size_t>(threads) - 1);
  for (int i = 1; i < threads; ++i)
    impl_->workers.emplace_back([impl = impl_.get()] { impl->worker(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
    impl_->generation.fetch_add(1, std::memory_order_relaxed);
  }
  impl_->work_ready.notify_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t, int64_t)>& body) {
  POME_CHECK(grain >= 1);
  if (count <= 0) return;
  const int64_t pieces = (count - 1) / grain + 1;
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    // Checked before the add as well, so that many late arrivals cannot make the counter wrap.
    while (next.load(std::memory_order_relaxed) < pieces) {
      const int64_t piece = next.fetch_add(1, std::memory_order_relaxed);
      if (piece >= pieces) return;
      const int64_t begin = piece * grain;
      body(begin, grain > count - begin ? count : begin + grain);
    }
  };
  if (pieces == 1) return work();
  impl_->run(work);
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
  impl_->run(work);
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
