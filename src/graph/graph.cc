#include "graph/graph.h"

#include <unordered_set>

namespace pome {

std::string to_string(const SymShape& shape) {
  static constexpr const char* kSymbols[] = {"", "B", "T", "P", "P+T"};
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i) text += ", ";
    text += shape[i].is_static() ? std::to_string(shape[i].size)
                                 : kSymbols[static_cast<size_t>(shape[i].symbol)];
  }
  return text + "]";
}

Shape bind(const SymShape& shape, const Bindings& bindings) {
  Shape out;
  for (const Dim& dim : shape) {
    switch (dim.symbol) {
      case Symbol::kNone:
        out.push_back(dim.size);
        break;
      case Symbol::kBatch:
        out.push_back(bindings.batch);
        break;
      case Symbol::kTokens:
        out.push_back(bindings.tokens);
        break;
      case Symbol::kPast:
        out.push_back(bindings.past);
        break;
      case Symbol::kTotal:
        out.push_back(bindings.past + bindings.tokens);
        break;
    }
  }
  return out;
}

std::string_view op_name(const Op& op) {
  static constexpr std::string_view kNames[] = {
      "input",      "constant", "unary",     "binary",   "select",     "reduce", "reshape",
      "transpose",  "slice",    "concat",    "matmul",   "gather",     "iota",   "topk_mask",
      "kv_write",   "linear",   "embedding", "rms_norm", "layer_norm", "rope",   "attention",
      "activation", "swiglu",   "softmax",   "moe"};
  static_assert(std::size(kNames) == std::variant_size_v<Op>);
  return kNames[op.index()];
}

bool is_composite(const Op& op) {
  static const size_t first = Op(LinearOp{}).index();
  return op.index() >= first;
}

namespace {

class Validator {
 public:
  explicit Validator(const Graph& graph) : graph_(graph), defined_(graph.values.size(), false) {}

  Status run() {
    std::unordered_set<std::string_view> names;
    for (const Value& value : graph_.values)
      if (value.name.empty() || !names.insert(value.name).second)
        complain("value name '" + value.name + "' is empty or not unique");
    std::unordered_set<std::string_view> constants;
    for (const Constant& constant : graph_.constants) {
      if (!constant.data) complain("constant '" + constant.name + "' has no data");
      if (constant.name.empty() || !constants.insert(constant.name).second)
        complain("constant name '" + constant.name + "' is empty or not unique");
    }
    if (!errors_.empty()) return finish();
    for (const Node& node : graph_.nodes) check(node);
    interface();
    return finish();
  }

 private:
  void complain(std::string message) { errors_.push_back(std::move(message)); }
  bool known(ValueId id) const { return id >= 0 && static_cast<size_t>(id) < graph_.values.size(); }

  void check(const Node& node) {
    if (!known(node.result)) return complain(std::string(op_name(node.op)) + " has no result");
    const std::string at = graph_.name(node.result) + " (" + std::string(op_name(node.op)) + ")";
    if (defined_[static_cast<size_t>(node.result)]) complain(at + " is defined twice");
    std::vector<ValueType> types;
    for (const ValueId id : node.operands) {
      if (!known(id) || !defined_[static_cast<size_t>(id)]) {
        complain(at + " uses a value before it is defined");
        return;
      }
      types.push_back(graph_.type(id));
    }
    defined_[static_cast<size_t>(node.result)] = true;
    if (std::holds_alternative<InputOp>(node.op)) return;
    const auto type = infer_type(node.op, types, graph_.constants);
    if (!type.ok()) {
      complain(at + ": " + type.status().to_string());
    } else if (!(*type == graph_.type(node.result))) {
      complain(at + " is declared " + to_string(graph_.type(node.result).shape) + ", inferred " +
               to_string(type->shape));
    }
  }

  void interface() {
    const auto need = [&](ValueId id, const char* what, const ValueType& type) {
      if (!known(id) || !defined_[static_cast<size_t>(id)])
        return complain(std::string("no ") + what);
      if (!(graph_.type(id) == type))
        complain(std::string(what) + " has shape " + to_string(graph_.type(id).shape));
    };
    if ((graph_.token_ids == kNoValue) == (graph_.hidden_in == kNoValue))
      complain("a graph starts from token ids or from a hidden state");
    if (graph_.token_ids != kNoValue)
      need(graph_.token_ids, "token ids", {DType::kI32, {Symbol::kBatch, Symbol::kTokens}});
    if (graph_.position != kNoValue) need(graph_.position, "position", {DType::kI32, {1}});
    if (!known(graph_.output) || !defined_[static_cast<size_t>(graph_.output)])
      complain("no output");
    for (const CachePair& cache : graph_.caches) {
      const std::string at = "cache of layer " + std::to_string(cache.layer);
      if (!known(cache.input) || !known(cache.output) ||
          !defined_[static_cast<size_t>(cache.input)] ||
          !defined_[static_cast<size_t>(cache.output)]) {
        complain(at + " is not written");
        continue;
      }
      SymShape expected = graph_.type(cache.input).shape;
      if (expected.size() != 4 || expected[2] != Dim(Symbol::kPast)) {
        complain(at + " must be [B, heads, P, dim]");
        continue;
      }
      expected[2] = Symbol::kTotal;
      if (graph_.type(cache.output).shape != expected)
        complain(at + " is written with another shape");
    }
  }

  Status finish() {
    if (errors_.empty()) return {};
    std::string text = "the graph is not valid (" + std::to_string(errors_.size()) + "):";
    for (const std::string& error : errors_) text += "\n  " + error;
    return bad_input(Refusal::kType, std::move(text));
  }

  const Graph& graph_;
  std::vector<bool> defined_;
  std::vector<std::string> errors_;
};

}  // namespace

Status validate(const Graph& graph) { return Validator(graph).run(); }

bool is_parameter(const Constant& constant) {
  return constant.role != Constant::Role::kTable || constant.data->shape().size() >= 2;
}

int64_t parameter_count(const Graph& graph) {
  int64_t count = 0;
  for (const Constant& constant : graph.constants)
    if (is_parameter(constant)) count += constant.data->rows() * constant.data->columns();
  return count;
}

int64_t cache_elements_per_token(const Graph& graph) {
  int64_t count = 0;
  for (const CachePair& cache : graph.caches) {
    int64_t elements = 1;
    for (const Dim& dim : graph.type(cache.input).shape)
      if (dim.is_static()) elements *= dim.size;
    count += elements;
  }
  return count;
}

}  // namespace pome
