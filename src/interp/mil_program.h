// Private: a function of a package, checked and flattened.
#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/sha256.h"
#include "interp/mil_eval.h"
#include "interp/mil_ops.h"

namespace pome::mil_ops {

// Decoded constants, shared by all functions: the key of a value is what it is made from (weight
// file and offset, immediate bytes, or the constexpr operation and the keys of its inputs).
//
// Where the package has more than the budget, a large constant that depends on no other is
// *deferred*: its value is empty until hold(), which may empty others.
class ConstantPool {
 public:
  ConstantPool(const mil::Package& package, const MilOptions& options, ThreadPool* threads)
      : package_(package),
        options_(options),
        threads_(threads),
        defer_(decoded_size(package).all > options.constant_budget) {}
  static std::string key_of(const mil::ValueData& value);
  bool holds(const std::string& key) const { return values_.count(key) > 0; }
  Result<Value> decode(const mil::ValueData& value) const;
  // The same for a parameter of a constexpr operation, whose codes stay as they are stored.
  Result<Value> parameter(const mil::ValueData& value) const;
  // Decodes and keeps.
  Result<const Value*> load(const mil::ValueData& value);
  // The results of a constexpr operation, computed unless the pool holds the key.
  Result<const std::vector<Value>*> evaluate(const mil::Operation& op, const OpSpec& spec,
                                             const std::string& key,
                                             const std::vector<Input>& inputs);
  // The value of a const or constexpr operation, to be made later; null where it should be made at
  // once. The operation must outlive the pool.
  const Value* defer(const mil::Operation& op, const OpSpec* spec, const std::string& key);
  bool is_deferred(const Value* value) const { return deferred_.count(value) > 0; }
  // Makes sure that a constant has its value, until the next step that needs room.
  Status hold(const Value* value);
  // What was held before may be dropped for what is held from now on.
  void next_step() { ++step_; }

 private:
  struct Deferred {
    const mil::Operation* op = nullptr;
    const OpSpec* spec = nullptr;  // null for a const
    Value* value = nullptr;
    uint64_t bytes = 0, step = 0;  // when it was needed last
  };
  Result<Value> make(const Deferred& deferred) const;

  const mil::Package& package_;
  const MilOptions& options_;
  ThreadPool* threads_;
  bool defer_;
  std::map<std::string, std::vector<Value>> values_;  // nodes never move
  std::unordered_map<const Value*, Deferred> deferred_;
  std::vector<Deferred*> made_;
  uint64_t made_bytes_ = 0, step_ = 0;
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
  std::map<std::string, const Value*> constants;  // by the name of their operation's result
};

void hash_text(Sha256& hash, std::string_view text);  // with its length
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
