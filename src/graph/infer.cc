// Shape inference: one function per op, found by overload.
#include <algorithm>
#include <cmath>

#include "graph/graph.h"

namespace pome {

namespace {

using Types = std::span<const ValueType>;

Status bad(std::string message) { return bad_input(Refusal::kType, std::move(message)); }

Status expect_operands(Types operands, size_t least, size_t most) {
  if (operands.size() < least || operands.size() > most)
    return bad("takes " + std::to_string(least) +
               (least == most ? "" : " to " + std::to_string(most)) + " operands, got " +
               std::to_string(operands.size()));
  return {};
}
Status expect_dtype(Types operands, size_t index, DType dtype) {
  if (operands[index].dtype != dtype)
    return bad("operand " + std::to_string(index) + " must be " + std::string(to_string(dtype)) +
               ", is " + std::string(to_string(operands[index].dtype)));
  return {};
}
Status expect_rank(Types operands, size_t index, size_t rank) {
  if (operands[index].shape.size() != rank)
    return bad("operand " + std::to_string(index) + " must have rank " + std::to_string(rank) +
               ", is " + to_string(operands[index].shape));
  return {};
}
Status expect_dim(Types operands, size_t index, size_t axis, const Dim& dim) {
  if (operands[index].shape[axis] != dim)
    return bad("operand " + std::to_string(index) + " dimension " + std::to_string(axis) +
               " must be " + to_string(SymShape{dim}) + ", shape is " +
               to_string(operands[index].shape));
  return {};
}

Result<SymShape> broadcast(const SymShape& a, const SymShape& b) {
  SymShape out(std::max(a.size(), b.size()), Dim(1));
  for (size_t i = 0; i < out.size(); ++i) {
    const Dim x = i < out.size() - a.size() ? Dim(1) : a[i - (out.size() - a.size())];
    const Dim y = i < out.size() - b.size() ? Dim(1) : b[i - (out.size() - b.size())];
    if (x != y && x != Dim(1) && y != Dim(1))
      return bad("shapes " + to_string(a) + " and " + to_string(b) + " do not broadcast");
    out[i] = x == Dim(1) ? y : x;
  }
  return out;
}

Result<size_t> axis_of(int32_t axis, const SymShape& shape) {
  const int64_t rank = static_cast<int64_t>(shape.size());
  const int64_t at = axis < 0 ? axis + rank : axis;
  if (at < 0 || at >= rank)
    return bad("axis " + std::to_string(axis) + " is outside " + to_string(shape));
  return static_cast<size_t>(at);
}

Result<ValueType> infer(const UnaryOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 1, 1));
  ValueType out = in[0];
  if (op.kind == UnaryKind::kToF32) {
    out.dtype = DType::kF32;
  } else if (op.kind == UnaryKind::kToI32) {
    out.dtype = DType::kI32;
  } else {
    POME_RETURN_IF_ERROR(expect_dtype(in, 0, DType::kF32));
  }
  return out;
}

Result<ValueType> infer(const BinaryOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 2, 2));
  if (in[0].dtype != in[1].dtype) return bad("operands have different dtypes");
  ValueType out{in[0].dtype, {}};
  POME_ASSIGN_OR_RETURN(out.shape, broadcast(in[0].shape, in[1].shape));
  const bool compares = op.kind == BinaryKind::kLess || op.kind == BinaryKind::kLessEqual ||
                        op.kind == BinaryKind::kEqual;
  const bool logical = op.kind == BinaryKind::kAnd || op.kind == BinaryKind::kOr;
  if (logical != (in[0].dtype == DType::kBool))
    return bad("and / or take bool, everything else f32 or i32");
  if (compares) out.dtype = DType::kBool;
  return out;
}

Result<ValueType> infer(const SelectOp&, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 3, 3));
  POME_RETURN_IF_ERROR(expect_dtype(in, 0, DType::kBool));
  if (in[1].dtype != in[2].dtype) return bad("the two choices have different dtypes");
  POME_ASSIGN_OR_RETURN(const SymShape choices, broadcast(in[1].shape, in[2].shape));
  ValueType out{in[1].dtype, {}};
  POME_ASSIGN_OR_RETURN(out.shape, broadcast(in[0].shape, choices));
  return out;
}

Result<ValueType> infer(const ReduceOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 1, 1));
  POME_RETURN_IF_ERROR(expect_dtype(in, 0, DType::kF32));
  POME_ASSIGN_OR_RETURN(const size_t axis, axis_of(op.axis, in[0].shape));
  ValueType out = in[0];
  out.shape[axis] = Dim(1);
  return out;
}

