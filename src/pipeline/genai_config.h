// genai_config.json: what onnxruntime-genai reads beside an ONNX model.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "export/onnx.h"
#include "graph/graph.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// The smallest set of keys: a runtime refuses a file with a key that it does not know.
// `generation_config`: null or what the checkpoint says about sampling.
Json genai_config(const ModelInfo& info, const OnnxReport& report, const TokenizerSource& tokenizer,
                  const Json& generation_config, int64_t context);

}  // namespace pome
