#include "formats/checkpoint_internal.h"
#include "formats/pytorch.h"

namespace pome::checkpoint {

Status add_pytorch(Checkpoint& out, const std::string& path, const OpenOptions& options) {
  POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_source(path, options));
  POME_ASSIGN_OR_RETURN(PytorchFile file, read_pytorch(std::move(source)));
  if (options.checksums) POME_RETURN_IF_ERROR(check_checksums(file));
  for (PytorchTensor& tensor : file.tensors) {
    out.tensors.push_back({std::move(tensor.name), std::move(tensor.shape),
                           Encoding::plain(stored_encoding(tensor.dtype)), std::move(tensor.source),
                           tensor.offset, tensor.bytes});
  }
  for (std::string& warning : file.warnings) out.warnings.push_back(path + ": " + warning);
  return {};
}

}  // namespace pome::checkpoint
