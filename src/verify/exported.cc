#include "verify/exported.h"

#include <algorithm>
#include <limits>
#include <map>

#include "base/memory.h"
#include "interp/mil_eval.h"
#include "interp/onnx_eval.h"

namespace pome {
namespace {

// ---- Core ML

// A graph name as an identifier of ML Programs.
std::string identifier(const std::string& name) {
  std::string out;
  for (const char c : name) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    out += plain ? c : '_';
  }
  return out;
}

uint64_t bytes_of(DType dtype, const std::vector<int64_t>& dims) {
  uint64_t count = 1;
  for (const int64_t dim : dims) count *= static_cast<uint64_t>(std::max<int64_t>(dim, 0));
  return storage_bytes(dtype, count).value_or(0);
}

bool is_constant_op(const std::string& type) {
  return type == "const" || type.rfind("constexpr_", 0) == 0;
}

// One call of a runner, and every float value that its program computes.
template <typename Program>
Result<NamedTensors> watch(Program& program, Runner& runner, std::span<const int32_t> ids) {
  NamedTensors seen;
  program.set_observer([&](const std::string& name, const Tensor& value) {
    if (value.defined() && value.dtype() == DType::kF32) seen.emplace_back(name, value.clone());
  });
  const Status status = runner.prefill(ids, LogitsOf::kNone, {});
  program.set_observer(nullptr);
  POME_RETURN_IF_ERROR(status);
  return seen;
}

class CoremlModel final : public ExportedModel {
 public:
  static Result<std::shared_ptr<ExportedModel>> read(const std::string& path) {
    POME_ASSIGN_OR_RETURN(mil::Package package, mil::read_package(path));
    if (package.model.functions.empty())
      return bad_input(Refusal::kRange, "the package has no functions").in(path);
    return std::shared_ptr<ExportedModel>(std::make_shared<CoremlModel>(std::move(package)));
  }
  explicit CoremlModel(mil::Package package) : package_(std::move(package)) {
    metadata_ = package_.model.user_metadata;
    for (const mil::NamedType& input : package_.model.functions[0].inputs)
      if (input.name == "causal_mask" && input.type.dims.size() == 4)
        context_ = std::max<int64_t>(input.type.dims[3], 0);
    if (!is_step()) return;
    places_ = context_;
    context_ = package_context(package_.model);
  }

  int64_t context() const override { return context_; }
  int64_t places() const override { return places_; }
  uint64_t logits_bytes() const override {
    const mil::Model& model = program_->model();
    for (const mil::FunctionDescription& description : model.descriptions)
      for (const mil::Feature& output : description.outputs)
        if (is_step() && output.name == "logits") return bytes_of(output.dtype, output.shape);
    return 0;
  }

  Status prepare(int threads, bool round_f16) override {
    const DecodedSize size = decoded_size(package_);
    POME_RETURN_IF_ERROR(settle_budget(size.all, size.largest, package_.path));
    POME_ASSIGN_OR_RETURN(std::unique_ptr<MilProgram> program,
                          MilProgram::create(std::move(package_), {threads, round_f16, budget()}));
    program_ = std::move(program);
    for (const mil::Operation& op : program_->model().functions[0].operations)
      if (is_constant_op(op.type) && op.outputs.size() == 1)
        shapes_[op.outputs[0].name] = op.outputs[0].type.dims;
    return {};
  }

  void round_activations(bool round) override {
    if (program_) program_->round_activations(round);
  }
  Result<std::unique_ptr<Runner>> runner(CachePolicy policy) override {
    return package_runner(program_, std::move(policy));
  }
  std::string value_name(const std::string& name) const override { return identifier(name); }
  Result<Tensor> weight(const std::string& name) override {
    return program_->constant(identifier(name));
  }
  std::optional<Shape> weight_shape(const std::string& name) override {
    const auto found = shapes_.find(identifier(name));
    return found == shapes_.end() ? std::nullopt : std::optional(found->second);
  }

  // Which function has which number of tokens a call is read from its declared inputs.
  std::vector<Entry> entries() const override {
    std::vector<Entry> out;
    if (is_step()) return {{program_->model().functions[0].name, 1}};
    for (const mil::Function& function : program_->model().functions) {
      int64_t tokens = 0, context = 0;
      for (const mil::NamedType& input : function.inputs) {
        if (input.name == "input_ids" && input.type.dims.size() == 2) tokens = input.type.dims[1];
        if (input.name == "causal_mask" && input.type.dims.size() == 4)
          context = input.type.dims[3];
      }
      if (tokens >= 1 && context == context_) out.push_back({function.name, tokens});
    }
    return out;
  }

