#include "export/coreml_builder.h"

#include <cstring>

#include "tensor/half.h"

namespace pome::coreml {
namespace {

// Words of MIL's text form that cannot name a value.
const std::set<std::string>& keywords() {
  static const std::set<std::string> words = {
      "bool",  "program", "func",  "tensor", "list",   "dict",   "tuple", "true",
      "false", "string",  "bf16",  "fp16",   "fp32",   "fp64",   "int8",  "int16",
      "int32", "int64",   "uint8", "uint16", "uint32", "uint64", "state"};
  return words;
}

mil::Type tensor_type(DType dtype, Dims dims) {
  return {mil::Type::Kind::kTensor, dtype, std::move(dims)};
}

}  // namespace

FunctionBuilder::FunctionBuilder(std::string name, std::set<std::string> reserved)
    : used_(std::move(reserved)) {
  function_.name = std::move(name);
  function_.opset = "CoreML8";
}

void FunctionBuilder::input(const std::string& name, mil::Type type) {
  function_.inputs.push_back({name, std::move(type)});
  used_.insert(name);
}

std::string FunctionBuilder::unique(const std::string& wanted) {
  std::string name;
  for (const char c : wanted) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    name.push_back(plain ? c : '_');
  }
  if (name.empty() || (name[0] >= '0' && name[0] <= '9') || keywords().count(name)) {
    name.insert(0, 1, '_');
  }
  std::string out = name;
  for (int number = 1; !used_.insert(out).second; ++number) {
    out = name + "_" + std::to_string(number);
  }
  return out;
}

Val FunctionBuilder::constant(const std::string& name, mil::ValueData value) {
  mil::Operation op;
  op.type = "const";
  op.outputs.push_back({name, value.type});
  op.attributes["name"] = mil::ValueData::string(name);
  Val out{name, value.type.dtype, value.type.dims};
  op.attributes["val"] = std::move(value);
  function_.operations.push_back(std::move(op));
  return out;
}

std::vector<std::pair<std::string, std::vector<mil::Binding>>> FunctionBuilder::bind(
    const std::string& name, const Operands& operands) {
  std::vector<std::pair<std::string, std::vector<mil::Binding>>> out;
  for (const auto& [key, operand] : operands) {
    std::vector<mil::Binding> bindings;
    if (const auto* value = std::get_if<Val>(&operand)) {
      bindings.emplace_back(value->name);
    } else if (const auto* values = std::get_if<std::vector<Val>>(&operand)) {
      for (const Val& each : *values) bindings.emplace_back(each.name);
    } else if (const auto* parameter = std::get_if<mil::ValueData>(&operand)) {
      bindings.emplace_back(constant(unique(name + "_" + key + "_0"), *parameter).name);
    } else {
      bindings.emplace_back(std::get<InlineValue>(operand).value);
    }
    out.emplace_back(key, std::move(bindings));
  }
  return out;
}

std::vector<Val> FunctionBuilder::op(const std::string& type, const std::string& name,
                                     Operands operands,
                                     std::vector<std::pair<DType, Dims>> results) {
  mil::Operation op;
  op.type = type;
  op.inputs = bind(name, operands);
  op.attributes["name"] = mil::ValueData::string(name);
  std::vector<Val> out;
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string result = results.size() == 1 ? name : unique(name + "_" + std::to_string(i));
    op.outputs.push_back({result, tensor_type(results[i].first, results[i].second)});
    out.push_back({result, results[i].first, std::move(results[i].second)});
  }
  function_.operations.push_back(std::move(op));
  return out;
}

Val FunctionBuilder::op(const std::string& type, const std::string& name, Operands operands,
                        DType dtype, Dims dims) {
  std::vector<std::pair<DType, Dims>> results;
  results.emplace_back(dtype, std::move(dims));
  return op(type, name, std::move(operands), std::move(results)).front();
}

void FunctionBuilder::effect(const std::string& type, const std::string& name, Operands operands) {
  (void)op(type, name, std::move(operands), std::vector<std::pair<DType, Dims>>{});
}

mil::Function FunctionBuilder::finish(const std::vector<std::string>& outputs) {
  function_.outputs = outputs;
  return std::move(function_);
}

mil::ValueData f16_values(Dims dims, const std::vector<float>& values) {
  std::vector<uint16_t> half(values.size());
  f32_to_f16(std::span<const float>(values), std::span<uint16_t>(half));
  std::vector<std::byte> bytes(half.size() * sizeof(uint16_t));
  if (!bytes.empty()) std::memcpy(bytes.data(), half.data(), bytes.size());
  return {tensor_type(DType::kF16, std::move(dims)), std::move(bytes)};
}

}  // namespace pome::coreml
