#include "formats/kv_sidecars.h"

#include <sys/stat.h>

#include "base/json.h"
#include "base/units.h"

namespace pome {

namespace {

constexpr JsonLimits kLimits = {8, 1 << 20, 1 << 16};
constexpr int64_t kMost = 1 << 24;  // pages, tokens of one, sinks

std::string beside(const std::string& model, const char* ending) {
  const size_t slash = model.find_last_of('/');
  const size_t dot = model.find_last_of('.');
  const bool has_ending = dot != std::string::npos && (slash == std::string::npos || dot > slash);
  return (has_ending ? model.substr(0, dot) : model) + ending;
}

bool is_there(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0;
}

// The first of the keys that is there; nullptr when none is.
Result<std::optional<int64_t>> first_int(const Json& object,
                                         std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    POME_ASSIGN_OR_RETURN(const std::optional<int64_t> value, json_int(object, key));
    if (value) return value;
  }
  return std::optional<int64_t>();
}

Status take_int(const Json& object, std::initializer_list<const char*> keys, int64_t least,
                int64_t* out) {
  POME_ASSIGN_OR_RETURN(const std::optional<int64_t> value, first_int(object, keys));
  if (!value) return {};
  if (*value < least || *value > kMost)
    return bad_input(Refusal::kRange, "is " + std::to_string(*value) + ", expected " +
                                          std::to_string(least) + " to " + std::to_string(kMost))
        .at(std::string("/") + *keys.begin());
  *out = *value;
  return {};
}

Result<Json> read_object(const std::string& path) {
  POME_ASSIGN_OR_RETURN(Json object, read_json_file(path, kLimits));
  if (!object.is_object()) return bad_input(Refusal::kType, "is no JSON object");
  POME_ASSIGN_OR_RETURN(const std::optional<int64_t> schema, json_int(object, "schema"));
  if (schema && *schema != 1)
    return bad_input(Refusal::kVersion,
                     "has schema " + std::to_string(*schema) + ", this version reads 1")
        .at("/schema");
  return object;
}

Status expect_text(const Json& object, const char* key, const char* expected) {
  POME_ASSIGN_OR_RETURN(const std::optional<std::string> value, json_string(object, key));
  if (value && *value != expected)
    return unsupported("'" + escape_for_terminal(*value, 32) + "' is not supported, expected '" +
                       expected + "'")
        .at(std::string("/") + key);
  return {};
}

Status fill(const Json& object, KvQuantization* out) {
  POME_ASSIGN_OR_RETURN(const std::optional<std::string> scheme, json_string(object, "scheme"));
  if (!scheme) return bad_input(Refusal::kType, "is missing").at("/scheme");
  if (*scheme != "u8" && *scheme != "nf4")
    return unsupported("'" + escape_for_terminal(*scheme, 32) +
                       "' is not supported, expected 'u8' or 'nf4'")
        .at("/scheme");
  out->scheme = *scheme;
  POME_RETURN_IF_ERROR(take_int(object, {"group_size", "group"}, 1, &out->group_size));
  POME_RETURN_IF_ERROR(expect_text(object, "axis", "head_dim"));
  POME_RETURN_IF_ERROR(expect_text(object, "per", "token"));
  POME_ASSIGN_OR_RETURN(const std::optional<bool> native, json_bool(object, "graph_native"));
  if (native.value_or(false))
    return unsupported("caches that the graph itself keeps quantised are not supported")
        .at("/graph_native");
  if (const auto layers = object.find("layers");
      layers != object.end() && !layers->empty() && object.value("schema", Json()).is_number())
    return unsupported("layers with schemes of their own are not supported").at("/layers");
  const auto codebook = object.find("codebook");
  if (codebook == object.end() || codebook->is_null()) return {};
  if (!codebook->is_array() || codebook->size() != 16)
    return bad_input(Refusal::kType, "is no list of 16 numbers").at("/codebook");
  for (const Json& level : *codebook) {
    if (!level.is_number())
      return bad_input(Refusal::kType, "is no list of 16 numbers").at("/codebook");
    out->codebook.push_back(level.get<double>());
  }
  return {};
}

Status fill(const Json& object, KvPaging* out) {
  POME_ASSIGN_OR_RETURN(const std::optional<bool> paged, json_bool(object, "paged"));
  out->paged = paged.value_or(true);
  POME_RETURN_IF_ERROR(take_int(object, {"page_len"}, 1, &out->page_len));
  POME_RETURN_IF_ERROR(take_int(object, {"max_pages"}, 1, &out->max_pages));
  POME_RETURN_IF_ERROR(take_int(object, {"sink_tokens"}, 0, &out->sink_tokens));
  POME_RETURN_IF_ERROR(take_int(object, {"n_layers"}, 0, &out->n_layers));
  POME_RETURN_IF_ERROR(take_int(object, {"heads"}, 0, &out->heads));
  POME_RETURN_IF_ERROR(take_int(object, {"dl"}, 0, &out->dl));
  // Old entries may only go where each token's position is stated.
  POME_RETURN_IF_ERROR(expect_text(object, "positions", "explicit"));
  POME_ASSIGN_OR_RETURN(const std::optional<double> bytes, json_number(object, "element_bytes"));
  out->element_bytes = bytes.value_or(0);
  POME_ASSIGN_OR_RETURN(const std::optional<std::string> layout,
                        json_string(object, "state_layout"));
  out->state_layout = layout.value_or("");
  return {};
}

template <typename T>
Result<T> read_sidecar(const std::string& path) {
  auto object = read_object(path);
  if (!object.ok()) return std::move(object).status().in(path);
  T out;
  Status status = fill(*object, &out);
  if (!status.ok()) return std::move(status).in(path);
  return out;
}

}  // namespace

