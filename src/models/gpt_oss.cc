// GPT-OSS (OpenAI 2025, arXiv 2508.10925): attention with sinks, full and sliding layers by turns,
// biases everywhere, YaRN, and experts with a clamped SwiGLU whose weights are published in MXFP4.
#include <vector>

#include "models/family.h"
#include "models/moe_decoder.h"

namespace pome {

namespace {

struct GptOssConfig {
  MoeDecoderConfig base;
  MoeOp experts;
  std::vector<int64_t> windows;  // by layer, 0 for full attention
};

void read_windows(ConfigReader& config, GptOssConfig* out) {
  const int64_t window = config.integer("sliding_window", "attention.sliding_window", 1, 1 << 30);
  const int64_t layers = out->base.info.num_hidden_layers;
  out->windows.resize(static_cast<size_t>(layers));
  for (size_t i = 0; i < out->windows.size(); ++i) out->windows[i] = i % 2 == 0 ? window : 0;
  if (config.is_gguf()) return;
  const auto types = config.object().find("layer_types");
  if (types == config.object().end() || types->is_null()) return;
  if (!types->is_array() || static_cast<int64_t>(types->size()) != layers)
    return config.complain(Refusal::kType, "layer_types must be a list of num_hidden_layers names");
  for (size_t i = 0; i < out->windows.size(); ++i) {
    const Json& type = (*types)[i];
    if (type == "sliding_attention") {
      out->windows[i] = window;
    } else if (type == "full_attention") {
      out->windows[i] = 0;
    } else {
      return config.unsupported("layer type " +
                                escape_for_terminal(dump_json(type).substr(0, 64), 80));
    }
  }
}

Result<GptOssConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  MoeDecoderKeys keys;
  keys.family = "gpt_oss";
  keys.expert_width = "intermediate_size";
  keys.quant_method = "mxfp4";
  GptOssConfig out;
  out.base = read_moe_decoder(config, checkpoint, keys);
  out.base.router.normalize = true;
  if (config.is_gguf()) {
    // Its files do not say that the model was trained with bounds that are not rounded.
    out.base.rope.truncate = false;
    out.base.attention_bias = true;
  } else {
    out.base.attention_bias = config.maybe_bool("attention_bias", "").value_or(true);
  }
  read_windows(config, &out);
  out.experts = {true, Activation::kSilu, config.positive("swiglu_alpha", "", 1.702),
                 config.positive("swiglu_limit", "", 7.0), 1.0};
  if (out.base.activation != Activation::kSilu)
    config.unsupported("another hidden_act than silu in a gpt_oss model");
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

// The stacked weights of one layer in each of the three forms: GGUF (gate and up apart), bf16
// (input by output, gate and up interleaved) and MXFP4 blocks (output by input, interleaved).
class GptOssExperts {
 public:
  GptOssExperts(MoeDecoderLayer& layer, const GptOssConfig& config)
      : layer_(layer),
        count_(config.base.router.experts),
        hidden_(config.base.info.hidden_size),
        width_(config.base.expert_width),
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
    return get(row, shape);
  }
  ValueId bias(const std::string& what, const std::string& hf, int64_t first, int64_t step,
               int64_t n) {
    const Shape shape = {count_, n};
    WeightRow row = layer_.row("experts." + what + ".bias", "mlp.experts." + hf + "_bias",
                               "ffn_" + what + "_exps.bias", shape);
    row.role = Constant::Role::kBias;
    row.stored_shape = {count_, n * step};
    row.transform = take_expert_columns(first, step, shape);
    return get(row, shape);
  }
  // GGUF stores what the graph wants.
  ValueId get(WeightRow row, const Shape& shape) {
    const bool gguf = layer_.has("", "ffn_down_exps.weight");
    if (gguf) row.stored_shape = {}, row.transform = nullptr, row.shape = shape;
    return layer_.weights().get(row);
  }

  MoeDecoderLayer& layer_;
  int64_t count_, hidden_, width_;
  bool blocks_;
};

ValueId build_layer(MoeDecoderLayer& layer, const GptOssConfig& c, int64_t index, ValueId x,
                    ValueId position, ValueId frequencies) {
  GraphBuilder& b = layer.builder();
  MoeDecoderLayer::Attention attention;
  attention.window = c.windows[static_cast<size_t>(index)];
  attention.sinks = true;
  const ValueId h = layer.norm(x, "attention_norm", "input_layernorm", "attn_norm");
  x = b.binary(BinaryKind::kAdd, x, layer.attention(h, position, frequencies, attention),
               "attention_residual");
  const ValueId m = layer.norm(x, "mlp_norm", "post_attention_layernorm", "post_attention_norm");
  const ValueId logits = layer.linear(m, "router", "mlp.router", "ffn_gate_inp",
                                      {c.base.router.experts, c.base.info.hidden_size}, true);
  const ValueId mix = softmax_router(b, logits, c.base.router);
  const ValueId out = GptOssExperts(layer, c).build(c.experts, m, mix);
  return b.binary(BinaryKind::kAdd, x, out, "output");
}

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const GptOssConfig config, read_config(checkpoint));
  const int64_t hidden = config.base.info.hidden_size, width = config.base.expert_width;
  if (checkpoint.find("model.layers.0.mlp.experts.down_proj_blocks") &&
      (hidden % 32 != 0 || width % 32 != 0))
    return bad_input(Refusal::kRange, "MXFP4 blocks hold 32 weights, but the experts are " +
                                          std::to_string(hidden) + " by " + std::to_string(width))
        .in(checkpoint.path);
  return build_moe_decoder(
      checkpoint, config.base,
      [&](MoeDecoderLayer& layer, int64_t index, ValueId x, ValueId position, ValueId frequencies) {
        return build_layer(layer, config, index, x, position, frequencies);
      });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(GptOssConfig config, read_config(checkpoint));
  return std::move(config.base.info);
}

}  // namespace

const Family& gpt_oss_family() {
  static const Family kFamily = {"gpt_oss", {"gpt_oss"}, {"gpt-oss"}, read_info, build};
  return kFamily;
}

}  // namespace pome