// A product of dimensions as a number times a multiset of symbols: reshapes must keep both.
struct Count {
  int64_t number = 1;
  int symbols[5] = {};
  friend bool operator==(const Count&, const Count&) = default;
};
Count count_of(const SymShape& shape) {
  Count count;
  for (const Dim& dim : shape) {
    if (dim.is_static()) {
      count.number *= dim.size;
    } else {
      ++count.symbols[static_cast<size_t>(dim.symbol)];
    }
  }
  return count;
}

Result<ValueType> infer(const ReshapeOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 1, 1));
  if (!(count_of(in[0].shape) == count_of(op.shape)))
    return bad("cannot reshape " + to_string(in[0].shape) + " to " + to_string(op.shape));
  return ValueType{in[0].dtype, op.shape};
}

Result<ValueType> infer(const TransposeOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 1, 1));
  const SymShape& shape = in[0].shape;
  std::vector<bool> used(shape.size(), false);
  ValueType out{in[0].dtype, {}};
  for (const int32_t axis : op.permutation) {
    if (axis < 0 || static_cast<size_t>(axis) >= shape.size() || used[static_cast<size_t>(axis)])
      return bad("not a permutation of the axes of " + to_string(shape));
    used[static_cast<size_t>(axis)] = true;
    out.shape.push_back(shape[static_cast<size_t>(axis)]);
  }
  if (out.shape.size() != shape.size())
    return bad("not a permutation of the axes of " + to_string(shape));
  return out;
}

Result<ValueType> infer(const SliceOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 1, 1));
  POME_ASSIGN_OR_RETURN(const size_t axis, axis_of(op.axis, in[0].shape));
  const Dim dim = in[0].shape[axis];
  if (!dim.is_static() || op.step < 1 || op.begin < 0 || op.end < op.begin || op.end > dim.size)
    return bad("slice " + std::to_string(op.begin) + ":" + std::to_string(op.end) + " is outside " +
               to_string(in[0].shape));
  ValueType out = in[0];
  out.shape[axis] = Dim((op.end - op.begin + op.step - 1) / op.step);
  return out;
}

Result<ValueType> infer(const ConcatOp& op, Types in) {
  if (in.empty()) return bad("takes at least one operand");
  POME_ASSIGN_OR_RETURN(const size_t axis, axis_of(op.axis, in[0].shape));
  ValueType out = in[0];
  int64_t length = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    POME_RETURN_IF_ERROR(expect_dtype(in, i, out.dtype));
    POME_RETURN_IF_ERROR(expect_rank(in, i, out.shape.size()));
    for (size_t k = 0; k < out.shape.size(); ++k)
      if (k != axis) POME_RETURN_IF_ERROR(expect_dim(in, i, k, out.shape[k]));
    if (!in[i].shape[axis].is_static()) return bad("concatenates along a symbolic axis");
    length += in[i].shape[axis].size;
  }
  out.shape[axis] = Dim(length);
  return out;
}

Result<ValueType> infer(const MatMulOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 2, 2));
  for (size_t i = 0; i < 2; ++i) {
    POME_RETURN_IF_ERROR(expect_dtype(in, i, DType::kF32));
    if (in[i].shape.size() < 2) return bad("operands need rank 2 or more");
  }
  const SymShape &x = in[0].shape, &y = in[1].shape;
  const Dim inner = op.transpose_y ? y[y.size() - 1] : y[y.size() - 2];
  const Dim columns = op.transpose_y ? y[y.size() - 2] : y[y.size() - 1];
  if (x.back() != inner)
    return bad("inner dimensions of " + to_string(x) + " and " + to_string(y) + " differ");
  ValueType out{DType::kF32, {}};
  POME_ASSIGN_OR_RETURN(
      out.shape, broadcast(SymShape(x.begin(), x.end() - 2), SymShape(y.begin(), y.end() - 2)));
  out.shape.push_back(x[x.size() - 2]);
  out.shape.push_back(columns);
  return out;
}

Result<ValueType> gather_type(Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 2, 2));
  POME_RETURN_IF_ERROR(expect_dtype(in, 1, DType::kI32));
  POME_RETURN_IF_ERROR(expect_rank(in, 0, 2));
  ValueType out{in[0].dtype, in[1].shape};
  out.shape.push_back(in[0].shape[1]);
  return out;
}
Result<ValueType> infer(const GatherOp&, Types in) { return gather_type(in); }
Result<ValueType> infer(const EmbeddingOp&, Types in) { return gather_type(in); }

