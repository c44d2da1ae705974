#include "interp/onnx_eval.h"

#include <algorithm>
#include <unordered_map>

#include "interp/onnx_ops.h"
#include "refops/refops.h"

namespace pome {

namespace onnx_ops {

const onnx::Attribute* Call::find(std::string_view name) const {
  for (const onnx::Attribute& attribute : node_.attributes)
    if (attribute.name == name) return &attribute;
  return nullptr;
}
int64_t Call::integer(std::string_view name, int64_t fallback) const {
  const onnx::Attribute* found = find(name);
  const auto* value = found == nullptr ? nullptr : std::get_if<int64_t>(&found->value);
  return value == nullptr ? fallback : *value;
}
double Call::number(std::string_view name, double fallback) const {
  const onnx::Attribute* found = find(name);
  const auto* value = found == nullptr ? nullptr : std::get_if<float>(&found->value);
  return value == nullptr ? fallback : static_cast<double>(*value);
}
std::string Call::text(std::string_view name, std::string fallback) const {
  const onnx::Attribute* found = find(name);
  const auto* value = found == nullptr ? nullptr : std::get_if<std::string>(&found->value);
  return value == nullptr ? std::move(fallback) : *value;
}
std::optional<std::vector<int64_t>> Call::integers(std::string_view name) const {
  const onnx::Attribute* found = find(name);
  const auto* value = found == nullptr ? nullptr : std::get_if<std::vector<int64_t>>(&found->value);
  return value == nullptr ? std::nullopt : std::optional(*value);
}
Result<size_t> Call::axis(int64_t value, int64_t rank) const {
  if (value < -rank || value >= rank)
    return bad_operand(
        0, "has no axis " + std::to_string(value) + ", its rank is " + std::to_string(rank));
  return static_cast<size_t>(value < 0 ? value + rank : value);
}
Result<Tensor> Call::floats(size_t i) const {
  const DType dtype = inputs_[i].dtype();
  if (dtype == DType::kF32) return inputs_[i];
  if (!is_float(dtype))
    return bad_operand(i, "is " + std::string(to_string(dtype)) + ", expected floats");
  return inputs_[i].to(DType::kF32);
}
Result<std::vector<int64_t>> Call::ints(size_t i) const {
  const DType dtype = inputs_[i].dtype();
  if (dtype != DType::kI64 && dtype != DType::kI32)
    return bad_operand(i, "is " + std::string(to_string(dtype)) + ", expected int64 or int32");
  const Tensor wide = inputs_[i].to(DType::kI64);
  const auto values = wide.as<int64_t>();
  return std::vector<int64_t>(values.begin(), values.end());
}

Status bad_operand(size_t index, const std::string& problem) {
  return bad_input(Refusal::kRange, "input " + std::to_string(index) + " " + problem);
}
Status bad_shapes(const Shape& x, const Shape& y) {
  return bad_input(Refusal::kRange,
                   "shapes " + to_string(x) + " and " + to_string(y) + " do not fit together");
}
Tensor rounded_to(const Tensor& value, DType dtype) {
  return dtype == DType::kF32 ? value : value.to(dtype);
}

namespace {
const OpSpec* find_op(const onnx::Node& node) {
  for (const auto table :
       {elementwise_ops(), shape_ops(), math_ops(), contrib_ops(), expert_ops(), attention_ops()})
    for (const OpSpec& spec : table)
      if (spec.name == node.op_type && spec.domain == node.domain) return &spec;
  return nullptr;
}
}  // namespace

}  // namespace onnx_ops

using onnx_ops::Call;
using onnx_ops::OpSpec;

struct OnnxProgram::Impl {
  struct Step {
    const onnx::Node* node = nullptr;
    const OpSpec* spec = nullptr;
    std::vector<int> inputs, outputs;  // slots; -1: absent
    std::vector<int> dead;             // slots that nobody reads afterwards
    bool folded = false;               // computed from constants, and kept
    bool constant = false;             // computed from constants
    Tensor kept;
  };
  struct Outside {
    std::string name;
    int slot = -1;
    const onnx::ValueInfo* info = nullptr;
  };

  Impl(onnx::Package p, const OnnxEvalOptions& o)
      : package(std::move(p)), options(o), pool(o.threads) {}
  Status prepare();
  Status fold();
  Status execute(Step& step, std::vector<Tensor>& values);
  Result<NamedTensors> run(const NamedTensors& inputs);
  Status bind(const NamedTensors& inputs, std::vector<Tensor>& values) const;
  int slot_of(const std::string& name) const {
    const auto found = slots.find(name);
    return found == slots.end() ? -1 : found->second;
  }

