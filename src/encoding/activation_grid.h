// A grid of eight bits for a value that is computed: numbers scale * (code - zero_point).
#pragma once

#include <cstdint>

namespace pome {

struct ActivationGrid {
  float scale = 1;         // a binary16 value
  int32_t zero_point = 0;  // of codes 0 .. 255 when affine
  bool is_affine = false;  // else codes -128 .. 127 around zero
  friend bool operator==(const ActivationGrid&, const ActivationGrid&) = default;
};

}  // namespace pome
