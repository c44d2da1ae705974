#include "export/coreml_lower.h"

#include <algorithm>

#include "export/cache_names.h"

namespace pome::coreml {
namespace {

using mil::ValueData;

mil::Type array_type(DType dtype, Dims dims) {
  return {mil::Type::Kind::kTensor, dtype, std::move(dims)};
}

Dims broadcast(const Dims& a, const Dims& b) {
  Dims out(std::max(a.size(), b.size()), 1);
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t x = i < out.size() - a.size() ? 1 : a[i - (out.size() - a.size())];
    const int64_t y = i < out.size() - b.size() ? 1 : b[i - (out.size() - b.size())];
    out[i] = x == kAny || y == kAny ? kAny : std::max(x, y);
  }
  return out;
}

const char* type_of(BinaryKind kind) {
  switch (kind) {
    case BinaryKind::kAdd:
      return "add";
    case BinaryKind::kSub:
      return "sub";
    case BinaryKind::kMul:
      return "mul";
    case BinaryKind::kDiv:
      return "real_div";
    case BinaryKind::kMin:
      return "minimum";
    case BinaryKind::kMax:
      return "maximum";
    case BinaryKind::kPow:
      return "pow";
    case BinaryKind::kLess:
      return "less";
    case BinaryKind::kLessEqual:
      return "less_equal";
    case BinaryKind::kEqual:
      return "equal";
    case BinaryKind::kAnd:
      return "logical_and";
    case BinaryKind::kOr:
      return "logical_or";
  }
  return "";
}

}  // namespace

ValueData i32_list(const Dims& values) {
  return ValueData::i32s(std::vector<int32_t>(values.begin(), values.end()));
}

Result<CacheLayout> cache_layout(const Graph& graph) {
  CacheLayout out;
  std::map<int32_t, int> seen;  // layer -> bit 0: K, bit 1: V
  for (const CachePair& pair : graph.caches) {
    const std::string& name = graph.name(pair.input);
    const SymShape& shape = graph.type(pair.input).shape;
    const bool key = pair.kind == CachePair::Kind::kKey;
    if (!key && pair.kind != CachePair::Kind::kValue) {
      return unsupported("cache '" + name +
                         "' is neither K nor V; Core ML packages hold these two");
    }
    if (shape.size() != 4 || !shape[1].is_static() || !shape[3].is_static()) {
      return unsupported("cache '" + name + "' has the shape " + to_string(shape));
    }
    int64_t& dim = key ? out.key_dim : out.value_dim;
    if (out.heads == 0) out.heads = shape[1].size;
    if (dim == 0) dim = shape[3].size;
    if (shape[1].size != out.heads || shape[3].size != dim) {
      return unsupported("cache '" + name + "' is " + to_string(shape) +
                         ", others have other heads or dimensions; one state holds all layers");
    }
    int& bits = seen[pair.layer];
    if (bits & (key ? 1 : 2)) return unsupported("layer of '" + name + "' has two such caches");
    bits |= key ? 1 : 2;
    out.slots[pair.input] = {pair.layer, key};
  }
  out.layers = static_cast<int64_t>(seen.size());
  int32_t next = 0;
  for (const auto& [layer, bits] : seen) {
    if (layer != next++ || bits != 3) {
      return unsupported("layer " + std::to_string(layer) +
                         " has no K and V cache, or layers are "
                         "missing before it");
    }
  }
  return out;
}

Lowering::Lowering(const Graph& graph, const CacheLayout& caches, const Form& form,
                   WeightStore* weights, const std::map<std::string, ActivationGrid>& activations,
                   std::string function)
    : graph_(graph),
      caches_(caches),
      form_(form),
      places_(form.places),
      tokens_(form.tokens),
      weights_(weights),
      activations_(activations),
      out_(std::move(function), {"input_ids", "position", "position_ids", "causal_mask", "k_cache",
                                 "v_cache", "logits"}) {}

