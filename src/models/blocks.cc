#include "models/blocks.h"

#include <cmath>

#include "models/gguf_info.h"

namespace pome {

Rotary make_rotary(GraphBuilder& builder, const std::string& name, const RopeConfig& rope,
                   RopeStyle style, std::span<const float> factors) {
  return {builder.position(), builder.vector(name, inverse_frequencies(rope, factors)),
          RopeOp{style, rope.rotary_dim, rope.attention_factor}};
}

WeightRow DecoderLayer::row(const std::string& name, const std::string& hf, const std::string& gguf,
                            Shape shape, Constant::Role role) const {
  const std::string at = std::to_string(layer_) + ".";
  return {"layers." + at + name, c_.names.layers + at + hf, "blk." + at + gguf, std::move(shape),
          role};
}

bool DecoderLayer::has(const std::string& hf, const std::string& gguf) const {
  const WeightRow names = row("", hf, gguf, {});
  return w_.has(hf.empty() ? "" : names.hf_name, gguf.empty() ? "" : names.gguf_name);
}

ValueId DecoderLayer::norm(ValueId x, const std::string& name, const std::string& hf,
                           const std::string& gguf, const NormOptions& options) {
  const auto part = [&](const char* suffix, Constant::Role role) {
    WeightRow out = row(name + suffix, hf + suffix, gguf + suffix,
                        {options.size ? options.size : c_.info.hidden_size}, role);
    if (c_.gain_minus_one) out.transform = add_one();
    return w_.get(out);
  };
  const double epsilon = options.epsilon > 0 ? options.epsilon : c_.norm_eps;
  const ValueId gain = part(".weight", Constant::Role::kNorm);
  if (!c_.layer_norm) return b_.add(RmsNormOp{epsilon}, {x, gain}, name);
  return b_.add(LayerNormOp{epsilon}, {x, gain, part(".bias", Constant::Role::kBias)}, name);
}

ValueId DecoderLayer::linear(ValueId x, const Projection& p) {
  const auto part = [&](const char* suffix, const Shape& shape, Constant::Role role) {
    WeightRow out = row(p.name + suffix, p.hf + suffix, p.gguf + suffix, shape, role);
    out.gguf = {p.first_row, p.stored_rows, p.paired_heads};
    const bool matrix = shape.size() == 2, turned = p.conv1d && matrix;
    if (!p.stored_rows && !turned) return w_.get(out);
    out.stored_shape = shape;
    if (p.stored_rows) out.stored_shape[0] = p.stored_rows;
    if (turned) std::swap(out.stored_shape[0], out.stored_shape[1]);
    out.transform = [turned, rows = p.row ? move_rows(p.row, shape)
                                          : take_rows(p.first_row, shape)](ConstantDataPtr in) {
      return rows(turned ? transposed(std::move(in)) : std::move(in));
    };
    return w_.get(out);
  };
  const ValueId weight = part(".weight", p.shape, Constant::Role::kMatrix);
  ValueId bias = kNoValue;
  // GGUF keys do not say whether there are biases; the tensors do.
  if (w_.is_gguf() ? has("", p.gguf + ".bias") : p.bias)
    bias = part(".bias", {p.shape[0]}, Constant::Role::kBias);
  return b_.linear(x, weight, bias, p.name);
}

ValueId DecoderLayer::vector(const std::string& name, const std::string& hf,
                             const std::string& gguf, int64_t size) {
  return w_.get(row(name, hf, gguf, {size}, Constant::Role::kBias));
}

ValueId DecoderLayer::attend(ValueId q, ValueId k, ValueId v, const Attention& spec) {
  const ModelInfo& i = c_.info;
  b_.scope("");
  const auto cache = [&](CachePair::Kind kind) {
    return b_.cache(static_cast<int32_t>(layer_), kind, i.num_key_value_heads, i.head_dim);
  };
  const ValueId k_cache = cache(CachePair::Kind::kKey), v_cache = cache(CachePair::Kind::kValue);
  b_.scope("layers." + std::to_string(layer_) + ".");
  const auto prepare = [&](ValueId x, const std::string& which, int64_t count) {
    x = b_.split_heads(x, count, i.head_dim, which + "_heads");
    if (!spec.head_norm.empty())
      x = norm(x, which + "_norm", "self_attn." + which + "_" + std::string(spec.head_norm),
               "attn_" + which + "_norm", {.size = i.head_dim});
    if (!spec.rotary) return x;
    return b_.add(spec.rotary->op, {x, spec.rotary->position, spec.rotary->frequencies},
                  which + "_rope");
  };
  q = prepare(q, "q", i.num_attention_heads);
  k = prepare(k, "k", i.num_key_value_heads);
  v = b_.split_heads(v, i.num_key_value_heads, i.head_dim, "v_heads");
  k = b_.kv_write(k_cache, k, b_.position(), "k_all");
  v = b_.kv_write(v_cache, v, b_.position(), "v_all");
  std::vector<ValueId> operands = {q, k, v};
  if (spec.sinks)
    operands.push_back(
        vector("attention.sinks", "self_attn.sinks", "attn_sinks.weight", i.num_attention_heads));
  const double scale = spec.scale > 0 ? spec.scale : 1 / std::sqrt(static_cast<double>(i.head_dim));
  const AttentionOp op{scale, c_.windows[static_cast<size_t>(layer_)], spec.softcap};
  return b_.merge_heads(b_.add(op, std::move(operands), "attention"), "heads");
}

ValueId DecoderLayer::attention(ValueId h, const Attention& spec) {
  const ModelInfo& i = c_.info;
  const int64_t heads = i.num_attention_heads, kv_heads = i.num_key_value_heads;
  const int64_t q_rows = heads * i.head_dim, kv_rows = kv_heads * i.head_dim;
  const auto project = [&](const std::string& which, int64_t rows, int64_t first, int64_t paired) {
    Projection p{"attention." + which,
                 "self_attn." + which + "_proj",
                 "attn_" + which,
                 {rows, i.hidden_size},
                 c_.qkv_bias};
    if (spec.paired_heads) p.paired_heads = paired;
    if (spec.fused_qkv) {
      p.hf = "self_attn.qkv_proj", p.gguf = "attn_qkv";
      p.first_row = first, p.stored_rows = q_rows + 2 * kv_rows;
    }
    return linear(h, p);
  };
  const ValueId q = project("q", q_rows, 0, heads), k = project("k", kv_rows, q_rows, kv_heads),
                v = project("v", kv_rows, q_rows + kv_rows, 0);
  return linear(
      attend(q, k, v, spec),
      {"attention.o", "self_attn.o_proj", "attn_output", {i.hidden_size, q_rows}, c_.output_bias});
}

ValueId DecoderLayer::gated_mlp(ValueId h, const Mlp& mlp) {
  const int64_t hidden = c_.info.hidden_size;
  const int64_t width = mlp.width ? mlp.width : c_.info.intermediate_size;
  const auto module = [&](const std::string& which, const Shape& shape) {
    return Projection{mlp.name + "." + which, mlp.hf + "." + which + "_proj",
                      "ffn_" + which + mlp.gguf_suffix, shape, c_.mlp_bias};
  };
  const auto project = [&](const std::string& which, int64_t first) {
    Projection p = module(which, {width, hidden});
    if (mlp.fused) {
      p.hf = mlp.hf + ".gate_up_proj", p.gguf = "ffn_up" + mlp.gguf_suffix;
      p.first_row = first, p.stored_rows = 2 * width;
    }
    return linear(h, p);
  };
  const ValueId gate = project("gate", 0), up = project("up", width);
  return linear(c_.act.gate(b_, gate, up, mlp.name + ".swiglu"), module("down", {hidden, width}));
}

ValueId DecoderLayer::plain_mlp(ValueId h, const std::string& up, const std::string& down,
                                bool conv1d) {
  const int64_t hidden = c_.info.hidden_size, width = c_.info.intermediate_size;
  Projection wide{"mlp.up", up, "ffn_up", {width, hidden}, true};
  Projection back{"mlp.down", down, "ffn_down", {hidden, width}, true};
  wide.conv1d = back.conv1d = conv1d;
  return linear(c_.act.apply(b_, linear(h, wide), "mlp.activation"), back);
}

ValueId DecoderLayer::pre_norm_layer(ValueId x, const Attention& spec, bool fused_gate_up) {
  const ValueId h = norm(x, "attention_norm", "input_layernorm", "attn_norm");
  x = add(x, attention(h, spec), "attention_residual");
  const ValueId m = norm(x, "mlp_norm", "post_attention_layernorm", "ffn_norm");
  return add(x, gated_mlp(m, {.fused = fused_gate_up}), "output");
}

namespace {

// x + table[position .. position + T - 1]; the table has max_position_embeddings rows.
ValueId add_learned_positions(const DecoderConfig& c, WeightSet& weights, GraphBuilder& b,
                              ValueId x) {
  const ValueId table = weights.get({"positions.weight",
                                     c.names.positions + ".weight",
                                     "position_embd.weight",
                                     {c.info.max_position_embeddings, c.info.hidden_size},
                                     Constant::Role::kTable});
  const ValueId steps = b.add(IotaOp{Symbol::kTokens}, {}, "position_steps");
  const ValueId at = b.binary(BinaryKind::kAdd, steps, b.position(), "position_ids");
  const ValueId rows = b.add(GatherOp{}, {table, at}, "position_embedding");
  return b.binary(BinaryKind::kAdd, x, rows, "embedding_with_positions");
}

Result<Rotary> shared_rotary(const DecoderConfig& c, const BuildOptions& options,
                             WeightSet& weights, GraphBuilder& b) {
  RopeConfig rope = c.rope;
  const int64_t count = rope.rotary_dim / 2;
  auto& vectors = b.info().gguf.vectors;
  if (weights.is_gguf()) {
    POME_ASSIGN_OR_RETURN(rope.short_factors,
                          weights.read_rope_factors("rope_factors_short.weight", count));
    POME_ASSIGN_OR_RETURN(rope.long_factors,
                          weights.read_rope_factors("rope_factors_long.weight", count));
    if (!rope.short_factors.empty()) vectors["rope_factors_short.weight"] = rope.short_factors;
    if (!rope.long_factors.empty()) vectors["rope_factors_long.weight"] = rope.long_factors;
  }
  declare_length(c.info.max_position_embeddings, options.context, &rope);
  POME_ASSIGN_OR_RETURN(const std::vector<float> factors,
                        weights.read_rope_factors("rope_freqs.weight", count));
  if (!factors.empty()) vectors["rope_freqs.weight"] = factors;
  return make_rotary(b, "rope.inverse_frequencies", rope, c.rope_style, factors);
}

// tanh(x / cap) * cap
ValueId soft_cap(GraphBuilder& b, ValueId x, double cap, const std::string& name) {
  x = b.binary(BinaryKind::kMul, x, b.scalar(static_cast<float>(1 / cap)));
  return b.binary(BinaryKind::kMul, b.unary(UnaryKind::kTanh, x), b.scalar(static_cast<float>(cap)),
                  name);
}

// The final norm and the logits.
ValueId add_head(const DecoderConfig& c, bool tied, WeightSet& weights, GraphBuilder& b, ValueId x,
                 ValueId table) {
  const Shape hidden = {c.info.hidden_size}, matrix = {c.info.vocab_size, c.info.hidden_size};
  WeightRow gain{"norm.weight", c.names.norm + ".weight", "output_norm.weight", hidden,
                 Constant::Role::kNorm};
  if (c.gain_minus_one) gain.transform = add_one();
  const ValueId scale = weights.get(gain);
  if (c.layer_norm) {
    const ValueId shift = weights.get(
        {"norm.bias", c.names.norm + ".bias", "output_norm.bias", hidden, Constant::Role::kBias});
    x = b.add(LayerNormOp{c.norm_eps}, {x, scale, shift}, "norm");
  } else {
    x = b.add(RmsNormOp{c.norm_eps}, {x, scale}, "norm");
  }
  const std::string stored = c.names.head + ".weight";
  ValueId head = table, offset = kNoValue;
  if (tied)
    weights.ignore(stored);
  else
    head = weights.get({"head.weight", stored, "output.weight", matrix, Constant::Role::kHead});
  if (c.head_bias)
    offset = weights.get({"head.bias",
                          c.names.head + ".bias",
                          "output.bias",
                          {c.info.vocab_size},
                          Constant::Role::kBias});
  const double cap = c.final_logit_softcapping;
  const ValueId logits = b.linear(x, head, offset, cap > 0 ? "logits_uncapped" : "logits");
  return cap > 0 ? soft_cap(b, logits, cap, "logits") : logits;
}

}  // namespace

Result<Graph> build_decoder(const Checkpoint& checkpoint, const DecoderConfig& config,
                            const BuildOptions& options, const LayerBody& body) {
  const DecoderNames& names = config.names;
  const std::string stored_table = names.embedding + ".weight",
                    stored_head = names.head + ".weight";
  ModelInfo info = config.info;
  info.max_position_embeddings = positions_of(config.info, options.context);
  // A tied head that is stored with other values than the embedding is none: transformers goes by
  // the values.
  if (info.tie_word_embeddings && checkpoint.format != "mlc") {
    POME_ASSIGN_OR_RETURN(const bool apart,
                          stored_apart(checkpoint, names.base, stored_table, stored_head));
    info.tie_word_embeddings = !apart;
  }
  complete_gguf(config, &info);
  GraphBuilder b(info);
  WeightSet weights(checkpoint, b, names.base, stored_table);
  const ValueId ids = b.token_ids();
  b.position();
  DecoderParts parts{config, weights, b, {}, {}};
  if (config.rotates) {
    POME_ASSIGN_OR_RETURN(parts.rotary, shared_rotary(config, options, weights, b));
  }
  if (config.local_rope) {
    RopeConfig local = *config.local_rope;
    declare_length(config.info.max_position_embeddings, options.context, &local);
    parts.local_rotary = make_rotary(b, "rope.local.inverse_frequencies", local);
  }
  // A tied matrix may be stored under either of its names.
  const bool under_head = info.tie_word_embeddings && !weights.is_gguf() &&
                          !weights.has(stored_table, "") && weights.has(stored_head, "");
  const ValueId table = weights.get({"embedding.weight",
                                     under_head ? stored_head : stored_table,
                                     "token_embd.weight",
                                     {info.vocab_size, info.hidden_size},
                                     Constant::Role::kEmbedding});
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  if (config.embedding_scale != 1)
    x = b.binary(BinaryKind::kMul, x, b.scalar(static_cast<float>(config.embedding_scale)),
                 "embedding_scaled");
  if (!names.positions.empty()) x = add_learned_positions(config, weights, b, x);
  for (int64_t i = 0; i < info.num_hidden_layers; ++i) {
    DecoderLayer layer(parts, i);
    b.scope("layers." + std::to_string(i) + ".");
    x = body(layer, x);
    b.end_layer(x);
    b.scope("");
  }
  const ValueId logits = add_head(config, info.tie_word_embeddings, weights, b, x, table);
  weights.ignore("rotary_emb.inv_freq");
  for (const std::string& buffer : names.buffers) weights.ignore(buffer);
  for (const std::string& prefix : config.ignored_prefixes) weights.ignore_prefix(prefix);
  POME_RETURN_IF_ERROR(weights.finish());
  return b.finish(logits);
}

}  // namespace pome
