#include "interp/graph_eval.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "graph/passes.h"
#include "interp/history_runner.h"
#include "refops/refops.h"

namespace pome {

namespace {

Status bad(std::string message) { return bad_input(Refusal::kType, std::move(message)); }

float apply(UnaryKind kind, float x) {
  switch (kind) {
    case UnaryKind::kNeg:
      return -x;
    case UnaryKind::kExp:
      return std::exp(x);
    case UnaryKind::kLog:
      return std::log(x);
    case UnaryKind::kSqrt:
      return std::sqrt(x);
    case UnaryKind::kRsqrt:
      return 1.0f / std::sqrt(x);
    case UnaryKind::kSigmoid:
      return 1.0f / (1.0f + std::exp(-x));
    case UnaryKind::kTanh:
      return std::tanh(x);
    case UnaryKind::kErf:
      return std::erf(x);
    case UnaryKind::kSin:
      return std::sin(x);
    case UnaryKind::kCos:
      return std::cos(x);
    case UnaryKind::kRelu:
      return std::max(x, 0.0f);
    case UnaryKind::kAbs:
      return std::fabs(x);
    case UnaryKind::kToF32:
    case UnaryKind::kToI32:
      break;
  }
  return x;
}

template <typename T>
Tensor arithmetic(BinaryKind kind, const Tensor& x, const Tensor& y) {
  switch (kind) {
    case BinaryKind::kAdd:
      return refops::zip<T, T>(x, y, [](T a, T b) { return static_cast<T>(a + b); });
    case BinaryKind::kSub:
      return refops::zip<T, T>(x, y, [](T a, T b) { return static_cast<T>(a - b); });
    case BinaryKind::kMul:
      return refops::zip<T, T>(x, y, [](T a, T b) { return static_cast<T>(a * b); });
    case BinaryKind::kDiv:
      return refops::zip<T, T>(x, y, [](T a, T b) {
        return static_cast<T>(b == T{} && !std::is_floating_point_v<T> ? T{} : a / b);
      });
    case BinaryKind::kMin:
      return refops::zip<T, T>(x, y, [](T a, T b) { return std::min(a, b); });
    case BinaryKind::kMax:
      return refops::zip<T, T>(x, y, [](T a, T b) { return std::max(a, b); });
    case BinaryKind::kPow:
      return refops::zip<T, T>(x, y, [](T a, T b) { return static_cast<T>(std::pow(a, b)); });
    case BinaryKind::kLess:
      return refops::zip<T, bool>(x, y, [](T a, T b) { return a < b; });
    case BinaryKind::kLessEqual:
      return refops::zip<T, bool>(x, y, [](T a, T b) { return a <= b; });
    case BinaryKind::kEqual:
      return refops::zip<T, bool>(x, y, [](T a, T b) { return a == b; });
    case BinaryKind::kAnd:
    case BinaryKind::kOr:
      break;
  }
  return {};
}

Tensor topk_mask(const Tensor& x, int64_t k) {
  Tensor out = Tensor::zeros(DType::kBool, x.shape());
  const int64_t n = x.dim(-1), rows = n ? x.count() / n : 0;
  auto mask = out.mutable_as<bool>();
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t row = 0; row < rows; ++row) {
    const float* values = x.f32().data() + row * n;
    for (int64_t i = 0; i < n; ++i) order[static_cast<size_t>(i)] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return values[a] > values[b]; });
    for (int64_t i = 0; i < k; ++i)
      mask[static_cast<size_t>(row * n + order[static_cast<size_t>(i)])] = true;
  }
  return out;
}

// Runs one primitive. `bindings` gives the symbols of this call.
class PrimitiveEvaluator {
 public:
  PrimitiveEvaluator(const Bindings& bindings, ThreadPool* pool)
      : bindings_(bindings), pool_(pool) {}

