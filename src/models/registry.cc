#include <algorithm>

#include "models/family.h"
#include "models/mlc_config.h"
#include "models/models.h"
#include "models/rope.h"

namespace pome {

namespace {

const std::vector<const Family*>& families() {
  static const std::vector<const Family*> kFamilies = {
      &mixtral_family(),  // before llama, whose architecture name its GGUF files have
      &llama_family(),     &mistral_family(),   &qwen2_family(),     &qwen3_family(),
      &smollm3_family(),   &phi3_family(),      &gemma_family(),     &gemma2_family(),
      &gemma3_family(),    &qwen2_moe_family(), &qwen3_moe_family(), &gpt_oss_family(),
      &latent_kv_family(), &deepseek_family(),  &gpt2_family(),      &gpt_neo_family(),
      &gpt_neox_family(),  &phi_family(),
  };
  return kFamilies;
}

std::string known_families() {
  std::string text;
  for (const std::string& name : supported_families()) text += (text.empty() ? "" : ", ") + name;
  return text;
}

Result<const Family*> find_family(const Checkpoint& checkpoint) {
  const bool gguf = checkpoint.format == "gguf";
  const Json& all = gguf ? checkpoint.gguf : checkpoint.config;
  const char* key = gguf ? "general.architecture" : "model_type";
  if (!all.is_object())
    return missing("no configuration found")
        .in(checkpoint.path)
        .hint("a model folder needs config.json");
  const auto found = all.find(key);
  if (found == all.end())
    return bad_input(Refusal::kRange, std::string(key) + " is missing").in(checkpoint.path);
  if (!found->is_string())
    return bad_input(Refusal::kType, std::string(key) + " must be a string").in(checkpoint.path);
  const std::string wanted = found->get<std::string>();
  for (const Family* family : families()) {
    const auto& names = gguf ? family->gguf_architectures : family->model_types;
    if (std::find(names.begin(), names.end(), wanted) == names.end()) continue;
    if (!family->accepts || family->accepts(checkpoint)) return family;
  }
  return Status(StatusCode::kUnsupported,
                std::string(key) + " '" + escape_for_terminal(wanted, 64) + "' is not supported",
                Refusal::kRange)
      .in(checkpoint.path)
      .hint("known families: " + known_families());
}

// A package of MLC that has no config.json says the same in other words.
const Checkpoint* with_config(const Checkpoint& checkpoint, Checkpoint* changed) {
  if (checkpoint.format != "mlc" || checkpoint.config.is_object()) return &checkpoint;
  *changed = checkpoint;
  changed->config = config_from_mlc(checkpoint.mlc);
  return changed;
}

}  // namespace

std::vector<std::string> supported_families() {
  std::vector<std::string> names;
  for (const Family* family : families()) names.emplace_back(family->name);
  return names;
}

int64_t stated_context(const Checkpoint& checkpoint) {
  if (checkpoint.format != "mlc" || !checkpoint.mlc.is_object()) return 0;
  const auto found = checkpoint.mlc.find("context_window_size");
  if (found == checkpoint.mlc.end() || !found->is_number_integer()) return 0;
  const int64_t positions = found->get<int64_t>();
  return positions > 0 && positions < int64_t{1} << 31 ? positions : 0;
}

Result<Graph> build_graph(const Checkpoint& given, const BuildOptions& options) {
  Checkpoint changed;
  const Checkpoint& checkpoint = *with_config(given, &changed);
  POME_ASSIGN_OR_RETURN(const Family* family, find_family(checkpoint));
  POME_ASSIGN_OR_RETURN(Graph graph, family->build(checkpoint, options));
  GgufInfo& gguf = graph.info.gguf;
  if (checkpoint.format == "gguf")
    gguf.architecture = checkpoint.gguf.value("general.architecture", "");
  else if (!family->gguf_architectures.empty())
    gguf.architecture = family->gguf_architectures.front();
  else if (graph.info.architecture != family->name)
    gguf.architecture = graph.info.architecture;  // that of another family
  return graph;
}

Result<ModelInfo> read_model_info(const Checkpoint& given, const BuildOptions& options) {
  Checkpoint changed;
  const Checkpoint& checkpoint = *with_config(given, &changed);
  POME_ASSIGN_OR_RETURN(const Family* family, find_family(checkpoint));
  POME_ASSIGN_OR_RETURN(ModelInfo info, family->read_info(checkpoint));
  info.max_position_embeddings = positions_of(info, options.context);
  return info;
}

}  // namespace pome
