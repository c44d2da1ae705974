#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <limits>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <utility>
#include <vector>

namespace pome {
namespace {

constexpr int kThreadCounts[] = {1, 2, 3, 8};

void nap(int microseconds) { std::this_thread::sleep_for(std::chrono::microseconds(microseconds)); }

TEST(ParallelFor, EachIndexOnceInPiecesOfTheGrain) {
  for (const int threads : kThreadCounts) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1000, 1001}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<int> seen(static_cast<size_t>(count), 0);
        std::mutex mutex;
        std::set<std::pair<int64_t, int64_t>> pieces;
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
          const std::lock_guard lock(mutex);
          pieces.insert({begin, end});
        });
        EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(count), 1));
        // The cut depends on count and grain alone.
        std::set<std::pair<int64_t, int64_t>> expected;
        for (int64_t b = 0; b < count; b += grain) expected.insert({b, std::min(count, b + grain)});
        EXPECT_EQ(pieces, expected) << threads << " threads";
      }
    }
  }
}

TEST(ParallelFor, HugeCountsDoNotWrap) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  const int64_t count = std::numeric_limits<int64_t>::max();
  pool.parallel_for(count, count / 3, [&](int64_t begin, int64_t end) {
    EXPECT_LT(begin, end);
    sum += end - begin;
  });
  EXPECT_EQ(sum, count);
  pool.parallel_for(-5, 1, [&](int64_t, int64_t) { ADD_FAILURE(); });
}

TEST(ParallelFor, ManyShortCallsInARow) {
  for (const int threads : kThreadCounts) {
    ThreadPool pool(threads);
    std::vector<int64_t> values(17, 0);
    for (int round = 0; round < 3000; ++round)
      pool.parallel_for(17, 2, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += i;
      });
    for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], 3000 * static_cast<int64_t>(i));
  }
}

TEST(ParallelFor, UsesSeveralThreads) {
  ThreadPool pool(4);
  std::atomic<int> inside{0}, most{0};
  pool.parallel_for(4, 1, [&](int64_t, int64_t) {
    const int now = ++inside;
    int before = most;
    while (before < now && !most.compare_exchange_weak(before, now)) {
    }
    // Long enough that the workers wake up on the busiest machine.
    for (int i = 0; i < 2000 && most < 2; ++i) nap(1000);
    --inside;
  });
  EXPECT_GE(most, 2);
}

TEST(ParallelFor, NestedCallsRunInline) {
  ThreadPool pool(3);
  std::atomic<int> total{0};
  pool.parallel_for(8, 1, [&](int64_t, int64_t) {
    pool.parallel_for(10, 3,
                      [&](int64_t begin, int64_t end) { total += static_cast<int>(end - begin); });
  });
  EXPECT_EQ(total, 80);
}

TEST(Share, EachIndexOnceAndNoThreadTwiceAtATime) {
  for (const int threads : kThreadCounts) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1001}) {
      std::vector<int> seen(static_cast<size_t>(count), 0);
      std::vector<std::atomic<int>> inside(static_cast<size_t>(threads));
      pool.share(count, [&](int64_t begin, int64_t end, int thread) {
        ASSERT_GE(thread, 0);
        ASSERT_LT(thread, threads);
        EXPECT_EQ(++inside[static_cast<size_t>(thread)], 1);
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        --inside[static_cast<size_t>(thread)];
      });
      EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(count), 1)) << threads << " threads";
    }
  }
}

// Nobody is left with a large piece at the end: no piece is more than a share of what is left.
TEST(Share, PiecesShrink) {
  ThreadPool pool(2);
  constexpr int64_t kCount = 4000;
  std::atomic<bool> fine{true};
  pool.share(kCount, [&](int64_t begin, int64_t end, int) {
    if (end - begin > std::max<int64_t>(1, (kCount - begin) / 4)) fine = false;
  });
  EXPECT_TRUE(fine);
}

TEST(Share, NestedCallsKeepTheirThread) {
  ThreadPool pool(3);
  pool.share(30, [&](int64_t, int64_t, int outer) {
    pool.share(5, [&](int64_t begin, int64_t end, int inner) {
      EXPECT_EQ(inner, outer);
      EXPECT_EQ(end - begin, 5);
    });
  });
}

// Calls that come while the workers look for work, just before they sleep, and long after.
TEST(Share, CallsAtAnyDistance) {
  for (const int threads : kThreadCounts) {
    ThreadPool pool(threads);
    for (int round = 0; round < 120; ++round) {
      std::atomic<int> sum{0};
      pool.share(20, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          if (round % 10 == 3 && i % 7 == 0) nap(300);  // long enough for the caller to sleep
          sum += static_cast<int>(i);
        }
      });
      ASSERT_EQ(sum, 190) << threads << " threads, round " << round;
      if (round % 3) nap(round * 5);
    }
  }
}

// A chat that waits for its user costs nothing.
TEST(ThreadPool, SleepsWhenThereIsNothingToDo) {
  ThreadPool pool(std::min(4, std::max(2, default_thread_count())));
  const auto idle_seconds = [] {
    nap(20000);                                // longer than anybody looks for work
    const std::clock_t before = std::clock();  // of all threads
    nap(100000);
    return static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  };
  pool.share(100, [](int64_t, int64_t, int) {});
  EXPECT_LT(idle_seconds(), 0.02);
  pool.parallel_for(100, 1, [](int64_t, int64_t) {});
  EXPECT_LT(idle_seconds(), 0.02);
}

