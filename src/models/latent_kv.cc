// latent_kv: a decoder that caches keys and values as latents of each head. Heads are turned by
// their position first and projected to latents afterwards; q, k and v of a layer share one
// projection each for all heads, and so does the way back. LayerNorm, experts without gates beside
// shared ones. Hugging Face layout only.
#include <cmath>

#include "models/config.h"
#include "models/family.h"
#include "models/moe.h"
#include "models/stored_quantisation.h"

namespace pome {

namespace {

struct LatentKvConfig {
  ModelInfo info;
  RopeConfig rope;
  double layer_norm_eps = 1e-5;
  bool multi_query = true;
  int64_t latent_dim = 0, shared_experts = 0, width = 0;
  RouterConfig router;
};

Result<LatentKvConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  LatentKvConfig out;
  ModelInfo& info = out.info;
  info.family = info.architecture = "latent_kv";
  info.vocab_size = config.integer("vocab_size", "", 1, int64_t{1} << 24);
  info.hidden_size = config.integer("hidden_size", "", 1, 1 << 20);
  info.num_hidden_layers = config.integer("num_hidden_layers", "", 1, 1 << 14);
  info.num_attention_heads = config.integer("num_attention_heads", "", 1, 1 << 14);
  info.num_key_value_heads = info.num_attention_heads;
  info.head_dim = info.hidden_size / info.num_attention_heads;
  if (info.hidden_size % info.num_attention_heads != 0 || info.head_dim < 2) {
    config.complain(Refusal::kRange, "hidden_size " + std::to_string(info.hidden_size) +
                                         " does not suit num_attention_heads " +
                                         std::to_string(info.num_attention_heads));
    info.head_dim = 2;
  }
  info.max_position_embeddings = config.integer("max_position_embeddings", "", 1, int64_t{1} << 31);
  out.multi_query = config.maybe_bool("multi_query", "").value_or(true);
  out.latent_dim = config.integer("kv_latent_dim", "", 1, 1 << 16);
  out.layer_norm_eps = config.positive("layer_norm_eps", "", 1e-5);
  out.router.experts = config.integer("num_experts", "", 1, 1 << 16);
  out.router.experts_per_token = config.integer("num_experts_per_tok", "", 1, 1 << 16);
  if (out.router.experts_per_token > out.router.experts)
    config.complain(Refusal::kRange, "num_experts_per_tok is more than num_experts");
  out.router.normalize = true;
  out.shared_experts = config.maybe_int("num_shared_experts", "").value_or(0);
  if (out.shared_experts < 0 || out.shared_experts > 1 << 10)
    config.complain(Refusal::kRange, "num_shared_experts is out of range");
  out.width = info.intermediate_size = config.integer("moe_intermediate_size", "", 1, 1 << 22);
  if (config.maybe_bool("tie_word_embeddings", "").value_or(false))
    config.unsupported("tied embeddings in a latent_kv model");
  check_stored_quantisation(config);
  out.rope = read_rope(config, info.head_dim);
  const size_t end = checkpoint.path.find_last_not_of('/') + 1;
  const size_t slash = checkpoint.path.substr(0, end).find_last_of('/');
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  info.name = checkpoint.path.substr(begin, end - begin);
  info.config["kv_latent_dim"] = out.latent_dim;
  info.config["multi_query"] = out.multi_query;
  info.config["num_experts"] = out.router.experts;
  info.config["num_experts_per_tok"] = out.router.experts_per_token;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

class LatentKvLayer {
 public:
  LatentKvLayer(const LatentKvConfig& config, WeightSet& weights, GraphBuilder& builder,
                int64_t layer)
      : c_(config),
        w_(weights),
        b_(builder),
        layer_(static_cast<int32_t>(layer)),
        graph_("layers." + std::to_string(layer) + "."),
        hf_("blocks." + std::to_string(layer) + ".") {}

  ValueId build(ValueId x, ValueId position, ValueId frequencies, ValueId zeros) {
    const int64_t heads = c_.info.num_attention_heads;
    const ValueId k_cache = b_.cache(layer_, CachePair::Kind::kKey, heads, c_.latent_dim);
    const ValueId v_cache = b_.cache(layer_, CachePair::Kind::kValue, heads, c_.latent_dim);
    b_.scope(graph_);
    const Caches caches = {k_cache, v_cache};
    x = b_.binary(BinaryKind::kAdd, x,
                  attention(norm(x, "attention_norm", "ln1"), position, frequencies, zeros, caches),
                  "attention_residual");
    x = b_.binary(BinaryKind::kAdd, x, mixture(norm(x, "mlp_norm", "ln2")), "output");
    b_.end_layer(x);
    b_.scope("");
    return x;
  }

 private:
  struct Caches {
    ValueId k, v;
  };
  ValueId get(const std::string& name, const std::string& hf, Shape shape,
              Constant::Role role = Constant::Role::kMatrix) {
    return w_.get({graph_ + name, hf_ + hf, "", std::move(shape), role});
  }
  ValueId norm(ValueId x, const std::string& name, const std::string& hf) {
    const Shape shape = {c_.info.hidden_size};
    return b_.add(LayerNormOp{c_.layer_norm_eps},
                  {x, get(name + ".weight", hf + ".weight", shape, Constant::Role::kNorm),
                   get(name + ".bias", hf + ".bias", shape, Constant::Role::kBias)},
                  name);
  }
  ValueId linear(ValueId x, const std::string& name, const std::string& hf, int64_t n, int64_t k,
                 bool bias = false) {
    const ValueId weight = get(name + ".weight", hf + ".weight", {n, k});
    const ValueId offset =
        bias ? get(name + ".bias", hf + ".bias", {n}, Constant::Role::kBias) : kNoValue;
    return b_.linear(x, weight, offset, name);
  }

