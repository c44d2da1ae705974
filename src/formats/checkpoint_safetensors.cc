#include "formats/checkpoint_internal.h"
#include "formats/safetensors.h"

namespace pome::checkpoint {

Status add_safetensors(Checkpoint& out, const std::string& path, const OpenOptions& options) {
  POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_source(path, options));
  POME_ASSIGN_OR_RETURN(SafetensorsFile file, read_safetensors(std::move(source)));
  for (SafetensorsEntry& entry : file.entries) {
    out.tensors.push_back({std::move(entry.name), std::move(entry.shape),
                           Encoding::plain(stored_encoding(entry.dtype)), file.source, entry.offset,
                           entry.bytes});
  }
  return {};
}

}  // namespace pome::checkpoint
