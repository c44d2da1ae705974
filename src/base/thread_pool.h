// A fixed set of worker threads with two patterns: parallel_for, and an ordered pipeline of tiles.
//
// Results never depend on the number of threads: work is cut by the caller's grain, not by the
// thread count. Thread safety: one caller at a time per pool; the bodies run on several threads and
// must not throw.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/status.h"

namespace pome {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // threads >= 1 in all, the caller's included; 1 starts none
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  int threads() const;

  // Calls body(begin, end) over [0, count) in pieces of at most `grain`; returns when all are done.
  void parallel_for(int64_t count, int64_t grain,
                    const std::function<void(int64_t, int64_t)>& body);

  // For i in [0, count): produce(i, slot) on any thread, at most `window` items ahead of consume(i,
  // slot), which runs in order of i, one at a time. slot in [0, window) is i % window: where the
  // item's buffers live. The first error stops the pipeline and is returned (the one of the lowest
  // i).
  Status ordered(int64_t count, int64_t window,
                 const std::function<Status(int64_t, int64_t)>& produce,
                 const std::function<Status(int64_t, int64_t)>& consume);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

int default_thread_count();  // processors this process may run on

}  // namespace pome