uint64_t PackagingSummary::weights_bytes() const {
  uint64_t total = 0;
  for (const auto& [path, size] : files) total += size;
  return total;
}

std::string kvq_path(const std::string& model) { return beside(model, ".kvq.json"); }
std::string kv_paging_path(const std::string& model) { return beside(model, ".kv_paging.json"); }

std::string to_json(const KvQuantization& q) {
  const bool bytes = q.scheme == "u8";
  Json out = {{"schema", 1},
              {"scheme", q.scheme},
              {"group_size", q.group_size},
              {"axis", "head_dim"},
              {"per", "token"},
              {"scale_dtype", "bfloat16"},
              {"offset_dtype", "bfloat16"},
              {"zero_point", false},
              {"pack", bytes ? "byte" : "low_nibble_first"},
              {"layers", Json::array()},
              {"graph_native", false},
              {"note", bytes ? "value = offset + scale * code"
                             : "value = offset + scale * codebook[code]"}};
  if (!q.codebook.empty()) out["codebook"] = q.codebook;
  return dump_json(out, 2) + "\n";
}

std::string to_json(const KvPaging& p) {
  const Json out = {{"schema", 1},
                    {"paged", p.paged},
                    {"page_len", p.page_len},
                    {"max_pages", p.max_pages},
                    {"sink_tokens", p.sink_tokens},
                    {"state_layout", p.state_layout},
                    {"n_layers", p.n_layers},
                    {"heads", p.heads},
                    {"dl", p.dl},
                    {"dl_per_layer", p.dl_per_layer},
                    {"element_bytes", p.element_bytes},
                    {"positions", "explicit"},
                    {"bytes_per_page", p.bytes_per_page}};
  return dump_json(out, 2) + "\n";
}

std::string to_json(const PackagingSummary& s) {
  Json files = Json::array();
  for (const auto& [path, size] : s.files) files.push_back({{"path", path}, {"bytes", size}});
  const Json out = {{"schema", 1},
                    {"preset", s.preset.empty() ? Json() : Json(s.preset)},
                    {"weights_bytes", s.weights_bytes()},
                    {"kv_cache_bytes_seq_len", s.kv_tokens},
                    {"kv_cache_bytes", s.kv_cache_bytes},
                    {"kv_step_bytes", s.kv_step_bytes},
                    {"total_bytes", s.total_bytes()},
                    {"budget_bytes", s.budget_bytes ? Json(*s.budget_bytes) : Json()},
                    {"bytes_source", "measured"},
                    {"files", files},
                    {"human",
                     {{"weights", human_bytes(s.weights_bytes())},
                      {"kv_cache", human_bytes(s.kv_cache_bytes)},
                      {"total", human_bytes(s.total_bytes())}}}};
  return dump_json(out, 2) + "\n";
}

Result<KvQuantization> read_kv_quantization(const std::string& path) {
  return read_sidecar<KvQuantization>(path);
}

Result<KvPaging> read_kv_paging(const std::string& path) { return read_sidecar<KvPaging>(path); }

Result<KvSidecars> read_kv_sidecars(const std::string& model) {
  KvSidecars out;
  if (const std::string path = kvq_path(model); is_there(path)) {
    POME_ASSIGN_OR_RETURN(out.quantization, read_kv_quantization(path));
  }
  if (const std::string path = kv_paging_path(model); is_there(path)) {
    POME_ASSIGN_OR_RETURN(out.paging, read_kv_paging(path));
  }
  return out;
}

}  // namespace pome
