// What the caches of an explicit decode step are called (docs/explicit-kv.md): caches of latents
// k_lat_0, v_lat_0 -> nk_lat_0, nv_lat_0; others past_key_values.0.key -> present.0.key. Private to
// export.
#pragma once

#include <string>

#include "graph/graph.h"

namespace pome {

struct CacheNames {
  std::string past, present;  // input and output
};
CacheNames cache_names(const Graph& graph, const CachePair& pair);
// The second form, whatever the caches hold: the names of onnxruntime-genai.
CacheNames layer_cache_names(const CachePair& pair);

}  // namespace pome
