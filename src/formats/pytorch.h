// Checkpoints of torch.save: a stored zip archive with a pickle that describes the tensors
// (ROOT/data.pkl) and one entry for the bytes of each storage (ROOT/data/KEY).
//
// The pickle is read as data (pickle.h) against an exact list of names; nothing in it is executed.
// Tensors are not read: each is a place in a ByteSource, after its geometry has been checked.
// Source: torch/serialization.py and torch/_utils.py describe what is written; docs/pytorch.md says
// what is read.
#pragma once

#include <string>
#include <vector>

#include "base/byte_source.h"
#include "base/status.h"
#include "formats/zip.h"
#include "tensor/tensor.h"

namespace pome {

struct PytorchTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  // Elements in row-major order. The source is the file itself for a tensor that lies so, else a
  // view that gathers them; tensors may share bytes.
  ByteSourcePtr source;
  uint64_t offset = 0, bytes = 0;
};
struct PytorchFile {
  ZipFile archive;
  std::vector<PytorchTensor> tensors;  // unique names, in the order of the dictionary
  std::vector<std::string> warnings;
};
// Refusals: those of read_zip and read_pickle, and kMagic, kVersion, kPath, kDup, kType, kRange,
// kOverflow, kBounds for what they mean; kUnsupported for TorchScript, big-endian and quantised
// files and the forms that torch wrote before version 1.6.
Result<PytorchFile> read_pytorch(ByteSourcePtr source);

// Reads the whole archive and compares every entry with its checksum.
Status check_checksums(const PytorchFile& file);

// Whether the first bytes are those of any file of torch.save, also of a form that is refused.
bool looks_like_pytorch(const ByteSource& source);

}  // namespace pome
