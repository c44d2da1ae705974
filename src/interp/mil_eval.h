// Executes a Core ML package as it lies on disk. Shares no code with the exporter.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "formats/mil.h"
#include "graph/runner.h"
#include "interp/named_tensors.h"
#include "interp/step_runner.h"
#include "tensor/tensor.h"

namespace pome {

struct MilOptions {
  int threads = 1;
  bool round_f16 =
      false;  // round every fp16 value to fp16 after each op (matmuls accumulate in f32)
  // Decoded weights are kept up to this many bytes; where a package has more, the large ones are
  // decoded when an operation needs them and the longest unused are dropped. The results are the
  // same.
  uint64_t constant_budget = std::numeric_limits<uint64_t>::max();
};

// Weights are decoded once, or within a budget, and shared by all functions; one call at a time per
// object.
// What decoding the weights of a package takes.
struct DecodedSize {
  uint64_t all = 0, largest = 0;  // bytes
};
DecodedSize decoded_size(const mil::Package& package);

class MilProgram {
 public:
  static Result<std::unique_ptr<MilProgram>> open(const std::string& package_path,
                                                  const MilOptions& options);
  static Result<std::unique_ptr<MilProgram>> create(mil::Package package,
                                                    const MilOptions& options);
  ~MilProgram();
  const mil::Model& model() const;
  std::vector<std::string> functions() const;
  // The constant that this operation (const or constexpr) of any function gives out, decoded; a
  // tensor that is not defined when there is none.
  Result<Tensor> constant(const std::string& name);
  // Runs one function. Values travel as f32 (all float types), i32 (all integers) or bool; an fp16
  // input may also be given as f16. `states` is read and replaced (missing ones start as zeros;
  // null when the function has none or they do not matter); states that the function does not have
  // are left alone. Caches are updated in place, so a state that the caller shares is copied first,
  // and after an error the states are gone. Errors name function, operation and value; inputs that
  // do not fit are kUsage.
  Result<NamedTensors> run(const std::string& function, const NamedTensors& inputs,
                           NamedTensors* states);
  // Called after each op with its name and value (for "the first value that diverges"); constants
  // are not announced. Who keeps a value makes later updates of it copy. Null switches it off.
  void set_observer(std::function<void(const std::string&, const Tensor&)> observer);
  // Whether run-time values are rounded where the package says so (default). Otherwise `quantize`
  // hands its input on, and so does a `dequantize` behind it: what the package computes apart from
  // that rounding.
  void round_activations(bool round);

 private:
  MilProgram();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The package as a Runner: prefill in chunks (the last one padded and masked), decode one by one,
// over the interface of docs/coreml.md: input_ids int32 [1, T], position int32 [1], causal_mask
// float [1, 1, T, L], logits [1, T, vocab_size]. Functions and their inputs are recognised by these
// shapes; T = 1 decodes, the largest T prefills, one function may do both. A prefill chunk that
// would run past L is decoded token by token, or, without a function for that, moved back over
// tokens already seen. A run that fails empties the context. A decode step with explicit caches
// (docs/explicit-kv.md) holds them as `policy` says; others have no policy but the default.
// kUnsupported when the package has another interface.
Result<std::unique_ptr<Runner>> package_runner(std::shared_ptr<MilProgram> program,
                                               CachePolicy policy = {});

// Tokens that the package says it was made for (metadata "pome.context"); 0 where it does not.
int64_t package_context(const mil::Model& model);

}  // namespace pome
