// Integers that a checkpoint already holds, kept as they are.
#pragma once

#include <string>

#include "encoding/encoding.h"
#include "graph/constant.h"

namespace pome {

// Blocks of 32 integers with a binary16 scale, as GGUF's q4_0 and q8_0 store them, say the same as
// int4/32 and int8/32: `data` under the encoding `wished` without rounding anything. Null where it
// is not that pair. A scale that is not finite is kBadInput when read, naming the tensor `name`.
ConstantDataPtr repacked_integers(const ConstantDataPtr& data, const Encoding& wished,
                                  std::string name);

}  // namespace pome