  ValueId attention(ValueId h, ValueId position, ValueId frequencies, ValueId zeros,
                    const Caches& caches) {
    const ModelInfo& i = c_.info;
    const int64_t dim = i.head_dim, latent = c_.latent_dim, hidden = i.hidden_size;
    const int64_t kv_heads = c_.multi_query ? 1 : i.num_attention_heads, kv = kv_heads * dim;
    const ValueId qkv = linear(h, "attention.qkv", "attn.qkv_proj", hidden + 2 * kv, hidden);
    const auto part = [&](int64_t begin, int64_t heads, const std::string& name) {
      const ValueId rows = b_.add(SliceOp{-1, begin, begin + heads * dim}, {qkv}, name);
      return b_.split_heads(rows, heads, dim, name + "_heads");
    };
    const RopeOp rope{RopeStyle::kHalves, c_.rope.rotary_dim, c_.rope.attention_factor};
    ValueId q =
        b_.add(rope, {part(0, i.num_attention_heads, "q"), position, frequencies}, "q_rope");
    ValueId k = b_.add(rope, {part(hidden, kv_heads, "k"), position, frequencies}, "k_rope");
    ValueId v = part(hidden + kv, kv_heads, "v");
    q = linear(q, "attention.q_to_latent", "attn.q_to_latent", latent, dim);
    k = linear(k, "attention.k_to_latent", "attn.k_to_latent", latent, dim);
    v = linear(v, "attention.v_to_latent", "attn.v_to_latent", latent, dim);
    if (c_.multi_query) {  // the caches hold the latents of every head
      k = b_.binary(BinaryKind::kAdd, k, zeros, "k_latent_heads");
      v = b_.binary(BinaryKind::kAdd, v, zeros, "v_latent_heads");
    }
    k = b_.kv_write(caches.k, k, position, "k_latent_all");
    v = b_.kv_write(caches.v, v, position, "v_latent_all");
    const AttentionOp op{1 / std::sqrt(static_cast<double>(latent))};
    ValueId out = b_.add(op, {q, k, v}, "attention");
    out = linear(out, "attention.latent_to_head", "attn.latent_to_head", dim, latent);
    return linear(b_.merge_heads(out, "heads"), "attention.o", "attn.o_proj", hidden, hidden);
  }

  ValueId mixture(ValueId h) {
    const int64_t hidden = c_.info.hidden_size, width = c_.width, count = c_.router.experts;
    const ValueId mix =
        softmax_router(b_, linear(h, "router", "moe.gate", count, hidden), c_.router);
    const auto stack = [&](const std::string& name, const std::string& hf, Shape shape,
                           Constant::Role role) {
      return w_.get_stack(
          {graph_ + "experts." + name, hf_ + "moe.experts.*." + hf, "", std::move(shape), role},
          [&](int64_t e) { return hf_ + "moe.experts." + std::to_string(e) + "." + hf; });
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
  WeightSet& w_;
  GraphBuilder& b_;
  int32_t layer_;
  std::string graph_, hf_;
};

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const LatentKvConfig config, read_config(checkpoint));
  const ModelInfo& info = config.info;
  GraphBuilder b(info);
  WeightSet weights(checkpoint, b);
  const ValueId ids = b.token_ids(), position = b.position();
  const ValueId frequencies =
      b.vector("rope.inverse_frequencies", inverse_frequencies(config.rope));
  const ValueId zeros = config.multi_query ? zero_heads(b, info.num_attention_heads) : kNoValue;
  const ValueId table = weights.get({"embedding.weight",
                                     "embed.weight",
                                     "",
                                     {info.vocab_size, info.hidden_size},
                                     Constant::Role::kEmbedding});
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  for (int64_t layer = 0; layer < info.num_hidden_layers; ++layer)
    x = LatentKvLayer(config, weights, b, layer).build(x, position, frequencies, zeros);
  const Shape hidden = {info.hidden_size};
  const ValueId gain =
      weights.get({"norm.weight", "ln_f.weight", "", hidden, Constant::Role::kNorm});
  const ValueId shift = weights.get({"norm.bias", "ln_f.bias", "", hidden, Constant::Role::kBias});
  x = b.add(LayerNormOp{config.layer_norm_eps}, {x, gain, shift}, "norm");
  const ValueId head = weights.get({"head.weight",
                                    "lm_head.weight",
                                    "",
                                    {info.vocab_size, info.hidden_size},
                                    Constant::Role::kHead});
  const ValueId bias =
      weights.get({"head.bias", "lm_head.bias", "", {info.vocab_size}, Constant::Role::kBias});
  const ValueId logits = b.linear(x, head, bias, "logits");
  POME_RETURN_IF_ERROR(weights.finish());
  return b.finish(logits);
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
