// What decoders are made of: what a family says of itself, the blocks of a layer, and the frame
// from embedding to head. Every family is written with it; mixture.h adds experts.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"
#include "models/hidden_act.h"
#include "models/models.h"
#include "models/moe.h"
#include "models/rope.h"
#include "models/weights.h"

namespace pome {

// Modules of the frame as Hugging Face names them.
struct DecoderNames {
  std::string base = "model.";  // what the names of a base model, saved alone, lack
  std::string embedding = "model.embed_tokens", layers = "model.layers.", norm = "model.norm",
              head = "lm_head";
  std::string positions = "";        // a table of learned positions
  std::vector<std::string> buffers;  // saved by old releases: ends of names without weights
};

struct DecoderConfig {
  ModelInfo info;
  DecoderNames names;
  bool rotates = true;  // has `rope`
  RopeConfig rope;
  std::optional<RopeConfig> local_rope;  // of layers that see a window, where it differs
  RopeStyle rope_style = RopeStyle::kHalves;
  bool layer_norm = false;  // LayerNorm with bias; else RMSNorm
  double norm_eps = 1e-6;
  HiddenAct act;
  // Hugging Face; a GGUF file has those whose tensors it holds.
  bool qkv_bias = false, output_bias = false, mlp_bias = false, head_bias = false;
  bool gain_minus_one = false;  // norm gains as Gemma stores them
  double embedding_scale = 1;
  double final_logit_softcapping = 0;
  std::vector<int64_t> windows;  // by layer; 0: all positions are visible
  // Mixtures of experts (mixture.h)
  RouterConfig router;
  int64_t expert_width = 0;
  std::vector<std::string> ignored_prefixes;  // stored tensors that the graph has no use for
};

// How a family's configurations spell what read_decoder() reads.
struct DecoderKeys {
  std::string_view family;
  std::string_view hidden_size = "hidden_size", num_hidden_layers = "num_hidden_layers",
                   num_attention_heads = "num_attention_heads",
                   num_key_value_heads = "num_key_value_heads",  // empty: as many as heads
      head_dim = "head_dim",                                     // empty: always derived
      max_position_embeddings = "max_position_embeddings", intermediate_size = "intermediate_size",
                   norm_eps = "rms_norm_eps", hidden_act = "hidden_act";
  bool layer_norm = false;
  bool wide_by_default = false;  // no intermediate_size: 4 hidden_size
  bool latent_heads = false;     // the family reads heads and rope itself
  bool rotates = true;
  RopeKeys rope = {};
  std::string_view quant_method = "";  // of quantization_config that the family understands
};
// Sizes, heads, rope, norm, activation, name. Every layer sees all positions. Complaints go to
// `config`; the caller finishes it.
DecoderConfig read_decoder(ConfigReader& config, const Checkpoint& checkpoint,
                           const DecoderKeys& keys);

// What artefacts and commands are told of `rope`; for families that read it themselves.
void note_rope(DecoderConfig* out);
// Complains where a configuration switches on what the family does not have.
void refuse_true(ConfigReader& config, const char* key);
// A number of positions; 0 when it is null (or 0 in GGUF).
int64_t read_window(ConfigReader& config, std::string_view hf = "sliding_window",
                    std::string_view gguf = "attention.sliding_window");
// Sets `windows`: layers that layer_types calls "sliding_attention" or, without that list, those
// that `slides` names, see `window` positions. A window of all positions (note_rope() tells how
// many there are) is none. Returns which layers slide.
std::vector<bool> read_windows(ConfigReader& config, int64_t window,
                               const std::function<bool(int64_t)>& slides, DecoderConfig* out);
// For families whose layers are all of one kind and whose class does not read layer_types.
void read_uniform_window(ConfigReader& config, int64_t window, DecoderConfig* out);

// The rotation of one kind of layer.
struct Rotary {
  ValueId position = kNoValue, frequencies = kNoValue;
  RopeOp op;
};
Rotary make_rotary(GraphBuilder& builder, const std::string& name, const RopeConfig& rope,
                   RopeStyle style = RopeStyle::kHalves, std::span<const float> factors = {});

// y = x W^T + b of a module, which may be a part of a larger stored one.
struct Projection {
  std::string name;          // in the graph: "attention.q"
  std::string hf, gguf;      // modules: "self_attn.q_proj", "attn_q"
  Shape shape;               // [outputs, inputs]
  bool bias = false;         // for Hugging Face; a GGUF file has it where it holds the tensor
  int64_t paired_heads = 0;  // > 0: heads whose rows GGUF stores as pairs
  int64_t first_row = 0, stored_rows = 0;  // stored_rows > 0: a part of a fused matrix
  // Hugging Face: where its parts are not in one piece
  std::function<int64_t(int64_t)> row = nullptr;
  bool conv1d = false;  // Hugging Face stores [inputs, outputs]
};

// What the layers of one graph share.
struct DecoderParts {
  const DecoderConfig& config;
  WeightSet& weights;
  GraphBuilder& builder;
  Rotary rotary, local_rotary;  // of config.rope and config.local_rope
};

// The blocks of one layer. Names are modules behind "model.layers.N." and "blk.N.".
class DecoderLayer {
 public:
  DecoderLayer(const DecoderParts& parts, int64_t layer)
      : parts_(parts), c_(parts.config), w_(parts.weights), b_(parts.builder), layer_(layer) {}
  int64_t index() const { return layer_; }
  const DecoderConfig& config() const { return c_; }
  const Rotary& rotary() const { return parts_.rotary; }
  const Rotary& local_rotary() const { return parts_.local_rotary; }
  WeightSet& weights() { return w_; }
  GraphBuilder& builder() { return b_; }

