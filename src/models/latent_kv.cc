// latent_kv: a decoder that caches keys and values as latents of each head. Heads are turned by
// their position first and projected to latents afterwards; q, k and v of a layer share one
// projection each for all heads, and so does the way back. LayerNorm, experts without gates beside
// shared ones. Hugging Face layout only.
#include <cmath>

#include "models/blocks.h"
#include "models/family.h"
#include "models/moe.h"

namespace pome {

namespace {

constexpr std::string_view kClassDefaults =
    R"({"layer_norm_eps": 1e-5, "hidden_act": "gelu", "multi_query": true})";

struct LatentKvConfig : DecoderConfig {
  bool multi_query = true;
  int64_t latent_dim = 0, shared_experts = 0;
};

Result<LatentKvConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint, kClassDefaults);
  const DecoderKeys keys{.family = "latent_kv",
                         .num_key_value_heads = "",
                         .head_dim = "",
                         .intermediate_size = "moe_intermediate_size",
                         .norm_eps = "layer_norm_eps",
                         .layer_norm = true};
  LatentKvConfig out;
  static_cast<DecoderConfig&>(out) = read_decoder(config, checkpoint, keys);
  out.names = {"", "embed", "blocks.", "ln_f", "lm_head", "", {}};
  out.head_bias = true;
  out.multi_query = config.maybe_bool("multi_query", "").value_or(true);
  out.latent_dim = config.integer("kv_latent_dim", "", 1, 1 << 16);
  out.router.experts = config.integer("num_experts", "", 1, 1 << 16);
  out.router.experts_per_token = config.integer("num_experts_per_tok", "", 1, 1 << 16);
  if (out.router.experts_per_token > out.router.experts)
    config.complain(Refusal::kRange, "num_experts_per_tok is more than num_experts");
  out.router.normalize = true;
  out.shared_experts = config.maybe_int("num_shared_experts", "").value_or(0);
  if (out.shared_experts < 0 || out.shared_experts > 1 << 10)
    config.complain(Refusal::kRange, "num_shared_experts is out of range");
  out.expert_width = out.info.intermediate_size;
  if (out.info.tie_word_embeddings) config.unsupported("tied embeddings in a latent_kv model");
  if (config.names("hidden_act")) config.unsupported("hidden_act in a latent_kv model");
  out.info.config["kv_latent_dim"] = out.latent_dim;
  out.info.config["multi_query"] = out.multi_query;
  out.info.config["num_experts"] = out.router.experts;
  out.info.config["num_experts_per_tok"] = out.router.experts_per_token;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path, &out.info));
  return out;
}

class LatentKvLayer {
 public:
  LatentKvLayer(const LatentKvConfig& config, DecoderLayer& layer, ValueId zeros)
      : c_(config), layer_(layer), b_(layer.builder()), zeros_(zeros) {}

  ValueId build(ValueId x) {
    x = layer_.add(x, attention(layer_.norm(x, "attention_norm", "ln1", "")), "attention_residual");
    return layer_.add(x, mixture(layer_.norm(x, "mlp_norm", "ln2", "")), "output");
  }

 private:
  ValueId linear(ValueId x, const std::string& name, const std::string& hf, int64_t n, int64_t k,
                 bool bias = false) {
    return layer_.linear(x, {name, hf, "", {n, k}, bias});
  }
  ValueId turn(ValueId x, const std::string& name) {
    const Rotary& rotary = layer_.rotary();
    return b_.add(rotary.op, {x, rotary.position, rotary.frequencies}, name);
  }