TEST(ThreadPool, StartsAndStopsWithoutWork) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(1 + i % 5);
  }
}

struct Case {
  int threads;
  int64_t count, window;
};
std::vector<Case> cases() {
  std::vector<Case> out;
  for (const int threads : kThreadCounts)
    for (const int64_t count : {0, 1, 2, 5, 100})
      for (const int64_t window : {1, 2, 7, 1000}) out.push_back({threads, count, window});
  return out;
}

TEST(Ordered, ConsumesInOrderWithinTheWindow) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(testing::Message() << c.threads << " " << c.count << " " << c.window);
    ThreadPool pool(c.threads);
    const int64_t window = std::max<int64_t>(1, std::min(c.window, c.count));
    std::vector<int64_t> slots(static_cast<size_t>(c.window), -1);
    std::vector<int64_t> order;
    std::atomic<int64_t> consumed{0};
    std::atomic<int> consuming{0};
    const Status status = pool.ordered(
        c.count, c.window,
        [&](int64_t i, int64_t slot) -> Status {
          EXPECT_EQ(slot, i % window);
          EXPECT_LT(i, consumed + window) << "too far ahead";
          if (i % 7 == 0) nap(50);
          // Not atomic on purpose: the pool orders uses of one slot.
          slots[static_cast<size_t>(slot)] = i * i;
          return {};
        },
        [&](int64_t i, int64_t slot) -> Status {
          EXPECT_EQ(++consuming, 1);
          EXPECT_EQ(slots[static_cast<size_t>(slot)], i * i);
          order.push_back(i);
          ++consumed;
          --consuming;
          return {};
        });
    EXPECT_TRUE(status.ok());
    std::vector<int64_t> expected(static_cast<size_t>(c.count));
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(order, expected);
  }
}

TEST(Ordered, OneThreadAlternates) {
  ThreadPool pool(1);
  std::string trace;
  ASSERT_TRUE(pool.ordered(
                      3, 8,
                      [&](int64_t i, int64_t) -> Status {
                        trace += "p" + std::to_string(i) + " ";
                        return {};
                      },
                      [&](int64_t i, int64_t) -> Status {
                        trace += "c" + std::to_string(i) + " ";
                        return {};
                      })
                  .ok());
  EXPECT_EQ(trace, "p0 c0 p1 c1 p2 c2 ");
}

// Every pair of a failing producer and a failing consumer: the lower index wins, always, and
// exactly the items below it are consumed.
TEST(Ordered, ErrorOfTheLowestItem) {
  constexpr int64_t kCount = 12, kNever = 100;
  for (const int threads : kThreadCounts) {
    ThreadPool pool(threads);
    for (const int64_t window : {1, 3, 12}) {
      for (int64_t bad_produce = 0; bad_produce <= kCount; ++bad_produce) {
        for (int64_t bad_consume = 0; bad_consume <= kCount; ++bad_consume) {
          const int64_t p = bad_produce == kCount ? kNever : bad_produce;
          const int64_t c = bad_consume == kCount ? kNever : bad_consume;
          int64_t consumed = 0;
          const Status status = pool.ordered(
              kCount, window,
              [&](int64_t i, int64_t) -> Status {
                // Item p and its followers all fail, the followers before it or after it.
                if (i >= p) {
                  nap(i == p ? 50 : (i + c) % 2 == 0 ? 0 : 200);
                  return bad_input(Refusal::kRange, "produce " + std::to_string(i));
                }
                return {};
              },
              [&](int64_t i, int64_t) -> Status {
                if (i == c) return bad_input(Refusal::kRange, "consume " + std::to_string(i));
                ++consumed;
                return {};
              });
          const std::string expected = p == kNever && c == kNever ? ""
                                       : p <= c                   ? "produce " + std::to_string(p)
                                                                  : "consume " + std::to_string(c);
          ASSERT_EQ(status.message(), expected)
              << threads << " threads, window " << window << ", " << p << ", " << c;
          ASSERT_EQ(consumed, std::min({p, c, kCount}));
        }
      }
    }
  }
}

TEST(Ordered, StopsEarlyAfterAnError) {
  ThreadPool pool(4);
  std::atomic<int64_t> produced{0};
  const Status status = pool.ordered(
      1'000'000'000, 4,
      [&](int64_t i, int64_t) -> Status {
        ++produced;
        return i == 10 ? bad_input(Refusal::kRange, "stop") : Status();
      },
      [](int64_t, int64_t) -> Status { return {}; });
  EXPECT_FALSE(status.ok());
  EXPECT_LE(produced, 10 + 4);
}

TEST(Ordered, PoolIsUsableAfterwards) {
  ThreadPool pool(3);
  for (int i = 0; i < 200; ++i) {
    (void)pool.ordered(
        5, 2, [&](int64_t k, int64_t) { return k == i % 6 ? usage_error("x") : Status(); },
        [](int64_t, int64_t) { return Status(); });
    std::atomic<int> n{0};
    pool.parallel_for(10, 1, [&](int64_t, int64_t) { ++n; });
    ASSERT_EQ(n, 10);
  }
}

}  // namespace
}  // namespace pome