  onnx::Package package;
  OnnxEvalOptions options;
  ThreadPool pool;
  std::vector<Step> steps;
  std::unordered_map<std::string, int> slots;
  std::vector<Tensor> constants;  // by slot: initializers and folded values
  std::vector<bool> is_constant;  // by slot, whether kept or not
  std::vector<Outside> inputs, outputs;
  uint64_t kept_bytes = 0;
  std::function<void(const std::string&, const Tensor&)> observer;
};

Status OnnxProgram::Impl::prepare() {
  const onnx::Graph& graph = package.model.graph;
  const auto slot = [&](const std::string& name) {
    return slots.try_emplace(name, static_cast<int>(slots.size())).first->second;
  };
  for (const onnx::TensorData& tensor : graph.initializers) {
    const size_t at = static_cast<size_t>(slot(tensor.name));
    constants.resize(at + 1);
    POME_ASSIGN_OR_RETURN(constants[at], read_tensor(package, tensor));
  }
  is_constant.assign(constants.size(), true);
  for (const onnx::ValueInfo& input : graph.inputs)
    if (slots.count(input.name) == 0) inputs.push_back({input.name, slot(input.name), &input});
  for (const onnx::Node& node : graph.nodes) {
    Step step;
    step.node = &node;
    step.spec = onnx_ops::find_op(node);
    if (step.spec == nullptr)
      return unsupported("the operator " + (node.domain.empty() ? "" : node.domain + ".") +
                         node.op_type + " is not known to this interpreter")
          .at("node " + node.name);
    if (node.inputs.size() < step.spec->required || node.inputs.size() > step.spec->most)
      return bad_input(Refusal::kRange,
                       node.op_type + " with " + std::to_string(node.inputs.size()) + " inputs")
          .at("node " + node.name);
    step.constant = true;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const int from = node.inputs[i].empty() ? -1 : slot(node.inputs[i]);
      if (from < 0 && i < step.spec->required)
        return onnx_ops::bad_operand(i, "is missing").at("node " + node.name);
      step.inputs.push_back(from);
      if (from >= 0 && (static_cast<size_t>(from) >= is_constant.size() ||
                        !is_constant[static_cast<size_t>(from)]))
        step.constant = false;
    }
    for (const std::string& output : node.outputs) {
      step.outputs.push_back(output.empty() ? -1 : slot(output));
      if (output.empty()) continue;
      is_constant.resize(slots.size(), false);
      is_constant[static_cast<size_t>(slots[output])] = step.constant;
    }
    is_constant.resize(slots.size(), false);
    steps.push_back(std::move(step));
  }
  constants.resize(slots.size());
  for (const onnx::ValueInfo& output : graph.outputs)
    outputs.push_back({output.name, slot_of(output.name), &output});
  return fold();
}

// What follows from constants alone is computed once, while the budget lasts; and each value is
// dropped behind the last node that reads it.
Status OnnxProgram::Impl::fold() {
  std::vector<int> last(slots.size(), -1);
  for (size_t i = 0; i < steps.size(); ++i)
    for (const int slot : steps[i].inputs)
      if (slot >= 0) last[static_cast<size_t>(slot)] = static_cast<int>(i);
  for (const Outside& output : outputs) last[static_cast<size_t>(output.slot)] = -1;
  for (size_t slot = 0; slot < last.size(); ++slot)
    if (last[slot] >= 0 && !constants[slot].defined())
      steps[static_cast<size_t>(last[slot])].dead.push_back(static_cast<int>(slot));

  std::vector<bool> needed(slots.size(), false);  // by a node that is no constant
  for (const Step& step : steps)
    for (const int slot : step.inputs)
      if (slot >= 0 && !step.constant) needed[static_cast<size_t>(slot)] = true;
  for (const Outside& output : outputs) needed[static_cast<size_t>(output.slot)] = true;
  std::vector<Tensor> values = constants;
  for (Step& step : steps) {
    if (!step.constant) continue;
    const bool ready = std::all_of(step.inputs.begin(), step.inputs.end(), [&](int slot) {
      return slot < 0 || values[static_cast<size_t>(slot)].defined();
    });
    if (!ready || kept_bytes > options.constant_budget) continue;
    POME_RETURN_IF_ERROR(execute(step, values));
    uint64_t size = 0;
    for (const int slot : step.outputs)
      if (slot >= 0 && needed[static_cast<size_t>(slot)])
        size += values[static_cast<size_t>(slot)].bytes().size();
    kept_bytes += size;
    if (kept_bytes > options.constant_budget) {
      for (const int slot : step.outputs)
        if (slot >= 0) values[static_cast<size_t>(slot)] = Tensor();
      break;
    }
    step.folded = true;
    for (const int slot : step.outputs)
      if (slot >= 0) constants[static_cast<size_t>(slot)] = values[static_cast<size_t>(slot)];
  }
  // Steps on the way to a value that is kept need not keep their own; steps that were not folded
  // read those that were, so these stay.
  const bool all = std::all_of(steps.begin(), steps.end(),
                               [](const Step& step) { return !step.constant || step.folded; });
  for (const Step& step : steps)
    for (const int slot : step.outputs)
      if (all && step.folded && slot >= 0 && !needed[static_cast<size_t>(slot)])
        constants[static_cast<size_t>(slot)] = Tensor();
  for (Step& step : steps)
    std::erase_if(step.dead,
                  [&](int slot) { return constants[static_cast<size_t>(slot)].defined(); });
  return {};
}