Result<ValueType> infer(const IotaOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 0, 0));
  return ValueType{DType::kI32, {op.length}};
}

Result<ValueType> infer(const TopKMaskOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 1, 1));
  POME_RETURN_IF_ERROR(expect_dtype(in, 0, DType::kF32));
  if (in[0].shape.empty() || !in[0].shape.back().is_static() || op.k < 1 ||
      op.k > in[0].shape.back().size)
    return bad("k = " + std::to_string(op.k) + " does not suit " + to_string(in[0].shape));
  return ValueType{DType::kBool, in[0].shape};
}

Result<ValueType> infer(const KvWriteOp&, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 3, 3));
  POME_RETURN_IF_ERROR(expect_rank(in, 0, 4));
  POME_RETURN_IF_ERROR(expect_rank(in, 1, 4));
  POME_RETURN_IF_ERROR(expect_dim(in, 0, 2, Symbol::kPast));
  POME_RETURN_IF_ERROR(expect_dim(in, 1, 2, Symbol::kTokens));
  POME_RETURN_IF_ERROR(expect_dtype(in, 2, DType::kI32));
  for (const size_t axis : {0u, 1u, 3u})
    POME_RETURN_IF_ERROR(expect_dim(in, 1, axis, in[0].shape[axis]));
  ValueType out = in[0];
  out.shape[2] = Symbol::kTotal;
  return out;
}

Result<ValueType> infer(const LinearOp&, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 2, 3));
  POME_RETURN_IF_ERROR(expect_rank(in, 1, 2));
  if (in[0].shape.empty() || in[0].shape.back() != in[1].shape[1])
    return bad("input " + to_string(in[0].shape) + " does not suit weight " +
               to_string(in[1].shape));
  if (in.size() == 3) {
    POME_RETURN_IF_ERROR(expect_rank(in, 2, 1));
    POME_RETURN_IF_ERROR(expect_dim(in, 2, 0, in[1].shape[0]));
  }
  ValueType out = in[0];
  out.shape.back() = in[1].shape[0];
  return out;
}

Result<ValueType> infer(const RmsNormOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 2, 2));
  POME_RETURN_IF_ERROR(expect_rank(in, 1, 1));
  if (!(op.epsilon > 0)) return bad("epsilon must be positive");
  if (in[0].shape.empty() || in[0].shape.back() != in[1].shape[0])
    return bad("input " + to_string(in[0].shape) + " does not suit gain " + to_string(in[1].shape));
  return in[0];
}

Result<ValueType> infer(const LayerNormOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 2, 3));
  if (!(op.epsilon > 0)) return bad("epsilon must be positive");
  for (size_t i = 0; i < in.size(); ++i) POME_RETURN_IF_ERROR(expect_dtype(in, i, DType::kF32));
  for (size_t i = 1; i < in.size(); ++i) {
    POME_RETURN_IF_ERROR(expect_rank(in, i, 1));
    if (in[0].shape.empty() || in[0].shape.back() != in[i].shape[0])
      return bad("input " + to_string(in[0].shape) + " does not suit " +
                 (i == 1 ? "gain " : "bias ") + to_string(in[i].shape));
  }
  return in[0];
}

Result<ValueType> infer(const RopeOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 3, 3));
  POME_RETURN_IF_ERROR(expect_rank(in, 0, 4));
  POME_RETURN_IF_ERROR(expect_dtype(in, 1, DType::kI32));
  POME_RETURN_IF_ERROR(expect_rank(in, 2, 1));
  const Dim dim = in[0].shape[3];
  if (!dim.is_static() || op.rotary_dim < 2 || op.rotary_dim % 2 != 0 || op.rotary_dim > dim.size)
    return bad("rotary_dim " + std::to_string(op.rotary_dim) + " does not suit head dimension " +
               to_string(SymShape{dim}));
  POME_RETURN_IF_ERROR(expect_dim(in, 2, 0, op.rotary_dim / 2));
  return in[0];
}

