#include "graph/builder.h"

#include <bit>

namespace pome {

GraphBuilder::GraphBuilder(ModelInfo info) { graph_.info = std::move(info); }

ValueId GraphBuilder::input(std::string name, ValueType type) {
  const ValueId id = static_cast<ValueId>(graph_.values.size());
  graph_.values.push_back({std::move(type), std::move(name)});
  graph_.nodes.push_back({InputOp{}, {}, id});
  return id;
}

ValueId GraphBuilder::token_ids() {
  if (graph_.token_ids == kNoValue)
    graph_.token_ids = input("input_ids", {DType::kI32, {Symbol::kBatch, Symbol::kTokens}});
  return graph_.token_ids;
}

ValueId GraphBuilder::position() {
  if (graph_.position == kNoValue) graph_.position = input("position", {DType::kI32, {1}});
  return graph_.position;
}

ValueId GraphBuilder::cache(int32_t layer, CachePair::Kind kind, int64_t heads, int64_t dim) {
  static constexpr const char* kNames[] = {"k_cache", "v_cache", "latent_cache"};
  const ValueId id =
      input(std::string(kNames[static_cast<size_t>(kind)]) + "_" + std::to_string(layer),
            {DType::kF32, {Symbol::kBatch, heads, Symbol::kPast, dim}});
  graph_.caches.push_back({id, kNoValue, layer, kind});
  return id;
}

ValueId GraphBuilder::constant(Constant constant) {
  const std::string name = constant.name;
  const int32_t index = static_cast<int32_t>(graph_.constants.size());
  graph_.constants.push_back(std::move(constant));
  const std::string scope = std::exchange(scope_, "");
  const ValueId id = add(ConstantOp{index}, {}, name);
  scope_ = scope;
  return id;
}

ValueId GraphBuilder::scalar(float value) {
  for (const Node& node : graph_.nodes) {
    const auto* op = std::get_if<ConstantOp>(&node.op);
    if (!op) continue;
    const Constant& known = graph_.constants[static_cast<size_t>(op->constant)];
    float held = 0;
    if (known.role == Constant::Role::kTable && known.data->shape().empty() &&
        known.data->read_f32(0, 1, &held).ok() &&
        std::bit_cast<uint32_t>(held) == std::bit_cast<uint32_t>(value))
      return node.result;
  }
  Constant made;
  made.name = "scalar." + std::to_string(graph_.constants.size());
  made.role = Constant::Role::kTable;
  made.data = inline_constant(Tensor::from_f32({}, {value}));
  return constant(std::move(made));
}

ValueId GraphBuilder::vector(std::string name, std::vector<float> values) {
  Constant made;
  made.name = std::move(name);
  made.role = Constant::Role::kTable;
  const int64_t count = static_cast<int64_t>(values.size());
  made.data = inline_constant(Tensor::from_f32({count}, std::move(values)));
  return constant(std::move(made));
}

ValueId GraphBuilder::add(Op op, std::vector<ValueId> operands, std::string name) {
  if (!error_.ok()) return kNoValue;
  while (!operands.empty() && operands.back() == kNoValue) operands.pop_back();
  std::vector<ValueType> types;
  for (const ValueId id : operands) {
    if (id == kNoValue) {
      error_ = bad_input(Refusal::kType, std::string(op_name(op)) + " misses an operand")
                   .at(scope_ + name);
      return kNoValue;
    }
    types.push_back(graph_.type(id));
  }
  auto type = infer_type(op, types, graph_.constants);
  if (!type.ok()) {
    error_ = std::move(type).status().at(scope_ + name);
    return kNoValue;
  }
  const ValueId id = static_cast<ValueId>(graph_.values.size());
  if (name.empty()) name = std::string(op_name(op)) + "." + std::to_string(id);
  graph_.values.push_back({std::move(*type), scope_ + name});
  graph_.nodes.push_back({std::move(op), std::move(operands), id});
  return id;
}

ValueId GraphBuilder::unary(UnaryKind kind, ValueId x, std::string name) {
  return add(UnaryOp{kind}, {x}, std::move(name));
}
ValueId GraphBuilder::binary(BinaryKind kind, ValueId x, ValueId y, std::string name) {
  return add(BinaryOp{kind}, {x, y}, std::move(name));
}
ValueId GraphBuilder::linear(ValueId x, ValueId weight, ValueId bias, std::string name) {
  return add(LinearOp{}, {x, weight, bias}, std::move(name));
}
ValueId GraphBuilder::reshape(ValueId x, SymShape shape, std::string name) {
  return add(ReshapeOp{std::move(shape)}, {x}, std::move(name));
}
ValueId GraphBuilder::transpose(ValueId x, std::vector<int32_t> permutation, std::string name) {
  return add(TransposeOp{std::move(permutation)}, {x}, std::move(name));
}

ValueId GraphBuilder::split_heads(ValueId x, int64_t heads, int64_t dim, std::string name) {
  const ValueId split = reshape(x, {Symbol::kBatch, Symbol::kTokens, heads, dim},
                                name.empty() ? name : name + ".split");
  return transpose(split, {0, 2, 1, 3}, std::move(name));
}

ValueId GraphBuilder::merge_heads(ValueId x, std::string name) {
  if (!error_.ok()) return kNoValue;
  const SymShape shape = graph_.type(x).shape;
  const ValueId moved = transpose(x, {0, 2, 1, 3}, name.empty() ? name : name + ".merge");
  return reshape(moved, {shape[0], shape[2], shape[1].size * shape[3].size}, std::move(name));
}

ValueId GraphBuilder::kv_write(ValueId cache, ValueId value, ValueId position, std::string name) {
  const ValueId written = add(KvWriteOp{}, {cache, value, position}, std::move(name));
  for (CachePair& pair : graph_.caches)
    if (pair.input == cache) pair.output = written;
  return written;
}

void GraphBuilder::end_layer(ValueId hidden) { graph_.layer_outputs.push_back(hidden); }

Result<Graph> GraphBuilder::finish(ValueId output) {
  if (!error_.ok()) return error_;
  graph_.output = output;
  POME_RETURN_IF_ERROR(validate(graph_));
  return std::move(graph_);
}

}  // namespace pome