  ValueId attention(ValueId h) {
    const ModelInfo& i = c_.info;
    const int64_t dim = i.head_dim, latent = c_.latent_dim, hidden = i.hidden_size;
    const int64_t heads = i.num_attention_heads, kv_heads = c_.multi_query ? 1 : heads;
    const int64_t kv = kv_heads * dim;
    const int32_t index = static_cast<int32_t>(layer_.index());
    b_.scope("");
    const ValueId k_cache = b_.cache(index, CachePair::Kind::kKey, heads, latent);
    const ValueId v_cache = b_.cache(index, CachePair::Kind::kValue, heads, latent);
    b_.scope("layers." + std::to_string(index) + ".");
    const ValueId qkv = linear(h, "attention.qkv", "attn.qkv_proj", hidden + 2 * kv, hidden);
    const auto part = [&](int64_t begin, int64_t count, const std::string& name) {
      const ValueId rows = b_.add(SliceOp{-1, begin, begin + count * dim}, {qkv}, name);
      return b_.split_heads(rows, count, dim, name + "_heads");
    };
    ValueId q = turn(part(0, heads, "q"), "q_rope");
    ValueId k = turn(part(hidden, kv_heads, "k"), "k_rope");
    ValueId v = part(hidden + kv, kv_heads, "v");
    q = linear(q, "attention.q_to_latent", "attn.q_to_latent", latent, dim);
    k = linear(k, "attention.k_to_latent", "attn.k_to_latent", latent, dim);
    v = linear(v, "attention.v_to_latent", "attn.v_to_latent", latent, dim);
    if (c_.multi_query) {  // the caches hold the latents of every head
      k = layer_.add(k, zeros_, "k_latent_heads");
      v = layer_.add(v, zeros_, "v_latent_heads");
    }
    k = b_.kv_write(k_cache, k, b_.position(), "k_latent_all");
    v = b_.kv_write(v_cache, v, b_.position(), "v_latent_all");
    const AttentionOp op{1 / std::sqrt(static_cast<double>(latent))};
    ValueId out = b_.add(op, {q, k, v}, "attention");
    out = linear(out, "attention.latent_to_head", "attn.latent_to_head", dim, latent);
    return linear(b_.merge_heads(out, "heads"), "attention.o", "attn.o_proj", hidden, hidden);
  }

  ValueId mixture(ValueId h) {
    const int64_t hidden = c_.info.hidden_size, width = c_.expert_width, count = c_.router.experts;
    const ValueId mix =
        softmax_router(b_, linear(h, "router", "moe.gate", count, hidden), c_.router);
    const auto stack = [&](const std::string& name, const std::string& hf, Shape shape,
                           Constant::Role role) {
      return layer_.weights().get_stack(
          layer_.row("experts." + name, "moe.experts.*." + hf, "", std::move(shape), role),
          [&](int64_t e) {
            return layer_.row("", "moe.experts." + std::to_string(e) + "." + hf, "", {}).hf_name;
          });
    };
    using Role = Constant::Role;
    ValueId out =
        b_.add(MoeOp{false, Activation::kGelu},
               {h, mix, stack("up.weight", "fc1.weight", {count, width, hidden}, Role::kMatrix),
                stack("down.weight", "fc2.weight", {count, hidden, width}, Role::kMatrix),
                stack("up.bias", "fc1.bias", {count, width}, Role::kBias),
                stack("down.bias", "fc2.bias", {count, hidden}, Role::kBias)},
               "experts");
    for (int64_t s = 0; s < c_.shared_experts; ++s) {
      const std::string at = std::to_string(s);
      const ValueId up =
          linear(h, "shared." + at + ".up", "moe.shared." + at + ".fc1", width, hidden, true);
      const ValueId act = b_.add(ActivationOp{Activation::kGelu}, {up}, "shared." + at + ".gelu");
      out = b_.binary(
          BinaryKind::kAdd, out,
          linear(act, "shared." + at + ".down", "moe.shared." + at + ".fc2", hidden, width, true));
    }
    return out;
  }

  const LatentKvConfig& c_;
  DecoderLayer& layer_;
  GraphBuilder& b_;
  ValueId zeros_;  // [1, heads, 1, 1]
};

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions& options) {
  POME_ASSIGN_OR_RETURN(const LatentKvConfig config, read_config(checkpoint));
  ValueId zeros = kNoValue;
  return build_decoder(checkpoint, config, options, [&](DecoderLayer& layer, ValueId x) {
    if (config.multi_query && zeros == kNoValue)
      zeros = zero_heads(layer.builder(), config.info.num_attention_heads);
    return LatentKvLayer(config, layer, zeros).build(x);
  });
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(LatentKvConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& latent_kv_family() {
  static const Family kFamily = {"latent_kv", {"latent_kv"}, {}, read_info, build};
  return kFamily;
}

}  // namespace pome
