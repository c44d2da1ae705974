// The two kinds of output. Both stage the result and let it appear under its name when complete.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "shapes.h"
#include "types.h"

namespace pome::random_model {

struct OutputOptions {
  std::string path;
  TypeChoice type;
  uint64_t seed = 1;
  bool force = false;
  uint64_t shard_bytes = 5'000'000'000;  // Hugging Face folder only
  std::string tokenizer_folder;          // same; empty for none
};

// A folder with config.json, model.safetensors (or shards and their index) and, if given, the
// tokenizer's files. Returns the bytes of all weights.
Result<uint64_t> write_hf_folder(const ModelShape& model, Json config,
                                 const OutputOptions& options);
// One file as llama.cpp reads it, with a byte-level tokenizer of vocab_size tokens.
Result<uint64_t> write_gguf_file(const ModelShape& model, const OutputOptions& options);

}  // namespace pome::random_model
