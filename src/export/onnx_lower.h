// Lowering: the nodes of an ONNX model from the graph, one emit() per op type. Knows ops, never
// families or layer patterns. docs/onnx.md draws each lowering. Private to export.
//
// Plain nodes are the ground; the profile `ort` replaces what has an operator of its own in
// com.microsoft: linear by MatMulNBits, attention with its rotations and caches by
// GroupQueryAttention, addition and norm by SkipSimplifiedLayerNormalization, experts by QMoE.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "export/onnx.h"
#include "export/onnx_builder.h"
#include "export/onnx_weights.h"
#include "graph/graph.h"

namespace pome::onnx_export {

class Lowering {
 public:
  Lowering(const Graph& graph, const OnnxOptions& options, int64_t opset, OnnxBuilder* out,
           WeightStore* weights);
  // The graph without the places of its weights.
  Result<onnx::Graph> run();

 private:
  // Simple ops: onnx_lower.cc
  Result<Val> emit(const InputOp&, const Node& node);
  Result<Val> emit(const ConstantOp&, const Node& node);
  Result<Val> emit(const UnaryOp& op, const Node& node);
  Result<Val> emit(const BinaryOp& op, const Node& node);
  Result<Val> emit(const SelectOp&, const Node& node);
  Result<Val> emit(const ReduceOp& op, const Node& node);
  Result<Val> emit(const ReshapeOp& op, const Node& node);
  Result<Val> emit(const TransposeOp& op, const Node& node);
  Result<Val> emit(const SliceOp& op, const Node& node);
  Result<Val> emit(const ConcatOp& op, const Node& node);
  Result<Val> emit(const MatMulOp& op, const Node& node);
  Result<Val> emit(const GatherOp&, const Node& node);
  Result<Val> emit(const IotaOp& op, const Node& node);
  Result<Val> emit(const ActivationOp& op, const Node& node);
  Result<Val> emit(const SwigluOp& op, const Node& node);
  Result<Val> emit(const SoftmaxOp&, const Node& node);
  Result<Val> emit(const RmsNormOp& op, const Node& node);
  Result<Val> emit(const LayerNormOp& op, const Node& node);
  // Constants and what multiplies them: onnx_linear.cc
  Result<Val> emit(const LinearOp&, const Node& node);
  Result<Val> emit(const EmbeddingOp&, const Node& node);
  // onnx_experts.cc
  Result<Val> emit(const MoeOp& op, const Node& node);
  Result<Val> emit(const TopKMaskOp& op, const Node& node);
  // Positions, caches and attention: onnx_attention.cc
  Result<Val> emit(const RopeOp& op, const Node& node);
  Result<Val> emit(const KvWriteOp&, const Node& node);
  Result<Val> emit(const AttentionOp& op, const Node& node);

  // ---- what the graph looks like around a node
  void declare_interface();
  void plan_fusions();
  const Node* producer(ValueId id) const;
  bool only_reader(ValueId id) const;  // exactly one node reads it
  const SymShape& shape(ValueId id) const { return graph_.type(id).shape; }
  std::optional<int32_t> constant_of(ValueId id) const;  // index into Graph::constants
  bool ort() const { return options_.profile == OnnxOptions::Profile::kOrt; }
  bool masked() const { return !options_.logits_only && !options_.explicit_kv; }
  onnx::ValueInfo value_info(const std::string& name, const ValueType& type) const;

  // ---- values
  Result<Val> operand(const Node& node, size_t index);
  Val constant(int32_t index);             // decoded, in its own shape
  Val transposed_constant(int32_t index);  // decoded, the last two axes exchanged
  std::string result_name(const Node& node);
  std::string helper(const Node& node, const std::string& suffix);
  Status no_lowering(const Node& node, const std::string& why) const;

  // ---- ops that several emit() share
  Val op(const char* type, const std::string& name, std::vector<Val> inputs,
         Attributes attributes = {}) {
    return out_->op(type, name, std::move(inputs), std::move(attributes));
  }
  Val cast(const std::string& name, const Val& x, DType dtype);
  Val reshape(const std::string& name, const Val& x, const std::vector<int64_t>& dims);
  Val transpose(const std::string& name, const Val& x, const std::vector<int64_t>& permutation);
  Val slice(const std::string& name, const Val& x, int64_t axis, int64_t begin, int64_t end,
            int64_t step = 1);
  Val unsqueeze(const std::string& name, const Val& x, const std::vector<int64_t>& axes);
  Val reduce(const char* type, const std::string& name, const Val& x, int64_t axis, bool keep);
  Val scaled(const std::string& name, const Val& x, double factor);
  Val activation(Activation kind, const std::string& base, const std::string& name, const Val& x);
  Dim fixed(const Dim& dim) const;  // what this form of the model makes of a symbol
  Val dimension(const Dim& dim);    // int64 [1]
  Val scalar_of(const Dim& dim);    // int64 scalar

  Val gather_integers(const Node& node, int32_t table, const Val& ids);
  Val matmul_nbits(const Node& node, const std::string& name, int32_t weight, const Val& x);
  int64_t chosen_experts(ValueId weights) const;
  bool can_qmoe(const MoeOp& op, const Node& node) const;
  Result<Val> qmoe(const MoeOp& op, const Node& node);

  Val positions();                                                      // int64 [B, T]
  std::pair<Val, Val> rotation(const RopeOp& op, int32_t frequencies);  // cos, sin [B, 1, T, half]
  // bool, broadcasts to [B, .., T, P + T]; empty where all keys are seen
  Val visible(int64_t window, bool grouped);

  struct GroupQuery {  // an attention that becomes one GroupQueryAttention
    const Node* key_write = nullptr;
    const Node* value_write = nullptr;
    const Node* query_rope = nullptr;  // null: rotations stay where they are
    const Node* key_rope = nullptr;
  };
  std::optional<GroupQuery> group_query(const Node& node) const;
  Result<Val> group_query_attention(const AttentionOp& op, const Node& node,
                                    const GroupQuery& plan);
  Result<Val> token_major(ValueId id);  // [B, H, T, D] as [B, T, H * D]
  Val cached(const std::string& key, const std::function<Val(const std::string&)>& make);

  const Graph& graph_;
  const OnnxOptions& options_;
  const int64_t opset_;
  OnnxBuilder* out_;
  WeightStore* weights_;
  std::vector<const Node*> producers_;  // by ValueId
  std::vector<int> readers_;            // by ValueId
  std::map<ValueId, Val> values_;
  std::map<ValueId, Val> token_major_;
  std::map<ValueId, std::string> cache_names_;   // outputs
  std::map<ValueId, GroupQuery> group_queries_;  // by the attention's result
  std::set<ValueId> fused_writes_;               // kv_write results that an operator makes
  std::map<ValueId, ValueId> fused_adds_;        // addition -> the norm that makes it too
  std::set<ValueId> batched_;  // has a batch axis in front that it lacks in the graph
  std::map<std::string, Val> cached_;
  std::vector<onnx::ValueInfo> inputs_, outputs_;
};

}  // namespace pome::onnx_export
