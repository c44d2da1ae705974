#include "models/blocks.h"

#include <algorithm>
#include <cmath>

#include "models/stored_quantisation.h"

namespace pome {

namespace {

void read_heads(ConfigReader& config, int64_t default_head_dim, ModelInfo* info) {
  info->num_attention_heads =
      config.integer("num_attention_heads", "attention.head_count", 1, 1 << 14);
  info->num_key_value_heads = config.maybe_int("num_key_value_heads", "attention.head_count_kv")
                                  .value_or(info->num_attention_heads);
  if (info->num_key_value_heads < 1 || info->num_attention_heads % info->num_key_value_heads != 0) {
    config.complain(Refusal::kRange, "num_attention_heads " +
                                         std::to_string(info->num_attention_heads) +
                                         " must be a multiple of num_key_value_heads " +
                                         std::to_string(info->num_key_value_heads));
    info->num_key_value_heads = info->num_attention_heads;
  }
  auto head_dim = config.maybe_int("head_dim", "attention.key_length");
  if (!head_dim && default_head_dim && !config.is_gguf()) head_dim = default_head_dim;
  info->head_dim = head_dim.value_or(info->hidden_size / info->num_attention_heads);
  if (!head_dim && info->hidden_size % info->num_attention_heads != 0)
    config.complain(Refusal::kRange, "hidden_size " + std::to_string(info->hidden_size) +
                                         " is not a multiple of num_attention_heads " +
                                         std::to_string(info->num_attention_heads) +
                                         " and there is no head_dim");
  if (info->head_dim < 2 || info->head_dim > 4096) {
    config.complain(Refusal::kRange,
                    "head_dim " + std::to_string(info->head_dim) + " is out of range");
    info->head_dim = 2;
  }
  if (const auto value_dim = config.maybe_int("", "attention.value_length");
      value_dim && *value_dim != info->head_dim)
    config.unsupported("value heads of another size than key heads");
}

void read_gguf_identity(ConfigReader& config, const Checkpoint& checkpoint, ModelInfo* info) {
  const CheckpointTensor* embedding = checkpoint.find("token_embd.weight");
  info->vocab_size = embedding && embedding->shape.size() == 2 ? embedding->shape[0] : 0;
  const std::string rows = std::to_string(info->vocab_size) + " rows of token_embd.weight";
  const auto declared = config.maybe_int("", "vocab_size");
  if (declared && info->vocab_size && *declared != info->vocab_size)
    config.complain(Refusal::kRange, config.prefix() + ".vocab_size " + std::to_string(*declared) +
                                         " differs from the " + rows);
  const size_t tokens = checkpoint.tokenizer.tokens.size();
  if (tokens && info->vocab_size && static_cast<int64_t>(tokens) != info->vocab_size)
    config.complain(Refusal::kRange, std::to_string(tokens) + " tokens but " + rows);
  info->tie_word_embeddings = !checkpoint.find("output.weight");
  if (config.maybe_int("", "expert_count").value_or(0) > 0)
    config.unsupported("experts in a " + config.prefix() + " GGUF");
  if (const auto name = checkpoint.gguf.find("general.name");
      name != checkpoint.gguf.end() && name->is_string())
    info->name = name->get<std::string>();
}

std::string last_component(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path;
  const size_t slash = path.find_last_of('/', end);
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(begin, end - begin + 1);
}

}  // namespace

DecoderConfig read_decoder(ConfigReader& config, const Checkpoint& checkpoint,
                           const DecoderDefaults& defaults) {
  DecoderConfig out;
  ModelInfo& info = out.info;
  info.family = defaults.family;
  info.architecture = config.is_gguf() ? config.prefix() : std::string(defaults.family);
  info.hidden_size = config.integer("hidden_size", "embedding_length", 1, 1 << 20);
  info.intermediate_size = config.integer("intermediate_size", "feed_forward_length", 1, 1 << 22);
  info.num_hidden_layers = config.integer("num_hidden_layers", "block_count", 1, 1 << 14);
  read_heads(config, defaults.head_dim, &info);
  info.max_position_embeddings =
      config.integer("max_position_embeddings", "context_length", 1, int64_t{1} << 31);
  out.rms_norm_eps =
      config.positive("rms_norm_eps", "attention.layer_norm_rms_epsilon",
                      config.is_gguf() ? std::optional<double>() : defaults.rms_norm_eps);
  out.rope = read_rope(config, info.head_dim);
  out.windows.assign(static_cast<size_t>(info.num_hidden_layers), 0);

  std::string act(defaults.activation);
  if (config.is_gguf()) {
    read_gguf_identity(config, checkpoint, &info);
  } else {
    info.vocab_size = config.integer("vocab_size", "", 1, int64_t{1} << 24);
    info.tie_word_embeddings =
        config.maybe_bool("tie_word_embeddings", "").value_or(defaults.tie_word_embeddings);
    act = config.maybe_string(defaults.activation_key, "").value_or(act);
    check_stored_quantisation(config);
  }
  const auto activation = parse_activation(act);
  if (!activation)
    config.unsupported(std::string(defaults.activation_key) + " '" + escape_for_terminal(act, 64) +
                       "'");
  out.activation = activation.value_or(Activation::kSilu);
  if (info.name.empty()) info.name = last_component(checkpoint.path);
  info.config["rms_norm_eps"] = out.rms_norm_eps;
  info.config["rope_theta"] = out.rope.theta;
  info.config["rope_type"] = out.rope.type;
  return out;
}

void refuse_true(ConfigReader& config, const char* key) {
  if (config.maybe_bool(key, "").value_or(false))
    config.unsupported(std::string(key) + " in this family");
}

void read_windows(ConfigReader& config, int64_t window, const std::function<bool(int64_t)>& slides,
                  DecoderConfig* out) {
  const int64_t layers = out->info.num_hidden_layers;
  if (window < 0) return config.complain(Refusal::kRange, "sliding_window must not be negative");
  if (window >= out->info.max_position_embeddings) window = 0;
  const Json& all = config.object();
  const auto types = config.is_gguf() ? all.end() : all.find("layer_types");
  const bool listed = !config.is_gguf() && types != all.end() && !types->is_null();
  if (listed && (!types->is_array() || static_cast<int64_t>(types->size()) != layers))
    return config.complain(Refusal::kRange, "layer_types must list num_hidden_layers names");
  for (int64_t layer = 0; layer < layers; ++layer) {
    bool sliding = false;
    if (listed) {
      const Json& type = (*types)[static_cast<size_t>(layer)];
      const std::string name = type.is_string() ? type.get<std::string>() : dump_json(type);
      sliding = name == "sliding_attention";
      if (!sliding && name != "full_attention")
        return config.unsupported("layer type '" + escape_for_terminal(name, 64) + "'");
    } else {
      sliding = slides(layer);
    }
    out->windows[static_cast<size_t>(layer)] = sliding ? window : 0;
  }
  if (window > 0) out->info.config["sliding_window"] = window;
}

void choose_rope_factors(const ModelInfo& info, int64_t context, RopeConfig* rope) {
  if (rope->long_factors.empty()) return;
  constexpr int64_t kDefaultContext = 4096;  // of sessions and artefacts too
  const int64_t positions =
      std::min(context > 0 ? context : kDefaultContext, info.max_position_embeddings);
  rope->use_long_factors = positions > rope->original_max_position_embeddings;
}

Rotary make_rotary(GraphBuilder& builder, const std::string& name, const RopeConfig& rope,
                   std::span<const float> factors) {
  return {builder.position(), builder.vector(name, inverse_frequencies(rope, factors)),
          RopeOp{RopeStyle::kHalves, rope.rotary_dim, rope.attention_factor}};
}

ValueId DecoderLayer::norm(ValueId x, const std::string& name, const std::string& hf,
                           const std::string& gguf, int64_t size) {
  WeightRow row{at("layers.", name + ".weight"),
                at("model.layers.", hf + ".weight"),
                at("blk.", gguf + ".weight"),
                {size ? size : c_.info.hidden_size},
                Constant::Role::kNorm};
  if (c_.gain_minus_one && !w_.is_gguf()) row.transform = add_one();
  return b_.add(RmsNormOp{c_.rms_norm_eps}, {x, w_.get(row)}, name);
}

ValueId DecoderLayer::linear(ValueId x, const std::string& name, const Projection& p) {
  const auto row = [&](const char* part, const Shape& shape, Constant::Role role) {
    WeightRow out{at("layers.", name + part), at("model.layers.", p.hf + part),
                  at("blk.", p.gguf + part), shape, role};
    if (p.paired_heads) out.gguf_transform = unpermute_heads(shape, p.paired_heads);
    if (p.stored_rows) {
      out.stored_shape = shape;
      out.stored_shape[0] = p.stored_rows;
      out.transform = take_rows(p.first_row, shape);
    }
    return out;
  };
  const ValueId weight = w_.get(row(".weight", p.shape, Constant::Role::kMatrix));
  ValueId bias = kNoValue;
  // GGUF keys do not say whether there are biases; the tensors do.
  if (w_.is_gguf() ? w_.has("", at("blk.", p.gguf + ".bias")) : p.bias)
    bias = w_.get(row(".bias", {p.shape[0]}, Constant::Role::kBias));
  return b_.linear(x, weight, bias, name);
}

ValueId DecoderLayer::attention(ValueId h, const Attention& spec) {
  const ModelInfo& i = c_.info;
  const int64_t heads = i.num_attention_heads, kv_heads = i.num_key_value_heads;
  const int64_t q_rows = heads * i.head_dim, kv_rows = kv_heads * i.head_dim;
  const int64_t fused = spec.fused_qkv ? q_rows + 2 * kv_rows : 0;
  b_.scope("");
  const auto cache = [&](CachePair::Kind kind) {
    return b_.cache(static_cast<int32_t>(layer_), kind, kv_heads, i.head_dim);
  };
  const ValueId k_cache = cache(CachePair::Kind::kKey), v_cache = cache(CachePair::Kind::kValue);
  b_.scope(at("layers.", ""));
  const auto project = [&](const std::string& which, int64_t rows, int64_t first, int64_t paired) {
    return linear(h, "attention." + which,
                  {fused ? "self_attn.qkv_proj" : "self_attn." + which + "_proj",
                   fused ? "attn_qkv" : "attn_" + which,
                   {rows, i.hidden_size},
                   c_.qkv_bias,
                   spec.paired_heads ? paired : 0,
                   first,
                   fused});
  };
  ValueId q = project("q", q_rows, 0, heads), k = project("k", kv_rows, q_rows, kv_heads);
  ValueId v = project("v", kv_rows, q_rows + kv_rows, 0);
  const auto prepare = [&](ValueId x, const std::string& which, int64_t count) {
    x = b_.split_heads(x, count, i.head_dim, which + "_heads");
    if (spec.qk_norm)
      x = norm(x, which + "_norm", "self_attn." + which + "_norm", "attn_" + which + "_norm",
               i.head_dim);
    if (!spec.rotary) return x;
    return b_.add(spec.rotary->op, {x, spec.rotary->position, spec.rotary->frequencies},
                  which + "_rope");
  };
  q = prepare(q, "q", heads);
  k = prepare(k, "k", kv_heads);
  v = b_.split_heads(v, kv_heads, i.head_dim, "v_heads");
  k = b_.kv_write(k_cache, k, b_.position(), "k_all");
  v = b_.kv_write(v_cache, v, b_.position(), "v_all");
  const double scale = spec.scale > 0 ? spec.scale : 1 / std::sqrt(static_cast<double>(i.head_dim));
  const ValueId mixed =
      b_.add(AttentionOp{scale, c_.windows[static_cast<size_t>(layer_)], spec.softcap}, {q, k, v},
             "attention");
  return linear(
      b_.merge_heads(mixed, "heads"), "attention.o",
      {"self_attn.o_proj", "attn_output", {i.hidden_size, q_rows}, c_.output_bias, 0, 0, 0});
}

ValueId DecoderLayer::gated_mlp(ValueId h, bool fused) {
  const int64_t hidden = c_.info.hidden_size, width = c_.info.intermediate_size;
  const auto project = [&](const std::string& which, int64_t first) {
    return linear(h, "mlp." + which,
                  {fused ? "mlp.gate_up_proj" : "mlp." + which + "_proj",
                   fused ? "ffn_up" : "ffn_" + which,
                   {width, hidden},
                   c_.mlp_bias,
                   0,
                   first,
                   fused ? 2 * width : 0});
  };
  const ValueId gate = project("gate", 0), up = project("up", width);
  return linear(b_.add(SwigluOp{c_.activation}, {gate, up}, "mlp.swiglu"), "mlp.down",
                {"mlp.down_proj", "ffn_down", {hidden, width}, c_.mlp_bias, 0, 0, 0});
}

ValueId DecoderLayer::pre_norm_layer(ValueId x, const Attention& spec, bool fused_gate_up) {
  const ValueId h = norm(x, "attention_norm", "input_layernorm", "attn_norm");
  x = add(x, attention(h, spec), "attention_residual");
  const ValueId m = norm(x, "mlp_norm", "post_attention_layernorm", "ffn_norm");
  return add(x, gated_mlp(m, fused_gate_up), "output");
}

Status PreNormBody::begin(GraphBuilder& builder, WeightSet& weights) {
  RopeConfig rope = c_.rope;
  const int64_t count = rope.rotary_dim / 2;
  if (weights.is_gguf()) {
    POME_ASSIGN_OR_RETURN(rope.short_factors,
                          weights.read_rope_factors("rope_factors_short.weight", count));
    POME_ASSIGN_OR_RETURN(rope.long_factors,
                          weights.read_rope_factors("rope_factors_long.weight", count));
  }
  choose_rope_factors(c_.info, context, &rope);
  POME_ASSIGN_OR_RETURN(const std::vector<float> factors,
                        weights.read_rope_factors("rope_freqs.weight", count));
  rotary_ = make_rotary(builder, "rope.inverse_frequencies", rope, factors);
  return {};
}

ValueId PreNormBody::layer(DecoderLayer& layer, ValueId x) {
  DecoderLayer::Attention attention = attention_;
  if (!rotates || rotates(layer.index())) attention.rotary = &rotary_;
  return layer.pre_norm_layer(x, attention, fused_gate_up);
}

Result<Graph> build_decoder(const Checkpoint& checkpoint, const DecoderConfig& config,
                            DecoderBody& body) {
  const ModelInfo& info = config.info;
  GraphBuilder b(info);
  WeightSet weights(checkpoint, b);
  const ValueId ids = b.token_ids();
  b.position();
  POME_RETURN_IF_ERROR(body.begin(b, weights));
  // A tied matrix may be stored under either of its names.
  const bool under_head = info.tie_word_embeddings &&
                          !weights.has("model.embed_tokens.weight", "token_embd.weight") &&
                          weights.has("lm_head.weight", "");
  const ValueId table = weights.get({"embedding.weight",
                                     under_head ? "lm_head.weight" : "model.embed_tokens.weight",
                                     "token_embd.weight",
                                     {info.vocab_size, info.hidden_size},
                                     Constant::Role::kEmbedding});
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  if (config.embedding_scale != 1)
    x = b.binary(BinaryKind::kMul, x, b.scalar(static_cast<float>(config.embedding_scale)),
                 "embedding_scaled");
  for (int64_t i = 0; i < info.num_hidden_layers; ++i) {
    DecoderLayer layer(config, weights, b, i);
    b.scope("layers." + std::to_string(i) + ".");
    x = body.layer(layer, x);
    b.end_layer(x);
    b.scope("");
  }
  WeightRow gain{"norm.weight",
                 "model.norm.weight",
                 "output_norm.weight",
                 {info.hidden_size},
                 Constant::Role::kNorm};
  if (config.gain_minus_one && !weights.is_gguf()) gain.transform = add_one();
  x = b.add(RmsNormOp{config.rms_norm_eps}, {x, weights.get(gain)}, "norm");
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
  const double cap = config.final_logit_softcapping;
  ValueId logits = b.linear(x, head, kNoValue, cap > 0 ? "logits_uncapped" : "logits");
  if (cap > 0) {
    logits = b.binary(BinaryKind::kMul, logits, b.scalar(static_cast<float>(1 / cap)));
    logits = b.binary(BinaryKind::kMul, b.unary(UnaryKind::kTanh, logits),
                      b.scalar(static_cast<float>(cap)), "logits");
  }
  POME_RETURN_IF_ERROR(weights.finish());
  return b.finish(logits);
}

}  // namespace pome
