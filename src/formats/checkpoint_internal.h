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

Result<ByteSourcePtr> open_source(const std::string& path, const OpenOptions& options);

// "name-00002-of-00005.gguf" -> {"name", 2, 5}; nullopt for other names.
struct ShardName {
  std::string prefix;  // with folder, up to the dash
  uint32_t number = 0, count = 0;
};
std::optional<ShardName> parse_shard_name(const std::string& path, std::string_view ending);
std::string shard_path(const ShardName& name, uint32_t number, std::string_view ending);

// Adds the tensors of one file, several files, or all files that an index names.
Status add_safetensors(Checkpoint& out, const std::vector<std::string>& paths,
                       const OpenOptions& options);
Status add_safetensors_index(Checkpoint& out, const std::string& index_path,
                             const OpenOptions& options);
// One GGUF file, or all parts of a split one; fills tensors, gguf, tokenizer and warnings.
Status add_gguf(Checkpoint& out, const std::string& path, const OpenOptions& options);

// A failed or missing tokenizer becomes a warning unless it is needed.
Status set_tokenizer(Checkpoint& out, Result<TokenizerSource> tokenizer,
                     const OpenOptions& options);

}  // namespace pome::checkpoint
