// Builds small packages in memory, one operation after the other.
#pragma once

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "formats/mil.h"
#include "interp/mil_eval.h"

namespace pome::test {

inline mil::Type tensor_type(DType dtype, std::vector<int64_t> dims) {
  return {mil::Type::Kind::kTensor, dtype, std::move(dims)};
}
inline mil::Type state_type(DType dtype, std::vector<int64_t> dims) {
  return {mil::Type::Kind::kState, dtype, std::move(dims)};
}
template <typename T>
mil::ValueData immediate(DType dtype, std::vector<int64_t> dims, const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return {tensor_type(dtype, std::move(dims)), std::move(bytes)};
}
inline mil::ValueData floats(std::vector<int64_t> dims, const std::vector<float>& values) {
  return immediate<float>(DType::kF32, std::move(dims), values);
}
inline mil::ValueData ints(std::vector<int64_t> dims, const std::vector<int32_t>& values) {
  return immediate<int32_t>(DType::kI32, std::move(dims), values);
}
// Codes of a sub-byte type, packed.
inline mil::ValueData codes(DType dtype, std::vector<int64_t> dims, std::vector<int> values) {
  const int bits = bits_of(dtype);
  std::vector<uint8_t> plain;
  for (const int v : values) plain.push_back(static_cast<uint8_t>(v & ((1 << bits) - 1)));
  std::vector<std::byte> bytes((plain.size() * static_cast<size_t>(bits) + 7) / 8);
  pack_bits(plain, bits, bytes);
  return {tensor_type(dtype, std::move(dims)), std::move(bytes)};
}

using Parameters = std::vector<std::pair<std::string, std::vector<mil::Binding>>>;

// A parameter bound to one name, one inline value, or a list of names.
inline std::pair<std::string, std::vector<mil::Binding>> bind(std::string name, const char* value) {
  return {std::move(name), {mil::Binding(std::string(value))}};
}
inline std::pair<std::string, std::vector<mil::Binding>> bind(std::string name,
                                                              mil::ValueData value) {
  return {std::move(name), {mil::Binding(std::move(value))}};
}
inline std::pair<std::string, std::vector<mil::Binding>> bind_list(
    std::string name, const std::vector<std::string>& values) {
  return {std::move(name), {values.begin(), values.end()}};
}

class FunctionBuilder {
 public:
  explicit FunctionBuilder(std::string name = "main") {
    function_.name = std::move(name);
    function_.opset = "CoreML8";
  }
  FunctionBuilder& input(std::string name, mil::Type type) {
    function_.inputs.push_back({std::move(name), std::move(type)});
    return *this;
  }
  FunctionBuilder& constant(const std::string& name, mil::ValueData value) {
    mil::Operation op;
    op.type = "const";
    op.outputs = {{name, value.type}};
    op.attributes["val"] = std::move(value);
    function_.operations.push_back(std::move(op));
    return *this;
  }
  FunctionBuilder& op(std::string type, Parameters inputs, std::vector<mil::NamedType> outputs) {
    mil::Operation op;
    op.type = std::move(type);
    op.inputs = std::move(inputs);
    op.outputs = std::move(outputs);
    function_.operations.push_back(std::move(op));
    return *this;
  }
  FunctionBuilder& write(std::string state, std::string data) {
    op("write_state", {bind("input", state.c_str()), bind("data", data.c_str())}, {});
    return *this;
  }
  FunctionBuilder& returns(std::vector<std::string> outputs) {
    function_.outputs = std::move(outputs);
    return *this;
  }
  mil::Function build() { return function_; }
  mil::Operation& last() { return function_.operations.back(); }

 private:
  mil::Function function_;
};

inline Result<std::unique_ptr<MilProgram>> make_program(std::vector<mil::Function> functions,
                                                        MilOptions options = {}) {
  mil::Package package;
  package.path = "memory.mlpackage";
  package.model.functions = std::move(functions);
  return MilProgram::create(std::move(package), options);
}

}  // namespace pome::test
