// Tells what a file is that should have been weights and is not: a Git LFS pointer, a web page or
// an error message that a failed download left behind.
#pragma once

#include <string>

#include "base/byte_source.h"
#include "base/status.h"

namespace pome {

// ok when the first bytes look like nothing known; otherwise kMagic with a message of its own and a
// next step. Reads at most 512 bytes.
Status check_not_placeholder(const ByteSource& source);

// A PyTorch, ONNX, NumPy, HDF5 or Keras file by its first bytes ("a NumPy array"), empty
// when unknown.
std::string foreign_format(const ByteSource& source);

// Gives a refusal that has no hint yet the general one for a damaged model file.
Status with_file_hint(Status status);

}  // namespace pome
