// Llama 2 and 3 (Touvron et al. 2023, arXiv 2302.13971, 2307.09288; Llama 3: arXiv 2407.21783):
// pre-norm decoder, RMSNorm, rotary positions, grouped-query attention, SwiGLU.
#include <algorithm>
#include <cmath>

#include "models/config.h"
#include "models/family.h"
#include "models/models.h"
#include "models/weights.h"

namespace pome {

namespace {

struct LlamaConfig {
  ModelInfo info;
  RopeConfig rope;
  double rms_norm_eps = 1e-5;
  bool attention_bias = false, mlp_bias = false;
  Activation activation = Activation::kSilu;
};

Result<LlamaConfig> read_config(const Checkpoint& checkpoint) {
  ConfigReader config(checkpoint);
  LlamaConfig out;
  ModelInfo& info = out.info;
  info.family = info.architecture = "llama";
  info.hidden_size = config.integer("hidden_size", "embedding_length", 1, 1 << 20);
  info.intermediate_size = config.integer("intermediate_size", "feed_forward_length", 1, 1 << 22);
  info.num_hidden_layers = config.integer("num_hidden_layers", "block_count", 1, 1 << 14);
  info.num_attention_heads =
      config.integer("num_attention_heads", "attention.head_count", 1, 1 << 14);
  info.num_key_value_heads = config.maybe_int("num_key_value_heads", "attention.head_count_kv")
                                 .value_or(info.num_attention_heads);
  if (info.num_key_value_heads < 1 || info.num_attention_heads % info.num_key_value_heads != 0)
    config.complain(Refusal::kRange, "num_attention_heads " +
                                         std::to_string(info.num_attention_heads) +
                                         " must be a multiple of num_key_value_heads " +
                                         std::to_string(info.num_key_value_heads));
  const auto head_dim = config.maybe_int("head_dim", "attention.key_length");
  info.head_dim = head_dim.value_or(info.hidden_size / info.num_attention_heads);
  if (!head_dim && info.hidden_size % info.num_attention_heads != 0)
    config.complain(Refusal::kRange, "hidden_size " + std::to_string(info.hidden_size) +
                                         " is not a multiple of num_attention_heads " +
                                         std::to_string(info.num_attention_heads) +
                                         " and there is no head_dim");
  if (info.head_dim < 2 || info.head_dim > 4096) {
    config.complain(Refusal::kRange,
                    "head_dim " + std::to_string(info.head_dim) + " is out of range");
    info.head_dim = 2;
  }
  if (const auto value_dim = config.maybe_int("", "attention.value_length");
      value_dim && *value_dim != info.head_dim)
    config.unsupported("value heads of another size than key heads");
  info.max_position_embeddings =
      config.integer("max_position_embeddings", "context_length", 1, int64_t{1} << 31);
  out.rms_norm_eps = config.positive("rms_norm_eps", "attention.layer_norm_rms_epsilon",
                                     config.is_gguf() ? std::optional<double>() : 1e-6);
  out.rope = read_rope(config, info.head_dim);

  if (config.is_gguf()) {
    const CheckpointTensor* embedding = checkpoint.find("token_embd.weight");
    info.vocab_size = embedding && embedding->shape.size() == 2 ? embedding->shape[0] : 0;
    const auto declared = config.maybe_int("", "vocab_size");
    if (declared && info.vocab_size && *declared != info.vocab_size)
      config.complain(Refusal::kRange, "llama.vocab_size " + std::to_string(*declared) +
                                           " differs from the " + std::to_string(info.vocab_size) +
                                           " rows of token_embd.weight");
    const size_t tokens = checkpoint.tokenizer.tokens.size();
    if (tokens && info.vocab_size && static_cast<int64_t>(tokens) != info.vocab_size)
      config.complain(Refusal::kRange, std::to_string(tokens) + " tokens but " +
                                           std::to_string(info.vocab_size) +
                                           " rows of token_embd.weight");
    info.tie_word_embeddings = !checkpoint.find("output.weight");
    if (config.maybe_int("", "expert_count").value_or(0) > 0)
      config.unsupported("experts in a llama GGUF");
    if (const auto name = checkpoint.gguf.find("general.name");
        name != checkpoint.gguf.end() && name->is_string())
      info.name = name->get<std::string>();
  } else {
    info.vocab_size = config.integer("vocab_size", "", 1, int64_t{1} << 24);
    info.tie_word_embeddings = config.maybe_bool("tie_word_embeddings", "").value_or(false);
    out.attention_bias = config.maybe_bool("attention_bias", "").value_or(false);
    out.mlp_bias = config.maybe_bool("mlp_bias", "").value_or(false);
    const std::string act = config.maybe_string("hidden_act", "").value_or("silu");
    const auto activation = parse_activation(act);
    if (!activation) config.unsupported("hidden_act '" + escape_for_terminal(act, 64) + "'");
    out.activation = activation.value_or(Activation::kSilu);
    if (config.object().contains("quantization_config") &&
        !config.object()["quantization_config"].is_null())
      config.unsupported("quantization_config: weights that another tool has quantised");
  }
  if (info.name.empty()) {
    const size_t end = checkpoint.path.find_last_not_of('/');
    const size_t slash = checkpoint.path.find_last_of('/', end);
    info.name = checkpoint.path.substr(
        slash == std::string::npos ? 0 : slash + 1,
        end == std::string::npos ? end : end - (slash == std::string::npos ? 0 : slash + 1) + 1);
  }
  info.config["rms_norm_eps"] = out.rms_norm_eps;
  info.config["rope_theta"] = out.rope.theta;
  info.config["rope_type"] = out.rope.type;
  info.config["attention_bias"] = out.attention_bias;
  info.config["mlp_bias"] = out.mlp_bias;
  POME_RETURN_IF_ERROR(config.finish(checkpoint.path));
  return out;
}

// Rows of one layer, then its computation.
class LlamaLayer {
 public:
  LlamaLayer(const LlamaConfig& config, WeightSet& weights, GraphBuilder& builder, int64_t layer)
      : c_(config), w_(weights), b_(builder), layer_(layer) {}

