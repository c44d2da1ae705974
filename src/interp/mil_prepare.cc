// From a function as it is written to a flat list of steps: names become slots, constants are
// decoded, every value learns when it dies.
#include <algorithm>
#include <deque>
#include <unordered_map>
#include <utility>

#include "base/sha256.h"
#include "interp/mil_program.h"
#include "tensor/half.h"

namespace pome::mil_ops {
namespace {

Status no_handler(Call&) { return unsupported("this operation belongs to the core"); }
constexpr OpSpec kStateOps[] = {
    {"read_state", no_handler, "input", "", kState | kMoves},
    {"write_state", no_handler, "input data", "", kState},
};

// Is `word` one of the space-separated `words`? A trailing '*' in the list means "any number".
bool names(std::string_view words, std::string_view word, bool* any_number) {
  while (!words.empty()) {
    const size_t end = std::min(words.find(' '), words.size());
    std::string_view entry = words.substr(0, end);
    words.remove_prefix(std::min(end + 1, words.size()));
    const bool many = !entry.empty() && entry.back() == '*';
    if (many) entry.remove_suffix(1);
    if (entry == word) {
      *any_number = many;
      return true;
    }
  }
  return false;
}

}  // namespace

const OpSpec* find_op(std::string_view name) {
  static const auto* table = [] {
    auto* ops = new std::unordered_map<std::string_view, const OpSpec*>();
    for (const auto group :
         {elementwise_ops(), shape_ops(), slice_ops(), linear_ops(), constexpr_ops(), reduce_ops(),
          gather_ops(), std::span<const OpSpec>(kStateOps)}) {
      for (const OpSpec& op : group) POME_CHECK(ops->emplace(op.name, &op).second);
    }
    return ops;
  }();
  const auto found = table->find(name);
  return found == table->end() ? nullptr : found->second;
}

Status name_place(Status status, const std::string& function, std::string_view type,
                  const std::string& value) {
  return std::move(status).at("function '" + function + "', operation '" + std::string(type) +
                              "', value '" + value + "'");
}

Status check_declared(const Value& value, const mil::Type& declared) {
  if (value.is_text()) {
    if (declared.kind == mil::Type::Kind::kString) return {};
    return bad_input(Refusal::kType, "declared " + mil::to_string(declared) + ", is a string");
  }
  const bool same_type = declared.kind == mil::Type::Kind::kTensor && declared.dtype == value.type;
  bool same_shape = declared.dims.size() == value.shape().size();
  for (size_t i = 0; same_shape && i < declared.dims.size(); ++i)
    same_shape = declared.dims[i] < 0 || declared.dims[i] == value.shape()[i];
  if (same_type && same_shape) return {};
  return bad_input(Refusal::kType, "declared " + mil::to_string(declared) + ", computed " +
                                       std::string(to_string(value.type)) + " " +
                                       shape_text(value.shape()));
}

void round_value(Value& value) {
  if (value.type != DType::kF16) return;
  if (!value.tensor.sole_owner()) value.tensor = value.tensor.clone();
  const auto values = value.tensor.mutable_as<float>();
  constexpr size_t kRun = 1024;
  uint16_t halves[kRun];
  for (size_t at = 0; at < values.size(); at += kRun) {
    const auto run = values.subspan(at, std::min(kRun, values.size() - at));
    f32_to_f16(run, std::span(halves, run.size()));
    f16_to_f32(std::span<const uint16_t>(halves, run.size()), run);
  }
}

// ---- functions

namespace {

class Preparer {
 public:
  Preparer(const mil::Function& function, ConstantPool& constants)
      : function_(function), constants_(constants) {}

  Result<Program> run() {
    program_.name = function_.name;
    for (const mil::NamedType& input : function_.inputs) {
      Definition definition;
      if (input.type.kind == mil::Type::Kind::kState) {
        definition.state = static_cast<int>(program_.states.size());
        program_.states.push_back({input.name, input.type});
      } else {
        if (input.type.kind != mil::Type::Kind::kTensor)
          return unsupported("input '" + input.name + "' is " + mil::to_string(input.type));
        definition.slot = program_.slots++;
        program_.inputs.push_back(input);
      }
      POME_RETURN_IF_ERROR(define(input.name, std::move(definition)));
    }
    for (const mil::Operation& op : function_.operations) {
      const std::string value = op.outputs.empty() ? attribute_name(op) : op.outputs.front().name;
      Status status = operation(op, value);
      if (!status.ok()) return name_place(std::move(status), function_.name, op.type, value);
    }
    for (const std::string& name : function_.outputs) {
      const auto found = names_.find(name);
      if (found == names_.end() || found->second.state >= 0)
        return bad_input(Refusal::kRange, "output '" + name + "' is not defined")
            .at("function '" + function_.name + "'");
      program_.outputs.push_back({name, found->second.slot, found->second.constant});
    }
    find_last_uses();
    find_state_moves();
    return std::move(program_);
  }