Result<ValueType> infer(const AttentionOp& op, Types in) {
  POME_RETURN_IF_ERROR(expect_operands(in, 3, 4));
  for (size_t i = 0; i < 3; ++i) POME_RETURN_IF_ERROR(expect_rank(in, i, 4));
  const SymShape &q = in[0].shape, &k = in[1].shape, &v = in[2].shape;
  if (!q[1].is_static() || !k[1].is_static() || k[1].size < 1 || q[1].size % k[1].size != 0)
    return bad("query heads must be a multiple of key heads: " + to_string(q) + ", " +
               to_string(k));
  POME_RETURN_IF_ERROR(expect_dim(in, 1, 3, q[3]));
  POME_RETURN_IF_ERROR(expect_dim(in, 2, 1, k[1]));
  POME_RETURN_IF_ERROR(expect_dim(in, 2, 2, k[2]));
  if (in.size() == 4) POME_RETURN_IF_ERROR(expect_dim(in, 3, 0, q[1]));
  if (!std::isfinite(op.scale) || op.window < 0 || op.softcap < 0)
    return bad("scale, window or softcap out of range");
  return ValueType{DType::kF32, {q[0], q[1], q[2], v[3]}};
}

Result<ValueType> same_as_first(Types in, size_t operands) {
  POME_RETURN_IF_ERROR(expect_operands(in, operands, operands));
  for (size_t i = 0; i < operands; ++i) {
    POME_RETURN_IF_ERROR(expect_dtype(in, i, DType::kF32));
    if (in[i].shape != in[0].shape) return bad("operands have different shapes");
  }
  return in[0];
}
Result<ValueType> infer(const ActivationOp&, Types in) { return same_as_first(in, 1); }
Result<ValueType> infer(const SwigluOp&, Types in) { return same_as_first(in, 2); }
Result<ValueType> infer(const SoftmaxOp&, Types in) { return same_as_first(in, 1); }

Result<ValueType> infer(const MoeOp& op, Types in) {
  const size_t plain = op.operands_without_biases(), biased = op.operands_with_biases();
  if (in.size() != plain && in.size() != biased)
    return bad("takes " + std::to_string(plain) + " operands, or " + std::to_string(biased) +
               " with biases, got " + std::to_string(in.size()));
  POME_RETURN_IF_ERROR(expect_rank(in, 0, 3));
  POME_RETURN_IF_ERROR(expect_rank(in, 1, 3));
  POME_RETURN_IF_ERROR(expect_rank(in, 2, 3));
  for (const size_t axis : {0u, 1u})
    POME_RETURN_IF_ERROR(expect_dim(in, 1, axis, in[0].shape[axis]));
  const Dim experts = in[1].shape[2], hidden = in[0].shape[2], width = in[2].shape[1];
  if (!experts.is_static() || !hidden.is_static() || !width.is_static())
    return bad("experts must have static shapes: " + to_string(in[1].shape));
  std::vector<SymShape> expected = {{experts, width, hidden}};
  if (op.gated) expected.push_back(expected[0]);
  expected.push_back({experts, hidden, width});
  if (in.size() == biased) {
    expected.push_back({experts, width});
    if (op.gated) expected.push_back({experts, width});
    expected.push_back({experts, hidden});
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    POME_RETURN_IF_ERROR(expect_dtype(in, 2 + i, DType::kF32));
    if (in[2 + i].shape != expected[i])
      return bad("operand " + std::to_string(2 + i) + " must be " + to_string(expected[i]) +
                 ", is " + to_string(in[2 + i].shape));
  }
  if (!std::isfinite(op.sigmoid_scale) || !std::isfinite(op.up_offset) || !(op.limit >= 0))
    return bad("sigmoid_scale, limit or up_offset out of range");
  if (op.sigmoid_scale != 1 && op.activation != Activation::kSilu)
    return bad("sigmoid_scale belongs to silu");
  return in[0];
}

}  // namespace

Result<ValueType> infer_type(const Op& op, std::span<const ValueType> operands,
                             std::span<const Constant> constants) {
  auto result = std::visit(
      [&](const auto& o) -> Result<ValueType> {
        using T = std::decay_t<decltype(o)>;
        if constexpr (std::is_same_v<T, InputOp>) {
          return bad("the type of an input is given, not inferred");
        } else if constexpr (std::is_same_v<T, ConstantOp>) {
          if (o.constant < 0 || static_cast<size_t>(o.constant) >= constants.size())
            return bad("constant index out of range");
          const Shape& shape = constants[static_cast<size_t>(o.constant)].data->shape();
          return ValueType{DType::kF32, SymShape(shape.begin(), shape.end())};
        } else {
          return infer(o, operands);
        }
      },
      op);
  if (!result.ok()) return std::move(result).status().at(op_name(op));
  return result;
}

}  // namespace pome
