// From a checkpoint to the one graph. Nothing outside this module knows a family's name.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "graph/graph.h"

namespace pome {

struct BuildOptions {
  // Positions that the graph will be used for; 0 = min(max_position_embeddings, 4096). Models with
  // a short and a long set of rope factors take the long one when this is more than their original
  // context, as transformers does by the length of the text; those whose rope is scaled dynamically
  // are made for more than max_position_embeddings, up to `factor` times as many.
  int64_t context = 0;
};

// Builds the graph of any supported family. Errors list every missing, unused and wrongly shaped
// tensor at once; a configuration that asks for something unsupported is kUnsupported and names it.
Result<Graph> build_graph(const Checkpoint& checkpoint, const BuildOptions& options = {});
std::vector<std::string> supported_families();
// A graph constant that reads a stored tensor as it is.
ConstantDataPtr stored_constant(const CheckpointTensor& tensor);
// Config values of a Hugging Face or GGUF checkpoint, before any weight is looked at.
Result<ModelInfo> read_model_info(const Checkpoint& checkpoint, const BuildOptions& options = {});

// Positions that the file was made for, where it says so beside the configuration of the model; 0.
int64_t stated_context(const Checkpoint& checkpoint);

}  // namespace pome
