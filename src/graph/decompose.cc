// The definitions of the composite ops, as graphs of primitives.
#include <cmath>
#include <limits>

#include "graph/passes.h"
#include "graph/rewriter.h"

namespace pome {

namespace {

using Ids = const std::vector<ValueId>&;

class Decomposer {
 public:
  explicit Decomposer(Rewriter& out) : out_(out) {}

  template <typename OpType>
  ValueId operator()(const OpType& op, Ids in) {
    if constexpr (std::is_same_v<OpType, LinearOp>)
      return linear(in);
    else if constexpr (std::is_same_v<OpType, EmbeddingOp>)
      return out_.emit(GatherOp{}, in);
    else if constexpr (std::is_same_v<OpType, RmsNormOp>)
      return rms_norm(op, in);
    else if constexpr (std::is_same_v<OpType, LayerNormOp>)
      return layer_norm(op, in);
    else if constexpr (std::is_same_v<OpType, RopeOp>)
      return rope(op, in);
    else if constexpr (std::is_same_v<OpType, AttentionOp>)
      return attention(op, in);
    else if constexpr (std::is_same_v<OpType, ActivationOp>)
      return activation(op.activation, in[0]);
    else if constexpr (std::is_same_v<OpType, SwigluOp>)
      return mul(activation(op.activation, in[0]), in[1]);
    else if constexpr (std::is_same_v<OpType, SoftmaxOp>)
      return softmax(in[0]);
    else if constexpr (std::is_same_v<OpType, MoeOp>)
      return moe(op, in);
    else
      return out_.emit(op, in);
  }

 private:
  ValueId unary(UnaryKind kind, ValueId x) { return out_.emit(UnaryOp{kind}, {x}); }
  ValueId binary(BinaryKind kind, ValueId x, ValueId y) {
    return out_.emit(BinaryOp{kind}, {x, y});
  }
  ValueId add(ValueId x, ValueId y) { return binary(BinaryKind::kAdd, x, y); }
  ValueId mul(ValueId x, ValueId y) { return binary(BinaryKind::kMul, x, y); }
  ValueId scaled(ValueId x, double factor) { return factor == 1 ? x : mul(x, scalar(factor)); }
  ValueId scalar(double value) { return out_.scalar(static_cast<float>(value)); }
  ValueId reduce(ReduceKind kind, ValueId x, int32_t axis = -1) {
    return out_.emit(ReduceOp{kind, axis}, {x});
  }
  ValueId reshape(ValueId x, SymShape shape) { return out_.emit(ReshapeOp{std::move(shape)}, {x}); }
  ValueId select(ValueId condition, ValueId x, ValueId y) {
    return out_.emit(SelectOp{}, {condition, x, y});
  }
  const SymShape& shape(ValueId id) const { return out_.type(id).shape; }

  // x W^T + b
  ValueId linear(Ids in) {
    const ValueId product = out_.emit(MatMulOp{true}, {in[0], in[1]});
    return in.size() == 3 ? add(product, in[2]) : product;
  }

  // x / sqrt(mean(x^2) + epsilon) * gain                                      (Zhang and Sennrich
  // 2019, arXiv 1910.07467)
  ValueId rms_norm(const RmsNormOp& op, Ids in) {
    const ValueId mean = reduce(ReduceKind::kMean, mul(in[0], in[0]));
    return mul(mul(in[0], unary(UnaryKind::kRsqrt, add(mean, scalar(op.epsilon)))), in[1]);
  }

  // (x - mean) / sqrt(variance + epsilon) * gain + bias     (Ba et al. 2016, arXiv 1607.06450)
  ValueId layer_norm(const LayerNormOp& op, Ids in) {
    const ValueId centred = binary(BinaryKind::kSub, in[0], reduce(ReduceKind::kMean, in[0]));
    const ValueId variance = reduce(ReduceKind::kMean, mul(centred, centred));
    const ValueId factor = unary(UnaryKind::kRsqrt, add(variance, scalar(op.epsilon)));
    const ValueId scaled_up = mul(mul(centred, factor), in[1]);
    return in.size() == 3 ? add(scaled_up, in[2]) : scaled_up;
  }

