// Mixtures of experts: one operator where ONNX Runtime has it, else every expert for every token.
#include <algorithm>

#include "export/onnx_lower.h"

namespace pome::onnx_export {

namespace {

// Of the function between the projections; empty where QMoE has none that is the same.
std::string qmoe_activation(const MoeOp& moe) {
  if (moe.gated) return moe.activation == Activation::kSilu ? "swiglu" : "";
  if (moe.limit > 0) return "";
  switch (moe.activation) {
    case Activation::kSilu:
      return moe.sigmoid_scale == 1 ? "silu" : "";
    case Activation::kRelu:
      return "relu";
    case Activation::kGeluTanh:
      return "gelu";
    default:
      return "";
  }
}

}  // namespace

// Ties go to the lower index, as TopK has it.
Result<Val> Lowering::emit(const TopKMaskOp& top, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const int64_t n = shape(node.operands[0]).back().size;
  const std::vector<Val> best =
      out_->op("TopK", {helper(node, "values"), helper(node, "indices")}, {x, out_->i64s({top.k})},
               {attribute("axis", int64_t{-1})});
  const Val off_on = cached("off_on", [&](const std::string& name) {
    return out_->initializer(onnx::TensorData::f32s(name, {2}, {0, 1}));
  });
  const Val rows = op("OneHot", helper(node, "one_hot"), {best[1], out_->i64(n), off_on});
  const Val sum = reduce("ReduceSum", helper(node, "chosen"), rows, -2, false);
  return cast(result_name(node), sum, DType::kBool);
}

// Every expert computes every token; the weights, zero for those that were not chosen, mix them.
Result<Val> Lowering::emit(const MoeOp& moe, const Node& node) {
  if (ort() && can_qmoe(moe, node)) return qmoe(moe, node);
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val weights, operand(node, 1));
  const bool biased = node.operands.size() == moe.operands_with_biases();
  const auto project = [&](const Val& in, size_t weight, const std::string& name) -> Result<Val> {
    const auto index = constant_of(node.operands[weight]);
    if (!index) return no_lowering(node, "experts that are computed");
    const Val product = op("MatMul", helper(node, biased ? name + "_product" : name),
                           {in, transposed_constant(*index)});
    if (!biased) return product;
    POME_ASSIGN_OR_RETURN(const Val bias,
                          operand(node, weight - 2 + moe.operands_without_biases()));
    return op("Add", helper(node, name),
              {product, unsqueeze(helper(node, name + "_bias"), bias, {1})});
  };
  const Val in = unsqueeze(helper(node, "tokens"), x, {1});
  POME_ASSIGN_OR_RETURN(Val gate, project(in, 2, "gate"));
  if (moe.limit > 0) gate = op("Min", helper(node, "gate_least"), {gate, out_->f32(moe.limit)});
  Val inner;
  if (moe.sigmoid_scale == 1) {
    inner = activation(moe.activation, graph_.name(node.result), helper(node, "act"), gate);
  } else {
    const Val steep = scaled(helper(node, "steep"), gate, moe.sigmoid_scale);
    inner = op("Mul", helper(node, "act"), {gate, op("Sigmoid", helper(node, "sigmoid"), {steep})});
  }
  if (moe.gated) {
    POME_ASSIGN_OR_RETURN(Val up, project(in, 3, "up"));
    if (moe.limit > 0) {
      up = op("Min", helper(node, "up_least"), {up, out_->f32(moe.limit)});
      up = op("Max", helper(node, "up_most"), {up, out_->f32(-moe.limit)});
    }
    if (moe.up_offset != 0)
      up = op("Add", helper(node, "up_moved"), {up, out_->f32(moe.up_offset)});
    inner = op("Mul", helper(node, "inner"), {inner, up});
  }
  POME_ASSIGN_OR_RETURN(const Val out, project(inner, moe.down(), "down"));
  const Val turned = transpose(helper(node, "weights"), weights, {0, 2, 1});
  const Val by_expert = unsqueeze(helper(node, "by_expert"), turned, {-1});
  const Val mixed = op("Mul", helper(node, "mixed"), {out, by_expert});
  return reduce("ReduceSum", result_name(node), mixed, 1, false);
}