  ValueId build(ValueId x, ValueId position, ValueId frequencies) {
    const ModelInfo& i = c_.info;
    const int64_t q_rows = i.num_attention_heads * i.head_dim,
                  kv_rows = i.num_key_value_heads * i.head_dim;
    const int32_t layer = static_cast<int32_t>(layer_);
    const ValueId k_cache =
        b_.cache(layer, CachePair::Kind::kKey, i.num_key_value_heads, i.head_dim);
    const ValueId v_cache =
        b_.cache(layer, CachePair::Kind::kValue, i.num_key_value_heads, i.head_dim);
    b_.scope("layers." + std::to_string(layer_) + ".");

    const ValueId h =
        b_.add(RmsNormOp{c_.rms_norm_eps},
               {x, norm("attention_norm", "input_layernorm", "attn_norm")}, "attention_norm");
    ValueId q = linear(h, "attention.q", "self_attn.q_proj", "attn_q", {q_rows, i.hidden_size},
                       c_.attention_bias, i.num_attention_heads);
    ValueId k = linear(h, "attention.k", "self_attn.k_proj", "attn_k", {kv_rows, i.hidden_size},
                       c_.attention_bias, i.num_key_value_heads);
    ValueId v = linear(h, "attention.v", "self_attn.v_proj", "attn_v", {kv_rows, i.hidden_size},
                       c_.attention_bias);
    const RopeOp rope{RopeStyle::kHalves, c_.rope.rotary_dim, c_.rope.attention_factor};
    q = b_.add(
        rope,
        {b_.split_heads(q, i.num_attention_heads, i.head_dim, "q_heads"), position, frequencies},
        "q_rope");
    k = b_.add(
        rope,
        {b_.split_heads(k, i.num_key_value_heads, i.head_dim, "k_heads"), position, frequencies},
        "k_rope");
    v = b_.split_heads(v, i.num_key_value_heads, i.head_dim, "v_heads");
    k = b_.kv_write(k_cache, k, position, "k_all");
    v = b_.kv_write(v_cache, v, position, "v_all");
    const ValueId attention =
        b_.add(AttentionOp{1 / std::sqrt(static_cast<double>(i.head_dim))}, {q, k, v}, "attention");
    const ValueId o = linear(b_.merge_heads(attention, "heads"), "attention.o", "self_attn.o_proj",
                             "attn_output", {i.hidden_size, q_rows}, c_.attention_bias);
    x = b_.binary(BinaryKind::kAdd, x, o, "attention_residual");

    const ValueId m =
        b_.add(RmsNormOp{c_.rms_norm_eps},
               {x, norm("mlp_norm", "post_attention_layernorm", "ffn_norm")}, "mlp_norm");
    const ValueId gate = linear(m, "mlp.gate", "mlp.gate_proj", "ffn_gate",
                                {i.intermediate_size, i.hidden_size}, c_.mlp_bias);
    const ValueId up = linear(m, "mlp.up", "mlp.up_proj", "ffn_up",
                              {i.intermediate_size, i.hidden_size}, c_.mlp_bias);
    const ValueId down =
        linear(b_.add(SwigluOp{c_.activation}, {gate, up}, "mlp.swiglu"), "mlp.down",
               "mlp.down_proj", "ffn_down", {i.hidden_size, i.intermediate_size}, c_.mlp_bias);
    x = b_.binary(BinaryKind::kAdd, x, down, "output");
    b_.end_layer(x);
    b_.scope("");
    return x;
  }

