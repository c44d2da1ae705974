// Weights of an ONNX model: which initializers a constant of the graph becomes, and streaming them
// into model.onnx.data. Private to export.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "export/onnx_builder.h"
#include "export/report.h"
#include "graph/graph.h"

namespace pome::onnx_export {

// How a constant is stored. docs/onnx.md draws each.
enum class Form : uint8_t {
  kDense,    // <name>: f32, or f16 where the encoding is
  kRows,     // <name>.q4 / .q8: codes + 8 / + 128 as uint8, lowest bits first, row by row as they
             // lie; <name>.scale f32 [N, K / block]. Of q4_1 and q4_k: the codes themselves, and
             // <name>.min f32 [N, K / block] added
  kTurns,    // two constants as kRows, whose rows take turns: <first>|<second>.q4, of [E, 2 N, K]
  kColumns,  // <name>.T.codes: int4 / int8 of the transposed matrix [.., K, N]; <name>.T.scale f32
             // [.., K / block, N], or [N] where a row has one scale
};
struct Stored {
  std::string codes, scale;  // names of initializers; dense: codes alone
  // kRows of blocks with minima: zero points, all 0, and what is added, f32 like the scales.
  std::string zeros, minima;
  DType dtype = DType::kF32;
  int64_t bits = 0;   // of a code
  int64_t block = 0;  // columns that share a scale; 0: dense
};

class WeightStore {
 public:
  WeightStore(const Graph& graph, OnnxBuilder* out) : graph_(graph), out_(out) {}

  const ConstantData& data(int32_t constant) const;
  // Integer codes that `form` can hold; kRows those of q4_1 and q4_k as well. Blocks of kRows are
  // as MatMulNBits and GatherBlockQuantized take them: powers of two from 16 on.
  bool can_store(int32_t constant, Form form) const;
  // Makes the initializers (once).
  const Stored& request(int32_t constant, Form form);
  // kTurns of two constants of one shape and encoding.
  const Stored& request_turns(int32_t first, int32_t second);
  // The same bytes under another shape.
  Val view_of(const Stored& stored, const std::string& suffix, Shape dims);
  // cos and sin of position * inverse_frequencies, f32 [context, half], times scale.
  std::pair<Val, Val> rope_tables(int32_t constant, int64_t context, double scale);

  // Writes what was asked for and is still in `graph`, sets where it lies, and digests every
  // constant.
  Status write(const std::string& path, onnx::Graph* graph, const WorkContext& work,
               ExportReport* report, std::vector<TensorError>* errors);

 private:
  class Stream;
  struct Item {
    int32_t constant = 0;
    Form form = Form::kDense;
    bool second = false;  // of kTurns: has the odd rows
    Stored stored;
  };
  struct RopeTable {
    std::string cosine, sine;
    int32_t constant = 0;
    int64_t context = 0;
    double scale = 1;
  };
  struct Place {
    uint64_t offset = 0, length = 0;
  };
  int64_t row_block(int32_t constant) const;
  void declare_rows(int32_t index, const std::string& stem, int64_t turns, Stored* stored);
  void declare(const std::string& name, DType dtype, Shape dims);
  Status write_rope(const RopeTable& table, Stream* stream) const;

  const Graph& graph_;
  OnnxBuilder* out_;
  std::map<std::pair<int32_t, Form>, Item> items_;
  std::vector<RopeTable> ropes_;
  std::map<std::string, std::string> views_;  // name -> the initializer whose bytes it shares
};

}  // namespace pome::onnx_export