Status Lowering::declare_inputs() {
  if (graph_.token_ids == kNoValue) {
    return unsupported("a later part of a cut graph has no token ids to start from");
  }
  out_.input("input_ids", array_type(DType::kI32, {1, tokens_}));
  values_[graph_.token_ids] = {"input_ids", DType::kI32, {1, tokens_}};
  POME_RETURN_IF_ERROR(form_.is_step() ? declare_step() : declare_states());
  if (graph_.position != kNoValue) values_[graph_.position] = position_;
  return {};
}

Status Lowering::declare_states() {
  const auto state = [&](int64_t dim) {
    return mil::Type{
        mil::Type::Kind::kState, DType::kF16, {caches_.layers, 1, caches_.heads, places_, dim}};
  };
  position_ = {"position", DType::kI32, {1}};
  out_.input("position", array_type(DType::kI32, {1}));
  out_.input("causal_mask", array_type(DType::kF16, {1, 1, tokens_, places_}));
  if (caches_.layers > 0) {
    out_.input("k_cache", state(caches_.key_dim));
    out_.input("v_cache", state(caches_.value_dim));
  }
  return {};
}

// Caches of fixed length lose their oldest place to the token of the call, so that the newest is
// always the last: no index depends on the call.
Status Lowering::declare_step() {
  const bool fixed = form_.caches == CoremlOptions::Caches::kFixed;
  const Val ids{"position_ids", DType::kI32, {1, 1}};
  out_.input(ids.name, array_type(ids.dtype, ids.dims));
  if (fixed) out_.input("causal_mask", array_type(DType::kF16, {1, 1, 1, places_}));
  if (graph_.caches.empty())
    return unsupported("the model has no caches that a decode step could take");
  // All inputs stand in front of the first operation, and all names of outputs are taken.
  std::vector<Val> inputs;
  for (const CachePair& pair : graph_.caches) {
    const SymShape& shape = graph_.type(pair.input).shape;
    if (pair.kind == CachePair::Kind::kLatent || shape.size() != 4 || !shape[1].is_static() ||
        !shape[3].is_static())
      return unsupported("cache '" + graph_.name(pair.input) + "' is " + to_string(shape) +
                         ", neither keys nor values of heads");
    CacheNames names = cache_names(graph_, pair);
    for (std::string* name : {&names.past, &names.present})
      std::replace(name->begin(), name->end(), '.', '_');
    inputs.push_back({names.past, DType::kF16, {1, shape[1].size, places_, shape[3].size}});
    out_.input(names.past, array_type(DType::kF16, inputs.back().dims));
    cache_outputs_[pair.output] = out_.unique(names.present);
  }
  position_ = reshape(out_.unique("position_of_token"), ids, {1});
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Val& input = inputs[i];
    Val& past = values_[graph_.caches[i].input];
    past = input;
    if (!fixed) continue;
    past.dims[2] = places_ - 1;
    past = out_.op("slice_by_index", out_.unique(input.name + "_newest"),
                   {{"x", input}, {"begin", i32_list({0, 0, 1, 0})}, {"end", i32_list(input.dims)}},
                   past.dtype, past.dims);
  }
  return {};
}

// Nodes that the output or a cache needs.
std::vector<bool> Lowering::live_nodes() const {
  std::vector<bool> wanted(graph_.values.size(), false), live(graph_.nodes.size(), false);
  wanted[static_cast<size_t>(graph_.output)] = true;
  for (const CachePair& pair : graph_.caches) {
    if (pair.output != kNoValue) wanted[static_cast<size_t>(pair.output)] = true;
  }
  for (size_t i = graph_.nodes.size(); i-- > 0;) {
    const Node& node = graph_.nodes[i];
    if (!wanted[static_cast<size_t>(node.result)]) continue;
    live[i] = true;
    for (const ValueId id : node.operands) wanted[static_cast<size_t>(id)] = true;
  }
  return live;
}