Status OnnxProgram::Impl::execute(Step& step, std::vector<Tensor>& values) {
  std::vector<Tensor> in;
  for (const int slot : step.inputs)
    in.push_back(slot < 0 ? Tensor() : values[static_cast<size_t>(slot)]);
  const bool kept_before = step.kept.defined();
  const int64_t opset = package.model.opsets.at("");
  Call call(*step.node, opset, std::move(in), &pool, &step.kept);
  Status status = step.spec->handler(call);
  if (!status.ok())
    return std::move(status)
        .at("node " + step.node->name + " (" + step.node->op_type + ")")
        .in(package.path);
  if (!kept_before && step.kept.defined()) {
    const uint64_t size = step.kept.bytes().size();
    if (kept_bytes + size > options.constant_budget)
      step.kept = Tensor();
    else
      kept_bytes += size;
  }
  for (size_t i = 0; i < step.outputs.size(); ++i) {
    if (step.outputs[i] < 0) continue;
    if (i >= call.results().size() || !call.results()[i].defined())
      return unsupported("output " + std::to_string(i) + " is not computed")
          .at("node " + step.node->name + " (" + step.node->op_type + ")")
          .in(package.path);
    values[static_cast<size_t>(step.outputs[i])] = std::move(call.results()[i]);
  }
  return {};
}

Status OnnxProgram::Impl::bind(const NamedTensors& given, std::vector<Tensor>& values) const {
  for (const Outside& input : inputs) {
    const auto found = std::find_if(given.begin(), given.end(),
                                    [&](const auto& entry) { return entry.first == input.name; });
    if (found == given.end() || !found->second.defined())
      return usage_error("input '" + input.name + "' is missing");
    const Tensor& tensor = found->second;
    bool fits =
        tensor.dtype() == input.info->dtype && tensor.shape().size() == input.info->dims.size();
    for (size_t i = 0; fits && i < tensor.shape().size(); ++i)
      fits = input.info->dims[i].size < 0 || input.info->dims[i].size == tensor.shape()[i];
    if (!fits)
      return usage_error("input '" + input.name + "' does not take " +
                         std::string(to_string(tensor.dtype())) + " " + to_string(tensor.shape()));
    values[static_cast<size_t>(input.slot)] = tensor;
  }
  for (const auto& [name, tensor] : given)
    if (std::none_of(inputs.begin(), inputs.end(),
                     [&, &wanted = name](const Outside& input) { return input.name == wanted; }))
      return usage_error("the model has no input '" + name + "'");
  return {};
}

Result<NamedTensors> OnnxProgram::Impl::run(const NamedTensors& given) {
  std::vector<Tensor> values = constants;
  POME_RETURN_IF_ERROR(bind(given, values));
  for (Step& step : steps) {
    if (!step.folded) {
      POME_RETURN_IF_ERROR(execute(step, values));
      for (size_t i = 0; observer && !step.constant && i < step.outputs.size(); ++i)
        if (step.outputs[i] >= 0)
          observer(step.node->outputs[i], values[static_cast<size_t>(step.outputs[i])]);
    }
    for (const int slot : step.dead) values[static_cast<size_t>(slot)] = Tensor();
  }
  NamedTensors out;
  for (const Outside& output : outputs)
    out.emplace_back(output.name, values[static_cast<size_t>(output.slot)]);
  return out;
}

OnnxProgram::OnnxProgram() = default;
OnnxProgram::~OnnxProgram() = default;

Result<std::unique_ptr<OnnxProgram>> OnnxProgram::open(const std::string& path,
                                                       const OnnxEvalOptions& options) {
  POME_ASSIGN_OR_RETURN(onnx::Package package, onnx::read_package(path));
  return create(std::move(package), options);
}

Result<std::unique_ptr<OnnxProgram>> OnnxProgram::create(onnx::Package package,
                                                         const OnnxEvalOptions& options) {
  if (options.threads < 1) return usage_error("the number of threads must be at least 1");
  std::unique_ptr<OnnxProgram> program(new OnnxProgram());
  program->impl_ = std::make_unique<Impl>(std::move(package), options);
  Status status = program->impl_->prepare();
  if (!status.ok()) return std::move(status).in(program->impl_->package.path);
  return program;
}

