#include "export/onnx_lower.h"

#include <algorithm>
#include <numeric>

#include "export/cache_names.h"

namespace pome::onnx_export {
namespace {

const char* type_of(BinaryKind kind) {
  static constexpr const char* kNames[] = {"Add", "Sub",  "Mul",         "Div",   "Min", "Max",
                                           "Pow", "Less", "LessOrEqual", "Equal", "And", "Or"};
  return kNames[static_cast<size_t>(kind)];
}

std::string symbol_name(Symbol symbol) {
  switch (symbol) {
    case Symbol::kBatch:
      return "batch_size";
    case Symbol::kTokens:
      return "sequence_length";
    case Symbol::kPast:
      return "past_sequence_length";
    case Symbol::kTotal:
      return "total_sequence_length";
    case Symbol::kNone:
      break;
  }
  return {};
}

}  // namespace

onnx::ValueInfo Lowering::value_info(const std::string& name, const ValueType& type) const {
  onnx::ValueInfo out{name, type.dtype == DType::kI32 ? DType::kI64 : type.dtype, {}};
  for (const Dim& given : type.shape) {
    const Dim dim = fixed(given);
    out.dims.push_back(dim.is_static() ? onnx::Dimension{dim.size, {}}
                                       : onnx::Dimension{-1, symbol_name(dim.symbol)});
  }
  return out;
}

// A decode step has one token of one sequence.
Dim Lowering::fixed(const Dim& dim) const {
  const bool one = dim.symbol == Symbol::kBatch || dim.symbol == Symbol::kTokens;
  return options_.explicit_kv && one ? Dim(1) : dim;
}

Lowering::Lowering(const Graph& graph, const OnnxOptions& options, int64_t opset, OnnxBuilder* out,
                   WeightStore* weights)
    : graph_(graph), options_(options), opset_(opset), out_(out), weights_(weights) {
  producers_.resize(graph.values.size());
  readers_.resize(graph.values.size());
  for (const Node& node : graph.nodes) {
    producers_[static_cast<size_t>(node.result)] = &node;
    for (const ValueId id : node.operands) ++readers_[static_cast<size_t>(id)];
  }
}

void Lowering::declare_interface() {
  const SymShape tokens = {Symbol::kBatch, Symbol::kTokens};
  const SymShape all = {Symbol::kBatch, Symbol::kTotal};
  inputs_.push_back(value_info("input_ids", {DType::kI32, tokens}));
  values_[graph_.token_ids] = "input_ids";
  if (masked()) inputs_.push_back(value_info("attention_mask", {DType::kI32, all}));
  if (!options_.logits_only) inputs_.push_back(value_info("position_ids", {DType::kI32, tokens}));
  outputs_.push_back(value_info("logits", graph_.type(graph_.output)));
  if (options_.logits_only) return;
  for (const CachePair& pair : graph_.caches) {
    const CacheNames names =
        options_.explicit_kv ? cache_names(graph_, pair) : layer_cache_names(pair);
    inputs_.push_back(value_info(names.past, graph_.type(pair.input)));
    values_[pair.input] = names.past;
    outputs_.push_back(value_info(names.present, graph_.type(pair.output)));
    cache_names_[pair.output] = names.present;
  }
}

Result<onnx::Graph> Lowering::run() {
  if (graph_.token_ids == kNoValue)
    return unsupported("a later part of a cut graph has no token ids to start from");
  for (const CachePair& pair : graph_.caches)
    if (pair.kind == CachePair::Kind::kLatent)
      return unsupported("cache '" + graph_.name(pair.input) +
                         "' is neither K nor V; the ONNX interface names these two");
  declare_interface();
  if (ort()) plan_fusions();
  for (const Node& node : graph_.nodes) {
    if (std::holds_alternative<ConstantOp>(node.op) || values_.count(node.result)) continue;
    if (std::holds_alternative<InputOp>(node.op) || fused_adds_.count(node.result) ||
        fused_writes_.count(node.result))
      continue;
    POME_ASSIGN_OR_RETURN(Val value,
                          std::visit([&](const auto& op) { return emit(op, node); }, node.op));
    values_[node.result] = std::move(value);
    // What is looked up by position ids has their batch axis too.
    if (std::holds_alternative<GatherOp>(node.op) && batched_.count(node.operands[1]))
      batched_.insert(node.result);
  }
  const auto output = values_.find(graph_.output);
  if (output == values_.end() || output->second != "logits")
    return unsupported("the graph's output is no result of an operation");
  std::map<std::string, onnx::ValueInfo> known;
  for (const auto& [id, name] : values_)
    if (id != graph_.output && cache_names_.count(id) == 0 && batched_.count(id) == 0)
      known[name] = value_info(name, graph_.type(id));
  std::set<std::string> kept = {"input_ids"};
  if (masked()) kept.insert("attention_mask");
  if (options_.explicit_kv) kept.insert("position_ids");
  return out_->finish(std::move(inputs_), std::move(outputs_), known, kept);
}

// Additions whose sum a norm normalises: one operator gives both, where the norm comes first.
void Lowering::plan_fusions() {
  std::map<ValueId, const Node*> first_reader;
  for (const Node& node : graph_.nodes)
    for (const ValueId id : node.operands) first_reader.try_emplace(id, &node);
  for (const Node& node : graph_.nodes) {
    if (std::holds_alternative<AttentionOp>(node.op)) {
      const auto plan = group_query(node);
      if (!plan) continue;
      group_queries_[node.result] = *plan;
      fused_writes_.insert({plan->key_write->result, plan->value_write->result});
    }
    const auto* norm = std::get_if<RmsNormOp>(&node.op);
    const Node* sum = norm != nullptr ? producer(node.operands[0]) : nullptr;
    if (sum == nullptr || first_reader[sum->result] != &node || sum->result == graph_.output)
      continue;
    const auto* add = std::get_if<BinaryOp>(&sum->op);
    if (add == nullptr || add->kind != BinaryKind::kAdd || shape(sum->result).size() != 3) continue;
    if (shape(sum->operands[0]) != shape(sum->operands[1]) || constant_of(sum->operands[0]) ||
        constant_of(sum->operands[1]) || !constant_of(node.operands[1]))
      continue;
    fused_adds_[sum->result] = node.result;
  }
}

// ---- helpers

const Node* Lowering::producer(ValueId id) const { return producers_[static_cast<size_t>(id)]; }

bool Lowering::only_reader(ValueId id) const { return readers_[static_cast<size_t>(id)] == 1; }

std::optional<int32_t> Lowering::constant_of(ValueId id) const {
  const Node* node = producer(id);
  const auto* constant = node == nullptr ? nullptr : std::get_if<ConstantOp>(&node->op);
  return constant == nullptr ? std::nullopt : std::optional(constant->constant);
}

Result<Val> Lowering::operand(const Node& node, size_t index) {
  const ValueId id = node.operands[index];
  if (const auto index_of = constant_of(id)) return constant(*index_of);
  const auto value = values_.find(id);
  if (value != values_.end()) return value->second;
  if (id == graph_.position) {  // where the first token of the call stands
    if (options_.explicit_kv)
      return cached("position", [&](const std::string& n) { return reshape(n, positions(), {1}); });
    return dimension(options_.logits_only ? Dim(0) : Dim(Symbol::kPast));
  }
  return no_lowering(node, "operand '" + graph_.name(id) + "' is made by another operator");
}

std::string Lowering::result_name(const Node& node) {
  if (node.result == graph_.output) return "logits";
  if (const auto cache = cache_names_.find(node.result); cache != cache_names_.end())
    return cache->second;
  return out_->unique(graph_.name(node.result));
}

std::string Lowering::helper(const Node& node, const std::string& suffix) {
  return out_->unique(graph_.name(node.result) + "/" + suffix);
}

Status Lowering::no_lowering(const Node& node, const std::string& why) const {
  return unsupported(std::string(op_name(node.op)) + " has no ONNX form here: " + why)
      .at(graph_.name(node.result));
}

Val Lowering::cached(const std::string& key, const std::function<Val(const std::string&)>& make) {
  const auto found = cached_.find(key);
  if (found != cached_.end()) return found->second;
  return cached_[key] = make(out_->unique(key));
}

Val Lowering::cast(const std::string& name, const Val& x, DType dtype) {
  return op("Cast", name, {x}, {attribute("to", int64_t{*onnx::onnx_from_dtype(dtype)})});
}

Val Lowering::reshape(const std::string& name, const Val& x, const std::vector<int64_t>& dims) {
  return op("Reshape", name, {x, out_->i64s(dims)});
}

Val Lowering::transpose(const std::string& name, const Val& x,
                        const std::vector<int64_t>& permutation) {
  return op("Transpose", name, {x}, {attribute("perm", permutation)});
}

Val Lowering::slice(const std::string& name, const Val& x, int64_t axis, int64_t begin, int64_t end,
                    int64_t step) {
  return op("Slice", name,
            {x, out_->i64s({begin}), out_->i64s({end}), out_->i64s({axis}), out_->i64s({step})});
}

Val Lowering::unsqueeze(const std::string& name, const Val& x, const std::vector<int64_t>& axes) {
  return op("Unsqueeze", name, {x, out_->i64s(axes)});
}

// Axes became an input with operator set 18, of ReduceSum with 13.
Val Lowering::reduce(const char* type, const std::string& name, const Val& x, int64_t axis,
                     bool keep) {
  const onnx::Attribute keepdims = attribute("keepdims", int64_t{keep});
  if (opset_ >= 18 || std::string_view(type) == "ReduceSum")
    return op(type, name, {x, out_->i64s({axis})}, {keepdims});
  return op(type, name, {x}, {attribute("axes", std::vector<int64_t>{axis}), keepdims});
}

Val Lowering::scaled(const std::string& name, const Val& x, double factor) {
  return op("Mul", name, {x, out_->f32(factor)});
}

Val Lowering::activation(Activation kind, const std::string& base, const std::string& name,
                         const Val& x) {
  const auto step = [&](const char* suffix) { return out_->unique(base + "/" + suffix); };
  switch (kind) {
    case Activation::kSilu:
      return op("Mul", name, {x, op("Sigmoid", step("sigmoid"), {x})});
    case Activation::kRelu:
      return op("Relu", name, {x});
    case Activation::kGelu: {  // x/2 (1 + erf(x / sqrt 2)), in the order that runtimes know
      const Val inner = op("Div", step("scaled"), {x, out_->f32(1.4142135623730951)});
      const Val open = op("Add", step("open"), {op("Erf", step("erf"), {inner}), out_->f32(1)});
      return scaled(name, op("Mul", step("gated"), {x, open}), 0.5);
    }
    case Activation::kGeluTanh: {  // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
      const Val cube = op("Mul", step("cube"), {op("Mul", step("square"), {x, x}), x});
      const Val sum = op("Add", step("sum"), {x, scaled(step("cubic"), cube, 0.044715)});
      const Val inner = scaled(step("inner"), sum, 0.7978845608028654);
      const Val open = op("Add", step("open"), {op("Tanh", step("tanh"), {inner}), out_->f32(1)});
      return op("Mul", name, {scaled(step("half"), x, 0.5), open});
    }
  }
  return x;
}

Val Lowering::dimension(const Dim& given) {
  const Dim dim = fixed(given);
  if (dim.is_static()) return out_->i64s({dim.size});
  const auto part = [&](const std::string& name, const char* of, int64_t axis) {
    return op("Shape", name, {of}, {attribute("start", axis), attribute("end", axis + 1)});
  };
  const bool whole = options_.logits_only;
  switch (dim.symbol) {
    case Symbol::kBatch:
      return cached("batch_size", [&](const std::string& n) { return part(n, "input_ids", 0); });
    case Symbol::kTokens:
      return cached("tokens", [&](const std::string& n) { return part(n, "input_ids", 1); });
    case Symbol::kTotal:
      if (whole) return dimension(Symbol::kTokens);
      return cached("total", [&](const std::string& n) {
        if (masked()) return part(n, "attention_mask", 1);
        return op("Add", n, {dimension(Symbol::kPast), dimension(Symbol::kTokens)});
      });
    case Symbol::kPast:
      if (whole) return out_->i64s({0});
      return cached("past", [&](const std::string& n) {
        if (!masked() && !graph_.caches.empty())
          return part(n, values_.at(graph_.caches.front().input).c_str(), 2);
        return op("Sub", n, {dimension(Symbol::kTotal), dimension(Symbol::kTokens)});
      });
    case Symbol::kNone:
      break;
  }
  return {};
}

Val Lowering::scalar_of(const Dim& given) {
  const Dim dim = fixed(given);
  if (dim.is_static()) return out_->i64(dim.size);
  const std::string key = symbol_name(dim.symbol) + ".scalar";
  return cached(key, [&](const std::string& n) {
    return op("Squeeze", n, {dimension(dim), out_->i64s({0})});
  });
}

// ---- ops

Result<Val> Lowering::emit(const InputOp&, const Node& node) {
  return no_lowering(node, "the model's inputs are token ids, mask, positions and caches");
}
Result<Val> Lowering::emit(const ConstantOp&, const Node& node) {
  return no_lowering(node, "constants are made where they are used");
}

Result<Val> Lowering::emit(const UnaryOp& unary, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const auto plain = [&](const char* type) { return op(type, result_name(node), {x}); };
  switch (unary.kind) {
    case UnaryKind::kNeg:
      return plain("Neg");
    case UnaryKind::kExp:
      return plain("Exp");
    case UnaryKind::kLog:
      return plain("Log");
    case UnaryKind::kSqrt:
      return plain("Sqrt");
    case UnaryKind::kRsqrt:
      return op("Div", result_name(node), {out_->f32(1), op("Sqrt", helper(node, "root"), {x})});
    case UnaryKind::kSigmoid:
      return plain("Sigmoid");
    case UnaryKind::kTanh:
      return plain("Tanh");
    case UnaryKind::kErf:
      return plain("Erf");
    case UnaryKind::kSin:
      return plain("Sin");
    case UnaryKind::kCos:
      return plain("Cos");
    case UnaryKind::kRelu:
      return plain("Relu");
    case UnaryKind::kAbs:
      return plain("Abs");
    case UnaryKind::kToF32:
      return cast(result_name(node), x, DType::kF32);
    case UnaryKind::kToI32:
      return cast(result_name(node), x, DType::kI64);
  }
  return no_lowering(node, "an unknown kind");
}

Result<Val> Lowering::emit(const BinaryOp& binary, const Node& node) {
  // Steps from 0 on, plus the position of the first token: the model's own position ids. They have
  // a batch axis in front, which broadcasts.
  const Node* steps = producer(node.operands[0]);
  const auto* iota = steps == nullptr ? nullptr : std::get_if<IotaOp>(&steps->op);
  if (binary.kind == BinaryKind::kAdd && node.operands[1] == graph_.position && iota != nullptr &&
      iota->start == Dim(0) && iota->length == Dim(Symbol::kTokens)) {
    batched_.insert(node.result);
    return positions();
  }
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val y, operand(node, 1));
  return op(type_of(binary.kind), result_name(node), {x, y});
}

