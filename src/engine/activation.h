// The map kernel of an activation.
#pragma once

#include "graph/graph.h"
#include "kernels/elementwise/elementwise.h"

namespace pome {

kernels::MapKernel choose_activation(Isa isa, Activation activation);

}  // namespace pome
