// FunctionBuilder: writes one MIL function operation by operation, in the form that coremltools
// writes: every constant parameter is a `const` op of its own, every op has a `name`. Names are
// made unique; types are the caller's word. Private to export.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "formats/mil.h"

namespace pome::coreml {

using Dims = std::vector<int64_t>;

// A value inside a MIL function.
struct Val {
  std::string name;
  DType dtype = DType::kF16;
  Dims dims;
};

// An operand: a value, several (concat), a constant parameter (becomes a const op), or a parameter
// bound inline, which only constexpr operations take.
struct InlineValue {
  mil::ValueData value;
};
using Operand = std::variant<Val, std::vector<Val>, mil::ValueData, InlineValue>;
using Operands = std::vector<std::pair<std::string, Operand>>;

class FunctionBuilder {
 public:
  FunctionBuilder(std::string name, std::set<std::string> reserved);

  void input(const std::string& name, mil::Type type);
  // An identifier that MIL takes, not used before in this function: anything but letters, digits
  // and underscores becomes an underscore, and a number follows where the name is taken.
  std::string unique(const std::string& wanted);
  // Gives `wanted` out exactly once even though it is reserved (the output's name).
  std::string claim(const std::string& wanted) { return wanted; }

  // Emits an op with one result; `name` must come from unique() or claim().
  Val op(const std::string& type, const std::string& name, Operands operands, DType dtype,
         Dims dims);
  std::vector<Val> op(const std::string& type, const std::string& name, Operands operands,
                      std::vector<std::pair<DType, Dims>> results);
  void effect(const std::string& type, const std::string& name, Operands operands);  // no result
  Val constant(const std::string& name, mil::ValueData value);

  mil::Function finish(const std::vector<std::string>& outputs);

 private:
  std::vector<std::pair<std::string, std::vector<mil::Binding>>> bind(const std::string& name,
                                                                      const Operands& operands);

  mil::Function function_;
  std::set<std::string> used_;
};

// Bytes of an fp16 tensor from floats.
mil::ValueData f16_values(Dims dims, const std::vector<float>& values);

}  // namespace pome::coreml
