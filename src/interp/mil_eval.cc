#include "interp/mil_eval.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "interp/mil_program.h"

namespace pome {

using mil_ops::Call;
using mil_ops::Program;
using mil_ops::Step;
using mil_ops::Value;

namespace {

// Instead of rounding a run-time value to eight bits and back. False where the step does not.
bool hand_on(const Step& step, std::vector<Value>& slots) {
  const bool forth = step.spec->name == "quantize";
  if ((!forth && step.spec->name != "dequantize") || step.output_slots.size() != 1) return false;
  Call call(step, slots, nullptr);
  if (call.at("input").is_text() || call.at("input").tensor.dtype() != DType::kF32) return false;
  Value value = call.take("input");
  slots[static_cast<size_t>(step.output_slots.front())] = std::move(value);
  return true;
}

}  // namespace

struct MilProgram::Impl {
  Impl(mil::Package p, const MilOptions& o)
      : package(std::move(p)), options(o), pool(o.threads), constants(package, options, &pool) {}

  Result<NamedTensors> run(const Program& program, const NamedTensors& inputs,
                           NamedTensors* states);
  Status bind_inputs(const Program& program, const NamedTensors& inputs,
                     std::vector<Value>& slots) const;
  Status step_state(const Program& program, const Step& step, std::vector<Value>& slots,
                    std::vector<Value>& states) const;
  Status execute(const Program& program, const Step& step, std::vector<Value>& slots,
                 std::vector<Value>& states);

  mil::Package package;
  MilOptions options;
  ThreadPool pool;
  mil_ops::ConstantPool constants;
  std::vector<Program> programs;
  std::function<void(const std::string&, const Tensor&)> observer;
  bool round_activations = true;
};

namespace {

// What the caller gives, as values are stored. nullopt: the type does not fit.
std::optional<Tensor> convert_input(const Tensor& given, DType type) {
  const DType storage = mil_ops::storage_of(type);
  if (given.dtype() == storage) return given;
  if (storage == DType::kF32 && given.dtype() == DType::kF16) return given.to(DType::kF32);
  if (storage == DType::kI32 && given.dtype() == type) return given.to(DType::kI32);
  return std::nullopt;
}
Result<Value> input_value(const std::string& what, const Tensor& given, const mil::Type& type) {
  const auto fail = [&] {
    return usage_error(what + " must be " + mil::to_string(type) + ", not " +
                       std::string(to_string(given.dtype())) + " " + to_string(given.shape()));
  };
  if (!given.defined()) return usage_error(what + " has no value");
  std::optional<Tensor> tensor = convert_input(given, type.dtype);
  if (!tensor || type.dims.size() != given.shape().size()) return fail();
  for (size_t i = 0; i < type.dims.size(); ++i)
    if (type.dims[i] >= 0 && type.dims[i] != given.shape()[i]) return fail();
  return Value{type.dtype, std::move(*tensor), {}};
}

Tensor* find_tensor(NamedTensors* list, const std::string& name) {
  if (list == nullptr) return nullptr;
  for (auto& [entry, tensor] : *list)
    if (entry == name) return &tensor;
  return nullptr;
}
// States move out of the caller's list, so that they can be updated in place.
Result<std::vector<Value>> take_states(const Program& program, NamedTensors* given) {
  std::vector<Value> states;
  for (const mil_ops::State& state : program.states) {
    const Tensor* tensor = find_tensor(given, state.name);
    if (tensor != nullptr && tensor->defined()) {
      POME_ASSIGN_OR_RETURN(Value value,
                            input_value("state '" + state.name + "'", *tensor, state.type));
      states.push_back(std::move(value));
      continue;
    }
    if (std::any_of(state.type.dims.begin(), state.type.dims.end(),
                    [](int64_t d) { return d < 0; }))
      return unsupported("state '" + state.name + "' has an unknown dimension");
    const DType type = state.type.dtype;
    states.push_back({type, Tensor::zeros(mil_ops::storage_of(type), state.type.dims), {}});
  }
  for (const mil_ops::State& state : program.states)
    if (Tensor* tensor = find_tensor(given, state.name)) *tensor = Tensor();
  return states;
}
void return_states(const Program& program, std::vector<Value>& states, NamedTensors* given) {
  if (given == nullptr) return;
  for (size_t i = 0; i < program.states.size(); ++i) {
    const std::string& name = program.states[i].name;
    if (Tensor* tensor = find_tensor(given, name))
      *tensor = std::move(states[i].tensor);
    else
      given->emplace_back(name, std::move(states[i].tensor));
  }
}

}  // namespace

Status MilProgram::Impl::bind_inputs(const Program& program, const NamedTensors& inputs,
                                     std::vector<Value>& slots) const {
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const mil::NamedType& input = program.inputs[i];
    const auto found = std::find_if(inputs.begin(), inputs.end(),
                                    [&](const auto& entry) { return entry.first == input.name; });
    if (found == inputs.end())
      return usage_error("input '" + input.name + "' (" + mil::to_string(input.type) +
                         ") is missing");
    POME_ASSIGN_OR_RETURN(slots[i],
                          input_value("input '" + input.name + "'", found->second, input.type));
    if (options.round_f16) mil_ops::round_value(slots[i]);
  }
  for (const auto& [name, tensor] : inputs) {
    if (std::none_of(program.inputs.begin(), program.inputs.end(),
                     [&, &wanted = name](const auto& input) { return input.name == wanted; }))
      return usage_error("function '" + program.name + "' has no input '" + name + "'");
  }
  return {};
}

