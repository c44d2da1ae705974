// The constants of a package: decoded when a function is prepared, or, within a budget, when they
// are needed.
#include <algorithm>
#include <deque>
#include <utility>

#include "base/sha256.h"
#include "interp/mil_program.h"

namespace pome {
namespace {

// Smaller ones are always kept: shapes, axes, norms.
constexpr uint64_t kLarge = 1 << 18;

uint64_t decoded_bytes(const mil::Type& type) {
  const auto count = element_count(type.dims);  // nullopt: an unknown dimension
  return count ? 4 * static_cast<uint64_t>(*count) : 0;
}
bool is_constant(const mil::Operation& op) {
  return op.type == "const" || op.type.rfind("constexpr_", 0) == 0;
}
bool is_inline(const std::vector<mil::Binding>& bindings) {
  return std::all_of(bindings.begin(), bindings.end(), [](const mil::Binding& binding) {
    return std::holds_alternative<mil::ValueData>(binding);
  });
}

}  // namespace

DecodedSize decoded_size(const mil::Package& package) {
  // All functions of a package share their weights.
  DecodedSize size;
  for (const mil::Function& function : package.model.functions) {
    uint64_t bytes = 0;
    for (const mil::Operation& op : function.operations) {
      if (!is_constant(op)) continue;
      for (const mil::NamedType& output : op.outputs) {
        bytes += decoded_bytes(output.type);
        size.largest = std::max(size.largest, decoded_bytes(output.type));
      }
    }
    size.all = std::max(size.all, bytes);
  }
  return size;
}

namespace mil_ops {

void hash_text(Sha256& hash, std::string_view text) {
  hash.update_u64(text.size());
  hash.update(text);
}

std::string ConstantPool::key_of(const mil::ValueData& value) {
  Sha256 hash;
  hash_text(hash, mil::to_string(value.type));
  if (const auto* ref = std::get_if<mil::BlobRef>(&value.data)) {
    hash_text(hash, "blob");
    hash_text(hash, ref->file);
    hash.update_u64(ref->offset);
  } else if (const auto* strings = std::get_if<std::vector<std::string>>(&value.data)) {
    hash_text(hash, "strings");
    for (const std::string& text : *strings) hash_text(hash, text);
  } else {
    hash_text(hash, "bytes");
    hash.update(std::get<std::vector<std::byte>>(value.data));
  }
  return to_hex(hash.finish());
}

Result<Value> ConstantPool::decode(const mil::ValueData& value) const {
  if (const auto* strings = std::get_if<std::vector<std::string>>(&value.data))
    return Value{DType::kF32, Tensor(), *strings};
  POME_ASSIGN_OR_RETURN(const Tensor stored, mil::load_value(package_, value));
  return decode_constant(stored);
}

Result<Value> ConstantPool::parameter(const mil::ValueData& value) const {
  if (std::holds_alternative<std::vector<std::string>>(value.data) || !is_code(value.type.dtype))
    return decode(value);
  POME_ASSIGN_OR_RETURN(Tensor stored, mil::load_value(package_, value));
  return Value{value.type.dtype, std::move(stored), {}};
}

Result<const Value*> ConstantPool::load(const mil::ValueData& value) {
  const std::string key = key_of(value);
  if (const auto found = values_.find(key); found != values_.end()) return &found->second.front();
  POME_ASSIGN_OR_RETURN(Value loaded, decode(value));
  return &values_.emplace(key, std::vector<Value>{std::move(loaded)}).first->second.front();
}

Result<const std::vector<Value>*> ConstantPool::evaluate(const mil::Operation& op,
                                                         const OpSpec& spec, const std::string& key,
                                                         const std::vector<Input>& inputs) {
  if (const auto found = values_.find(key); found != values_.end()) return &found->second;
  Step step;
  step.spec = &spec;
  step.inputs = inputs;
  step.outputs = op.outputs;
  Call call(step, {}, threads_);
  POME_RETURN_IF_ERROR(spec.handler(call));
  if (options_.round_f16)
    for (Value& value : call.results()) round_value(value);
  return &values_.emplace(key, std::move(call.results())).first->second;
}

const Value* ConstantPool::defer(const mil::Operation& op, const OpSpec* spec,
                                 const std::string& key) {
  if (!defer_ || op.outputs.size() != 1) return nullptr;
  if (const auto found = values_.find(key); found != values_.end()) {
    const Value* value = &found->second.front();
    return is_deferred(value) ? value : nullptr;
  }
  const uint64_t bytes = decoded_bytes(op.outputs[0].type);
  const bool alone = std::all_of(op.inputs.begin(), op.inputs.end(),
                                 [](const auto& entry) { return is_inline(entry.second); });
  if (bytes < kLarge || !alone) return nullptr;
  Value* value = &values_.emplace(key, std::vector<Value>(1)).first->second.front();
  value->type = op.outputs[0].type.dtype;
  deferred_[value] = {&op, spec, value, bytes, 0};
  return value;
}

Result<Value> ConstantPool::make(const Deferred& deferred) const {
  const mil::Operation& op = *deferred.op;
  if (deferred.spec == nullptr) return decode(op.attributes.at("val"));
  Step step;
  step.spec = deferred.spec;
  step.outputs = op.outputs;
  std::deque<Value> decoded;
  const auto add = [&](const std::string& name,
                       const std::vector<mil::Binding>& bindings) -> Status {
    Input input;
    input.name = name;
    for (const mil::Binding& binding : bindings) {
      POME_ASSIGN_OR_RETURN(Value value, parameter(std::get<mil::ValueData>(binding)));
      input.bindings.emplace_back();
      input.bindings.back().constant = &decoded.emplace_back(std::move(value));
    }
    step.inputs.push_back(std::move(input));
    return {};
  };
  for (const auto& [name, bindings] : op.inputs) POME_RETURN_IF_ERROR(add(name, bindings));
  for (const auto& [name, value] : op.attributes) {
    if (name != "name" && name != "val") POME_RETURN_IF_ERROR(add(name, {mil::Binding(value)}));
  }
  Call call(step, {}, threads_);
  POME_RETURN_IF_ERROR(deferred.spec->handler(call));
  if (call.results().size() != 1)
    return bad_input(Refusal::kRange, "has more results than are declared");
  if (options_.round_f16) round_value(call.results()[0]);
  return std::move(call.results()[0]);
}

Status ConstantPool::hold(const Value* value) {
  const auto found = deferred_.find(value);
  if (found == deferred_.end()) return {};
  Deferred& wanted = found->second;
  wanted.step = step_;
  if (wanted.value->tensor.defined()) return {};
  while (made_bytes_ + wanted.bytes > options_.constant_budget) {
    const auto oldest =
        std::min_element(made_.begin(), made_.end(),
                         [](const Deferred* a, const Deferred* b) { return a->step < b->step; });
    if (oldest == made_.end() || (*oldest)->step == step_) break;  // all of one step are needed
    (*oldest)->value->tensor = Tensor();
    made_bytes_ -= (*oldest)->bytes;
    made_.erase(oldest);
  }
  Result<Value> made = make(wanted);
  if (made.ok()) {
    const Status declared = check_declared(*made, wanted.op->outputs[0].type);
    if (!declared.ok()) made = declared;
  }
  if (!made.ok()) {
    return std::move(made).status().at("operation '" + wanted.op->type + "', value '" +
                                       wanted.op->outputs[0].name + "'");
  }
  *wanted.value = std::move(*made);
  made_.push_back(&wanted);
  made_bytes_ += wanted.bytes;
  return {};
}

}  // namespace mil_ops
}  // namespace pome
