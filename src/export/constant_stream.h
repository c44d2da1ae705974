// Streams the constants of a graph into a weight file, tile by tile: read, encoded, digested and
// compared with their source on all threads, handed on in order, a few tiles ahead at most.
//
// Thread safety: one thread calls; `prepare` runs on those of the pool.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/thread_pool.h"
#include "export/report.h"
#include "export/rounding.h"
#include "graph/graph.h"

namespace pome {

class ConstantStream {
 public:
  ConstantStream(const Graph& graph, const WorkContext& work);

  // A tile as it goes to the file, and the bytes that prepare() made of it.
  struct Piece {
    EncodedTile tile;
    std::vector<std::byte> codes, scales;
  };
  using Prepare = std::function<Status(Piece*)>;
  using Write = std::function<Status(const Piece&)>;
  // All tiles of constant `index` to `write`, in order. `stored`: what goes to the file where that
  // is not the constant itself (its rows are longer). `factor`: what the constant's source was
  // multiplied by. A constant may be streamed twice.
  Status constant(size_t index, const ConstantData& stored, float factor, const Prepare& prepare,
                  const Write& write);
  // Progress and cancelling.
  Status advance(uint64_t bytes);

  // After all constants: digests of what was not streamed and of the sources, and what of them
  // says: hashes, parameters, bits per weight, errors.
  Status finish(ExportReport* report, std::vector<TensorError>* errors);
  // The hash of a graph that was built from the file: its weights are those that were just
  // digested.
  Result<std::string> hash_of(const Graph& reopened);

  bool was_streamed(size_t index) const { return done_[index].has_value(); }
  ThreadPool* pool() { return &pool_; }

 private:
  struct Done {
    Digest digest;
    RoundingError error;
    std::string encoding;
    uint64_t bytes = 0;
  };
  struct Slot {
    int64_t row = 0, rows = 0;
    Piece piece;
    EncodedTile own;  // of the constant, where it is not what is stored
    RoundingScratch scratch;
    Digest digest;
    RoundingError error;
  };
  // One tile; `slot` knows which rows.
  Status produce(const ConstantData& data, const ConstantData& stored, float factor,
                 const Prepare& prepare, Slot* slot) const;

  const Graph& graph_;
  const WorkContext& work_;
  ThreadPool pool_;
  std::vector<Slot> slots_;
  std::vector<std::optional<Done>> done_;  // by constant
  uint64_t progressed_ = 0;
};

// Bytes that finish() and the streaming of `stored` go through, for the bar.
uint64_t streamed_bytes(const Graph& graph, uint64_t stored);

// Weights one below the other in one tensor of a file: sorted by their first row, they follow each
// other and are all there. kUnsupported.
struct RowSpan {
  int64_t first = 0, rows = 0;
};
Status check_stacked(const std::string& tensor, const std::vector<RowSpan>& parts, int64_t rows);

}  // namespace pome