  // Pairs (a, b) turn by the angle position * inverse_frequency: (a cos - b sin, b cos + a sin).
  // (Su et al. 2021, arXiv 2104.09864)
  ValueId rope(const RopeOp& op, Ids in) {
    const ValueId x = in[0];
    const SymShape x_shape = shape(x);
    const int64_t half = op.rotary_dim / 2, dim = x_shape[3].size;
    const ValueId positions =
        unary(UnaryKind::kToF32, add(out_.emit(IotaOp{x_shape[2]}, {}), in[1]));
    const ValueId angles = mul(reshape(positions, {x_shape[2], 1}), reshape(in[2], {1, half}));
    const ValueId cosine = scaled(unary(UnaryKind::kCos, angles), op.scale);
    const ValueId sine = scaled(unary(UnaryKind::kSin, angles), op.scale);
    const bool halves = op.style == RopeStyle::kHalves;
    const ValueId a =
        out_.emit(halves ? SliceOp{-1, 0, half} : SliceOp{-1, 0, op.rotary_dim, 2}, {x});
    const ValueId b = out_.emit(
        halves ? SliceOp{-1, half, op.rotary_dim} : SliceOp{-1, 1, op.rotary_dim, 2}, {x});
    ValueId turned_a = binary(BinaryKind::kSub, mul(a, cosine), mul(b, sine));
    ValueId turned_b = add(mul(b, cosine), mul(a, sine));
    ValueId rotated;
    if (halves) {
      rotated = out_.emit(ConcatOp{-1}, {turned_a, turned_b});
    } else {
      SymShape paired = {x_shape[0], x_shape[1], x_shape[2], half, 1};
      turned_a = reshape(turned_a, paired);
      turned_b = reshape(turned_b, paired);
      rotated = reshape(out_.emit(ConcatOp{-1}, {turned_a, turned_b}),
                        {x_shape[0], x_shape[1], x_shape[2], op.rotary_dim});
    }
    if (op.rotary_dim == dim) return rotated;
    return out_.emit(ConcatOp{-1}, {rotated, out_.emit(SliceOp{-1, op.rotary_dim, dim}, {x})});
  }

  // softmax(scale q k^T + mask) v with grouped key heads; a sink is one more logit per head that
  // takes no value.
  ValueId attention(const AttentionOp& op, Ids in) {
    const SymShape q = shape(in[0]), k = shape(in[1]), v = shape(in[2]);
    const int64_t heads = q[1].size, kv_heads = k[1].size, groups = heads / kv_heads;
    const ValueId queries = reshape(in[0], {q[0], kv_heads, groups, q[2], q[3]});
    const ValueId keys = reshape(in[1], {k[0], kv_heads, 1, k[2], k[3]});
    const ValueId values = reshape(in[2], {v[0], kv_heads, 1, v[2], v[3]});
    ValueId scores = scaled(out_.emit(MatMulOp{true}, {queries, keys}), op.scale);
    if (op.softcap > 0)
      scores = scaled(unary(UnaryKind::kTanh, scaled(scores, 1 / op.softcap)), op.softcap);
    const ValueId query_at = reshape(out_.emit(IotaOp{q[2], Symbol::kPast}, {}), {q[2], 1});
    const ValueId key_at = reshape(out_.emit(IotaOp{k[2]}, {}), {1, k[2]});
    ValueId visible = binary(BinaryKind::kLessEqual, key_at, query_at);
    if (op.window > 0) {
      const ValueId window = unary(UnaryKind::kToI32, scalar(static_cast<double>(op.window)));
      visible = binary(BinaryKind::kAnd, visible,
                       binary(BinaryKind::kLess, query_at, add(key_at, window)));
    }
    scores = select(visible, scores, scalar(-std::numeric_limits<double>::infinity()));
    ValueId weights;
    if (in.size() == 4) {
      const ValueId sink = reshape(in[3], {kv_heads, groups, 1, 1});
      const ValueId largest = binary(BinaryKind::kMax, reduce(ReduceKind::kMax, scores), sink);
      const ValueId e = unary(UnaryKind::kExp, binary(BinaryKind::kSub, scores, largest));
      const ValueId total = add(reduce(ReduceKind::kSum, e),
                                unary(UnaryKind::kExp, binary(BinaryKind::kSub, sink, largest)));
      weights = binary(BinaryKind::kDiv, e, total);
    } else {
      weights = softmax(scores);
    }
    return reshape(out_.emit(MatMulOp{false}, {weights, values}), {q[0], heads, q[2], v[3]});
  }

