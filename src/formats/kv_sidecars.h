// Sidecars of a decode step with explicit caches (docs/explicit-kv.md): how an app holds the caches
// between calls, and what the whole takes.
//
//   model.kvq.json                 how values are stored
//   model.kv_paging.json           how many tokens stay
//   mobile_packager_summary.json   bytes of weights and caches
//
// The field names are those that are in use; readers take "group" for "group_size", and files
// without a schema. Unknown fields are ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace pome {

struct KvQuantization {
  std::string scheme;  // "u8" or "nf4"
  int64_t group_size = 64;
  std::vector<double> codebook;  // levels of the codes, of nf4; empty where a file has none
};
struct KvPaging {
  bool paged = true;
  int64_t page_len = 256, max_pages = 4, sink_tokens = 0;
  // What the caches are; 0 or empty where a file does not say.
  std::string state_layout;
  int64_t n_layers = 0, heads = 0, dl = 0;  // dl: values of a head and token; 0 where layers differ
  std::vector<int64_t> dl_per_layer;
  double element_bytes = 0;  // of a stored value, its share of the parameters included
  uint64_t bytes_per_page = 0;
  // Tokens that a step sees at most; 0 = no limit.
  int64_t kept() const { return paged ? sink_tokens + page_len * max_pages : 0; }
};
struct KvSidecars {
  std::optional<KvQuantization> quantization;
  std::optional<KvPaging> paging;
  // Whether they make anything of caches.
  bool any() const { return quantization || (paging && paging->paged); }
};

struct PackagingSummary {
  std::string preset;                                   // empty: none
  std::vector<std::pair<std::string, uint64_t>> files;  // of the model, as written
  int64_t kv_tokens = 0;                                // that the caches hold
  uint64_t kv_cache_bytes = 0;                          // as stored
  uint64_t kv_step_bytes = 0;  // more, while a step runs: caches as they go in and come out
  std::optional<uint64_t> budget_bytes;
  uint64_t weights_bytes() const;
  uint64_t total_bytes() const { return weights_bytes() + kv_cache_bytes + kv_step_bytes; }
};

inline constexpr const char* kPackagingSummary = "mobile_packager_summary.json";
// "model.kvq.json" beside "model.onnx" or "model.mlpackage".
std::string kvq_path(const std::string& model);
std::string kv_paging_path(const std::string& model);

std::string to_json(const KvQuantization& quantization);
std::string to_json(const KvPaging& paging);
std::string to_json(const PackagingSummary& summary);

// kType, kRange, kVersion; kUnsupported for a scheme or group size that is well formed.
Result<KvQuantization> read_kv_quantization(const std::string& path);
Result<KvPaging> read_kv_paging(const std::string& path);
// Those that lie beside the model.
Result<KvSidecars> read_kv_sidecars(const std::string& model);

}  // namespace pome
