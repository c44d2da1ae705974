// Graph -> model.onnx and model.onnx.data, streamed: constants are read, encoded and written in
// tiles.
//
// Interface (docs/onnx.md), the names of onnxruntime-genai: inputs input_ids int64
// [batch_size, sequence_length], attention_mask int64 [batch_size, total_sequence_length],
// position_ids int64 [batch_size, sequence_length] (where the graph needs them),
// past_key_values.N.key and .value f32 [batch_size, kv_heads, past_sequence_length, head_dim];
// outputs logits f32 [batch_size, sequence_length, vocab] and present.N.key and .value. The
// explicit decode step (docs/explicit-kv.md) takes input_ids and position_ids [1, 1] and caches.
#pragma once

#include <cstdint>
#include <string>

#include "base/progress.h"
#include "base/status.h"
#include "export/report.h"
#include "graph/graph.h"

namespace pome {

struct OnnxOptions {
  // kOrt: operators of com.microsoft, which ONNX Runtime has; kPlain: ONNX's own only.
  enum class Profile : uint8_t { kOrt, kPlain } profile = Profile::kOrt;
  bool logits_only = false;  // input_ids -> logits, without caches
  bool explicit_kv = false;  // one token at a stated position; all of its caches count
  int64_t context = 0;       // positions for which tables are made
  std::string scheme;        // for the metadata
  std::string tokenizer_digest;
  std::string model_name;
};
// What a runtime must have.
struct OnnxReport {
  ExportReport exported;
  std::vector<TensorError> errors;  // of the weights, in graph order
  int64_t opset = 0;
  std::string minimum_runtime;  // the first release of ONNX Runtime whose CPU kernels are right
  bool position_ids = false;    // an input of the model
  int64_t kv_heads = 0, head_size = 0;  // of the first cache
};
inline constexpr const char* kOnnxModel = "model.onnx";
inline constexpr const char* kOnnxData = "model.onnx.data";

// Writes both files into `folder` (a staged folder of the caller).
Result<OnnxReport> export_onnx(const Graph& graph, const OnnxOptions& options,
                               const std::string& folder, const WorkContext& work);

}  // namespace pome
