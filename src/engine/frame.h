// What steps see while they run: a view of every value, scratch memory and threads.
//
// A Frame belongs to one session and one thread; parallel() lends its scratch to the workers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/progress.h"
#include "base/thread_pool.h"
#include "graph/graph.h"

namespace pome {

inline constexpr int kMaxRank = 8;

// A value of the running call: dimensions are numbers, strides count elements. All but the caches
// lie contiguous; a cache [1, heads, rows, dim] has room for `capacity` rows per head.
struct View {
  std::byte* data = nullptr;
  int rank = 0;
  std::array<int64_t, kMaxRank> dims{}, strides{};

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[static_cast<size_t>(i)];
    return n;
  }
  int64_t dim(int axis) const { return dims[static_cast<size_t>(axis < 0 ? axis + rank : axis)]; }
  int64_t stride(int axis) const {
    return strides[static_cast<size_t>(axis < 0 ? axis + rank : axis)];
  }
  bool contiguous() const;
};

// Sets the strides of a contiguous view of these dimensions.
void set_contiguous(View* view, const SymShape& shape, const Bindings& bindings);

struct Frame {
  Bindings bindings;
  std::vector<View> views;  // by ValueId; values that the plan added come behind the graph's
  ThreadPool* pool = nullptr;
  const CancelToken* cancel = nullptr;  // may be null
  float* workspace = nullptr;           // of the running step
  float* scratch = nullptr;             // a region of scratch_stride floats for each thread
  int64_t scratch_stride = 0;

  bool cancelled() const { return cancel && cancel->cancelled(); }
  const View& view(ValueId id) const { return views[static_cast<size_t>(id)]; }

  // Calls body(item, scratch) for every item in [0, items), on all threads. Items must not depend
  // on one another; how many there are must not depend on the number of threads. Once the call is
  // cancelled the items that are left are skipped: whoever runs the step looks at `cancel` before
  // anyone reads what it wrote.
  template <typename Body>
  void parallel(int64_t items, const Body& body) const {
    parallel_runs(items, [&](int64_t begin, int64_t end, float* mine) {
      for (int64_t i = begin; i < end && !cancelled(); ++i) body(i, mine);
    });
  }
  // The same with body(begin, end, scratch) of the calling thread: as many items at once as it has
  // taken.
  template <typename Body>
  void parallel_runs(int64_t items, const Body& body) const {
    pool->share(items, [&](int64_t begin, int64_t end, int thread) {
      body(begin, end, scratch + thread * scratch_stride);
    });
  }
};

// Upper bounds of a session, for sizing memory.
struct Limits {
  int64_t tokens = 0, capacity = 0;
};

}  // namespace pome