  Result<Tensor> run(const Node& node, const ValueType& type, const std::vector<Tensor>& in) const {
    return std::visit(
        [&](const auto& op) -> Result<Tensor> {
          using T = std::decay_t<decltype(op)>;
          if constexpr (std::is_same_v<T, UnaryOp>) {
            if (op.kind == UnaryKind::kToF32) return in[0].to(DType::kF32);
            if (op.kind == UnaryKind::kToI32) return in[0].to(DType::kI32);
            return refops::map<float, float>(in[0], [&](float x) { return apply(op.kind, x); });
          } else if constexpr (std::is_same_v<T, BinaryOp>) {
            if (op.kind == BinaryKind::kAnd)
              return refops::zip<bool, bool>(in[0], in[1], [](bool a, bool b) { return a && b; });
            if (op.kind == BinaryKind::kOr)
              return refops::zip<bool, bool>(in[0], in[1], [](bool a, bool b) { return a || b; });
            return in[0].dtype() == DType::kI32 ? arithmetic<int32_t>(op.kind, in[0], in[1])
                                                : arithmetic<float>(op.kind, in[0], in[1]);
          } else if constexpr (std::is_same_v<T, SelectOp>) {
            return refops::select(in[0], in[1], in[2]);
          } else if constexpr (std::is_same_v<T, ReduceOp>) {
            const auto kind = op.kind == ReduceKind::kSum    ? refops::Reduce::kSum
                              : op.kind == ReduceKind::kMean ? refops::Reduce::kMean
                                                             : refops::Reduce::kMax;
            return refops::reduce(in[0], kind, op.axis < 0 ? op.axis + in[0].rank() : op.axis);
          } else if constexpr (std::is_same_v<T, ReshapeOp>) {
            return in[0].reshaped(bind(op.shape, bindings_));
          } else if constexpr (std::is_same_v<T, TransposeOp>) {
            return refops::transpose(in[0], op.permutation);
          } else if constexpr (std::is_same_v<T, SliceOp>) {
            return slice(op, in[0]);
          } else if constexpr (std::is_same_v<T, ConcatOp>) {
            return refops::concat(in, op.axis < 0 ? op.axis + in[0].rank() : op.axis);
          } else if constexpr (std::is_same_v<T, MatMulOp>) {
            return refops::matmul(in[0], in[1], op.transpose_y, pool_);
          } else if constexpr (std::is_same_v<T, GatherOp>) {
            for (const int32_t id : in[1].template as<int32_t>())
              if (id < 0 || id >= in[0].dim(0))
                return bad("id " + std::to_string(id) + " is outside the table of " +
                           std::to_string(in[0].dim(0)));
            return refops::gather_rows(in[0], in[1]);
          } else if constexpr (std::is_same_v<T, IotaOp>) {
            Tensor out = Tensor::zeros(DType::kI32, bind(type.shape, bindings_));
            int32_t next = static_cast<int32_t>(bind({op.start}, bindings_)[0]);
            for (int32_t& value : out.template mutable_as<int32_t>()) value = next++;
            return out;
          } else if constexpr (std::is_same_v<T, TopKMaskOp>) {
            return topk_mask(in[0], op.k);
          } else if constexpr (std::is_same_v<T, KvWriteOp>) {
            return refops::concat(std::span(in).first(2), 2);
          } else {
            return unsupported("the reference evaluator runs primitives only, got " +
                               std::string(op_name(node.op)));
          }
        },
        node.op);
  }

 private:
  static Tensor slice(const SliceOp& op, const Tensor& x) {
    const size_t rank = static_cast<size_t>(x.rank());
    const size_t axis = static_cast<size_t>(op.axis < 0 ? op.axis + x.rank() : op.axis);
    std::vector<int64_t> begin(rank, 0), end(x.shape()), step(rank, 1);
    begin[axis] = op.begin;
    end[axis] = op.end;
    step[axis] = op.step;
    return refops::slice(x, begin, end, step);
  }

  Bindings bindings_;
  ThreadPool* pool_;
};

// Decomposed graph with its constants decoded, or undefined where they are decoded when needed.
struct Prepared {
  Graph graph;
  std::vector<Tensor> constants;
  std::vector<int32_t> constant_of;  // by value: its constant, or -1
  std::vector<int32_t> last_use;     // node index after which a value is not needed; by value
};

Result<Tensor> decode_constant(const Constant& constant) {
  const ConstantData& data = *constant.data;
  if (const auto values = data.view(); values && data.encoding().kind == EncodingKind::kF32)
    return Tensor::view(DType::kF32, data.shape(), *values, constant.data);
  Tensor out = Tensor::zeros(DType::kF32, data.shape());
  const int64_t step = tile_rows(data);
  for (int64_t row = 0; row < data.rows(); row += step) {
    Status status = data.read_f32(row, std::min(step, data.rows() - row),
                                  out.mutable_as<float>().data() + row * data.columns());
    if (!status.ok()) return std::move(status).at(constant.name);
  }
  return out;
}

uint64_t decoded_bytes(const Graph& graph) {
  uint64_t bytes = 0;
  for (const Constant& constant : graph.constants)
    bytes += static_cast<uint64_t>(constant.data->rows() * constant.data->columns()) * 4;
  return bytes;
}