Result<Val> Lowering::emit(const SelectOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val condition, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 1));
  POME_ASSIGN_OR_RETURN(const Val y, operand(node, 2));
  return op("Where", result_name(node), {condition, x, y});
}

Result<Val> Lowering::emit(const ReduceOp& r, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const char* type = r.kind == ReduceKind::kSum    ? "ReduceSum"
                     : r.kind == ReduceKind::kMean ? "ReduceMean"
                                                   : "ReduceMax";
  return reduce(type, result_name(node), x, r.axis, true);
}

// 0 copies the dimension at the same place, one -1 is inferred; what remains is computed.
Result<Val> Lowering::emit(const ReshapeOp& r, const Node& node) {
  const SymShape& from = shape(node.operands[0]);
  const Node* turned = producer(node.operands[0]);
  if (turned != nullptr && std::holds_alternative<TransposeOp>(turned->op)) {
    const auto known = token_major_.find(turned->operands[0]);
    if (known != token_major_.end() && r.shape.size() == 3 &&
        std::get<TransposeOp>(turned->op).permutation == std::vector<int32_t>{0, 2, 1, 3})
      return known->second;
  }
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  std::vector<int64_t> dims;
  std::vector<size_t> open;
  for (size_t i = 0; i < r.shape.size(); ++i) {
    const Dim& dim = r.shape[i];
    const bool same = i < from.size() && from[i] == dim;
    dims.push_back(dim.is_static() ? dim.size : 0);
    if (!dim.is_static() && !same) open.push_back(i);
  }
  if (open.size() == 1) dims[open[0]] = -1;
  if (open.size() <= 1) return reshape(result_name(node), x, dims);
  std::vector<Val> parts;
  for (const Dim& dim : r.shape) parts.push_back(dimension(dim));
  const Val to = op("Concat", helper(node, "shape"), parts, {attribute("axis", int64_t{0})});
  return op("Reshape", result_name(node), {x, to});
}