Result<mil::Function> Lowering::run() {
  POME_RETURN_IF_ERROR(declare_inputs());
  const std::vector<bool> live = live_nodes();
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    if (!live[i]) continue;
    if (const auto* op = std::get_if<ConstantOp>(&node.op)) {
      constants_[node.result] = op->constant;  // emitted where it is used
      continue;
    }
    if (values_.count(node.result) || caches_.slots.count(node.result)) continue;  // an input
    POME_ASSIGN_OR_RETURN(Val value,
                          std::visit([&](const auto& op) { return emit(op, node); }, node.op));
    if (value.dims != dims_of(node.result) || value.dtype != dtype_of(node.result)) {
      return no_lowering(node, "its result would have another type");
    }
    values_[node.result] = std::move(value);
  }
  const auto output = values_.find(graph_.output);
  if (output == values_.end() || output->second.name != "logits") {
    return unsupported("the graph's output is no result of an operation");
  }
  std::vector<std::string> outputs = {"logits"};
  for (const CachePair& pair : graph_.caches)
    if (const auto name = cache_outputs_.find(pair.output); name != cache_outputs_.end())
      outputs.push_back(name->second);
  return out_.finish(outputs);
}

// ---- helpers

Dims Lowering::dims_of(ValueId id) const {
  const SymShape& shape = graph_.type(id).shape;
  Dims out = bind(shape, {1, tokens_, std::max<int64_t>(places_ - tokens_, 0)});
  for (size_t i = 0; places_ == kAny && i < out.size(); ++i)
    if (shape[i].symbol == Symbol::kPast || shape[i].symbol == Symbol::kTotal) out[i] = kAny;
  return out;
}

DType Lowering::dtype_of(ValueId id) const {
  const DType dtype = graph_.type(id).dtype;
  return dtype == DType::kF32 ? DType::kF16 : dtype;
}

std::optional<int32_t> Lowering::constant_of(ValueId id) const {
  const auto found = constants_.find(id);
  return found == constants_.end() ? std::nullopt : std::optional(found->second);
}

Result<Val> Lowering::operand(const Node& node, size_t index) {
  const ValueId id = node.operands[index];
  if (const auto constant = constant_of(id)) {
    auto known = emitted_.find(*constant);
    if (known == emitted_.end()) {
      POME_ASSIGN_OR_RETURN(Val value, weights_->emit(*constant, &out_));
      known = emitted_.emplace(*constant, std::move(value)).first;
    }
    return known->second;
  }
  const auto value = values_.find(id);
  if (value == values_.end()) {
    return no_lowering(node, "operand '" + graph_.name(id) + "' is a cache that it reads directly");
  }
  return value->second;
}

std::string Lowering::result_name(const Node& node) {
  if (node.result == graph_.output) return out_.claim("logits");
  if (const auto cache = cache_outputs_.find(node.result); cache != cache_outputs_.end())
    return out_.claim(cache->second);
  return out_.unique(graph_.name(node.result));
}

std::string Lowering::helper(const Node& node, const std::string& suffix) {
  return out_.unique(graph_.name(node.result) + "_" + suffix);
}

Status Lowering::no_lowering(const Node& node, const std::string& why) const {
  return unsupported(std::string(op_name(node.op)) + " has no Core ML form here: " + why)
      .at(graph_.name(node.result));
}

Val Lowering::pointwise(const std::string& type, const std::string& name, const Val& x,
                        const Val& y) {
  const bool compares = type == "less" || type == "less_equal" || type == "equal";
  return out_.op(type, name, {{"x", x}, {"y", y}}, compares ? DType::kBool : x.dtype,
                 broadcast(x.dims, y.dims));
}

Val Lowering::scaled(const std::string& name, const Val& x, double factor) {
  return out_.op("mul", name, {{"x", x}, {"y", ValueData::scalar_f16(static_cast<float>(factor))}},
                 x.dtype, x.dims);
}

