#include "export/cache_names.h"

namespace pome {

CacheNames cache_names(const Graph& graph, const CachePair& pair) {
  if (!graph.info.config.contains("kv_latent_dim")) return layer_cache_names(pair);
  const bool key = pair.kind == CachePair::Kind::kKey;
  const std::string name = (key ? "k_lat_" : "v_lat_") + std::to_string(pair.layer);
  return {name, "n" + name};
}

CacheNames layer_cache_names(const CachePair& pair) {
  const bool key = pair.kind == CachePair::Kind::kKey;
  const std::string tail = std::to_string(pair.layer) + (key ? ".key" : ".value");
  return {"past_key_values." + tail, "present." + tail};
}

}  // namespace pome
