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
  const ConstantData& data = weights_->data(weight);
  const Stored& stored = weights_->request(weight, Form::kRows);
  const int64_t blocks = data.columns() / stored.block;
  const Val codes =
      weights_->view_of(stored, ".blocks", {data.rows(), blocks, stored.block * stored.bits / 8});
  const Attributes attributes = {attribute("K", data.columns()), attribute("N", data.rows()),
                                 attribute("bits", stored.bits),
                                 attribute("block_size", stored.block)};
  if (stored.minima.empty())
    return out_->op("MatMulNBits", name, {x, codes, stored.scale}, attributes, onnx::kMicrosoft);
  // x (q s + m)^T = x (q s)^T + (sums of blocks of x) m^T. Zero points that are no integers would
  // say it in one operator, for which ONNX Runtime decodes the whole matrix at every call.
  const Val scaled = out_->op("MatMulNBits", helper(node, "scaled"),
                              {x, codes, stored.scale, stored.zeros}, attributes, onnx::kMicrosoft);
  std::vector<int64_t> by_block(shape(node.operands[0]).size() - 1, 0);  // 0: as it is
  by_block.insert(by_block.end(), {blocks, stored.block});
  const Val parts = reshape(helper(node, "blocks"), x, by_block);
  const Val sums = reduce("ReduceSum", helper(node, "sums"), parts, -1, false);
  const Val turned = cached(stored.minima + ".T", [&](const std::string& n) {
    return transpose(n, stored.minima, {1, 0});
  });
  return op("Add", name, {scaled, op("MatMul", helper(node, "minima"), {sums, turned})});
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
  const int64_t bits = stored.bits, columns = data.columns();
  if (ort()) {
    const Attributes attributes = {attribute("bits", bits), attribute("block_size", stored.block),
                                   attribute("gather_axis", int64_t{0}),
                                   attribute("quantize_axis", int64_t{1})};
    if (stored.minima.empty())
      return out_->op("GatherBlockQuantized", result_name(node), {stored.codes, ids, stored.scale},
                      attributes, onnx::kMicrosoft);
    const Val scaled =
        out_->op("GatherBlockQuantized", helper(node, "scaled"),
                 {stored.codes, ids, stored.scale, stored.zeros}, attributes, onnx::kMicrosoft);
    const Val minima = op("Gather", helper(node, "minima"), {stored.minima, ids});
    const Val blocks =
        op("Add", helper(node, "moved"),
           {reshape(helper(node, "blocks"), scaled, {0, 0, columns / stored.block, stored.block}),
            unsqueeze(helper(node, "minimum_column"), minima, {-1})});
    return reshape(result_name(node), blocks, {0, 0, columns});
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
  if (table && (ort() || weights_->data(*table).encoding().kind == EncodingKind::kInt) &&
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

}  // namespace pome::onnx_export