  Result<NamedTensors> observe(const Entry& entry, std::span<const int32_t> ids,
                               int64_t position) override {
    if (is_step()) {
      if (position == 0) {
        POME_ASSIGN_OR_RETURN(observed_, package_runner(program_));
      }
      return watch(*program_, *observed_, ids);
    }
    if (position == 0) states_.clear();
    const int64_t tokens = static_cast<int64_t>(ids.size());
    NamedTensors inputs = {{"input_ids", Tensor::from_i32({1, tokens}, {ids.begin(), ids.end()})},
                           {"position", Tensor::from_i32({1}, {static_cast<int32_t>(position)})}};
    std::vector<float> mask(static_cast<size_t>(tokens * context_), -30000.0f);
    for (int64_t t = 0; t < tokens; ++t)
      std::fill_n(mask.begin() + t * context_, position + t + 1, 0.0f);
    inputs.emplace_back("causal_mask", Tensor::from_f32({1, 1, tokens, context_}, std::move(mask)));
    NamedTensors seen;
    program_->set_observer([&](const std::string& name, const Tensor& value) {
      if (value.defined() && value.dtype() == DType::kF32) seen.emplace_back(name, value.clone());
    });
    const auto ran = program_->run(entry.name, inputs, &states_);
    program_->set_observer(nullptr);
    POME_RETURN_IF_ERROR(ran.status());
    return seen;
  }

 private:
  mil::Package package_;
  int64_t context_ = 0, places_ = 0;
  std::shared_ptr<MilProgram> program_;
  std::map<std::string, Shape> shapes_;
  NamedTensors states_;
  std::unique_ptr<Runner> observed_;
};

// ---- ONNX

class OnnxModel final : public ExportedModel {
 public:
  static Result<std::shared_ptr<ExportedModel>> read(const std::string& path) {
    POME_ASSIGN_OR_RETURN(onnx::Package package, onnx::read_package(path));
    return std::shared_ptr<ExportedModel>(std::make_shared<OnnxModel>(std::move(package)));
  }
  explicit OnnxModel(onnx::Package package) : package_(std::move(package)) {
    metadata_ = package_.model.metadata;
    context_ = onnx_context(package_.model);
  }

  int64_t context() const override { return context_; }

  Status prepare(int threads, bool) override {
    uint64_t largest = 0;
    for (const onnx::TensorData& tensor : package_.model.graph.initializers)
      if (tensor.external) largest = std::max(largest, tensor.external->length);
    POME_RETURN_IF_ERROR(settle_budget(decoded_bytes(package_), largest, package_.path));
    POME_ASSIGN_OR_RETURN(std::unique_ptr<OnnxProgram> program,
                          OnnxProgram::create(std::move(package_), {threads, budget()}));
    program_ = std::move(program);
    return {};
  }

  Result<std::unique_ptr<Runner>> runner(CachePolicy policy) override {
    return onnx_runner(program_, std::move(policy));
  }
  std::string value_name(const std::string& name) const override { return name; }
  Result<Tensor> weight(const std::string& name) override { return program_->weight(name); }
  std::optional<Shape> weight_shape(const std::string& name) override {
    const auto value = program_->weight(name);
    return value.ok() && value->defined() ? std::optional(value->shape()) : std::nullopt;
  }
  std::vector<Entry> entries() const override { return {{"model", is_step() ? 1 : 0}}; }
  uint64_t logits_bytes() const override {
    for (const onnx::ValueInfo& output : program_->model().graph.outputs) {
      if (!is_step() || output.name != "logits") continue;
      std::vector<int64_t> dims;
      for (const onnx::Dimension& dim : output.dims) dims.push_back(dim.size);
      return bytes_of(output.dtype, dims);
    }
    return 0;
  }

  Result<NamedTensors> observe(const Entry&, std::span<const int32_t> ids,
                               int64_t position) override {
    if (position == 0) {
      POME_ASSIGN_OR_RETURN(observed_, onnx_runner(program_));
    }
    return watch(*program_, *observed_, ids);
  }

 private:
  onnx::Package package_;
  int64_t context_ = 0;
  std::shared_ptr<OnnxProgram> program_;
  std::unique_ptr<Runner> observed_;
};

}  // namespace

Result<std::shared_ptr<ExportedModel>> ExportedModel::open(const ArtefactPaths& paths) {
  switch (paths.target) {
    case Target::kCoreml:
      return CoremlModel::read(paths.package);
    case Target::kOnnx:
      return OnnxModel::read(paths.package);
    case Target::kGguf:
    case Target::kMlc:
      break;
  }
  return unsupported("a " + to_string(paths.target) + " artefact is opened as a checkpoint is")
      .in(paths.package);
}

bool ExportedModel::is_step() const {
  const auto form = metadata_.find("pome.kv");
  return form != metadata_.end() && form->second == "explicit";
}

Status ExportedModel::settle_budget(uint64_t all, uint64_t largest, const std::string& path) {
  const uint64_t available = available_memory();
  budget_ = std::numeric_limits<uint64_t>::max();
  keeps_all_ = all <= available / 2;
  if (keeps_all_) return {};
  // The largest weight as codes, as floats, and once more for who compares.
  const uint64_t least = 3 * largest;
  if (least > available)
    return does_not_fit("executing this package needs at least " + std::to_string(least) +
                        " bytes of memory, " + std::to_string(available) + " are available")
        .in(path)
        .hint("close other programs; `pome verify` without --against checks the files alone");
  budget_ = (available - least) / 4;
  return {};
}

}  // namespace pome