Result<Prepared> prepare(const Graph& graph, bool keep_constants) {
  Prepared out{decompose(graph), {}, {}, {}};
  out.constants.resize(out.graph.constants.size());
  for (size_t i = 0; keep_constants && i < out.constants.size(); ++i) {
    POME_ASSIGN_OR_RETURN(out.constants[i], decode_constant(out.graph.constants[i]));
  }
  out.constant_of.assign(out.graph.values.size(), -1);
  for (const Node& node : out.graph.nodes)
    if (const auto* constant = std::get_if<ConstantOp>(&node.op))
      out.constant_of[static_cast<size_t>(node.result)] = constant->constant;
  out.last_use.assign(out.graph.values.size(), -1);
  for (size_t i = 0; i < out.graph.nodes.size(); ++i)
    for (const ValueId id : out.graph.nodes[i].operands)
      out.last_use[static_cast<size_t>(id)] = static_cast<int32_t>(i);
  return out;
}

Status check_input(const Graph& graph, ValueId id, const Tensor& tensor, const Bindings& bindings) {
  const ValueType& type = graph.type(id);
  if (tensor.dtype() != type.dtype || tensor.shape() != bind(type.shape, bindings))
    return usage_error("input " + graph.name(id) + " must be " +
                       std::string(to_string(type.dtype)) + " " + to_string(type.shape) + ", is " +
                       std::string(to_string(tensor.dtype())) + " " + to_string(tensor.shape()));
  return {};
}

// A constant becomes a value when the first operation reads it, and ends with the last.
Status fetch_constant(const Prepared& p, ValueId id, Tensor* value) {
  const int32_t index = p.constant_of[static_cast<size_t>(id)];
  if (index < 0 || value->defined()) return {};
  *value = p.constants[static_cast<size_t>(index)];
  if (value->defined()) return {};
  POME_ASSIGN_OR_RETURN(*value, decode_constant(p.graph.constants[static_cast<size_t>(index)]));
  return {};
}

// `keep[v]` values survive; inputs by value id.
Result<std::vector<Tensor>> run(const Prepared& p, std::unordered_map<ValueId, Tensor> inputs,
                                const Bindings& bindings, const std::vector<ValueId>& wanted,
                                ThreadPool* pool) {
  const PrimitiveEvaluator evaluator(bindings, pool);
  std::vector<Tensor> values(p.graph.values.size());
  std::vector<bool> keep(values.size(), false);
  for (const ValueId id : wanted) keep[static_cast<size_t>(id)] = true;
  std::vector<Tensor> operands;
  for (size_t i = 0; i < p.graph.nodes.size(); ++i) {
    const Node& node = p.graph.nodes[i];
    Tensor& result = values[static_cast<size_t>(node.result)];
    if (std::holds_alternative<InputOp>(node.op)) {
      const auto found = inputs.find(node.result);
      if (found == inputs.end())
        return usage_error("input " + p.graph.name(node.result) + " is missing");
      POME_RETURN_IF_ERROR(check_input(p.graph, node.result, found->second, bindings));
      result = std::move(found->second);
    } else if (!std::holds_alternative<ConstantOp>(node.op)) {
      operands.clear();
      for (const ValueId id : node.operands) {
        POME_RETURN_IF_ERROR(fetch_constant(p, id, &values[static_cast<size_t>(id)]));
        operands.push_back(values[static_cast<size_t>(id)]);
      }
      auto computed = evaluator.run(node, p.graph.type(node.result), operands);
      if (!computed.ok()) return std::move(computed).status().at(p.graph.name(node.result));
      result = std::move(*computed);
    }
    for (const ValueId id : node.operands)
      if (p.last_use[static_cast<size_t>(id)] == static_cast<int32_t>(i) &&
          !keep[static_cast<size_t>(id)])
        values[static_cast<size_t>(id)] = Tensor();
  }
  std::vector<Tensor> out;
  for (const ValueId id : wanted) {
    POME_RETURN_IF_ERROR(fetch_constant(p, id, &values[static_cast<size_t>(id)]));
    out.push_back(values[static_cast<size_t>(id)]);
  }
  return out;
}

// Symbols from the shapes of the given inputs.
Bindings bindings_from(const Graph& graph,
                       const std::vector<std::pair<std::string, Tensor>>& inputs) {
  Bindings bindings;
  for (const auto& [name, tensor] : inputs)
    for (size_t id = 0; id < graph.values.size(); ++id) {
      const Value& value = graph.values[id];
      if (value.name != name || value.type.shape.size() != tensor.shape().size()) continue;
      for (size_t axis = 0; axis < tensor.shape().size(); ++axis) {
        const Symbol symbol = value.type.shape[axis].symbol;
        if (symbol == Symbol::kBatch) bindings.batch = tensor.shape()[axis];
        if (symbol == Symbol::kTokens) bindings.tokens = tensor.shape()[axis];
        if (symbol == Symbol::kPast) bindings.past = tensor.shape()[axis];
      }
    }
  return bindings;
}