 private:
  struct Definition {
    int slot = -1;
    int state = -1;
    const Value* constant = nullptr;
    std::string key;  // of a constant
  };

  static std::string attribute_name(const mil::Operation& op) {
    const auto found = op.attributes.find("name");
    if (found == op.attributes.end()) return "";
    const auto* strings = std::get_if<std::vector<std::string>>(&found->second.data);
    return strings == nullptr || strings->empty() ? "" : strings->front();
  }

  Status define(const std::string& name, Definition definition) {
    if (!names_.emplace(name, std::move(definition)).second)
      return bad_input(Refusal::kDup, "'" + name + "' is defined twice");
    return {};
  }

  Status define_constant(const std::string& name, Definition definition) {
    program_.constants[name] = definition.constant;
    return define(name, std::move(definition));
  }

  Status operation(const mil::Operation& op, const std::string& value) {
    if (op.type == "const") return constant(op);
    const OpSpec* spec = find_op(op.type);
    if (spec == nullptr)
      return unsupported("operation '" + op.type + "' is not one that pome executes");
    const bool writes = op.type == "write_state";
    if (!(spec->flags & kManyOutputs) && op.outputs.size() != (writes ? 0u : 1u))
      return bad_input(Refusal::kRange, "has " + std::to_string(op.outputs.size()) + " outputs");
    Step step;
    step.spec = spec;
    step.name = value;
    step.outputs = op.outputs;
    std::string key;
    if (spec->flags & kConstexpr) {
      // Codes and tables are decoded only where the result is not known yet, and not kept.
      decode_inline_ = false;
      POME_RETURN_IF_ERROR(bind_inputs(op, *spec, &step, &key));
      if (const Value* later = constants_.defer(op, spec, key)) {
        Definition definition;
        definition.constant = later;
        definition.key = key + ".0";
        return define_constant(op.outputs[0].name, std::move(definition));
      }
      decode_inline_ = !constants_.holds(key);
      if (decode_inline_) {
        step.inputs.clear();
        POME_RETURN_IF_ERROR(bind_inputs(op, *spec, &step, &key));
      }
      Status status = constexpr_values(op, *spec, step, key);
      scratch_.clear();
      return status;
    }
    POME_RETURN_IF_ERROR(bind_inputs(op, *spec, &step, &key));
    for (const mil::NamedType& output : op.outputs) {
      step.output_slots.push_back(program_.slots);
      Definition definition;
      definition.slot = program_.slots++;
      POME_RETURN_IF_ERROR(define(output.name, std::move(definition)));
    }
    program_.steps.push_back(std::move(step));
    return {};
  }

  Status constant(const mil::Operation& op) {
    const auto val = op.attributes.find("val");
    if (val == op.attributes.end() || op.outputs.size() != 1)
      return bad_input(Refusal::kRange, "needs the attribute 'val' and one output");
    Definition definition;
    definition.key = ConstantPool::key_of(val->second);
    definition.constant = constants_.defer(op, nullptr, definition.key);
    if (definition.constant == nullptr) {
      POME_ASSIGN_OR_RETURN(definition.constant, constants_.load(val->second));
      POME_RETURN_IF_ERROR(check_declared(*definition.constant, op.outputs.front().type));
    }
    return define_constant(op.outputs.front().name, std::move(definition));
  }

  Status constexpr_values(const mil::Operation& op, const OpSpec& spec, const Step& step,
                          const std::string& key) {
    POME_ASSIGN_OR_RETURN(const std::vector<Value>* values,
                          constants_.evaluate(op, spec, key, step.inputs));
    if (values->size() != op.outputs.size())
      return bad_input(Refusal::kRange, "has " + std::to_string(values->size()) + " results, " +
                                            std::to_string(op.outputs.size()) + " are declared");
    for (size_t i = 0; i < values->size(); ++i) {
      POME_RETURN_IF_ERROR(check_declared((*values)[i], op.outputs[i].type));
      Definition definition;
      definition.constant = &(*values)[i];
      definition.key = key + "." + std::to_string(i);
      POME_RETURN_IF_ERROR(define_constant(op.outputs[i].name, std::move(definition)));
    }
    return {};
  }

  // Parameters against what the operation knows; `key` names the result of a constexpr.
  Status bind_inputs(const mil::Operation& op, const OpSpec& spec, Step* step, std::string* key) {
    Sha256 hash;
    hash_text(hash, op.type);
    for (const auto& [name, bindings] : op.inputs) {
      hash_text(hash, name);
      POME_RETURN_IF_ERROR(bind(name, bindings, spec, step, &hash));
    }
    if (spec.flags & kConstexpr) {  // the form of iOS 16: parameters as attributes
      for (const auto& [name, value] : op.attributes) {
        if (name == "name" || name == "val") continue;
        hash_text(hash, name);
        POME_RETURN_IF_ERROR(bind(name, {mil::Binding(value)}, spec, step, &hash));
      }
    }
    std::string_view words = spec.required;
    while (!words.empty()) {
      const size_t end = std::min(words.find(' '), words.size());
      std::string_view word = words.substr(0, end);
      words.remove_prefix(std::min(end + 1, words.size()));
      if (word.back() == '*') word.remove_suffix(1);
      const bool given = std::any_of(step->inputs.begin(), step->inputs.end(),
                                     [&](const Input& input) { return input.name == word; }) ||
                         (word == "input" && step->state >= 0);
      if (!given) return bad_operand(word, "is missing");
    }
    *key = to_hex(hash.finish());
    return {};
  }