Val Lowering::reduce(const std::string& type, const std::string& name, const Val& x, int32_t axis) {
  Dims dims = x.dims;
  dims[static_cast<size_t>(axis < 0 ? axis + static_cast<int32_t>(dims.size()) : axis)] = 1;
  return out_.op(
      type, name,
      {{"x", x}, {"axes", ValueData::i32s({axis})}, {"keep_dims", ValueData::scalar_bool(true)}},
      x.dtype, std::move(dims));
}

Val Lowering::reshape(const std::string& name, const Val& x, const Dims& dims) {
  return out_.op("reshape", name, {{"x", x}, {"shape", i32_list(dims)}}, x.dtype, dims);
}

Val Lowering::gather_rows(const std::string& name, const Val& table, const Val& ids) {
  Dims dims = ids.dims;
  dims.insert(dims.end(), table.dims.begin() + 1, table.dims.end());
  return out_.op("gather", name,
                 {{"x", table},
                  {"indices", ids},
                  {"axis", ValueData::scalar_i32(0)},
                  {"batch_dims", ValueData::scalar_i32(0)},
                  {"validate_indices", ValueData::scalar_bool(false)}},
                 table.dtype, std::move(dims));
}

Val Lowering::matmul(const std::string& name, const Val& x, const Val& y, bool transpose_y) {
  const Dims batch =
      broadcast(Dims(x.dims.begin(), x.dims.end() - 2), Dims(y.dims.begin(), y.dims.end() - 2));
  Dims dims = batch;
  dims.push_back(x.dims[x.dims.size() - 2]);
  dims.push_back(y.dims[y.dims.size() - (transpose_y ? 2 : 1)]);
  return out_.op("matmul", name,
                 {{"x", x},
                  {"y", y},
                  {"transpose_x", ValueData::scalar_bool(false)},
                  {"transpose_y", ValueData::scalar_bool(transpose_y)}},
                 x.dtype, std::move(dims));
}

Val Lowering::concat(const std::string& name, std::vector<Val> values, int32_t axis) {
  Dims dims = values[0].dims;
  const size_t at = static_cast<size_t>(axis < 0 ? axis + static_cast<int32_t>(dims.size()) : axis);
  dims[at] = 0;
  for (const Val& value : values)
    dims[at] = value.dims[at] == kAny || dims[at] == kAny ? kAny : dims[at] + value.dims[at];
  const DType dtype = values[0].dtype;
  return out_.op("concat", name,
                 {{"values", std::move(values)},
                  {"axis", ValueData::scalar_i32(axis)},
                  {"interleave", ValueData::scalar_bool(false)}},
                 dtype, std::move(dims));
}

std::vector<Val> Lowering::split(const std::string& name, const Val& x,
                                 const std::vector<int64_t>& sizes) {
  std::vector<std::pair<DType, Dims>> results;
  for (const int64_t size : sizes) {
    results.emplace_back(x.dtype, x.dims);
    results.back().second.back() = size;
  }
  return out_.op("split", name,
                 {{"x", x}, {"split_sizes", i32_list(sizes)}, {"axis", ValueData::scalar_i32(-1)}},
                 std::move(results));
}

Val Lowering::activation(Activation kind, const std::string& name, const Val& x) {
  Operands operands = {{"x", x}};
  const char* type = "";
  switch (kind) {
    case Activation::kSilu:
      type = "silu";
      break;
    case Activation::kRelu:
      type = "relu";
      break;
    case Activation::kGelu:
      type = "gelu";
      operands.emplace_back("mode", ValueData::string("EXACT"));
      break;
    case Activation::kGeluTanh:
      type = "gelu";
      operands.emplace_back("mode", ValueData::string("TANH_APPROXIMATION"));
      break;
  }
  return out_.op(type, name, std::move(operands), x.dtype, x.dims);
}

// ---- ops