class ReferenceRunner final : public HistoryRunner {
 public:
  ReferenceRunner(std::vector<Prepared> chain, RunnerInfo info, int threads)
      : chain_(std::move(chain)), pool_(threads) {
    info_ = std::move(info);
    for (const Prepared& part : chain_) {
      std::vector<Tensor>& caches = caches_.emplace_back();
      for (const CachePair& cache : part.graph.caches)
        caches.push_back(
            Tensor::zeros(DType::kF32, bind(part.graph.type(cache.input).shape, {1, 0, 0})));
    }
  }

  Status prefill(std::span<const int32_t> ids, LogitsOf which, std::span<float> logits) override {
    POME_RETURN_IF_ERROR(check_prefill(info_, position(), ids, which, logits.size()));
    if (ids.empty()) return {};
    POME_RETURN_IF_ERROR(check_cancelled(cancel_));
    const Bindings bindings{1, static_cast<int64_t>(ids.size()), position()};
    Tensor hidden = Tensor::from_i32({1, bindings.tokens}, {ids.begin(), ids.end()});
    std::vector<std::vector<Tensor>> written;
    for (size_t i = 0; i < chain_.size(); ++i) {
      const Graph& graph = chain_[i].graph;
      std::unordered_map<ValueId, Tensor> inputs;
      inputs[graph.token_ids != kNoValue ? graph.token_ids : graph.hidden_in] = hidden;
      if (graph.position != kNoValue)
        inputs[graph.position] = Tensor::from_i32({1}, {static_cast<int32_t>(position())});
      std::vector<ValueId> wanted = {graph.output};
      for (size_t c = 0; c < graph.caches.size(); ++c) {
        inputs[graph.caches[c].input] = caches_[i][c];
        wanted.push_back(graph.caches[c].output);
      }
      POME_ASSIGN_OR_RETURN(std::vector<Tensor> out,
                            run(chain_[i], std::move(inputs), bindings, wanted, &pool_));
      hidden = std::move(out[0]);
      out.erase(out.begin());
      written.push_back(std::move(out));
    }
    caches_ = std::move(written);
    history_.insert(history_.end(), ids.begin(), ids.end());
    if (which != LogitsOf::kNone) {
      const auto all = hidden.f32();
      std::copy(all.end() - static_cast<int64_t>(logits.size()), all.end(), logits.begin());
    }
    return {};
  }

 private:
  void forget(int64_t position) override {
    HistoryRunner::forget(position);
    for (auto& caches : caches_)
      for (Tensor& cache : caches) cache = first_tokens(cache, position);
  }

  std::vector<Prepared> chain_;
  ThreadPool pool_;
  std::vector<std::vector<Tensor>> caches_;  // [part][cache], [1, heads, P, dim]
};

}  // namespace

Result<std::vector<Tensor>> evaluate(const Graph& graph,
                                     const std::vector<std::pair<std::string, Tensor>>& inputs,
                                     const std::vector<std::string>& outputs, ThreadPool* pool) {
  POME_ASSIGN_OR_RETURN(const Prepared prepared, prepare(graph, false));
  const Graph& g = prepared.graph;
  const auto find = [&](const std::string& name) -> ValueId {
    for (size_t id = 0; id < g.values.size(); ++id)
      if (g.values[id].name == name) return static_cast<ValueId>(id);
    return kNoValue;
  };
  std::unordered_map<ValueId, Tensor> by_id;
  for (const auto& [name, tensor] : inputs) {
    const ValueId id = find(name);
    if (id == kNoValue) return usage_error("the graph has no value named " + name);
    by_id[id] = tensor;
  }
  std::vector<ValueId> wanted;
  for (const std::string& name : outputs) {
    wanted.push_back(find(name));
    if (wanted.back() == kNoValue) return usage_error("the graph has no value named " + name);
  }
  return run(prepared, std::move(by_id), bindings_from(g, inputs), wanted, pool);
}

Result<std::unique_ptr<Runner>> reference_runner(std::vector<Graph> chain,
                                                 const ReferenceOptions& options) {
  if (chain.empty()) return usage_error("a runner needs at least one graph");
  RunnerInfo info;
  info.kind = "reference";
  info.vocab_size = chain.back().info.vocab_size;
  info.capacity = options.capacity > 0 ? options.capacity : chain[0].info.max_position_embeddings;
  info.chunk = std::min<int64_t>(512, info.capacity);
  std::vector<Prepared> prepared;
  uint64_t bytes = 0;
  for (const Graph& graph : chain) bytes += decoded_bytes(graph);
  for (const Graph& graph : chain) {
    POME_ASSIGN_OR_RETURN(Prepared part, prepare(graph, bytes <= options.constant_budget));
    prepared.push_back(std::move(part));
  }
  return std::unique_ptr<Runner>(
      std::make_unique<ReferenceRunner>(std::move(prepared), std::move(info), options.threads));
}

}  // namespace pome