  Status bind(const std::string& name, const std::vector<mil::Binding>& bindings,
              const OpSpec& spec, Step* step, Sha256* hash) {
    bool any_number = false;
    if (!names(spec.required, name, &any_number) && !names(spec.optional, name, &any_number))
      return unsupported("parameter '" + name + "' is not known");
    if (bindings.empty() || (bindings.size() != 1 && !any_number))
      return bad_operand(name, "has " + std::to_string(bindings.size()) + " values");
    for (const Input& input : step->inputs)
      if (input.name == name) return bad_operand(name, "is given twice");
    const bool is_state = (spec.flags & kState) && name == "input";
    Input input;
    input.name = name;
    for (const mil::Binding& given : bindings) {
      Binding binding;
      if (const auto* value = std::get_if<mil::ValueData>(&given)) {
        if (is_state) return bad_operand(name, "must name a state");
        hash_text(*hash, ConstantPool::key_of(*value));
        if (!(spec.flags & kConstexpr)) {
          POME_ASSIGN_OR_RETURN(binding.constant, constants_.load(*value));
        } else if (decode_inline_) {
          POME_ASSIGN_OR_RETURN(Value decoded, constants_.parameter(*value));
          binding.constant = &scratch_.emplace_back(std::move(decoded));
        }
      } else {
        const std::string& from = std::get<std::string>(given);
        const auto found = names_.find(from);
        if (found == names_.end())
          return bad_input(Refusal::kRange, "'" + from + "' is used before it is defined");
        const Definition& definition = found->second;
        if ((definition.state >= 0) != is_state)
          return bad_operand(name,
                             is_state ? "must name a state" : "names the state '" + from + "'");
        if (is_state) {
          step->state = definition.state;
          return {};
        }
        if ((spec.flags & kConstexpr) && definition.constant == nullptr)
          return bad_operand(name, "must be a constant");
        binding.slot = definition.slot;
        binding.constant = definition.constant;
        if ((spec.flags & kConstexpr) && decode_inline_) {
          POME_RETURN_IF_ERROR(constants_.hold(binding.constant));
        }
        hash_text(*hash, definition.key);
      }
      input.bindings.push_back(binding);
    }
    step->inputs.push_back(std::move(input));
    return {};
  }

  void find_last_uses() {
    std::vector<bool> dead_later(static_cast<size_t>(program_.slots), false);
    for (const Program::Output& output : program_.outputs)
      if (output.slot >= 0) dead_later[static_cast<size_t>(output.slot)] = true;
    for (size_t s = program_.steps.size(); s-- > 0;) {
      Step& step = program_.steps[s];
      const auto die = [&](int slot) {
        if (dead_later[static_cast<size_t>(slot)]) return false;
        dead_later[static_cast<size_t>(slot)] = true;
        step.dead_slots.push_back(slot);
        return true;
      };
      for (const int slot : step.output_slots) die(slot);  // results that nobody uses
      std::vector<Binding*> bindings;
      for (Input& input : step.inputs)
        for (Binding& binding : input.bindings)
          if (binding.slot >= 0) bindings.push_back(&binding);
      for (Binding* binding : bindings) {
        const auto uses = std::count_if(bindings.begin(), bindings.end(),
                                        [&](const Binding* b) { return b->slot == binding->slot; });
        // A value that is given twice may not be taken by one of its uses.
        binding->last_use = die(binding->slot) && uses == 1;
      }
    }
  }

  void find_state_moves() {
    std::vector<bool> next_is_write(program_.states.size(), false);
    for (size_t s = program_.steps.size(); s-- > 0;) {
      Step& step = program_.steps[s];
      if (step.state < 0) continue;
      const auto state = static_cast<size_t>(step.state);
      const bool reads = !step.output_slots.empty();
      step.takes_state = reads && next_is_write[state];
      next_is_write[state] = !reads;
    }
  }

  const mil::Function& function_;
  ConstantPool& constants_;
  std::unordered_map<std::string, Definition> names_;
  std::deque<Value> scratch_;  // inline parameters of the constexpr at hand
  bool decode_inline_ = false;
  Program program_;
};

}  // namespace

Result<Program> prepare(const mil::Function& function, ConstantPool& constants) {
  return Preparer(function, constants).run();
}

}  // namespace pome::mil_ops
