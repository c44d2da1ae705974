// The steps of a plan: one per node that computes something, with its kernels chosen.
//
// A step is immutable and shared by all sessions. Results never depend on the number of threads or
// on how tokens are cut into calls: a value of token t is computed by the same operations in the
// same order in every call that holds t.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/frame.h"
#include "engine/row_norm.h"
#include "engine/weights.h"
#include "graph/graph.h"
#include "kernels/attention/kv_rows.h"

namespace pome {

class Step {
 public:
  virtual ~Step() = default;
  virtual Status run(const Frame& frame) const = 0;
  virtual std::string describe() const = 0;  // "linear gemv_bf16_avx2 [768, 256]"
  // Floats of private memory: per thread of work, and for the step as a whole.
  virtual int64_t scratch_floats(const Limits&) const { return 0; }
  virtual int64_t workspace_floats(const Limits&) const { return 0; }
  // Of one run; looks at the dimensions of views only, their data is not there.
  virtual Work work(const Frame&) const { return {}; }
};
using StepPtr = std::unique_ptr<const Step>;

// Stands in front of a step; what derives from it says what else happens in run().
class StepInFront : public Step {
 public:
  explicit StepInFront(StepPtr step) : step_(std::move(step)) {}
  std::string describe() const override { return step_->describe(); }
  int64_t scratch_floats(const Limits& limits) const override {
    return step_->scratch_floats(limits);
  }
  int64_t workspace_floats(const Limits& limits) const override {
    return step_->workspace_floats(limits);
  }
  Work work(const Frame& frame) const override { return step_->work(frame); }

 protected:
  StepPtr step_;
};

// A matrix operand: a weight in its encoding, or (null) the value itself. Unless `exact`, products
// of many tokens with float weights are taken in bfloat16 where the instruction set has them.
StepPtr make_linear(Isa isa, const Node& node, const Weight* weight, bool exact);
// A product with a packed weight and what follows on its rows:
//   y = x w' + bias                          or
//   y = activation(x w' + bias)              or
//   y = activation(x w' + bias) * (x up' + up_bias)
// then y + residual.
struct PackedProduct {
  const PackedWeight *weight = nullptr, *up = nullptr;
  ValueId bias = kNoValue, up_bias = kNoValue;
  std::optional<Activation> activation;
  ValueId residual = kNoValue;
  ValueId result = kNoValue;  // none where y exists as activations only
  // Where y goes as activations of the products that read it: see quantised_floats().
  ValueId quantised = kNoValue;
};
// What is multiplied: a value, its norm (`norm` reads x itself), or activations that an earlier
// step has quantised.
struct PackedInput {
  ValueId x = kNoValue;
  std::shared_ptr<const RowNorm> norm;
  bool quantised = false;
};
// Bytes of packed weights that an item of work reads: enough that handing it to a thread costs
// little beside it.
inline constexpr int64_t kPackedItemBytes = 32 << 10;
// Floats that a row of `columns` takes as activations.
int64_t quantised_floats(int64_t columns);
// Products of one value with several packed weights: activations are quantised once, and all
// threads work on all of them together.
StepPtr make_packed_linear(Isa isa, PackedInput input, std::vector<PackedProduct> products);
// Shows x to the observer before the product with the weight of this name.
StepPtr make_observed(StepPtr product, ValueId x, std::string weight, int64_t columns,
                      std::shared_ptr<ActivationObserver> observer);
StepPtr make_embedding(Isa isa, const Node& node, const Weight* table);
StepPtr make_packed_embedding(const Node& node, const PackedWeight* table);
StepPtr make_matmul(Isa isa, const Node& node);  // operands are values
// A weight for every head, x [B, H or 1, T, K] times [H, N, K]: rows of heads one after the other.
StepPtr make_head_linear(Isa isa, const Node& node, const Weight* weight);
// N must be whole tiles.
StepPtr make_packed_head_linear(Isa isa, const Node& node, const PackedWeight* weight);
// Stacked, [experts * rows, columns]; up is null when the experts have no gate.
template <typename Matrix>
struct ExpertWeights {
  const Matrix *gate = nullptr, *up = nullptr, *down = nullptr;
  int64_t experts_per_token = 0;  // for Step::work; 0: cannot be told
};
using MoeWeights = ExpertWeights<Weight>;
using PackedMoeWeights = ExpertWeights<PackedWeight>;
// Who sees what the experts multiply, by the names of their weights; null: nobody.
struct ObservedExperts {
  std::shared_ptr<ActivationObserver> observer;
  std::vector<std::string> in;  // of gate and up
  std::string down;
};
StepPtr make_moe(Isa isa, const Node& node, const MoeWeights& weights, ObservedExperts observed);
// The rows of an expert must be whole tiles.
StepPtr make_packed_moe(Isa isa, const Node& node, const PackedMoeWeights& weights);

// cos and sin of position * inverse frequency, [T, rotary / 2] each, times the scale: one pair of
// tables serves all layers that turn by the same angles.
struct RopeTables {
  ValueId cosine = kNoValue, sine = kNoValue;
};
StepPtr make_rope_table(ValueId position, ValueId frequencies, const RopeTables& tables,
                        double scale);
StepPtr make_rope(Isa isa, const Node& node, const RopeTables& tables);
// Where the rows of a cache lie, [heads, capacity, row], and the values of a row.
struct KvLayout {
  kernels::KvKind kind = kernels::KvKind::kF32;
  int64_t row_bytes = 0, head_bytes = 0, width = 0;
};
struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, dim = 0, value_dim = 0;
  std::optional<KvLayout> k, v;  // nullopt: ordinary values
  bool same_rows = false;        // values are parts of the rows that keys are
};
StepPtr make_attention(Isa isa, const Node& node, const AttentionShape& shape, bool exact);
StepPtr make_kv_write(const Node& node, const KvLayout& layout);
// The same of rows that are turned first.
StepPtr make_rope_kv_write(Isa isa, const Node& node, const KvLayout& layout, const RopeOp& op,
                           const RopeTables& tables);

StepPtr make_norm(Isa isa, const Node& node);
StepPtr make_activation(Isa isa, const Node& node);
StepPtr make_swiglu(Isa isa, const Node& node);
StepPtr make_softmax(Isa isa, const Node& node);

StepPtr make_unary(Isa isa, const Node& node, const Graph& graph);
StepPtr make_binary(Isa isa, const Node& node, const Graph& graph);
StepPtr make_select(const Node& node, const Graph& graph);
StepPtr make_reduce(const Node& node);
StepPtr make_copy(const Node& node, DType dtype);  // transpose, slice, concat, reshape
StepPtr make_gather(const Node& node);             // the table is a value
StepPtr make_iota(const Node& node);
StepPtr make_topk_mask(const Node& node, Dim width);  // of a row

}  // namespace pome
