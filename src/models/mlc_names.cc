// Source of the names: the model definitions and loaders of mlc-ai/mlc-llm, revision 79d603f0.
#include "models/mlc_names.h"

#include <initializer_list>
#include <span>

namespace pome {

namespace {

enum class Part : uint8_t { kWhole, kQ, kK, kV, kGate, kUp };

struct Module {
  std::string_view graph, mlc;  // without ".weight"; of a layer: behind the number
  Part part = Part::kWhole;
};
struct Names {
  std::string_view family, model_type, layers;
  std::vector<Module> frame, layer;
  enum class Head : uint8_t {
    kBoth,  // as the configuration says
    kOwn,   // has one where the graph shares the embedding, too
    kTied   // has none: the embedding is it
  } head = Head::kBoth;
  enum class Biases : uint8_t { kNone, kQkv, kAll } biases = Biases::kNone;
};

constexpr Module kGateUp[] = {{"mlp.gate", "mlp.gate_up_proj", Part::kGate},
                              {"mlp.up", "mlp.gate_up_proj", Part::kUp},
                              {"mlp.down", "mlp.down_proj"}};
constexpr Module kLlamaFrame[] = {
    {"embedding", "model.embed_tokens"}, {"norm", "model.norm"}, {"head", "lm_head"}};
constexpr Module kLlamaNorms[] = {{"attention_norm", "input_layernorm"},
                                  {"mlp_norm", "post_attention_layernorm"}};

std::vector<Module> fused(std::string_view qkv, std::string_view o,
                          std::initializer_list<std::span<const Module>> more) {
  std::vector<Module> out = {{"attention.q", qkv, Part::kQ},
                             {"attention.k", qkv, Part::kK},
                             {"attention.v", qkv, Part::kV},
                             {"attention.o", o}};
  for (const std::span<const Module> part : more) out.insert(out.end(), part.begin(), part.end());
  return out;
}

std::vector<Module> list(std::span<const Module> modules) {
  return {modules.begin(), modules.end()};
}

using H = Names::Head;
using B = Names::Biases;

std::vector<Names> dense_families() {
  const std::vector<Module> llama =
      fused("self_attn.qkv_proj", "self_attn.o_proj", {kLlamaNorms, kGateUp});
  const std::vector<Module> qwen =
      fused("self_attn.c_attn", "self_attn.o_proj", {kLlamaNorms, kGateUp});
  constexpr Module kHeadNorms[] = {{"q_norm", "self_attn.q_norm"}, {"k_norm", "self_attn.k_norm"}};
  std::vector<Module> qwen3 = qwen;
  qwen3.insert(qwen3.end(), std::begin(kHeadNorms), std::end(kHeadNorms));
  constexpr Module kFourNorms[] = {{"attention_norm", "input_layernorm"},
                                   {"attention_post_norm", "post_attention_layernorm"},
                                   {"mlp_norm", "pre_feedforward_layernorm"},
                                   {"mlp_post_norm", "post_feedforward_layernorm"}};
  const std::vector<Module> gemma2 =
      fused("self_attn.qkv_proj", "self_attn.o_proj", {kFourNorms, kGateUp});
  std::vector<Module> gemma3 = {{"attention.q", "self_attn.q_proj"},
                                {"attention.k", "self_attn.k_proj"},
                                {"attention.v", "self_attn.v_proj"},
                                {"attention.o", "self_attn.o_proj"}};
  for (const std::span<const Module> more :
       {std::span<const Module>(kFourNorms), std::span<const Module>(kGateUp),
        std::span<const Module>(kHeadNorms)})
    gemma3.insert(gemma3.end(), more.begin(), more.end());
  constexpr Module kPhi3[] = {{"attention_norm", "ln"}, {"mlp_norm", "post_attention_layernorm"}};
  constexpr Module kPhi[] = {{"norm", "ln"}, {"mlp.up", "mlp.fc1"}, {"mlp.down", "mlp.fc2"}};
  constexpr Module kGpt2[] = {{"attention_norm", "ln_1"},
                              {"mlp_norm", "ln_2"},
                              {"mlp.up", "mlp.c_fc"},
                              {"mlp.down", "mlp.c_proj"}};
  constexpr Module kNeox[] = {{"attention_norm", "input_layernorm"},
                              {"mlp_norm", "post_attention_layernorm"},
                              {"mlp.up", "mlp.dense_h_to_4h"},
                              {"mlp.down", "mlp.dense_4h_to_h"}};
  return {
      {"llama", "llama", "model.layers.", list(kLlamaFrame), llama},
      {"mistral", "mistral", "model.layers.", list(kLlamaFrame), llama, H::kOwn},
      {"qwen2", "qwen2", "model.layers.", list(kLlamaFrame), qwen, H::kBoth, B::kQkv},
      {"qwen3", "qwen3", "model.layers.", list(kLlamaFrame), qwen3, H::kBoth, B::kAll},
      {"gemma", "gemma", "model.layers.", list(kLlamaFrame), llama, H::kTied},
      {"gemma2", "gemma2", "model.layers.", list(kLlamaFrame), gemma2, H::kTied},
      {"gemma3",
       "gemma3_text",
       "language_model.model.layers.",
       {{"embedding", "language_model.model.embed_tokens"}, {"norm", "language_model.model.norm"}},
       gemma3,
       H::kTied},
      {"phi3",
       "phi3",
       "transformer.h.",
       {{"embedding", "transformer.embd"}, {"norm", "transformer.norm"}, {"head", "lm_head"}},
       fused("mixer.qkv_proj", "mixer.out_proj", {kPhi3, kGateUp})},
      {"phi",
       "phi",
       "transformer.h.",
       {{"embedding", "transformer.embd"}, {"norm", "lm_head.ln"}, {"head", "lm_head.linear"}},
       fused("mixer.Wqkv", "mixer.out_proj", {kPhi}),
       H::kOwn,
       B::kAll},
      {"gpt2",
       "gpt2",
       "transformer.h.",
       {{"embedding", "transformer.wte"},
        {"positions", "transformer.wpe"},
        {"norm", "transformer.ln_f"},
        {"head", "lm_head"}},
       fused("attn.c_attn", "attn.c_proj", {kGpt2}),
       H::kOwn,
       B::kAll},
      {"gpt_neox",
       "gpt_neox",
       "gpt_neox.layers.",
       {{"embedding", "gpt_neox.embed_in"},
        {"norm", "gpt_neox.final_layer_norm"},
        {"head", "embed_out"}},
       fused("attention.query_key_value", "attention.dense", {kNeox}),
       H::kOwn,
       B::kAll},
  };
}

std::vector<Names> sparse_families() {
  constexpr Module kMixtral[] = {{"router", "moe.gate"},
                                 {"experts.gate", "moe.e1_e3", Part::kGate},
                                 {"experts.up", "moe.e1_e3", Part::kUp},
                                 {"experts.down", "moe.e2"}};
  constexpr Module kExperts[] = {{"router", "mlp.gate"},
                                 {"experts.gate", "mlp.moe_gate_up_proj", Part::kGate},
                                 {"experts.up", "mlp.moe_gate_up_proj", Part::kUp},
                                 {"experts.down", "mlp.moe_down_proj"}};
  constexpr Module kShared[] = {
      {"shared_expert.gate", "mlp.shared_expert.gate_up_proj", Part::kGate},
      {"shared_expert.up", "mlp.shared_expert.gate_up_proj", Part::kUp},
      {"shared_expert.down", "mlp.shared_expert.down_proj"},
      {"shared_switch", "mlp.shared_expert_gate"}};
  constexpr Module kHeadNorms[] = {{"q_norm", "self_attn.q_norm"}, {"k_norm", "self_attn.k_norm"}};
  return {
      {"mixtral", "mixtral", "model.layers.", list(kLlamaFrame),
       fused("self_attn.qkv_proj", "self_attn.o_proj", {kLlamaNorms, kMixtral})},
      {"qwen2_moe", "qwen2_moe", "model.layers.", list(kLlamaFrame),
       fused("self_attn.c_attn", "self_attn.o_proj", {kLlamaNorms, kExperts, kShared}), H::kOwn,
       B::kQkv},
      {"qwen3_moe", "qwen3_moe", "model.layers.", list(kLlamaFrame),
       fused("self_attn.c_attn", "self_attn.o_proj", {kLlamaNorms, kExperts, kHeadNorms}), H::kOwn,
       B::kAll},
  };
}

const std::vector<Names>& all_names() {
  static const std::vector<Names> kNames = [] {
    std::vector<Names> out = dense_families();
    for (Names& names : sparse_families()) out.push_back(std::move(names));
    return out;
  }();
  return kNames;
}

const Names* names_of(std::string_view family) {
  for (const Names& names : all_names())
    if (names.family == family) return &names;
  return nullptr;
}

const Module* find(const std::vector<Module>& modules, std::string_view name) {
  for (const Module& module : modules)
    if (module.graph == name) return &module;
  return nullptr;
}

// "layers.12.attention.q.weight" -> {"12", "attention.q", ".weight"}; no number outside of layers.
struct GraphName {
  std::string number, module, ending;
};
GraphName split(const std::string& name) {
  GraphName out;
  const size_t dot = name.find_last_of('.');
  if (dot == std::string::npos) return out;
  out.module = name.substr(0, dot), out.ending = name.substr(dot);
  constexpr std::string_view kLayers = "layers.";
  if (!out.module.starts_with(kLayers)) return out;
  const size_t end = out.module.find('.', kLayers.size());
  if (end == std::string::npos) return {};
  out.number = out.module.substr(kLayers.size(), end - kLayers.size());
  out.module = out.module.substr(end + 1);
  return out;
}

bool is_norm(std::string_view module) { return module.ends_with("norm"); }

bool has_parameter(const Names& names, const GraphName& name, const Module& module) {
  if (name.module == "head" && name.number.empty() && names.head == H::kTied) return false;
  if (name.ending != ".bias" || is_norm(name.module)) return true;
  const bool qkv = module.part == Part::kQ || module.part == Part::kK || module.part == Part::kV;
  return names.biases == B::kAll || (names.biases == B::kQkv && qkv);
}

void place_part(const ModelInfo& info, Part part, const Shape& shape, MlcPlace* place) {
  const int64_t q = info.num_attention_heads * info.head_dim,
                kv = info.num_key_value_heads * info.head_dim;
  const int64_t rows = shape.size() > 1 ? shape[shape.size() - 2] : shape.empty() ? 1 : shape[0];
  switch (part) {
    case Part::kWhole:
      return;
    case Part::kQ:
      place->rows = q + 2 * kv;
      return;
    case Part::kK:
      place->rows = q + 2 * kv, place->first_row = q;
      return;
    case Part::kV:
      place->rows = q + 2 * kv, place->first_row = q + kv;
      return;
    case Part::kGate:
      place->rows = 2 * rows;
      return;
    case Part::kUp:
      place->rows = 2 * rows, place->first_row = rows;
      return;
  }
}

}  // namespace

std::string_view mlc_model_type(std::string_view family) {
  const Names* names = names_of(family);
  return names ? names->model_type : std::string_view();
}

std::string mlc_families() {
  std::string out;
  for (const Names& names : all_names())
    out += (out.empty() ? "" : " ") + std::string(names.family);
  return out;
}

MlcPlace mlc_place(const ModelInfo& info, const std::string& name, const Shape& shape) {
  const Names* names = names_of(info.family);
  if (!names) return {};
  const GraphName parts = split(name);
  const Module* module = find(parts.number.empty() ? names->frame : names->layer, parts.module);
  if (!module || !has_parameter(*names, parts, *module)) return {};
  MlcPlace place;
  if (!parts.number.empty()) place.name = std::string(names->layers) + parts.number + ".";
  place.name += std::string(module->mlc) + parts.ending;
  place_part(info, module->part, shape, &place);
  // Routers, and other modules whose name ends so, of up to 256 outputs are left alone.
  const bool router = module->mlc.ends_with("gate") && shape[0] <= 256;
  place.grouped = shape.size() > 1 && !router;
  // The two biases of this MLP are the only parameters that MLC keeps wide.
  place.wide =
      info.family == "gpt_neox" && parts.module.starts_with("mlp.") && parts.ending == ".bias";
  return place;
}

std::vector<MlcExtra> mlc_extra_parameters(const Graph& graph) {
  std::vector<MlcExtra> out;
  const Names* names = names_of(graph.info.family);
  if (!names || names->head != H::kOwn || !graph.info.tie_word_embeddings) return out;
  for (size_t i = 0; i < graph.constants.size(); ++i) {
    const Constant& constant = graph.constants[i];
    if (constant.role == Constant::Role::kEmbedding)
      out.push_back({i, mlc_place(graph.info, "head.weight", constant.data->shape())});
  }
  return out;
}

bool is_mlc_extra(const ModelInfo& info, std::string_view tensor) {
  const Names* names = names_of(info.family);
  if (!names || names->head != H::kOwn || !info.tie_word_embeddings) return false;
  const Module* head = find(names->frame, "head");
  return head && tensor.starts_with(std::string(head->mlc) + ".");
}

}  // namespace pome
