// Private: a function of a package, checked and flattened.
#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "interp/mil_eval.h"
#include "interp/mil_ops.h"

namespace pome::mil_ops {

// Decoded constants, shared by all functions: the key of a value is what it is made from (weight
// file and offset, immediate bytes, or the constexpr operation and the keys of its inputs).
class ConstantPool {
 public:
  ConstantPool(const mil::Package& package, const MilOptions& options)
      : package_(package), options_(options) {}
  static std::string key_of(const mil::ValueData& value);
  bool holds(const std::string& key) const { return values_.count(key) > 0; }
  Result<Value> decode(const mil::ValueData& value) const;
  // Decodes and keeps.
  Result<const Value*> load(const mil::ValueData& value);
  // The results of a constexpr operation, computed unless the pool holds the key.
  Result<const std::vector<Value>*> evaluate(const mil::Operation& op, const OpSpec& spec,
                                             const std::string& key,
                                             const std::vector<Input>& inputs);

 private:
  const mil::Package& package_;
  const MilOptions& options_;
  std::map<std::string, std::vector<Value>> values_;  // nodes never move
};

struct State {
  std::string name;
  mil::Type type;
};
struct Program {
  std::string name;
  std::vector<mil::NamedType> inputs;  // slot i holds input i
  std::vector<State> states;
  std::vector<Step> steps;
  int slots = 0;
  struct Output {
    std::string name;
    int slot = -1;
    const Value* constant = nullptr;
  };
  std::vector<Output> outputs;
};

const OpSpec* find_op(std::string_view name);
// Status of `status` with function, operation and value named.
Status name_place(Status status, const std::string& function, std::string_view type,
                  const std::string& value);
// What was computed against what the package declares.
Status check_declared(const Value& value, const mil::Type& declared);
// Rounds an fp16 value through fp16; copies first when the storage is shared.
void round_value(Value& value);
Result<Program> prepare(const mil::Function& function, ConstantPool& constants);

}  // namespace pome::mil_ops
