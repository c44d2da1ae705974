// What a family file provides. The registry lists them; nothing outside models/ sees this.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "graph/graph.h"
#include "models/models.h"

namespace pome {

struct Family {
  std::string_view name;                      // "llama"
  std::vector<std::string_view> model_types;  // config.json: model_type
  std::vector<std::string_view> gguf_architectures;
  Result<ModelInfo> (*read_info)(const Checkpoint&);
  Result<Graph> (*build)(const Checkpoint&, const BuildOptions&);
  // Of families that share a name: whether this checkpoint is one of it. Null: always.
  bool (*accepts)(const Checkpoint&) = nullptr;
};

const Family& llama_family();
const Family& mistral_family();
const Family& qwen2_family();
const Family& qwen3_family();
const Family& smollm3_family();
const Family& phi3_family();
const Family& gemma_family();
const Family& gemma2_family();
const Family& gemma3_family();
const Family& mixtral_family();
const Family& qwen2_moe_family();
const Family& qwen3_moe_family();
const Family& gpt_oss_family();
const Family& latent_kv_family();
const Family& deepseek_family();
const Family& gpt2_family();
const Family& gpt_neo_family();
const Family& gpt_neox_family();
const Family& phi_family();

}  // namespace pome