Result<Val> Lowering::emit(const TransposeOp& t, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  return transpose(result_name(node), x, {t.permutation.begin(), t.permutation.end()});
}

Result<Val> Lowering::emit(const SliceOp& s, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  return slice(result_name(node), x, s.axis, s.begin, s.end, s.step);
}

Result<Val> Lowering::emit(const ConcatOp& c, const Node& node) {
  std::vector<Val> parts;
  for (size_t i = 0; i < node.operands.size(); ++i) {
    POME_ASSIGN_OR_RETURN(Val part, operand(node, i));
    parts.push_back(std::move(part));
  }
  return op("Concat", result_name(node), parts, {attribute("axis", int64_t{c.axis})});
}

Result<Val> Lowering::emit(const MatMulOp& m, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  if (const auto weight = constant_of(node.operands[1]); weight && m.transpose_y)
    return op("MatMul", result_name(node), {x, transposed_constant(*weight)});
  POME_ASSIGN_OR_RETURN(Val y, operand(node, 1));
  if (m.transpose_y) {
    std::vector<int64_t> permutation(shape(node.operands[1]).size());
    std::iota(permutation.begin(), permutation.end(), 0);
    std::swap(permutation[permutation.size() - 2], permutation.back());
    y = transpose(helper(node, "turned"), y, permutation);
  }
  return op("MatMul", result_name(node), {x, y});
}

