// Executes a Core ML package as it lies on disk. Shares no code with the exporter.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "formats/mil.h"
#include "graph/runner.h"
#include "tensor/tensor.h"

namespace pome {

struct MilOptions {
  int threads = 1;
  bool round_f16 =
      false;  // round every fp16 value to fp16 after each op (matmuls accumulate in f32)
};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// Immutable after prepare (weights decoded once, shared by all functions); one call at a time per
// object.
class MilProgram {
 public:
  static Result<std::unique_ptr<MilProgram>> open(const std::string& package_path,
                                                  const MilOptions& options);
  static Result<std::unique_ptr<MilProgram>> create(mil::Package package,
                                                    const MilOptions& options);
  ~MilProgram();
  const mil::Model& model() const;
  std::vector<std::string> functions() const;
  // Runs one function. `states` is read and replaced (missing ones start as zeros). Errors name the
  // op.
  Result<NamedTensors> run(const std::string& function, const NamedTensors& inputs,
                           NamedTensors* states);
  // Called after each op with its name and value (for "the first value that diverges").
  void set_observer(std::function<void(const std::string&, const Tensor&)> observer);

 private:
  MilProgram();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The package as a Runner: prefill in chunks (the last one padded and masked), decode one by one,
// over the interface of docs/coreml.md. kUnsupported when the package has another interface.
Result<std::unique_ptr<Runner>> package_runner(std::shared_ptr<MilProgram> program);

}  // namespace pome
