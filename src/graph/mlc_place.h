// Where a weight lies in a package of MLC (docs/mlc.md): families' names say it, exporters need no
// family.
#pragma once

#include <cstdint>
#include <string>

namespace pome {

// The tensor of a package that a weight is or is a part of.
struct MlcPlace {
  std::string name;                 // "model.layers.0.self_attn.qkv_proj.weight"; empty: none
  int64_t first_row = 0, rows = 0;  // rows > 0: a part of that many rows, of each expert
  bool grouped = false;             // stored in groups of integers by schemes that have them
  bool wide = false;                // f32 whatever the scheme
};

}  // namespace pome
