// What the decoders with LayerNorm share: configuration, weights by module name, attention with a
// cache, learned positions. Used by GPT-2, GPT-Neo, GPT-NeoX and Phi.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "models/config.h"
#include "models/weights.h"

namespace pome {

struct GptConfig {
  ModelInfo info;
  double layer_norm_eps = 1e-5;
  Activation activation = Activation::kGeluTanh;
};

// Names in config.json and what transformers assumes where one is missing. The names in GGUF are
// the same for all families.
struct GptKeys {
  std::string_view hidden_size = "hidden_size", num_hidden_layers = "num_hidden_layers",
                   num_attention_heads = "num_attention_heads",
                   max_position_embeddings = "max_position_embeddings",
                   intermediate_size = "intermediate_size", layer_norm_eps = "layer_norm_eps",
                   activation = "hidden_act";
  bool intermediate_size_required = false;  // else a missing or null one is 4 * hidden_size
  bool tie_word_embeddings = false;
  // The value of `activation` where config.json has none, and for GGUF, which never says.
  std::string_view default_activation = "gelu_new";
};
// Complaints go to `config`; num_key_value_heads is num_attention_heads. `family` is what the
// registry calls it.
GptConfig read_gpt_config(ConfigReader& config, const Checkpoint& checkpoint,
                          std::string_view family, const GptKeys& keys);

// y = x W^T + b of a module, which may be a part of a larger stored one.
struct Projection {
  std::string name;      // in the graph: "attention.q"
  std::string hf, gguf;  // modules: "attn.c_attn", "attn_qkv"
  int64_t outputs = 0, inputs = 0;
  bool bias = true;                               // a GGUF file has it where it holds the tensor
  bool conv1d = false;                            // Hugging Face stores [inputs, outputs]
  int64_t stored_outputs = 0;                     // 0: all of them are these
  std::function<int64_t(int64_t)> row = nullptr;  // output -> stored output; null: the same
};

// One layer, or what stands around the layers (with other prefixes).
class GptLayer {
 public:
  struct Prefixes {
    std::string graph, hf, gguf;  // "layers.0.", "transformer.h.0.", "blk.0."
  };
  GptLayer(const GptConfig& config, WeightSet& weights, GraphBuilder& builder, Prefixes prefixes)
      : c_(config), w_(weights), b_(builder), at_(std::move(prefixes)) {}

  // LayerNorm with bias.
  ValueId norm(ValueId x, const std::string& name, const std::string& hf, const std::string& gguf);
  ValueId linear(ValueId x, const Projection& projection);
  // Weight and bias of up, activation, weight and bias of down.
  ValueId mlp(ValueId x, Projection up, Projection down);
  bool has_gguf(const std::string& module) const;

  struct Rope {
    RopeOp op;
    ValueId frequencies = kNoValue;
  };
  // q, k, v [B, T, heads * head_dim] -> [B, T, heads * head_dim], through the caches of `layer`.
  ValueId attention(int32_t layer, ValueId q, ValueId k, ValueId v, ValueId position,
                    const AttentionOp& op, const std::optional<Rope>& rope = std::nullopt);

 private:
  const GptConfig& c_;
  WeightSet& w_;
  GraphBuilder& b_;
  Prefixes at_;
};

// x + table[position .. position + T - 1]; the table has max_position_embeddings rows.
ValueId add_learned_positions(const GptConfig& config, WeightSet& weights, GraphBuilder& builder,
                              ValueId x, ValueId position, const std::string& hf_name,
                              const std::string& gguf_name);
// Logits from a tied table or from a head of its own; `bias` of the head.
ValueId add_head(const GptConfig& config, WeightSet& weights, GraphBuilder& builder, ValueId x,
                 ValueId table, const std::string& hf_module, bool bias = false);

}  // namespace pome
