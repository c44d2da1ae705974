// The parts of open_checkpoint: one function per container. For checkpoint*.cc only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/checkpoint.h"

namespace pome::checkpoint {

inline std::string in_quotes(std::string_view text) {
  return "\"" + escape_for_terminal(text, 80) + "\"";
}

// How a tensor of `dtype` is kept. Buffers that no family reads (causal masks as bool or u8,
// position ids) keep their bytes under the signed type of the same width.
EncodingKind stored_encoding(DType dtype);

Result<ByteSourcePtr> open_source(const std::string& path, const OpenOptions& options);

// "name-00002-of-00005.gguf" -> {"name", 2, 5}; nullopt for other names.
struct ShardName {
  std::string prefix;  // with folder, up to the dash
  uint32_t number = 0, count = 0;
};
std::optional<ShardName> parse_shard_name(const std::string& path, std::string_view ending);
std::string shard_path(const ShardName& name, uint32_t number, std::string_view ending);

// Adds the tensors of one file.
using AddFile = Status(Checkpoint& out, const std::string& path, const OpenOptions& options);
AddFile add_safetensors, add_pytorch;
// The tensors of several files, or of all files that an index names; names are unique over all.
Status add_files(Checkpoint& out, const std::vector<std::string>& paths, const OpenOptions& options,
                 AddFile* add_file);
Status add_index(Checkpoint& out, const std::string& index_path, const OpenOptions& options,
                 AddFile* add_file);
// One GGUF file, or all parts of a split one; fills tensors, gguf, tokenizer and warnings.
Status add_gguf(Checkpoint& out, const std::string& path, const OpenOptions& options);

// An MLC package: fills tensors and mlc.
Status add_mlc(Checkpoint& out, const std::string& folder, const OpenOptions& options);

// A failed or missing tokenizer becomes a warning unless it is needed.
Status set_tokenizer(Checkpoint& out, Result<TokenizerSource> tokenizer,
                     const OpenOptions& options);

}  // namespace pome::checkpoint
