#include "pipeline/kv_plan.h"

#include <sys/stat.h>

#include <algorithm>

#include "base/io.h"
#include "base/units.h"
#include "engine/kv_store.h"
#include "formats/manifest.h"

namespace pome {

namespace {

// Upper bounds: a model with fewer positions has less of each.
struct Preset {
  const char* name;
  int64_t context;
  const char* scheme;
  int64_t page_len, max_pages;
  uint64_t budget;
};
constexpr Preset kPresets[] = {
    {"mobile_4gb", 4096, "u8", 256, 8, 4'000'000'000},
    {"mobile_2gb", 2048, "nf4", 256, 4, 2'000'000'000},
};

// Of public sidecars, which name a page's length alone.
constexpr int64_t kPageLen = 256, kMaxPages = 4;
constexpr int64_t kMostTokens = 1 << 24;

Status apply_preset(ConvertOptions* options) {
  if (options->preset.empty()) return {};
  std::string names;
  for (const Preset& preset : kPresets) {
    names += (names.empty() ? "" : " ") + std::string(preset.name);
    if (options->preset != preset.name) continue;
    options->kv = "explicit";
    options->default_context = preset.context;
    if (options->budget == 0) options->budget = preset.budget;
    if (options->kvq.empty()) options->kvq = preset.scheme;
    if (options->page_len == 0) options->page_len = preset.page_len;
    if (options->max_pages == 0) options->max_pages = preset.max_pages;
    return {};
  }
  return usage_error("--preset " + options->preset + " is not known").hint("known: " + names);
}

Status check_range(const char* flag, int64_t value) {
  if (value >= 0 && value <= kMostTokens) return {};
  return usage_error(std::string(flag) + " " + std::to_string(value) + " is outside 0 to " +
                     std::to_string(kMostTokens));
}

// The names of the schemes in sidecars and of the engine's encodings.
KvKind kind_of(const std::string& scheme) { return scheme == "u8" ? KvKind::kQ8 : KvKind::kQ4; }

KvPaging paging_of(const Graph& graph, const ConvertOptions& options, int64_t context) {
  KvPaging out;
  out.paged = options.page_len > 0 || options.max_pages > 0;
  out.page_len = options.page_len > 0 ? options.page_len : out.paged ? kPageLen : context;
  out.page_len = std::min(out.page_len, context);
  out.max_pages = options.max_pages > 0 ? options.max_pages : out.paged ? kMaxPages : 1;
  out.max_pages = std::min(out.max_pages, (context + out.page_len - 1) / out.page_len);
  out.sink_tokens = options.sink_tokens;
  out.paged = out.paged && out.kept() < context;
  const bool latent = graph.info.config.contains("kv_latent_dim");
  out.state_layout = latent ? "per-layer (k_lat, v_lat)" : "per-layer (key, value)";
  bool same = true;
  for (const CachePair& pair : graph.caches) {
    const SymShape& shape = graph.type(pair.input).shape;
    out.n_layers = std::max<int64_t>(out.n_layers, pair.layer + 1);
    if (pair.kind == CachePair::Kind::kKey) {
      out.dl_per_layer.push_back(shape[3].size);
      same = same && (out.heads == 0 || out.heads == shape[1].size);
      out.heads = shape[1].size;
    }
    same = same && shape[3].size == out.dl_per_layer.front();
  }
  if (same && !out.dl_per_layer.empty()) out.dl = out.dl_per_layer.front();
  return out;
}

Result<uint64_t> size_of(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0)
    return missing("cannot read the size of what was written").in(path);
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace

Status settle_kv(const TargetRow& row, ConvertOptions* options) {
  POME_RETURN_IF_ERROR(apply_preset(options));
  if (options->kv.empty()) {
    const char* flag = !options->cache.empty()    ? "--cache"
                       : !options->kvq.empty()    ? "--kvq"
                       : options->page_len > 0    ? "--page-len"
                       : options->max_pages > 0   ? "--max-pages"
                       : options->sink_tokens > 0 ? "--sink-tokens"
                                                  : nullptr;
    if (flag) return usage_error(std::string(flag) + " is for --kv explicit");
    return {};
  }
  if (options->kv != "explicit")
    return usage_error("--kv " + options->kv + ": the form with explicit caches is --kv explicit");
  if (row.caches.empty()) {
    std::vector<std::string> others;
    for (const TargetRow& other : target_rows())
      if (!other.caches.empty()) others.push_back(to_string(other.target));
    return usage_error("the target " + options->target + " has no --kv explicit")
        .hint("targets that have it: " + join(others));
  }
  if (!options->graph.empty())
    return usage_error("--kv explicit and --graph " + options->graph + " are two forms of a model");
  if (options->cache.empty()) options->cache = row.caches.front();
  if (std::find(row.caches.begin(), row.caches.end(), options->cache) == row.caches.end())
    return usage_error("--cache " + options->cache + ": the target " + options->target +
                       " has no such caches in this version")
        .hint("known: " + join(row.caches));
  if (!options->kvq.empty() && options->kvq != "u8" && options->kvq != "nf4")
    return usage_error("--kvq " + options->kvq + " is not known").hint("known: u8 nf4");
  if (!is_kv_group(options->kvq_group))
    return usage_error("--kvq-group must be 16, 32 or 64, is " +
                       std::to_string(options->kvq_group));
  POME_RETURN_IF_ERROR(check_range("--page-len", options->page_len));
  POME_RETURN_IF_ERROR(check_range("--max-pages", options->max_pages));
  POME_RETURN_IF_ERROR(check_range("--sink-tokens", options->sink_tokens));
  if (options->sink_tokens > 0 && options->page_len == 0 && options->max_pages == 0)
    return usage_error("--sink-tokens needs --page-len or --max-pages: else all tokens stay");
  options->chunk = 1;
  return {};
}

KvPlan plan_kv(const Graph& graph, const ConvertOptions& options, const TargetRow& row,
               int64_t context) {
  KvPlan out;
  out.tokens = context;
  if (options.graph == "logits-only") return out;
  const bool step = options.kv == "explicit";
  if (step) {
    out.paging = paging_of(graph, options, context);
    if (out.paging->paged) out.tokens = out.paging->kept();
    if (!options.kvq.empty()) {
      const std::span<const float> levels = kv_levels(kind_of(options.kvq));
      out.quantization = {options.kvq, options.kvq_group, {levels.begin(), levels.end()}};
    }
  }
  uint64_t floats = 0, stored = 0, values = 0;  // of one token
  for (const CachePair& pair : graph.caches) {
    const SymShape& shape = graph.type(pair.input).shape;
    const auto heads = static_cast<uint64_t>(shape[1].size),
               dim = static_cast<uint64_t>(shape[3].size);
    values += heads * dim;
    floats += heads * dim * static_cast<uint64_t>(row.cache_value_bytes);
    stored +=
        heads * (out.quantization ? static_cast<uint64_t>(kv_stored_bytes(
                                        kind_of(options.kvq), options.kvq_group, shape[3].size))
                                  : dim * static_cast<uint64_t>(row.cache_value_bytes));
  }
  const auto tokens = static_cast<uint64_t>(out.tokens);
  out.cache_bytes = stored * tokens;
  if (!step) return out;
  // A step takes floats and gives floats; where the caches are stored so, what goes in is they.
  out.step_bytes = floats * tokens * (out.quantization ? 2 : 1);
  out.paging->bytes_per_page = stored * static_cast<uint64_t>(out.paging->page_len);
  out.paging->element_bytes =
      values == 0 ? 0 : static_cast<double>(stored) / static_cast<double>(values);
  return out;
}

// Targets without the stored form of a constant write fp16 at least.
uint64_t least_weight_bytes(const Graph& graph) {
  uint64_t total = 0;
  for (const Constant& constant : graph.constants)
    if (constant.role != Constant::Role::kTable)
      total +=
          std::min(constant.data->stored_bytes(),
                   2 * static_cast<uint64_t>(constant.data->rows() * constant.data->columns()));
  return total;
}

Status check_budget(const ConvertOptions& options, uint64_t weight_bytes, const KvPlan& plan) {
  const uint64_t total = weight_bytes + plan.cache_bytes + plan.step_bytes;
  if (options.budget == 0 || total <= options.budget) return {};
  const uint64_t over = total - options.budget;
  return does_not_fit("weights of " + human_bytes(weight_bytes) + ", caches of " +
                      human_bytes(plan.cache_bytes) +
                      (plan.step_bytes > 0 ? " and " + human_bytes(plan.step_bytes) + " for a step"
                                           : std::string()) +
                      " are " + human_bytes(over) + " (" + std::to_string(over) +
                      " bytes) more than the budget of " + human_bytes(options.budget))
      .hint("choose a smaller --weights or --context" +
            std::string(plan.paging ? ", or fewer pages" : ""));
}

PackagingSummary summarise(const ConvertOptions& options, const KvPlan& plan) {
  PackagingSummary out;
  out.preset = options.preset;
  out.kv_tokens = plan.tokens;
  out.kv_cache_bytes = plan.cache_bytes;
  out.kv_step_bytes = plan.step_bytes;
  if (options.budget > 0) out.budget_bytes = options.budget;
  return out;
}

Result<PackagingSummary> write_kv_sidecars(const std::string& folder, const std::string& model,
                                           const ConvertOptions& options, const KvPlan& plan) {
  PackagingSummary out = summarise(options, plan);
  POME_ASSIGN_OR_RETURN(const std::vector<std::string> files, list_files(folder));
  for (const std::string& file : files) {
    if (!file.starts_with(model)) continue;
    POME_ASSIGN_OR_RETURN(const uint64_t size, size_of(folder + "/" + file));
    out.files.emplace_back(file, size);
  }
  POME_RETURN_IF_ERROR(check_budget(options, out.weights_bytes(), plan));
  if (!plan.paging) return out;
  const std::string beside = folder + "/" + model;
  if (plan.quantization)
    POME_RETURN_IF_ERROR(io::write_file(kvq_path(beside), to_json(*plan.quantization)));
  POME_RETURN_IF_ERROR(io::write_file(kv_paging_path(beside), to_json(*plan.paging)));
  POME_RETURN_IF_ERROR(io::write_file(folder + "/" + kPackagingSummary, to_json(out)));
  return out;
}

}  // namespace pome
