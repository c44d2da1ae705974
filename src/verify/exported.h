// An exported model as verify, eval and run see it: a Core ML package or an ONNX model, executed by
// its interpreter. Nothing above this knows which.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/manifest.h"
#include "graph/runner.h"
#include "interp/named_tensors.h"
#include "interp/step_runner.h"
#include "tensor/tensor.h"

namespace pome {

struct ArtefactPaths {
  std::string folder;   // with manifest.json; empty for a bare model
  std::string package;  // the .mlpackage, .onnx or .gguf; of mlc the folder
  Target target = Target::kCoreml;
  // Whether it is opened as a checkpoint is; interpreters execute the others.
  bool is_checkpoint() const { return target == Target::kGguf || target == Target::kMlc; }
};

class ExportedModel {
 public:
  // Reads and checks, but decodes nothing. Not for what is opened as a checkpoint is.
  static Result<std::shared_ptr<ExportedModel>> open(const ArtefactPaths& paths);
  virtual ~ExportedModel() = default;

  virtual int64_t context() const = 0;  // positions it was made for, as it says; 0 = it does not
  // Whether it is a decode step with explicit caches, and how many places these have: 0 where they
  // grow.
  bool is_step() const;
  virtual int64_t places() const { return 0; }
  // Of one step, as declared; 0 where it is none.
  virtual uint64_t logits_bytes() const = 0;
  // "pome.graph_hash" and the like.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Makes it executable. kDoesNotFit, with an estimate, where the largest weight alone is too much
  // for this machine.
  virtual Status prepare(int threads, bool round_f16) = 0;

  // All below: after prepare().
  // Whether run-time values are rounded where the model says so (default). The graph does not round
  // them: it is held against the model without.
  virtual void round_activations(bool) {}
  // Caches of a decode step are held as `policy` says.
  virtual Result<std::unique_ptr<Runner>> runner(CachePolicy policy) = 0;
  // Bytes of decoded weights that are kept, and whether that is all of them.
  uint64_t budget() const { return budget_; }
  bool keeps_all() const { return keeps_all_; }
  // The weight that has this name in the graph, f32, in the graph's layout; not defined when there
  // is none.
  virtual Result<Tensor> weight(const std::string& graph_name) = 0;
  virtual std::optional<Shape> weight_shape(const std::string& graph_name) = 0;
  // What a value of the graph is called here.
  virtual std::string value_name(const std::string& graph_name) const = 0;

  // Ways to call it, for finding the first value that differs.
  struct Entry {
    std::string name;
    int64_t tokens = 0;  // of a call; 0 = any number
  };
  virtual std::vector<Entry> entries() const = 0;
  // One call at `position`, and every float value that it computed, in order. Position 0 starts
  // afresh; later ones follow the call before.
  virtual Result<NamedTensors> observe(const Entry& entry, std::span<const int32_t> ids,
                                       int64_t position) = 0;

 protected:
  // How many bytes of decoded weights may be kept on this machine: all of them where half of the
  // free memory has room, else a part, and the rest is decoded for each use.
  Status settle_budget(uint64_t all, uint64_t largest, const std::string& path);
  std::map<std::string, std::string> metadata_;

 private:
  uint64_t budget_ = 0;
  bool keeps_all_ = true;
};

}  // namespace pome
