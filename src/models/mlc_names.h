// How MLC's own model definitions name and fuse the weights of a family: the one table for writing
// and for reading, by the names of the graph.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "graph/mlc_place.h"

namespace pome {

// MLC's model_type for a family ("llama" -> "llama"); empty: MLC has no model of it.
std::string_view mlc_model_type(std::string_view family);
// The families it has, for messages.
std::string mlc_families();
// Where the weight called `name` in the graph ("layers.0.attention.q.weight") lies. An empty name:
// MLC's model has no such parameter. `info`: sizes of the model.
MlcPlace mlc_place(const ModelInfo& info, const std::string& name, const Shape& shape);

// A parameter of MLC's model that holds the same as a constant of the graph, which has another name
// there: its head where the graph shares the embedding.
struct MlcExtra {
  size_t constant = 0;  // of the graph
  MlcPlace place;
};
std::vector<MlcExtra> mlc_extra_parameters(const Graph& graph);
// Whether a tensor of a package is one of those, which readers leave out.
bool is_mlc_extra(const ModelInfo& info, std::string_view tensor);

}  // namespace pome
