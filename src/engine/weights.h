// The constants of a plan, loaded once.
//
// A matrix stays in the encoding it is stored in: mapped in place where the source allows it,
// copied otherwise. Small constants that steps read as plain values are decoded to f32.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "engine/buffer.h"
#include "graph/graph.h"
#include "kernels/packed/packed.h"
#include "kernels/weights/weights.h"

namespace pome {

struct Weight {
  kernels::WeightView view;
  ConstantDataPtr source;  // keeps mapped bytes alive
};

// A matrix laid out anew for products with int8 activations (kernels/packed).
struct PackedWeight {
  kernels::PackedView view;
};

// Thread safety: filled while compiling, then immutable.
class WeightStore {
 public:
  // All load on the first call for a constant and give the same object afterwards. Where tiles are
  // read (not from a mapped file in place), all threads of the pool read them.
  Result<const Weight*> encoded(const Graph& graph, int32_t constant, ThreadPool* pool,
                                const CancelToken* cancel);
  Result<const float*> decoded(const Graph& graph, int32_t constant, const CancelToken* cancel);
  // Reads the constant once. The caller has asked kernels::packed_format().
  Result<const PackedWeight*> packed(const Graph& graph, int32_t constant,
                                     const kernels::PackedFormat& format, ThreadPool* pool,
                                     const CancelToken* cancel);
  uint64_t bytes() const { return bytes_; }

 private:
  Result<std::byte*> take(uint64_t bytes);
  static Status copy(const ConstantData& data, const EncodedLayout& layout,
                     const std::vector<std::byte*>& parts, ThreadPool* pool,
                     const CancelToken* cancel);

  std::map<int32_t, std::unique_ptr<Weight>> encoded_;
  std::map<int32_t, AlignedBuffer> decoded_;
  std::map<int32_t, std::unique_ptr<PackedWeight>> packed_;
  // Weights that do not stay in the file lie one after the other in large buffers, so that large
  // pages are filled.
  std::vector<AlignedBuffer> arenas_;
  uint64_t arena_used_ = 0;
  uint64_t bytes_ = 0;
};

// kDoesNotFit, before anything is read, where the weights that cannot be used where they lie (other
// layouts, row orders) would take more than the machine's free memory.
Status check_weight_memory(const Graph& graph);

}  // namespace pome
