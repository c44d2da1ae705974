// Constants, in the form that their encoding asks for, and the operators that multiply them.
#include <numeric>

#include "export/onnx_lower.h"

namespace pome::onnx_export {

Val Lowering::constant(int32_t index) {
  const std::string& name = graph_.constants[static_cast<size_t>(index)].name;
  const ConstantData& data = weights_->data(index);
  if (data.encoding().kind == EncodingKind::kInt && weights_->can_store(index, Form::kColumns)) {
    return cached(name, [&](const std::string& n) {
      std::vector<int64_t> permutation(data.shape().size());
      std::iota(permutation.begin(), permutation.end(), 0);
      std::swap(permutation[permutation.size() - 2], permutation.back());
      return transpose(n, transposed_constant(index), permutation);
    });
  }
  const Stored& stored = weights_->request(index, Form::kDense);
  if (stored.dtype == DType::kF32) return stored.codes;
  return cached(name + ".f32",
                [&](const std::string& n) { return cast(n, stored.codes, DType::kF32); });
}

// [.., K, N] of a constant [.., N, K].
Val Lowering::transposed_constant(int32_t index) {
  const std::string& name = graph_.constants[static_cast<size_t>(index)].name;
  const ConstantData& data = weights_->data(index);
  const size_t rank = data.shape().size();
  return cached(name + ".T", [&](const std::string& n) {
    if (!weights_->can_store(index, Form::kColumns)) {
      std::vector<int64_t> permutation(rank);
      std::iota(permutation.begin(), permutation.end(), 0);
      std::swap(permutation[rank - 2], permutation[rank - 1]);
      return transpose(n, constant(index), permutation);
    }
    const Stored& stored = weights_->request(index, Form::kColumns);
    const bool one_scale = stored.block == data.columns();
    if (one_scale && rank == 2)
      return op("DequantizeLinear", n, {stored.codes, stored.scale},
                {attribute("axis", int64_t{1})});
    if (one_scale && stored.dtype == DType::kI8)
      return op("Mul", n,
                {cast(out_->unique(n + "/codes"), stored.codes, DType::kF32), stored.scale});
    return op(
        "DequantizeLinear", n, {stored.codes, stored.scale},
        {attribute("axis", static_cast<int64_t>(rank) - 2), attribute("block_size", stored.block)});
  });
}

Val Lowering::matmul_nbits(const Node& node, const std::string& name, int32_t weight,
                           const Val& x) {
  (void)node;
  const ConstantData& data = weights_->data(weight);
  const Stored& stored = weights_->request(weight, Form::kRows);
  const int64_t bits = data.encoding().bits;
  const Val codes = weights_->view_of(
      stored, ".blocks", {data.rows(), data.columns() / stored.block, stored.block * bits / 8});
  return out_->op("MatMulNBits", name, {x, codes, stored.scale},
                  {attribute("K", data.columns()), attribute("N", data.rows()),
                   attribute("bits", bits), attribute("block_size", stored.block)},
                  onnx::kMicrosoft);
}

Result<Val> Lowering::emit(const LinearOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const auto weight = constant_of(node.operands[1]);
  const bool biased = node.operands.size() == 3;
  const std::string name = biased ? helper(node, "product") : result_name(node);
  Val product;
  if (weight && ort() && weights_->data(*weight).shape().size() == 2 &&
      weights_->can_store(*weight, Form::kRows)) {
    product = matmul_nbits(node, name, *weight, x);
  } else if (weight) {
    product = op("MatMul", name, {x, transposed_constant(*weight)});
  } else {
    POME_ASSIGN_OR_RETURN(const Val y, operand(node, 1));
    product = op("MatMul", name, {x, transpose(helper(node, "turned"), y, {1, 0})});
  }
  if (!biased) return product;
  POME_ASSIGN_OR_RETURN(const Val bias, operand(node, 2));
  return op("Add", result_name(node), {product, bias});
}

// ---- tables

// Rows of a table of integers, decoded: only what is asked for is touched.
Val Lowering::gather_integers(const Node& node, int32_t table, const Val& ids) {
  const ConstantData& data = weights_->data(table);
  const Stored& stored = weights_->request(table, Form::kRows);
  const int64_t bits = data.encoding().bits, columns = data.columns();
  if (ort()) {
    return out_->op("GatherBlockQuantized", result_name(node), {stored.codes, ids, stored.scale},
                    {attribute("bits", bits), attribute("block_size", stored.block),
                     attribute("gather_axis", int64_t{0}), attribute("quantize_axis", int64_t{1})},
                    onnx::kMicrosoft);
  }
  Val codes = op("Gather", helper(node, "codes"), {stored.codes, ids});
  if (bits == 4) {
    onnx::TensorData number;
    number.dtype = DType::kU8;
    const auto byte = [&](const char* name, int value) {
      return cached(name, [&](const std::string& n) {
        number.name = n;
        number.raw = {static_cast<std::byte>(value)};
        return out_->initializer(number);
      });
    };
    const Val low = op("BitwiseAnd", helper(node, "low"), {codes, byte("u8_15", 15)});
    const Val high = op("BitShift", helper(node, "high"), {codes, byte("u8_4", 4)},
                        {attribute("direction", "RIGHT")});
    const Val pairs = op("Concat", helper(node, "pairs"),
                         {unsqueeze(helper(node, "low_column"), low, {-1}),
                          unsqueeze(helper(node, "high_column"), high, {-1})},
                         {attribute("axis", int64_t{-1})});
    codes = reshape(helper(node, "nibbles"), pairs, {0, 0, columns});
  }
  const Val floats = cast(helper(node, "floats"), codes, DType::kF32);
  const Val centred = op("Sub", helper(node, "centred"), {floats, out_->f32(1 << (bits - 1))});
  const Val blocks =
      reshape(helper(node, "blocks"), centred, {0, 0, columns / stored.block, stored.block});
  const Val scale = op("Gather", helper(node, "scale"), {stored.scale, ids});
  const Val wide = op("Mul", helper(node, "scaled"),
                      {blocks, unsqueeze(helper(node, "scale_column"), scale, {-1})});
  return reshape(result_name(node), wide, {0, 0, columns});
}

Result<Val> Lowering::emit(const GatherOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val ids, operand(node, 1));
  const auto table = constant_of(node.operands[0]);
  if (table && weights_->data(*table).encoding().kind == EncodingKind::kInt &&
      weights_->can_store(*table, Form::kRows) && shape(node.operands[1]).size() == 2)
    return gather_integers(node, *table, ids);
  if (table && weights_->data(*table).encoding().kind == EncodingKind::kF16) {
    const Stored& stored = weights_->request(*table, Form::kDense);
    const Val rows = op("Gather", helper(node, "f16"), {stored.codes, ids});
    return cast(result_name(node), rows, DType::kF32);
  }
  POME_ASSIGN_OR_RETURN(const Val rows, operand(node, 0));
  return op("Gather", result_name(node), {rows, ids});
}

Result<Val> Lowering::emit(const EmbeddingOp&, const Node& node) { return emit(GatherOp{}, node); }

// ---- experts

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

bool Lowering::can_qmoe(const MoeOp&, const Node&) const { return false; }
Result<Val> Lowering::qmoe(const MoeOp&, const Node& node) {
  return no_lowering(node, "experts as one operator");
}

}  // namespace pome::onnx_export
