// Choosing and running experts in a package. A package is static: every expert computes every
// token, and the mixing weights, zero for those that were not chosen, sum them (as
// graph/decompose.cc).
#include <numeric>

#include "export/coreml_lower.h"

namespace pome::coreml {

using mil::ValueData;

// An element is kept when fewer than k others beat it: larger ones, and equal ones before it. That
// is exact in fp16 and says what happens to ties, which `topk` does not.
Result<Val> Lowering::emit(const TopKMaskOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const int64_t n = x.dims.back();
  // Counts are sums of ones in fp16.
  if (n > 2048) return no_lowering(node, "choosing among more than 2048 values");
  Dims column = x.dims, row = x.dims;
  column.push_back(1);
  row.insert(row.end() - 1, 1);
  const Val own = reshape(helper(node, "own"), x, column);
  const Val other = reshape(helper(node, "other"), x, row);
  std::vector<int32_t> indices(static_cast<size_t>(n));
  std::iota(indices.begin(), indices.end(), 0);
  const Val at = out_.constant(helper(node, "indices"), ValueData::i32s(std::move(indices)));
  const Val own_at = reshape(helper(node, "own_index"), at, {n, 1});
  const Val other_at = reshape(helper(node, "other_index"), at, {1, n});
  const Val before = pointwise("less", helper(node, "before"), other_at, own_at);
  const Val equal = pointwise("equal", helper(node, "equal"), own, other);
  const Val tie = pointwise("logical_and", helper(node, "tie"), equal, before);
  const Val larger = pointwise("less", helper(node, "larger"), own, other);
  const Val beaten = pointwise("logical_or", helper(node, "beaten"), larger, tie);
  const Val ones =
      out_.op("cast", helper(node, "ones"), {{"x", beaten}, {"dtype", ValueData::string("fp16")}},
              DType::kF16, beaten.dims);
  const Val rank =
      reshape(helper(node, "rank"), reduce("reduce_sum", helper(node, "count"), ones, -1), x.dims);
  return out_.op("less", result_name(node),
                 {{"x", rank}, {"y", ValueData::scalar_f16(static_cast<float>(op.k))}},
                 DType::kBool, x.dims);
}

Result<Val> Lowering::emit(const MoeOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val weights, operand(node, 1));
  const int64_t tokens = x.dims[1], experts = weights.dims[2];
  if (x.dims[0] != 1) return no_lowering(node, "more than one sequence");
  const bool biased = node.operands.size() == op.operands_with_biases();
  const auto project = [&](const Val& in, size_t weight, const std::string& name) -> Result<Val> {
    POME_ASSIGN_OR_RETURN(const Val matrix, operand(node, weight));
    const Val read = in_eight_bits(in, node.operands[weight]);
    if (!biased) return matmul(helper(node, name), read, matrix, true);
    const Val product = matmul(helper(node, name + "_product"), read, matrix, true);
    POME_ASSIGN_OR_RETURN(const Val bias, operand(node, weight - 2 + op.operands_without_biases()));
    const Val by_expert =
        reshape(helper(node, name + "_bias"), bias, {experts, 1, bias.dims.back()});
    return pointwise("add", helper(node, name), product, by_expert);
  };
  const auto with_number = [&](const char* type, const std::string& name, const Val& in,
                               double number) {
    return out_.op(type, helper(node, name),
                   {{"x", in}, {"y", ValueData::scalar_f16(static_cast<float>(number))}}, in.dtype,
                   in.dims);
  };
  const Val in = reshape(helper(node, "tokens"), x, {1, 1, tokens, x.dims[2]});
  POME_ASSIGN_OR_RETURN(Val gate, project(in, 2, "gate"));
  if (op.limit > 0) gate = with_number("minimum", "gate_least", gate, op.limit);
  Val inner;
  if (op.sigmoid_scale == 1) {
    inner = activation(op.activation, helper(node, "act"), gate);
  } else {
    const Val steep = scaled(helper(node, "steep"), gate, op.sigmoid_scale);
    const Val open =
        out_.op("sigmoid", helper(node, "sigmoid"), {{"x", steep}}, steep.dtype, steep.dims);
    inner = pointwise("mul", helper(node, "act"), gate, open);
  }
  if (op.gated) {
    POME_ASSIGN_OR_RETURN(Val up, project(in, 3, "up"));
    if (op.limit > 0) {
      up = with_number("minimum", "up_least", up, op.limit);
      up = with_number("maximum", "up_most", up, -op.limit);
    }
    if (op.up_offset != 0) up = with_number("add", "up_offset", up, op.up_offset);
    inner = pointwise("mul", helper(node, "inner"), inner, up);
  }
  POME_ASSIGN_OR_RETURN(const Val out, project(inner, op.down(), "down"));
  const Val turned = out_.op("transpose", helper(node, "weights"),
                             {{"x", weights}, {"perm", ValueData::i32s({0, 2, 1})}}, weights.dtype,
                             {1, experts, tokens});
  const Val by_expert = reshape(helper(node, "by_expert"), turned, {1, experts, tokens, 1});
  const Val mixed = pointwise("mul", helper(node, "mixed"), out, by_expert);
  const Val sum = reduce("reduce_sum", helper(node, "sum"), mixed, 1);
  return reshape(result_name(node), sum, x.dims);
}

}  // namespace pome::coreml