 private:
  std::string n(const std::string& prefix, const std::string& name,
                const std::string& suffix) const {
    return prefix + std::to_string(layer_) + "." + name + suffix;
  }
  ValueId norm(const std::string& name, const std::string& hf, const std::string& gguf) {
    return w_.get({n("layers.", name, ".weight"),
                   n("model.layers.", hf, ".weight"),
                   n("blk.", gguf, ".weight"),
                   {c_.info.hidden_size},
                   Constant::Role::kNorm});
  }
  // heads > 0: rows that GGUF stores as rotated pairs.
  ValueId linear(ValueId x, const std::string& name, const std::string& hf, const std::string& gguf,
                 Shape shape, bool bias, int64_t heads = 0) {
    WeightRow row{n("layers.", name, ".weight"), n("model.layers.", hf, ".weight"),
                  n("blk.", gguf, ".weight"), shape};
    if (heads) row.gguf_transform = unpermute_heads(shape, heads);
    const ValueId weight = w_.get(row);
    ValueId offset = kNoValue;
    // GGUF keys do not say whether there are biases; the tensors do.
    const std::string gguf_bias = n("blk.", gguf, ".bias");
    if (bias || w_.has("", gguf_bias))
      offset = w_.get({n("layers.", name, ".bias"),
                       n("model.layers.", hf, ".bias"),
                       gguf_bias,
                       {shape[0]},
                       Constant::Role::kBias});
    return b_.linear(x, weight, offset, name);
  }

  const LlamaConfig& c_;
  WeightSet& w_;
  GraphBuilder& b_;
  int64_t layer_;
};

Result<Graph> build(const Checkpoint& checkpoint, const BuildOptions&) {
  POME_ASSIGN_OR_RETURN(const LlamaConfig config, read_config(checkpoint));
  const ModelInfo& info = config.info;
  GraphBuilder b(info);
  WeightSet weights(checkpoint, b);
  POME_ASSIGN_OR_RETURN(const std::vector<float> factors,
                        weights.read_vector("", "rope_freqs.weight"));
  if (!factors.empty() && static_cast<int64_t>(factors.size()) != config.rope.rotary_dim / 2)
    return bad_input(Refusal::kRange, "has " + std::to_string(factors.size()) +
                                          " factors, expected " +
                                          std::to_string(config.rope.rotary_dim / 2))
        .in(checkpoint.path)
        .at("rope_freqs.weight");
  if (std::any_of(factors.begin(), factors.end(),
                  [](float f) { return !(f > 0) || !std::isfinite(f); }))
    return bad_input(Refusal::kRange, "factors must be positive and finite")
        .in(checkpoint.path)
        .at("rope_freqs.weight");

  const ValueId ids = b.token_ids(), position = b.position();
  const ValueId frequencies =
      b.vector("rope.inverse_frequencies", inverse_frequencies(config.rope, factors));
  // A tied matrix may be stored under either of its names.
  const bool under_head = info.tie_word_embeddings &&
                          !weights.has("model.embed_tokens.weight", "token_embd.weight") &&
                          weights.has("lm_head.weight", "");
  const std::string hf_embedding = under_head ? "lm_head.weight" : "model.embed_tokens.weight";
  const ValueId table = weights.get({"embedding.weight",
                                     hf_embedding,
                                     "token_embd.weight",
                                     {info.vocab_size, info.hidden_size},
                                     Constant::Role::kEmbedding});
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  for (int64_t layer = 0; layer < info.num_hidden_layers; ++layer)
    x = LlamaLayer(config, weights, b, layer).build(x, position, frequencies);
  const ValueId gain = weights.get({"norm.weight",
                                    "model.norm.weight",
                                    "output_norm.weight",
                                    {info.hidden_size},
                                    Constant::Role::kNorm});
  x = b.add(RmsNormOp{config.rms_norm_eps}, {x, gain}, "norm");
  ValueId head = table;
  if (info.tie_word_embeddings) {
    weights.ignore("lm_head.weight");
  } else {
    head = weights.get({"head.weight",
                        "lm_head.weight",
                        "output.weight",
                        {info.vocab_size, info.hidden_size},
                        Constant::Role::kHead});
  }
  weights.ignore("rotary_emb.inv_freq");
  const ValueId logits = b.linear(x, head, kNoValue, "logits");
  POME_RETURN_IF_ERROR(weights.finish());
  return b.finish(logits);
}

Result<ModelInfo> read_info(const Checkpoint& checkpoint) {
  POME_ASSIGN_OR_RETURN(LlamaConfig config, read_config(checkpoint));
  return std::move(config.info);
}

}  // namespace

const Family& llama_family() {
  static const Family kFamily = {"llama", {"llama"}, {"llama"}, read_info, build};
  return kFamily;
}

}  // namespace pome
