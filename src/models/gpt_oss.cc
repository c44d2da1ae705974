// GPT-OSS (OpenAI 2025, arXiv 2508.10925): attention with sinks, full and sliding layers by turns,
// biases everywhere, YaRN, and experts with a clamped SwiGLU whose weights are published in MXFP4.
#include "models/family.h"
#include "models/mixture.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults = R"({
  "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36,
  "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "hidden_act": "silu",
  "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "sliding_window": 128,
  "num_local_experts": 128, "num_experts_per_tok": 4, "attention_bias": true,
  "swiglu_alpha": 1.702, "swiglu_limit": 7.0})";
constexpr std::string_view kDefaultRope = R"({
  "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
  "original_max_position_embeddings": 4096})";

struct GptOssConfig : DecoderConfig {
  MoeOp experts;
};

Result<GptOssConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  POME_ASSIGN_OR_RETURN(const Json rope, parse_json(kDefaultRope, "gpt_oss rope"));
  DecoderKeys keys{.family = "gpt_oss", .quant_method = "mxfp4"};
  keys.rope.theta = 150000;
  keys.rope.absent = &rope;
  keys.wide_by_default = config.is_gguf();  // its files may say the width of experts only
  GptOssConfig out;
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, keys);
  read_mixture(
      config,
      {.experts = "num_local_experts", .also = "num_experts", .expert_width = "intermediate_size"},
      &out);
  out.router.normalize = true;
  // GGUF files do not say that the model was trained with bounds that are not rounded.
  if (config.is_gguf()) out.rope.truncate = false;
  out.qkv_bias = out.output_bias = config.maybe_bool("attention_bias", "").value_or(true);
  read_windows(
      config, read_window(config), [](int64_t layer) { return layer % 2 == 0; }, &out);
  out.experts = {true, Activation::kSilu, config.positive("swiglu_alpha", "", 1.702),
                 config.positive("swiglu_limit", "", 7.0), 1.0};
  if (!out.act.is_silu()) config.unsupported("another hidden_act than silu in a gpt_oss model");
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

// The stacked weights of one layer in each of the three forms: GGUF (gate and up apart), bf16
// (input by output, gate and up interleaved) and MXFP4 blocks (output by input, interleaved).
class GptOssExperts {
 public:
  GptOssExperts(DecoderLayer& layer, const GptOssConfig& config)
      : layer_(layer),
        count_(config.router.experts),
        hidden_(config.info.hidden_size),
        width_(config.expert_width),
        blocks_(hidden_ % 32 == 0 && width_ % 32 == 0 &&
                layer.has("mlp.experts.down_proj_blocks", "")) {}

  ValueId build(const MoeOp& op, ValueId h, ValueId mix) {
    const Shape inner = {count_, width_, hidden_}, outer = {count_, hidden_, width_};
    return layer_.builder().add(
        op,
        {h, mix, weight("gate", "gate_up_proj", 0, 2, inner),
         weight("up", "gate_up_proj", 1, 2, inner), weight("down", "down_proj", 0, 1, outer),
         bias("gate", "gate_up_proj", 0, 2, width_), bias("up", "gate_up_proj", 1, 2, width_),
         bias("down", "down_proj", 0, 1, hidden_)},
        "experts");
  }

 private:
  ValueId weight(const std::string& what, const std::string& hf, int64_t first, int64_t step,
                 const Shape& shape) {
    WeightRow row = layer_.row("experts." + what + ".weight", "mlp.experts." + hf,
                               "ffn_" + what + "_exps.weight", shape);
    const int64_t outputs = shape[1] * step, inputs = shape[2];
    if (blocks_) {
      const std::string scales_name =
          layer_.row("", "mlp.experts." + hf + "_scales", "", {}).hf_name;
      const Shape scales_shape = {count_, outputs, inputs / 32};
      const ConstantDataPtr scales = layer_.weights().stored(scales_name, "", scales_shape);
      row.hf_name += "_blocks";
      row.stored_shape = {count_, outputs, inputs / 32, 16};
      row.transform = [=](ConstantDataPtr blocks) {
        return mxfp4_experts(std::move(blocks), scales, first, step, shape);
      };
    } else {
      row.stored_shape = {count_, inputs, outputs};
      row.transform = transpose_experts(first, step, shape);
    }
    return layer_.weights().get(row);
  }
  ValueId bias(const std::string& what, const std::string& hf, int64_t first, int64_t step,
               int64_t n) {
    const Shape shape = {count_, n};
    WeightRow row = layer_.row("experts." + what + ".bias", "mlp.experts." + hf + "_bias",
                               "ffn_" + what + "_exps.bias", shape);
    row.role = Constant::Role::kBias;
    row.stored_shape = {count_, n * step};
    row.transform = take_expert_columns(first, step, shape);
    return layer_.weights().get(row);
  }

  DecoderLayer& layer_;
  int64_t count_, hidden_, width_;
  bool blocks_;
};

ValueId build_layer(DecoderLayer& layer, const GptOssConfig& c, ValueId x) {
  const ValueId h = layer.norm(x, "attention_norm", "input_layernorm", "attn_norm");
  x = layer.add(x, layer.attention(h, {.rotary = &layer.rotary(), .sinks = true}),
                "attention_residual");
  const ValueId m = layer.norm(x, "mlp_norm", "post_attention_layernorm", "post_attention_norm");
  const ValueId logits = router_logits(layer, m, "mlp.router", true);
  const ValueId mix = softmax_router(layer.builder(), logits, c.router);
  return layer.add(x, GptOssExperts(layer, c).build(c.experts, m, mix), "output");
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const GptOssConfig config, read_config(checkpoint));
  const int64_t hidden = config.info.hidden_size, width = config.expert_width;
  if (checkpoint.find("model.layers.0.mlp.experts.down_proj_blocks") &&
      (hidden % 32 != 0 || width % 32 != 0))
    return bad_input(Refusal::kRange, "MXFP4 blocks hold 32 weights, but the experts are " +
                                          std::to_string(hidden) + " by " + std::to_string(width))
        .in(checkpoint.path);
  return build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
    return build_layer(layer, config, x);
  });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(GptOssConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& gpt_oss_family() {
  static const Family kFamily = {"gpt_oss", {"gpt_oss"}, {"gpt-oss"}, read_info, build};
  return kFamily;
}

}  // namespace pome
