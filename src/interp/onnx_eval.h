// Executes an ONNX model as it lies on disk. Shares no code with the exporter.
//
// Meaning of the operators: ONNX's operator specification (opsets 13 to 21) and, of com.microsoft,
// ONNX Runtime's ContribOperators.md and what its CPU kernels do (docs/onnx.md).
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "base/status.h"
#include "formats/onnx.h"
#include "graph/runner.h"
#include "interp/named_tensors.h"
#include "interp/step_runner.h"
#include "tensor/tensor.h"

namespace pome {

struct OnnxEvalOptions {
  int threads = 1;
  // What is computed from constants alone (decoded weights) is kept up to this many bytes and
  // computed for each use beyond. The results are the same.
  uint64_t constant_budget = std::numeric_limits<uint64_t>::max();
};

// One call at a time per object.
class OnnxProgram {
 public:
  static Result<std::unique_ptr<OnnxProgram>> open(const std::string& path,
                                                   const OnnxEvalOptions& options);
  // kUnsupported names an operator that this interpreter does not have.
  static Result<std::unique_ptr<OnnxProgram>> create(onnx::Package package,
                                                     const OnnxEvalOptions& options);
  ~OnnxProgram();
  const onnx::Model& model() const;
  const std::string& path() const;
  // Values have the element types that the model declares. Errors name node and value; inputs that
  // do not fit are kUsage.
  Result<NamedTensors> run(const NamedTensors& inputs);
  // The weight of this name as f32, in the layout of the graph ([N, K]), whatever its form in the
  // model: an initializer of the name, the transposed value ".T", or codes ".q4" or ".q8" with
  // ".scale" beside them. Not defined when there is none.
  Result<Tensor> weight(const std::string& name);
  // Called after each node with the name and value of every result that is not computed from
  // constants alone. Null switches it off.
  void set_observer(std::function<void(const std::string&, const Tensor&)> observer);

 private:
  OnnxProgram();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Tokens that the model says it was made for (metadata "pome.context"); 0 where it does not.
int64_t onnx_context(const onnx::Model& model);

// Bytes that all weights take as f32.
uint64_t decoded_bytes(const onnx::Package& package);

// The model as a Runner over the interface of docs/onnx.md: input_ids, and where the model has them
// attention_mask, position_ids and past_key_values.*, present.*; without caches all tokens are
// computed again in each call. A decode step with explicit caches (docs/explicit-kv.md) holds them
// as `policy` says; other models have no policy but the default. kUnsupported when the model has
// another interface.
Result<std::unique_ptr<Runner>> onnx_runner(std::shared_ptr<OnnxProgram> program,
                                            CachePolicy policy = {});

}  // namespace pome
