// WeightSet: from one row per weight to graph constants, whatever the checkpoint calls them.
//
// A family asks for each weight with a row (names, shape, role, transform). Missing and wrongly
// shaped tensors are collected, tensors that nobody asked for are found at the end, and finish()
// lists everything in one error.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "graph/builder.h"

namespace pome {

enum class WeightTransform : uint8_t {
  kNone,
  kUnpermuteHeads,  // GGUF only: rows of q and k stored as rotated pairs (2i, 2i+1) go back to
                    // halves (i, i + d/2)
};

struct WeightRow {
  std::string name;       // graph name, without scope: "layers.0.attention.q.weight"
  std::string hf_name;    // "model.layers.0.self_attn.q_proj.weight"
  std::string gguf_name;  // "blk.0.attn_q.weight"
  Shape shape;            // in the graph
  Constant::Role role = Constant::Role::kMatrix;
  WeightTransform transform = WeightTransform::kNone;
  int64_t heads = 0;  // for kUnpermuteHeads
};

class WeightSet {
 public:
  WeightSet(const Checkpoint& checkpoint, GraphBuilder& builder);
  // The constant's value. After a problem the value stands for a constant of the right shape, so
  // that the family can go on and find more problems.
  ValueId get(const WeightRow& row);
  bool has(const std::string& hf_name, const std::string& gguf_name) const;
  // Decodes a small stored vector (GGUF rope_freqs), marking it used. Empty when absent.
  Result<std::vector<float>> read_vector(const std::string& hf_name, const std::string& gguf_name);
  // Tensors that carry no weight of their own; `suffix` matches the end of the stored name.
  void ignore(const std::string& suffix) { ignored_.push_back(suffix); }
  Status finish() const;

 private:
  std::string stored_name(const std::string& hf_name, const std::string& gguf_name) const;
  const Checkpoint& checkpoint_;
  GraphBuilder& builder_;
  bool gguf_;
  bool drop_prefix_ = false;  // a base model saved without the leading "model."
  std::set<std::string> used_;
  std::vector<std::string> ignored_, problems_;
};

}  // namespace pome
