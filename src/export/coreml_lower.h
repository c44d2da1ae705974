// Lowering: one function of a Core ML package from the graph, one emit() per op type. Knows ops,
// never families or layer patterns. docs/coreml.md draws each lowering. Private to export.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "export/coreml.h"
#include "export/coreml_builder.h"
#include "export/coreml_weights.h"
#include "graph/graph.h"

namespace pome::coreml {

// The caches of all layers as one K and one V state [layers, 1, heads, context, dim].
struct CacheLayout {
  struct Slot {
    int32_t layer;
    bool key;
  };
  int64_t layers = 0, heads = 0, key_dim = 0, value_dim = 0;
  std::map<ValueId, Slot> slots;  // by the graph input that stands for the cache
};
// kUnsupported when layers differ in heads or dimensions, or a layer has something else than one K
// and one V.
Result<CacheLayout> cache_layout(const Graph& graph);

inline constexpr int64_t kAny = -1;  // a dimension that a call decides

// What a function is made for.
struct Form {
  CoremlOptions::Caches caches = CoremlOptions::Caches::kState;
  int64_t places = 0;   // that attention sees: of the caches, the call's own tokens among them
  int64_t context = 0;  // positions that rotations are made for
  int64_t tokens = 0;   // of a call
  bool is_step() const { return caches != CoremlOptions::Caches::kState; }
};

class Lowering {
 public:
  // `caches` of states alone.
  Lowering(const Graph& graph, const CacheLayout& caches, const Form& form, WeightStore* weights,
           const std::map<std::string, ActivationGrid>& activations, std::string function);
  Result<mil::Function> run();

 private:
  // Simple ops: coreml_lower.cc
  Result<Val> emit(const InputOp&, const Node& node);
  Result<Val> emit(const ConstantOp&, const Node& node);
  Result<Val> emit(const UnaryOp& op, const Node& node);
  Result<Val> emit(const BinaryOp& op, const Node& node);
  Result<Val> emit(const SelectOp&, const Node& node);
  Result<Val> emit(const ReduceOp& op, const Node& node);
  Result<Val> emit(const ReshapeOp&, const Node& node);
  Result<Val> emit(const TransposeOp& op, const Node& node);
  Result<Val> emit(const SliceOp& op, const Node& node);
  Result<Val> emit(const ConcatOp& op, const Node& node);
  Result<Val> emit(const MatMulOp& op, const Node& node);
  Result<Val> emit(const GatherOp&, const Node& node);
  Result<Val> emit(const IotaOp& op, const Node& node);
  Result<Val> emit(const LinearOp&, const Node& node);
  Result<Val> emit(const EmbeddingOp&, const Node& node);
  Result<Val> emit(const ActivationOp& op, const Node& node);
  Result<Val> emit(const SwigluOp& op, const Node& node);
  Result<Val> emit(const SoftmaxOp&, const Node& node);
  // Experts: coreml_moe.cc
  Result<Val> emit(const TopKMaskOp& op, const Node& node);
  Result<Val> emit(const MoeOp& op, const Node& node);
  // Norm, rope, cache and attention: coreml_attention.cc
  Result<Val> emit(const RmsNormOp& op, const Node& node);
  Result<Val> emit(const LayerNormOp& op, const Node& node);
  Result<Val> emit(const RopeOp& op, const Node& node);
  Result<Val> emit(const KvWriteOp&, const Node& node);
  Result<Val> emit(const AttentionOp& op, const Node& node);

  // As its grid of eight bits tells a value that this weight reads, where it has one:
  // coreml_activations.cc
  Val in_eight_bits(const Val& x, ValueId weight);

  Status declare_inputs();
  Status declare_states();
  Status declare_step();
  Result<Val> write_state(const Node& node);
  std::vector<bool> live_nodes() const;
  Result<Val> operand(const Node& node, size_t index);
  std::optional<int32_t> constant_of(ValueId id) const;  // index into Graph::constants
  Dims dims_of(ValueId id) const;
  DType dtype_of(ValueId id) const;
  // The name of a node's result, and of helpers on the way to it ("<result>_<suffix>").
  std::string result_name(const Node& node);
  std::string helper(const Node& node, const std::string& suffix);
  Status no_lowering(const Node& node, const std::string& why) const;

  // Ops that several emit() share.
  Val pointwise(const std::string& type, const std::string& name, const Val& x, const Val& y);
  Val scaled(const std::string& name, const Val& x, double factor);
  Val reduce(const std::string& type, const std::string& name, const Val& x, int32_t axis);
  Val reshape(const std::string& name, const Val& x, const Dims& dims);
  Val activation(Activation kind, const std::string& name, const Val& x);
  Val gather_rows(const std::string& name, const Val& table, const Val& ids);
  Val matmul(const std::string& name, const Val& x, const Val& y, bool transpose_y);
  Val concat(const std::string& name, std::vector<Val> values, int32_t axis);
  std::vector<Val> split(const std::string& name, const Val& x, const std::vector<int64_t>& sizes);

  Val positions();                           // i32 [T]: rope position of each token
  Val mask(int64_t groups, int64_t window);  // fp16 [1, 1, groups * T, places]
  Val window_mask(int64_t window);           // fp16 [T, places]
  std::pair<Val, Val> rope_rows(const WeightStore::RopeKey& key);  // cos, sin: fp16 [T, width]
  Result<Val> swap_pairs(const RopeOp& op, const Node& node, const Val& x);
  const std::pair<Val, Val>& cache_range(int32_t layer);  // begin, end: i32 [5]

  const Graph& graph_;
  const CacheLayout& caches_;
  const Form form_;
  const int64_t places_, tokens_;
  WeightStore* weights_;
  const std::map<std::string, ActivationGrid>& activations_;  // by name of the weight
  FunctionBuilder out_;
  std::map<ValueId, Val> values_;
  std::map<ValueId, int32_t> constants_;  // values that are constants
  std::map<int32_t, Val> emitted_;        // constants of this function so far
  Val position_;                          // i32 [1]
  std::map<ValueId, std::string> cache_outputs_;
  std::optional<Val> positions_, position_end_;
  std::map<std::pair<int64_t, int64_t>, Val> masks_;
  std::map<int64_t, Val> window_masks_;
  std::map<WeightStore::RopeKey, std::pair<Val, Val>> ropes_;
  std::map<int32_t, std::pair<Val, Val>> ranges_;
  std::map<std::string, std::pair<ActivationGrid, Val>> rounded_;  // by name of the value
};

// Axis parameters and shapes as MIL takes them.
mil::ValueData i32_list(const Dims& values);

}  // namespace pome::coreml
