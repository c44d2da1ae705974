// Weights of a Core ML package: which blobs a constant of the graph becomes, and streaming them
// into weight.bin. Private to export.
//
// A package is lowered twice: first without offsets, which finds unsupported operations before
// anything is written and records what is needed (request_*); then, after write(), with the offsets
// in place. Both passes make the same calls.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "export/coreml.h"
#include "export/coreml_builder.h"
#include "graph/graph.h"

namespace pome::coreml {

inline constexpr const char* kWeightFile = "@model_path/weights/weight.bin";

// How a constant is stored. Its parts follow the encoding's (encoding/encoding.h).
struct StoredConstant {
  enum class Form : uint8_t {
    kDense,  // one fp16 part
    kInt,    // codes, fp16 scales: constexpr_blockwise_shift_scale
    kLut,    // indices, fp16 tables: constexpr_lut_to_dense
    kVectorLut,
    // A mask, then as above for the values at its ones: constexpr_lut_to_sparse or
    // constexpr_sparse_blockwise_shift_scale, behind them constexpr_sparse_to_dense.
    kSparse,
    kSparseInt,
    kSparseLut
  } form = Form::kDense;
  Dims dims;
  std::vector<mil::Type> parts;
  std::vector<uint64_t> offsets;     // of the records; empty before write() and for immediates
  int64_t vector = 0;                // rows that share an index
  std::vector<std::byte> immediate;  // dense constants of fewer than 10 elements
};

class WeightStore {
 public:
  explicit WeightStore(const Graph& graph);

  // The constant as an operation's operand: emits (once per function, by the caller's cache) a
  // const or constexpr op.
  Result<Val> emit(int32_t constant, FunctionBuilder* out);
  // fp16 zeros [n], shared by all that ask for the same n.
  mil::ValueData zeros(int64_t n);
  // cos and sin of position * inverse_frequencies, [context, width] in fp16: the two halves of a
  // rotation of pairs as docs/coreml.md draws it.
  struct RopeKey {
    int32_t constant = 0;
    int64_t context = 0, rotary_dim = 0, width = 0;
    double scale = 1;
    RopeStyle style = RopeStyle::kHalves;
    friend auto operator<=>(const RopeKey&, const RopeKey&) = default;
  };
  std::pair<mil::ValueData, mil::ValueData> rope_tables(const RopeKey& key);
  std::string rope_name(const RopeKey& key, bool sine) const;

  // Writes all that was asked for, and digests every constant of the graph.
  Status write(const std::string& path, const WorkContext& work, ExportReport* report);

 private:
  class Stream;
  Result<StoredConstant> plan(int32_t constant) const;
  static Val emit_sparse(const StoredConstant& stored, const std::string& name,
                         const std::vector<InlineValue>& parts, FunctionBuilder* out);
  Status write_rope(const RopeKey& key, mil::BlobWriter* file);

  const Graph& graph_;
  std::map<int32_t, StoredConstant> constants_;
  std::map<int64_t, uint64_t> zeros_;  // n -> offset
  std::map<RopeKey, std::pair<uint64_t, uint64_t>> ropes_;
};

}  // namespace pome::coreml
