// What MLC is told of a model beside its weights, and what its own definition of the family leaves
// out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "formats/checkpoint.h"
#include "graph/graph.h"

namespace pome {

struct MlcModel {
  std::string model_type;  // "llama"
  Json model_config;       // the fields of MLC's configuration class
  // The configuration under Hugging Face's names, from which the graph of the package is built.
  Json config;
  int64_t context = 0;  // positions; fewer than asked for where the family has fewer in MLC
  std::vector<std::string> warnings;  // what MLC computes otherwise
};
// `context`: positions asked for; `chunk`: tokens of a prefill call. kUnsupported names the family
// that MLC does not have, or what its definition of the family cannot say.
Result<MlcModel> describe_for_mlc(const Checkpoint& checkpoint, const Graph& graph, int64_t context,
                                  int64_t chunk);
// The configuration of a checkpoint under Hugging Face's names, without what is said of stored
// weights; put together from what was read where the checkpoint is a GGUF file. kUnsupported names
// what of such a file has no name there.
Result<Json> hf_config_of(const Checkpoint& checkpoint, const Graph& graph);
// A configuration under Hugging Face's names from mlc-chat-config.json, for packages that come
// without config.json.
Json config_from_mlc(const Json& chat_config);

}  // namespace pome
