// Tensors by name: what interpreters take and give.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace pome {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

}  // namespace pome
