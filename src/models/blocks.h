// What the dense decoders with RMSNorm, rotary positions and gated MLPs share: reading the common
// part of a configuration, and the blocks of a layer. Llama, Mistral, Qwen, SmolLM, Phi-3 and Gemma
// are written with it; a family file says what is its own.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"
#include "models/models.h"
#include "models/weights.h"

namespace pome {

struct DecoderConfig {
  ModelInfo info;
  RopeConfig rope;
  double rms_norm_eps = 1e-6;
  Activation activation = Activation::kSilu;
  bool qkv_bias = false, output_bias = false, mlp_bias = false;  // Hugging Face; GGUF: as stored
  bool gain_minus_one = false;                                   // norm gains as Gemma stores them
  double embedding_scale = 1;
  double final_logit_softcapping = 0;
  std::vector<int64_t> windows;  // by layer; 0: all positions are visible
};

// What a family's configuration class fills in where config.json has no value.
struct DecoderDefaults {
  std::string_view family;
  double rms_norm_eps = 1e-6;
  int64_t head_dim = 0;  // 0: hidden_size / num_attention_heads
  bool tie_word_embeddings = false;
  std::string_view activation_key = "hidden_act", activation = "silu";
};
// Sizes, heads, rope, norm, activation, name. Every layer sees all positions. Complaints go to
// `config`; the caller finishes it.
DecoderConfig read_decoder(ConfigReader& config, const Checkpoint& checkpoint,
                           const DecoderDefaults& defaults);

// Complains where a configuration switches on what the family does not have.
void refuse_true(ConfigReader& config, const char* key);
// Sets `windows`: layers that layer_types calls "sliding_attention" or, without that list, those
// that `slides` names, see `window` positions. A window of all positions or more is none.
void read_windows(ConfigReader& config, int64_t window, const std::function<bool(int64_t)>& slides,
                  DecoderConfig* out);

// The rotation of one kind of layer.
struct Rotary {
  ValueId position = kNoValue, frequencies = kNoValue;
  RopeOp op;
};
Rotary make_rotary(GraphBuilder& builder, const std::string& name, const RopeConfig& rope,
                   std::span<const float> factors = {});

// The blocks of one layer. Names are modules behind "model.layers.N." and "blk.N.".
class DecoderLayer {
 public:
  DecoderLayer(const DecoderConfig& config, WeightSet& weights, GraphBuilder& builder,
               int64_t layer)
      : c_(config), w_(weights), b_(builder), layer_(layer) {}
  int64_t index() const { return layer_; }

  ValueId norm(ValueId x, const std::string& name, const std::string& hf, const std::string& gguf,
               int64_t size = 0);  // 0: hidden_size

  struct Projection {
    std::string hf, gguf;
    Shape shape;
    bool bias = false;         // for Hugging Face; a GGUF file has it where it holds the tensor
    int64_t paired_heads = 0;  // > 0: heads whose rows GGUF stores as rotated pairs
    int64_t first_row = 0, stored_rows = 0;  // stored_rows > 0: a part of a fused matrix
  };
  ValueId linear(ValueId x, const std::string& name, const Projection& projection);

  struct Attention {
    const Rotary* rotary = nullptr;  // null: this layer does not rotate
    double scale = 0;                // 0: 1 / sqrt(head_dim)
    double softcap = 0;              // 0: none
    bool qk_norm = false, fused_qkv = false, paired_heads = false;
  };
  // From the normalised input to the output projection; the window is that of the layer.
  ValueId attention(ValueId h, const Attention& spec);
  // down(activation(gate(h)) * up(h))
  ValueId gated_mlp(ValueId h, bool fused_gate_up = false);
  ValueId add(ValueId x, ValueId y, const std::string& name) {
    return b_.binary(BinaryKind::kAdd, x, y, name);
  }
  // x + attention(norm(x)), then x + mlp(norm(x)): the layer of most families.
  ValueId pre_norm_layer(ValueId x, const Attention& spec, bool fused_gate_up = false);

 private:
  std::string at(const std::string& prefix, const std::string& rest) const {
    return prefix + std::to_string(layer_) + "." + rest;
  }
  const DecoderConfig& c_;
  WeightSet& w_;
  GraphBuilder& b_;
  int64_t layer_;
};

// Runs before the embedding (to make its rotations), then once for every layer.
struct DecoderBody {
  virtual ~DecoderBody() = default;
  virtual Status begin(GraphBuilder& builder, WeightSet& weights) = 0;
  virtual ValueId layer(DecoderLayer& layer, ValueId x) = 0;
};
// Embedding, layers, final norm and head.
Result<Graph> build_decoder(const Checkpoint& checkpoint, const DecoderConfig& config,
                            DecoderBody& body);

// The body of the families whose layers differ in nothing but window and rotation.
class PreNormBody final : public DecoderBody {
 public:
  PreNormBody(const DecoderConfig& config, DecoderLayer::Attention attention)
      : c_(config), attention_(attention) {}
  std::function<bool(int64_t)> rotates;  // null: every layer
  bool fused_gate_up = false;
  int64_t context = 0;  // of BuildOptions
  Status begin(GraphBuilder& builder, WeightSet& weights) override;
  ValueId layer(DecoderLayer& layer, ValueId x) override;

 private:
  const DecoderConfig& c_;
  DecoderLayer::Attention attention_;
  Rotary rotary_;
};

// Takes the short or the long factors for `context` positions of BuildOptions.
void choose_rope_factors(const ModelInfo& info, int64_t context, RopeConfig* rope);

}  // namespace pome
