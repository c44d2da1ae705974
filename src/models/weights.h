// WeightSet: from one row per weight to graph constants, whatever the checkpoint calls them.
//
// A family asks for each weight with a row (names, shape, role, transform). Missing and wrongly
// shaped tensors are collected, tensors that nobody asked for are found at the end, and finish()
// lists everything in one error.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "graph/builder.h"
#include "models/stored_quantisation.h"

namespace pome {

// What lies between the stored tensor and the graph's weight. Row transforms are free; the others
// decode to f32.
using WeightTransform = std::function<ConstantDataPtr(ConstantDataPtr)>;

struct WeightRow {
  std::string name;       // graph name, without scope: "layers.0.attention.q.weight"
  std::string hf_name;    // "model.layers.0.self_attn.q_proj.weight"
  std::string gguf_name;  // "blk.0.attn_q.weight"
  Shape shape;            // in the graph
  Constant::Role role = Constant::Role::kMatrix;
  // Hugging Face: where the stored tensor differs, fused or transposed, and what makes `shape` of
  // it.
  Shape stored_shape = {};
  WeightTransform transform = nullptr;
  GgufPlace gguf = {};  // the same for GGUF, for readers and writers
};

// Rows [first, first + rows) of a fused matrix or bias ([rows, K], or [rows] for a vector).
WeightTransform take_rows(int64_t first, Shape shape);
// Row i is stored row order(i), of a matrix or a vector that holds more.
WeightTransform move_rows(std::function<int64_t(int64_t)> order, Shape shape);
// Gemma stores its norm gains minus one.
WeightTransform add_one();

// Whether both tensors are stored (`a` with or without the prefix `base`) and hold different
// values.
Result<bool> stored_apart(const Checkpoint& checkpoint, const std::string& base,
                          const std::string& a, const std::string& b);

class WeightSet {
 public:
  // A base model that was saved alone has its tensors without the prefix `base`; whether this is
  // one is told by `embedding`, a name with that prefix.
  WeightSet(const Checkpoint& checkpoint, GraphBuilder& builder, std::string base = "model.",
            const std::string& embedding = "model.embed_tokens.weight");
  // The constant's value. After a problem the value stands for a constant of the right shape, so
  // that the family can go on and find more problems.
  ValueId get(const WeightRow& row);
  // Stacked experts: row.shape is [E, N, K] (or [E, N]); Hugging Face stores one tensor per expert,
  // named by `hf_name(e)`, GGUF one stacked tensor under row.gguf_name.
  ValueId get_stack(const WeightRow& row, const std::function<std::string(int64_t)>& hf_name);
  // A stored tensor as it is, marked used; null and a collected complaint when it is missing or of
  // another shape.
  ConstantDataPtr stored(const std::string& hf_name, const std::string& gguf_name,
                         const Shape& shape);
  bool has(const std::string& hf_name, const std::string& gguf_name) const;
  // Empty when it is not there.
  Shape stored_shape(const std::string& hf_name, const std::string& gguf_name) const;
  bool is_gguf() const { return gguf_; }
  // Decodes a small stored vector (GGUF rope_freqs), marking it used. Empty when absent.
  Result<std::vector<float>> read_vector(const std::string& hf_name, const std::string& gguf_name);
  // Factors of rope frequencies that a GGUF file may hold: `count` positive numbers, or none.
  Result<std::vector<float>> read_rope_factors(const std::string& gguf_name, int64_t count);
  // Tensors that carry no weight of their own; `suffix` matches the end of the stored name.
  void ignore(const std::string& suffix) { ignored_.push_back(suffix); }
  void ignore_prefix(const std::string& prefix) { ignored_prefixes_.push_back(prefix); }
  Status finish() const;

 private:
  ValueId add(const WeightRow& row, ConstantDataPtr data);
  ConstantDataPtr from_gguf(const WeightRow& row);
  ConstantDataPtr from_mlc(const WeightRow& row);
  ConstantDataPtr with_scales(const CheckpointTensor& tensor);
  std::string stored_name(const std::string& hf_name, const std::string& gguf_name) const;
  const Checkpoint& checkpoint_;
  GraphBuilder& builder_;
  bool gguf_, mlc_;             // else Hugging Face's names
  std::string dropped_prefix_;  // of a base model saved alone
  std::optional<ScaledFloat8> float8_;
  std::set<std::string> used_;
  std::vector<std::string> ignored_, ignored_prefixes_, problems_;
};

}  // namespace pome