  ValueId activation(Activation kind, ValueId x) {
    switch (kind) {
      case Activation::kSilu:
        return mul(x, unary(UnaryKind::kSigmoid, x));
      case Activation::kRelu:
        return unary(UnaryKind::kRelu, x);
      case Activation::kGelu: {  // x/2 (1 + erf(x / sqrt 2))
        const ValueId e = unary(UnaryKind::kErf, scaled(x, std::sqrt(0.5)));
        return mul(scaled(x, 0.5), add(e, scalar(1)));
      }
      case Activation::kGeluTanh: {  // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
        const ValueId cube = mul(mul(x, x), x);
        const ValueId inner =
            scaled(add(x, scaled(cube, 0.044715)), std::sqrt(2 / 3.14159265358979323846));
        return mul(scaled(x, 0.5), add(unary(UnaryKind::kTanh, inner), scalar(1)));
      }
    }
    return x;
  }

  ValueId softmax(ValueId x) {
    const ValueId e =
        unary(UnaryKind::kExp, binary(BinaryKind::kSub, x, reduce(ReduceKind::kMax, x)));
    return binary(BinaryKind::kDiv, e, reduce(ReduceKind::kSum, e));
  }

  // Every expert computes every token; the weights, zero for the experts that were not chosen, mix
  // them.
  ValueId moe(const MoeOp& op, Ids in) {
    const SymShape x = shape(in[0]);
    const Dim experts = shape(in[1])[2];
    const bool biased = in.size() == op.operands_with_biases();
    const auto project = [&](ValueId tokens, size_t weight) {
      const ValueId product = out_.emit(MatMulOp{true}, {tokens, in[weight]});
      if (!biased) return product;
      const ValueId bias = in[weight - 2 + op.operands_without_biases()];
      return add(product, reshape(bias, {experts, 1, shape(bias)[1]}));
    };
    const auto least = [&](ValueId v, double limit) {
      return op.limit > 0 ? binary(BinaryKind::kMin, v, scalar(limit)) : v;
    };
    const ValueId tokens = reshape(in[0], {x[0], 1, x[1], x[2]});
    const ValueId gate = least(project(tokens, 2), op.limit);
    ValueId inner = op.sigmoid_scale == 1
                        ? activation(op.activation, gate)
                        : mul(gate, unary(UnaryKind::kSigmoid, scaled(gate, op.sigmoid_scale)));
    if (op.gated) {
      ValueId up = least(project(tokens, 3), op.limit);
      if (op.limit > 0) up = binary(BinaryKind::kMax, up, scalar(-op.limit));
      if (op.up_offset != 0) up = add(up, scalar(op.up_offset));
      inner = mul(inner, up);
    }
    const ValueId out = project(inner, op.down());
    const ValueId by_expert =
        reshape(out_.emit(TransposeOp{{0, 2, 1}}, {in[1]}), {x[0], experts, x[1], 1});
    return reshape(reduce(ReduceKind::kSum, mul(out, by_expert), 1), x);
  }

  Rewriter& out_;
};

}  // namespace

Graph decompose(const Graph& graph) {
  Rewriter out(graph);
  Decomposer decomposer(out);
  for (const Node& node : graph.nodes) {
    const std::vector<ValueId> operands = out.mapped(node.operands);
    if (is_composite(node.op)) {
      out.replace(node.result,
                  std::visit([&](const auto& op) { return decomposer(op, operands); }, node.op));
    } else {
      out.copy(node);
    }
  }
  return out.finish();
}

}  // namespace pome
