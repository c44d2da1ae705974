// Checkpoint: a model as it lies on disk, free of any format: tensors by name, configuration,
// tokenizer parts.
//
// open_checkpoint tells the format from the content, never from the ending alone.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/byte_source.h"
#include "base/json.h"
#include "base/status.h"
#include "encoding/encoding.h"
#include "tensor/tensor.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

struct CheckpointTensor {
  std::string name;
  Shape shape;        // row-major, slowest first (GGUF dimensions are reversed on reading)
  Encoding encoding;  // plain or block
  ByteSourcePtr source;
  uint64_t offset = 0, bytes = 0;  // inside source; geometry has been checked
};

struct Checkpoint {
  std::string format;                     // "safetensors", "pytorch", "gguf", "mlc"
  std::string path;                       // what the user named
  std::vector<CheckpointTensor> tensors;  // unique names, in file order
  // Configuration as Hugging Face names it. GGUF metadata is kept as it is in `gguf` and read by
  // the families.
  Json config;             // config.json; null for GGUF
  Json generation_config;  // null when absent
  Json gguf;  // object of scalar and short array metadata ("llama.block_count": 8); null otherwise
  Json mlc;   // mlc-chat-config.json; null otherwise
  TokenizerSource tokenizer;  // model == kNone when the checkpoint has none
  std::map<std::string, std::string>
      sidecars;  // tokenizer files to copy into artefacts: name -> path
  std::vector<std::string> warnings;

  const CheckpointTensor* find(const std::string& name) const;
  // What convert wrote about the model: "pome.graph_hash" and the like; empty where it did not.
  std::map<std::string, std::string> metadata() const;
};

struct OpenOptions {
  bool strict = false;          // warnings about layout (holes, trailing bytes) become errors
  bool mapped = true;           // map files; false reads with pread only
  bool need_tokenizer = false;  // a missing or broken tokenizer is an error instead of a warning
  bool read_tokenizer = true;   // false leaves Checkpoint::tokenizer empty
  bool checksums = false;       // read everything and compare it with the checksums that files hold
};
// `path`: a folder with config.json and safetensors or PyTorch files (one file, or shards with an
// index) or an MLC package, one such file or index (its folder supplies the rest), or a GGUF file,
// of a split one any part. Git LFS pointers and HTML pages saved as weights get their own message.
Result<Checkpoint> open_checkpoint(const std::string& path, const OpenOptions& options = {});

// The tokenizer alone. `path`: what open_checkpoint takes; a folder with tokenizer files and no
// weights; or a tokenizer.json, a SentencePiece model or a tiktoken file by itself.
Result<TokenizerSource> open_tokenizer(const std::string& path, const OpenOptions& options = {});

// The tokenizer that lies in a folder, which is tokenizer.gguf in artefacts made from GGUF files.
Result<TokenizerSource> read_folder_tokenizer(const std::string& folder, const Json& config,
                                              const Json& generation_config);

}  // namespace pome