Result<Val> Lowering::emit(const IotaOp& iota, const Node& node) {
  const bool at_position = options_.explicit_kv && iota.start == Dim(Symbol::kPast);
  const Val start =
      at_position ? op("Squeeze", helper(node, "start"), {positions()}) : scalar_of(iota.start);
  const Val length = scalar_of(iota.length);
  const Val end = iota.start == Dim(0) ? length : op("Add", helper(node, "end"), {start, length});
  return op("Range", result_name(node), {start, end, out_->i64(1)});
}

Result<Val> Lowering::emit(const ActivationOp& a, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  return activation(a.activation, graph_.name(node.result), result_name(node), x);
}

Result<Val> Lowering::emit(const SwigluOp& s, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val gate, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val up, operand(node, 1));
  const Val open = activation(s.activation, graph_.name(node.result), helper(node, "gate"), gate);
  return op("Mul", result_name(node), {open, up});
}

Result<Val> Lowering::emit(const SoftmaxOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  return op("Softmax", result_name(node), {x}, {attribute("axis", int64_t{-1})});
}

// The steps in the form that ONNX Runtime recognises and computes as one.
Result<Val> Lowering::emit(const RmsNormOp& norm, const Node& node) {
  const ValueId in = node.operands[0];
  POME_ASSIGN_OR_RETURN(const Val gain, operand(node, 1));
  if (const auto fused = fused_adds_.find(in);
      fused != fused_adds_.end() && fused->second == node.result) {
    const Node& sum = *producer(in);
    POME_ASSIGN_OR_RETURN(const Val x, operand(sum, 0));
    POME_ASSIGN_OR_RETURN(const Val skip, operand(sum, 1));
    const std::vector<Val> results =
        out_->op("SkipSimplifiedLayerNormalization", {result_name(node), "", "", result_name(sum)},
                 {x, skip, gain}, {attribute("epsilon", norm.epsilon)}, onnx::kMicrosoft);
    values_[in] = results[3];
    return results[0];
  }
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const Val square = op("Pow", helper(node, "square"), {x, out_->f32(2)});
  const Val mean = reduce("ReduceMean", helper(node, "mean"), square, -1, true);
  const Val sum = op("Add", helper(node, "sum"), {mean, out_->f32(norm.epsilon)});
  const Val root = op("Sqrt", helper(node, "root"), {sum});
  const Val unit = op("Div", helper(node, "unit"), {x, root});
  return op("Mul", result_name(node), {unit, gain});
}

Result<Val> Lowering::emit(const LayerNormOp& norm, const Node& node) {
  std::vector<Val> inputs;
  for (size_t i = 0; i < node.operands.size(); ++i) {
    POME_ASSIGN_OR_RETURN(Val in, operand(node, i));
    inputs.push_back(std::move(in));
  }
  return op("LayerNormalization", result_name(node), inputs,
            {attribute("axis", int64_t{-1}), attribute("epsilon", norm.epsilon)});
}

}  // namespace pome::onnx_export
