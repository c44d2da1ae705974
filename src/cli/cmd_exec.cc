#include <algorithm>

#include "base/io.h"
#include "cli/app.h"
#include "formats/safetensors.h"
#include "interp/mil_eval.h"
#include "interp/onnx_eval.h"
#include "verify/model.h"

namespace pome::cli {

namespace {

struct Options {
  std::string artefact, function, inputs, output, state_in, state_out;
  bool f16 = false, force = false;
};

Result<NamedTensors> read_tensors(const std::string& path) {
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(path));
  POME_ASSIGN_OR_RETURN(const SafetensorsFile file, read_safetensors(source));
  NamedTensors out;
  for (const SafetensorsEntry& entry : file.entries) {
    POME_ASSIGN_OR_RETURN(Tensor tensor, load_tensor(file, entry));
    // The interpreter computes on f32 and i32.
    if (is_float(tensor.dtype()))
      tensor = tensor.to(DType::kF32);
    else if (tensor.dtype() != DType::kBool)
      tensor = tensor.to(DType::kI32);
    out.emplace_back(entry.name, std::move(tensor));
  }
  return out;
}

Status write_tensors(const std::string& path, NamedTensors tensors, bool force) {
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(path, io::Staged::Kind::kFile, force));
  POME_RETURN_IF_ERROR(write_safetensors(staged->path(), tensors));
  return staged->commit();
}

// An ONNX model has one function and no states; its integers are int64.
Status run_onnx(App& app, const Options& options, const ArtefactPaths& paths) {
  if (!options.function.empty() || !options.state_in.empty() || !options.state_out.empty())
    return usage_error("an ONNX model has no functions and no states").in(options.artefact);
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<OnnxProgram> program,
                        OnnxProgram::open(paths.package, {app.common.threads}));
  POME_ASSIGN_OR_RETURN(NamedTensors inputs, read_tensors(options.inputs));
  for (auto& [name, tensor] : inputs)
    if (tensor.dtype() == DType::kI32) tensor = tensor.to(DType::kI64);
  POME_ASSIGN_OR_RETURN(const NamedTensors outputs, program->run(inputs));
  return write_tensors(options.output, outputs, options.force);
}

Status run(App& app, const Options& options) {
  POME_ASSIGN_OR_RETURN(const ArtefactPaths paths, require_artefact(options.artefact, "exec"));
  if (paths.is_checkpoint())
    return unsupported("a " + to_string(paths.target) + " artefact has no functions")
        .in(options.artefact)
        .hint("`pome eval --ids F --logits OUT.npy` gives its logits");
  if (paths.target == Target::kOnnx) return run_onnx(app, options, paths);
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<MilProgram> program,
                        MilProgram::open(paths.package, {app.common.threads, options.f16}));
  std::string function = options.function;
  const std::vector<std::string> functions = program->functions();
  if (function.empty()) {
    if (functions.size() != 1)
      return usage_error("the package has several functions")
          .in(options.artefact)
          .hint("choose one with --function");
    function = functions[0];
  }
  if (std::find(functions.begin(), functions.end(), function) == functions.end()) {
    std::string known;
    for (const std::string& name : functions) known += (known.empty() ? "" : ", ") + name;
    return usage_error("no function '" + function + "'")
        .in(options.artefact)
        .hint("it has: " + known);
  }
  POME_ASSIGN_OR_RETURN(const NamedTensors inputs, read_tensors(options.inputs));
  NamedTensors states;
  if (!options.state_in.empty()) {
    POME_ASSIGN_OR_RETURN(states, read_tensors(options.state_in));
  }
  POME_ASSIGN_OR_RETURN(const NamedTensors outputs, program->run(function, inputs, &states));
  POME_RETURN_IF_ERROR(write_tensors(options.output, outputs, options.force));
  if (!options.state_out.empty())
    POME_RETURN_IF_ERROR(write_tensors(options.state_out, states, options.force));
  Json shapes = Json::object();
  for (const auto& [name, tensor] : outputs) shapes[name] = tensor.shape();
  if (app.common.json) {
    app.print_json({{"function", function},
                    {"outputs", shapes},
                    {"states", states.size()},
                    {"output", options.output}});
  } else {
    for (const auto& [name, tensor] : outputs)
      app.print(name + " " + to_string(tensor.shape()) + "\n");
  }
  return {};
}

}  // namespace

void add_exec(App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_command("exec", "run one function of an exported artefact on given tensors",
                      [&app, options] { return run(app, *options); });
  command
      ->add_option("artefact", options->artefact,
                   "artefact folder, or the .mlpackage or .onnx in it")
      ->required();
  command->add_option("--function", options->function, "function (default: the only one)");
  command->add_option("--inputs", options->inputs, "safetensors file with the inputs by name")
      ->required();
  command->add_option("-o,--output", options->output, "safetensors file to write")->required();
  command->add_option("--state-in", options->state_in,
                      "safetensors file with the states (default: zeros)");
  command->add_option("--state-out", options->state_out,
                      "write the states after the call, so that calls chain");
  command->add_flag("--f16", options->f16, "round to fp16 after every op, as a device does");
  command->add_flag("--force", options->force, "replace existing outputs");
}

}  // namespace pome::cli