  WeightRow row(const std::string& name, const std::string& hf, const std::string& gguf,
                Shape shape, Constant::Role role = Constant::Role::kMatrix) const;
  bool has(const std::string& hf, const std::string& gguf) const;

  struct NormOptions {
    int64_t size = 0;    // 0: hidden_size
    double epsilon = 0;  // 0: that of the family
  };
  ValueId norm(ValueId x, const std::string& name, const std::string& hf, const std::string& gguf,
               const NormOptions& options);
  ValueId norm(ValueId x, const std::string& name, const std::string& hf, const std::string& gguf) {
    return norm(x, name, hf, gguf, NormOptions());
  }
  ValueId linear(ValueId x, const Projection& projection);
  // A vector that is no bias of a linear (sinks, corrections).
  ValueId vector(const std::string& name, const std::string& hf, const std::string& gguf,
                 int64_t size);
  ValueId add(ValueId x, ValueId y, const std::string& name) {
    return b_.binary(BinaryKind::kAdd, x, y, name);
  }

  struct Attention {
    const Rotary* rotary = nullptr;  // null: this layer does not rotate
    double scale = 0;                // 0: 1 / sqrt(head_dim)
    double softcap = 0;              // 0: none
    // What the norms of the heads of q and k are called behind "q_": "norm"; empty: none.
    std::string_view head_norm = "";
    bool fused_qkv = false, paired_heads = false, sinks = false;
  };
  // From the normalised input to the output projection; the window is that of the layer.
  ValueId attention(ValueId h, const Attention& spec);
  // The part of it between the projections, [B, T, heads * head_dim] each, through the caches.
  ValueId attend(ValueId q, ValueId k, ValueId v, const Attention& spec);

  struct Mlp {
    std::string name = "mlp", hf = "mlp", gguf_suffix = "";  // "_shexp" for shared experts
    int64_t width = 0;                                       // 0: intermediate_size
    bool fused = false;                                      // gate and up are one matrix
  };
  // down(activation(gate(h)) * up(h))
  ValueId gated_mlp(ValueId h, const Mlp& mlp);
  ValueId gated_mlp(ValueId h) { return gated_mlp(h, Mlp()); }
  // down(activation(up(h))), both with bias
  ValueId plain_mlp(ValueId h, const std::string& up, const std::string& down, bool conv1d = false);
  // x + attention(norm(x)), then x + mlp(norm(x)): the layer of most families.
  ValueId pre_norm_layer(ValueId x, const Attention& spec, bool fused_gate_up = false);

 private:
  const DecoderParts& parts_;
  const DecoderConfig& c_;
  WeightSet& w_;
  GraphBuilder& b_;
  int64_t layer_;
};

using LayerBody = std::function<ValueId(DecoderLayer& layer, ValueId x)>;
// Embedding, learned positions, `body` for every layer (from x to its output), final norm and head.
Result<Graph> build_decoder(const Checkpoint& checkpoint, const DecoderConfig& config,
                            const BuildOptions& options, const LayerBody& body);

}  // namespace pome
