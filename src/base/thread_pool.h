// A fixed set of worker threads with three patterns: pieces of a fixed size, pieces that shrink,
// and an ordered pipeline of tiles.
//
// Results never depend on the number of threads as long as an item's result depends on the item
// alone. A call costs about a microsecond while it follows the one before closely: workers look
// for new work for a while before they sleep, and the caller looks for their end in the same way.
// Calls allocate nothing, but for ordered(). Thread safety: one caller at a time per pool; the
// bodies run on several threads and must not throw.
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

  // Calls body(begin, end) over [0, count) in pieces of `grain`, the last of what is left; returns
  // when all are done.
  template <typename Body>
  void parallel_for(int64_t count, int64_t grain, const Body& body) {
    run(count, grain, false, {&body, [](const void* it, int64_t begin, int64_t end, int) {
                                (*static_cast<const Body*>(it))(begin, end);
                              }});
  }
  // Calls body(begin, end, thread) over [0, count): each piece is a share of what is left, so that
  // threads read long runs of memory and still end together. 0 <= thread < threads(); no two bodies
  // run with the same one at a time.
  template <typename Body>
  void share(int64_t count, const Body& body) {
    run(count, 1, true, {&body, [](const void* it, int64_t begin, int64_t end, int thread) {
                           (*static_cast<const Body*>(it))(begin, end, thread);
                         }});
  }

  // For i in [0, count): produce(i, slot) on any thread, at most `window` items ahead of consume(i,
  // slot), which runs in order of i, one at a time. slot in [0, window) is i % window: where the
  // item's buffers live. The first error stops the pipeline and is returned (the one of the lowest
  // i).
  Status ordered(int64_t count, int64_t window,
                 const std::function<Status(int64_t, int64_t)>& produce,
                 const std::function<Status(int64_t, int64_t)>& consume);

 private:
  struct Task {
    const void* body = nullptr;
    void (*call)(const void* body, int64_t begin, int64_t end, int thread) = nullptr;
  };
  void run(int64_t count, int64_t grain, bool shrinking, const Task& task);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

int default_thread_count();  // processors this process may run on

}  // namespace pome