const onnx::Model& OnnxProgram::model() const { return impl_->package.model; }
const std::string& OnnxProgram::path() const { return impl_->package.path; }

Result<NamedTensors> OnnxProgram::run(const NamedTensors& inputs) { return impl_->run(inputs); }

void OnnxProgram::set_observer(std::function<void(const std::string&, const Tensor&)> observer) {
  impl_->observer = std::move(observer);
}

Result<Tensor> OnnxProgram::weight(const std::string& name) {
  const Impl& impl = *impl_;
  const auto value = [&](const std::string& wanted) {
    const int slot = impl.slot_of(wanted);
    return slot < 0 ? Tensor() : impl.constants[static_cast<size_t>(slot)];
  };
  if (const Tensor plain = value(name); plain.defined() && is_float(plain.dtype()))
    return plain.to(DType::kF32);
  for (const int bits : {4, 8}) {
    const std::string stem = name + (bits == 4 ? ".q4" : ".q8");
    Tensor codes = value(stem);
    for (const char* view : {".blocks", ".experts"})
      if (!codes.defined()) codes = value(stem + view);
    const Tensor scales = value(name + ".scale");
    if (!codes.defined() || !scales.defined() || scales.rank() < 1) continue;
    const int64_t count = static_cast<int64_t>(codes.bytes().size()) * 8 / bits;
    const int64_t rows = scales.count() / std::max<int64_t>(scales.dim(-1), 1);
    if (rows == 0 || count % scales.count() != 0) continue;
    const int64_t block = count / scales.count();
    const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(codes.bytes().data()),
                                         codes.bytes().size());
    Shape shape = scales.shape();
    shape.back() = count / rows;
    const Tensor minima = value(name + ".min");
    if (!minima.defined() || minima.shape() != scales.shape())
      return onnx_ops::dequantize_blocks(bytes, scales.f32(), nullptr, bits, rows, count / rows,
                                         block)
          .reshaped(std::move(shape));
    const Tensor zeros = Tensor::zeros(DType::kF32, scales.shape());
    Tensor out =
        onnx_ops::dequantize_blocks(bytes, scales.f32(), &zeros, bits, rows, count / rows, block);
    auto weights = out.mutable_as<float>();
    for (size_t i = 0; i < weights.size(); ++i)
      weights[i] += minima.f32()[i / static_cast<size_t>(block)];
    return out.reshaped(std::move(shape));
  }
  // Two weights whose rows take turns: <first>|<second>.q4.
  for (const onnx::TensorData& tensor : impl.package.model.graph.initializers) {
    const std::string& both = tensor.name;
    const size_t bar = both.find('|');
    if (bar == std::string::npos || !both.ends_with(".q4")) continue;
    const std::string stem = both.substr(0, both.size() - 3);
    const bool second = stem.substr(bar + 1) == name;
    if (!second && stem.substr(0, bar) != name) continue;
    POME_ASSIGN_OR_RETURN(const Tensor all, weight(stem));
    if (!all.defined() || all.rank() != 3) continue;
    const std::vector<int64_t> begin = {0, second ? 1 : 0, 0}, step = {1, 2, 1};
    return refops::slice(all, begin, all.shape(), step);
  }
  const std::string turned = name + ".T";
  const auto step = std::find_if(impl.steps.begin(), impl.steps.end(), [&](const Impl::Step& s) {
    return s.constant && s.node->outputs.front() == turned;
  });
  Tensor matrix = value(turned);
  if (!matrix.defined() && step != impl.steps.end()) {
    std::vector<Tensor> values = impl.constants;
    for (Impl::Step& s : impl_->steps) {
      if (!s.constant || s.folded) continue;
      const bool of_this = s.node->outputs.front().starts_with(turned);
      if (of_this) POME_RETURN_IF_ERROR(impl_->execute(s, values));
    }
    matrix = values[static_cast<size_t>(impl.slot_of(turned))];
  }
  if (!matrix.defined() || matrix.rank() < 2) return Tensor();
  std::vector<int32_t> order;
  for (int64_t i = 0; i < matrix.rank(); ++i) order.push_back(static_cast<int32_t>(i));
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return refops::transpose(matrix, order);
}

uint64_t decoded_bytes(const onnx::Package& package) {
  uint64_t bytes = 0;
  for (const onnx::TensorData& tensor : package.model.graph.initializers) {
    uint64_t count = 1;
    for (const int64_t dim : tensor.dims) count *= static_cast<uint64_t>(dim);
    // Two codes of four bits lie in a byte of MatMulNBits.
    const bool packed = tensor.dtype == DType::kU8;
    bytes += count * (packed ? 8 : 4);
  }
  return bytes;
}

}  // namespace pome