Status MilProgram::Impl::step_state(const Program& program, const Step& step,
                                    std::vector<Value>& slots, std::vector<Value>& states) const {
  Value& state = states[static_cast<size_t>(step.state)];
  if (!step.output_slots.empty()) {
    Value& out = slots[static_cast<size_t>(step.output_slots.front())];
    out = step.takes_state ? std::move(state) : state;
    return mil_ops::check_declared(out, step.outputs.front().type);
  }
  state = Call(step, slots, nullptr).take("data");
  mil::Type type = program.states[static_cast<size_t>(step.state)].type;
  type.kind = mil::Type::Kind::kTensor;
  return mil_ops::check_declared(state, type);
}

Status MilProgram::Impl::execute(const Program& program, const Step& step,
                                 std::vector<Value>& slots, std::vector<Value>& states) {
  const uint8_t flags = step.spec->flags;
  constants.next_step();
  for (const mil_ops::Input& input : step.inputs)
    for (const mil_ops::Binding& binding : input.bindings)
      if (binding.constant != nullptr) POME_RETURN_IF_ERROR(constants.hold(binding.constant));
  if (flags & mil_ops::kState) {
    POME_RETURN_IF_ERROR(step_state(program, step, slots, states));
  } else if (!round_activations && hand_on(step, slots)) {
    // As it came.
  } else {
    Call call(step, slots, &pool);
    POME_RETURN_IF_ERROR(step.spec->handler(call));
    std::vector<Value>& results = call.results();
    if (results.size() != step.outputs.size())
      return bad_input(Refusal::kRange, "has " + std::to_string(results.size()) + " results, " +
                                            std::to_string(step.outputs.size()) + " are declared");
    for (size_t i = 0; i < results.size(); ++i) {
      POME_RETURN_IF_ERROR(mil_ops::check_declared(results[i], step.outputs[i].type));
      if (options.round_f16 && !(flags & mil_ops::kMoves)) mil_ops::round_value(results[i]);
      slots[static_cast<size_t>(step.output_slots[i])] = std::move(results[i]);
    }
  }
  if (observer) {
    for (size_t i = 0; i < step.outputs.size(); ++i)
      observer(step.outputs[i].name, slots[static_cast<size_t>(step.output_slots[i])].tensor);
  }
  return {};
}

Result<NamedTensors> MilProgram::Impl::run(const Program& program, const NamedTensors& inputs,
                                           NamedTensors* given) {
  std::vector<Value> slots(static_cast<size_t>(program.slots));
  POME_RETURN_IF_ERROR(bind_inputs(program, inputs, slots));
  POME_ASSIGN_OR_RETURN(std::vector<Value> states, take_states(program, given));
  for (const Step& step : program.steps) {
    Status status = execute(program, step, slots, states);
    if (!status.ok())
      return mil_ops::name_place(std::move(status), program.name, step.spec->name, step.name)
          .in(package.path);
    for (const int slot : step.dead_slots) slots[static_cast<size_t>(slot)] = Value();
  }
  NamedTensors outputs;
  for (const Program::Output& output : program.outputs) {
    if (output.constant != nullptr) POME_RETURN_IF_ERROR(constants.hold(output.constant));
    const Value& value =
        output.constant != nullptr ? *output.constant : slots[static_cast<size_t>(output.slot)];
    outputs.emplace_back(output.name, value.tensor);
  }
  return_states(program, states, given);
  return outputs;
}

MilProgram::MilProgram() = default;
MilProgram::~MilProgram() = default;

Result<std::unique_ptr<MilProgram>> MilProgram::open(const std::string& package_path,
                                                     const MilOptions& options) {
  POME_ASSIGN_OR_RETURN(mil::Package package, mil::read_package(package_path));
  return create(std::move(package), options);
}

Result<std::unique_ptr<MilProgram>> MilProgram::create(mil::Package package,
                                                       const MilOptions& options) {
  if (options.threads < 1) return usage_error("the number of threads must be at least 1");
  std::unique_ptr<MilProgram> program(new MilProgram());
  program->impl_ = std::make_unique<Impl>(std::move(package), options);
  Impl& impl = *program->impl_;
  for (const mil::Function& function : impl.package.model.functions) {
    Result<Program> prepared = mil_ops::prepare(function, impl.constants);
    if (!prepared.ok()) return std::move(prepared).status().in(impl.package.path);
    impl.programs.push_back(std::move(prepared).value());
  }
  if (impl.programs.empty())
    return bad_input(Refusal::kRange, "the model has no function").in(impl.package.path);
  return program;
}

const mil::Model& MilProgram::model() const { return impl_->package.model; }

std::vector<std::string> MilProgram::functions() const {
  std::vector<std::string> names;
  for (const Program& program : impl_->programs) names.push_back(program.name);
  return names;
}

Result<Tensor> MilProgram::constant(const std::string& name) {
  for (const Program& program : impl_->programs) {
    const auto found = program.constants.find(name);
    if (found == program.constants.end()) continue;
    impl_->constants.next_step();
    Status status = impl_->constants.hold(found->second);
    if (!status.ok()) return std::move(status).in(impl_->package.path);
    return found->second->tensor;
  }
  return Tensor();
}

Result<NamedTensors> MilProgram::run(const std::string& function, const NamedTensors& inputs,
                                     NamedTensors* states) {
  for (const Program& program : impl_->programs)
    if (program.name == function) return impl_->run(program, inputs, states);
  return usage_error("there is no function '" + function + "'").in(impl_->package.path);
}

void MilProgram::round_activations(bool round) { impl_->round_activations = round; }

void MilProgram::set_observer(std::function<void(const std::string&, const Tensor&)> observer) {
  impl_->observer = std::move(observer);
}

}  // namespace pome