// The number of experts that a token can have: of the masks between the router and the weights the
// one that lets most through. 0: there is none.
int64_t Lowering::chosen_experts(ValueId weights) const {
  int64_t most = 0;
  std::vector<ValueId> open = {weights};
  std::set<ValueId> seen;
  while (!open.empty()) {
    const ValueId id = open.back();
    open.pop_back();
    const Node* node = producer(id);
    if (!seen.insert(id).second || !node || std::holds_alternative<LinearOp>(node->op)) continue;
    if (const auto* top = std::get_if<TopKMaskOp>(&node->op)) most = std::max(most, top->k);
    open.insert(open.end(), node->operands.begin(), node->operands.end());
  }
  return most;
}

// Integers of 8 bits stay with MatMul: the operator's CPU kernel rounds activations to 8 bits then,
// an error of about 1 %.
bool Lowering::can_qmoe(const MoeOp& moe, const Node& node) const {
  if (qmoe_activation(moe).empty() || chosen_experts(node.operands[1]) == 0) return false;
  std::optional<int32_t> first;
  for (size_t i = 2; i <= moe.down(); ++i) {
    const auto index = constant_of(node.operands[i]);
    if (!index) return false;
    const Encoding& encoding = weights_->data(*index).encoding();
    if (encoding.kind != EncodingKind::kInt || encoding.bits != 4 ||
        !weights_->can_store(*index, Form::kRows))
      return false;
    if (!first) first = index;
    // One attribute says the block of all.
    if (!(encoding == weights_->data(*first).encoding()) || encoding.block > 256) return false;
  }
  return true;
}

Result<Val> Lowering::qmoe(const MoeOp& moe, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val weights, operand(node, 1));
  const int64_t experts = shape(node.operands[1]).back().size;
  const bool biased = node.operands.size() == moe.operands_with_biases();
  const auto bias = [&](size_t weight) {
    return operand(node, weight - 2 + moe.operands_without_biases());
  };
  // What chooses is what mixes: the chosen ones are the largest, all others 0.
  const Val by_token = reshape(helper(node, "by_token"), weights, {-1, experts});
  const int32_t gate = *constant_of(node.operands[2]),
                down = *constant_of(node.operands[moe.down()]);
  const Stored& inner = moe.gated ? weights_->request_turns(gate, *constant_of(node.operands[3]))
                                  : weights_->request(gate, Form::kRows);
  const Stored& outer = weights_->request(down, Form::kRows);
  std::vector<Val> inputs(15);
  inputs[0] = x;
  inputs[1] = inputs[14] = by_token;
  inputs[2] = inner.codes;
  inputs[3] = inner.scale;
  inputs[5] = outer.codes;
  inputs[6] = outer.scale;
  if (biased) {
    POME_ASSIGN_OR_RETURN(inputs[4], bias(2));
    POME_ASSIGN_OR_RETURN(inputs[7], bias(moe.down()));
    if (moe.gated) {
      POME_ASSIGN_OR_RETURN(const Val up, bias(3));
      const int64_t rows = weights_->data(gate).shape()[1];
      const Val pairs = op("Concat", helper(node, "bias_pairs"),
                           {unsqueeze(helper(node, "gate_bias"), inputs[4], {-1}),
                            unsqueeze(helper(node, "up_bias"), up, {-1})},
                           {attribute("axis", int64_t{-1})});
      inputs[4] = reshape(helper(node, "biases"), pairs, {experts, 2 * rows});
    }
  }
  const std::string activation = qmoe_activation(moe);
  Attributes attributes = {
      attribute("k", chosen_experts(node.operands[1])),
      attribute("activation_type", activation.c_str()), attribute("expert_weight_bits", int64_t{4}),
      attribute("block_size", inner.block), attribute("normalize_routing_weights", int64_t{0})};
  if (moe.gated) {
    attributes.push_back(attribute("swiglu_fusion", int64_t{1}));  // rows take turns
    attributes.push_back(attribute("activation_alpha", moe.sigmoid_scale));
    attributes.push_back(attribute("activation_beta", moe.up_offset));
    if (moe.limit > 0) attributes.push_back(attribute("swiglu_limit", moe.limit));
  }
  return out_->op("QMoE", result_name(node), inputs, std::move(attributes), onnx::kMicrosoft);
}

}  // namespace pome::onnx_export
