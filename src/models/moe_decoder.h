// What the families with experts share: a pre-norm decoder with RMSNorm and rotary positions.
// Mixtral, Qwen3-MoE, GPT-OSS and DeepSeek are built with it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"
#include "models/moe.h"
#include "models/weights.h"

namespace pome {

struct MoeDecoderConfig {
  ModelInfo info;
  RopeConfig rope;
  double rms_norm_eps = 1e-5;
  bool attention_bias = false;
  Activation activation = Activation::kSilu;
  RouterConfig router;
  int64_t expert_width = 0;
  std::vector<std::string> ignored_prefixes;  // stored tensors that the graph has no use for
};

struct MoeDecoderKeys {
  std::string_view family;
  double rms_norm_eps = 1e-5;  // where config.json has none
  std::string_view expert_width = "moe_intermediate_size";
  std::string_view experts = "num_experts";  // num_local_experts is read as well
  bool own_head_dim = true;            // head_dim and rope are read here; else the family does
  std::string_view quant_method = "";  // of quantization_config that the family understands
};
// Complaints go to `config`; the caller finishes it.
MoeDecoderConfig read_moe_decoder(ConfigReader& config, const Checkpoint& checkpoint,
                                  const MoeDecoderKeys& keys);

// One layer. Names are modules behind "model.layers.N." and "blk.N.".
class MoeDecoderLayer {
 public:
  MoeDecoderLayer(const MoeDecoderConfig& config, WeightSet& weights, GraphBuilder& builder,
                  int64_t layer)
      : c_(config), w_(weights), b_(builder), layer_(layer) {}

  ValueId norm(ValueId x, const std::string& name, const std::string& hf, const std::string& gguf,
               int64_t size = 0);  // 0: hidden_size
  // `bias` for Hugging Face; a GGUF file has it where it holds the tensor. paired_heads > 0: rows
  // that llama.cpp's converter stores as rotated pairs.
  ValueId linear(ValueId x, const std::string& name, const std::string& hf, const std::string& gguf,
                 Shape shape, bool bias, int64_t paired_heads = 0);
  // A vector that is no bias of a linear (sinks, corrections).
  ValueId vector(const std::string& name, const std::string& hf, const std::string& gguf,
                 int64_t size);

  struct Attention {
    int64_t window = 0;
    bool qk_norm = false, sinks = false;
    bool paired_heads = false;  // GGUF rows of q and k, see linear()
  };
  // The whole attention block with grouped key heads, without its norm and residual.
  ValueId attention(ValueId h, ValueId position, ValueId frequencies, const Attention& spec);
  // SwiGLU of a dense layer or of shared experts: hf "mlp", gguf suffix "" or "_shexp".
  ValueId gated_mlp(ValueId h, const std::string& name, const std::string& hf,
                    const std::string& gguf_suffix, int64_t width);

  struct ExpertNames {
    std::string hf;              // "mlp.experts"; one tensor per expert: "mlp.experts.3.gate_proj"
    std::string gate, up, down;  // "gate_proj", "up_proj", "down_proj"
    // The stacked form of newer checkpoints: "mlp.experts.gate_up_proj" [E, 2F, K], gate rows
    // first.
    std::string fused = "mlp.experts";
  };
  // Mixes the experts; experts have no biases.
  ValueId experts(ValueId h, ValueId mix, const ExpertNames& names);

  WeightRow row(const std::string& name, const std::string& hf, const std::string& gguf,
                Shape shape) const;
  int32_t index() const { return static_cast<int32_t>(layer_); }
  bool has(const std::string& hf, const std::string& gguf) const;
  WeightSet& weights() { return w_; }
  GraphBuilder& builder() { return b_; }

 private:
  const MoeDecoderConfig& c_;
  WeightSet& w_;
  GraphBuilder& b_;
  int64_t layer_;
};

// Embedding, `layer` for every layer (from x and the layer's helper to its output), norm and head.
using MoeLayerBuilder = std::function<ValueId(MoeDecoderLayer&, int64_t layer, ValueId x,
                                              ValueId position, ValueId frequencies)>;
Result<Graph> build_moe_decoder(const Checkpoint& checkpoint, const MoeDecoderConfig& config,
                                const MoeLayerBuilder& layer);

}  // namespace pome