Result<Val> Lowering::emit(const InputOp&, const Node& node) {
  return no_lowering(node, "the package's inputs are token ids, position, mask and caches");
}
Result<Val> Lowering::emit(const ConstantOp&, const Node& node) {
  return no_lowering(node, "constants are emitted where they are used");
}
Result<Val> Lowering::emit(const UnaryOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const auto plain = [&](const char* type) {
    return out_.op(type, result_name(node), {{"x", x}}, x.dtype, x.dims);
  };
  // Zero, and not the op's own default, which is zero in fp16 anyway or wrong.
  const auto with_epsilon = [&](const char* type) {
    return out_.op(type, result_name(node), {{"x", x}, {"epsilon", ValueData::scalar_f16(0)}},
                   x.dtype, x.dims);
  };
  const auto cast = [&](const char* name, DType dtype) {
    return out_.op("cast", result_name(node), {{"x", x}, {"dtype", ValueData::string(name)}}, dtype,
                   x.dims);
  };
  switch (op.kind) {
    case UnaryKind::kNeg:
      return scaled(result_name(node), x, -1);
    case UnaryKind::kExp:
      return plain("exp");
    case UnaryKind::kLog:
      return with_epsilon("log");
    case UnaryKind::kSqrt:
      return plain("sqrt");
    case UnaryKind::kRsqrt:
      return with_epsilon("rsqrt");
    case UnaryKind::kSigmoid:
      return plain("sigmoid");
    case UnaryKind::kTanh:
      return plain("tanh");
    case UnaryKind::kErf:
      return plain("erf");
    case UnaryKind::kSin:
      return plain("sin");
    case UnaryKind::kCos:
      return plain("cos");
    case UnaryKind::kRelu:
      return plain("relu");
    case UnaryKind::kAbs:
      return plain("abs");
    case UnaryKind::kToF32:
      return cast("fp16", DType::kF16);
    case UnaryKind::kToI32:
      return cast("int32", DType::kI32);
  }
  return no_lowering(node, "an unknown kind");
}

Result<Val> Lowering::emit(const BinaryOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val y, operand(node, 1));
  if (x.dtype == DType::kI32 && (op.kind == BinaryKind::kDiv || op.kind == BinaryKind::kPow)) {
    return no_lowering(node, "dividing integers");
  }
  return pointwise(type_of(op.kind), result_name(node), x, y);
}

Result<Val> Lowering::emit(const SelectOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val condition, operand(node, 0));
  POME_ASSIGN_OR_RETURN(Val x, operand(node, 1));
  POME_ASSIGN_OR_RETURN(const Val y, operand(node, 2));
  const Dims dims = dims_of(node.result);
  // MIL infers the result from the two choices alone, so one of them must have its shape.
  if (broadcast(x.dims, y.dims) != dims) {
    const ValueData zero =
        x.dtype == DType::kI32 ? ValueData::scalar_i32(0) : ValueData::scalar_f16(0);
    const Val zeros = out_.op("fill", helper(node, "shape"),
                              {{"shape", i32_list(dims)}, {"value", zero}}, x.dtype, dims);
    x = pointwise("add", helper(node, "wide"), x, zeros);
  }
  return out_.op("select", result_name(node), {{"cond", condition}, {"a", x}, {"b", y}}, x.dtype,
                 dims);
}

Result<Val> Lowering::emit(const ReduceOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const char* type = op.kind == ReduceKind::kSum    ? "reduce_sum"
                     : op.kind == ReduceKind::kMean ? "reduce_mean"
                                                    : "reduce_max";
  return reduce(type, result_name(node), x, op.axis);
}

Result<Val> Lowering::emit(const ReshapeOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  return reshape(result_name(node), x, dims_of(node.result));
}

Result<Val> Lowering::emit(const TransposeOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  return out_.op("transpose", result_name(node),
                 {{"x", x}, {"perm", ValueData::i32s(op.permutation)}}, x.dtype,
                 dims_of(node.result));
}

