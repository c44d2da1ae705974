// How much memory this process may still take.
#pragma once

#include <cstdint>

namespace pome {

// What the machine, and the control group where there is one, has left: memory that would be freed
// for the asking counts as free. An estimate to refuse by, before the system kills; the largest
// number where the system does not say.
uint64_t available_memory();

}  // namespace pome