Result<Val> Lowering::emit(const SliceOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const size_t rank = x.dims.size();
  const size_t axis =
      static_cast<size_t>(op.axis < 0 ? op.axis + static_cast<int32_t>(rank) : op.axis);
  Dims begin(rank, 0), end = x.dims, stride(rank, 1);
  begin[axis] = op.begin;
  end[axis] = op.end;
  stride[axis] = op.step;
  Operands operands = {{"x", x}, {"begin", i32_list(begin)}, {"end", i32_list(end)}};
  if (op.step != 1) operands.emplace_back("stride", i32_list(stride));
  return out_.op("slice_by_index", result_name(node), std::move(operands), x.dtype,
                 dims_of(node.result));
}

Result<Val> Lowering::emit(const ConcatOp& op, const Node& node) {
  std::vector<Val> values;
  for (size_t i = 0; i < node.operands.size(); ++i) {
    POME_ASSIGN_OR_RETURN(Val value, operand(node, i));
    values.push_back(std::move(value));
  }
  return concat(result_name(node), std::move(values), op.axis);
}

Result<Val> Lowering::emit(const MatMulOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val y, operand(node, 1));
  if (x.dims.size() < 2 || y.dims.size() < 2) return no_lowering(node, "an operand is a vector");
  return matmul(result_name(node), in_eight_bits(x, node.operands[1]), y, op.transpose_y);
}

Result<Val> Lowering::emit(const GatherOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val table, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val ids, operand(node, 1));
  return gather_rows(result_name(node), table, ids);
}

Result<Val> Lowering::emit(const EmbeddingOp&, const Node& node) { return emit(GatherOp{}, node); }

Result<Val> Lowering::emit(const IotaOp& op, const Node& node) {
  const Dims dims = dims_of(node.result);
  const bool at_position = op.start.symbol == Symbol::kPast;
  if (op.length.symbol == Symbol::kPast || (!at_position && !op.start.is_static())) {
    return no_lowering(node, "a range that depends on the cache");
  }
  if (at_position && graph_.position == kNoValue) return no_lowering(node, "no position");
  std::vector<int32_t> values(static_cast<size_t>(dims[0]));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<int32_t>((at_position ? 0 : op.start.size) + static_cast<int64_t>(i));
  }
  if (!at_position) return out_.constant(result_name(node), ValueData::i32s(std::move(values)));
  return out_.op("add", result_name(node),
                 {{"x", values_.at(graph_.position)}, {"y", ValueData::i32s(std::move(values))}},
                 DType::kI32, dims);
}

Result<Val> Lowering::emit(const LinearOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(Val x, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val weight, operand(node, 1));
  x = in_eight_bits(x, node.operands[1]);
  const bool has_bias = node.operands.size() == 3;
  const bool fixed = constant_of(node.operands[1]) &&
                     (!has_bias || constant_of(node.operands[2])) && x.dims.size() <= 3;
  if (fixed) {
    Operands operands = {{"x", x}, {"weight", weight}};
    if (has_bias) {
      POME_ASSIGN_OR_RETURN(const Val bias, operand(node, 2));
      operands.emplace_back("bias", bias);
    } else {
      operands.emplace_back("bias", weights_->zeros(weight.dims[0]));
    }
    return out_.op("linear", result_name(node), std::move(operands), x.dtype, dims_of(node.result));
  }
  if (!has_bias) return matmul(result_name(node), x, weight, true);
  const Val product = matmul(helper(node, "product"), x, weight, true);
  POME_ASSIGN_OR_RETURN(const Val bias, operand(node, 2));
  return pointwise("add", result_name(node), product, bias);
}

Result<Val> Lowering::emit(const ActivationOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  return activation(op.activation, result_name(node), x);
}

Result<Val> Lowering::emit(const SwigluOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val gate, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val up, operand(node, 1));
  const Val open = activation(op.activation, helper(node, "gate"), gate);
  return pointwise("mul", result_name(node), open, up);
}

Result<Val> Lowering::emit(const SoftmaxOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  return out_.op("softmax", result_name(node), {{"x", x}, {"axis", ValueData::scalar_i32(-1)}},
                 x.dtype, x.dims);
}

}  // namespace pome::coreml
