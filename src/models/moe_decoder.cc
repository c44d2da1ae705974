#include "models/moe_decoder.h"

#include <algorithm>
#include <cmath>

#include "models/stored_quantisation.h"

namespace pome {

namespace {

void read_heads(ConfigReader& config, MoeDecoderConfig* out) {
  ModelInfo& info = out->info;
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
  out->rope = read_rope(config, info.head_dim);
}

void read_gguf_identity(ConfigReader& config, const Checkpoint& checkpoint, ModelInfo* info) {
  const CheckpointTensor* embedding = checkpoint.find("token_embd.weight");
  info->vocab_size = embedding && embedding->shape.size() == 2 ? embedding->shape[0] : 0;
  const std::string rows = std::to_string(info->vocab_size) + " rows of token_embd.weight";
  const size_t tokens = checkpoint.tokenizer.tokens.size();
  if (tokens && info->vocab_size && static_cast<int64_t>(tokens) != info->vocab_size)
    config.complain(Refusal::kRange, std::to_string(tokens) + " tokens but " + rows);
  info->tie_word_embeddings = !checkpoint.find("output.weight");
  if (const auto name = checkpoint.gguf.find("general.name");
      name != checkpoint.gguf.end() && name->is_string())
    info->name = name->get<std::string>();
}

void read_hf_identity(ConfigReader& config, const MoeDecoderKeys& keys, MoeDecoderConfig* out) {
  out->info.vocab_size = config.integer("vocab_size", "", 1, int64_t{1} << 24);
  out->info.tie_word_embeddings = config.maybe_bool("tie_word_embeddings", "").value_or(false);
  out->attention_bias = config.maybe_bool("attention_bias", "").value_or(false);
  const std::string act = config.maybe_string("hidden_act", "").value_or("silu");
  const auto activation = parse_activation(act);
  if (!activation) config.unsupported("hidden_act '" + escape_for_terminal(act, 64) + "'");
  out->activation = activation.value_or(Activation::kSilu);
  check_stored_quantisation(config, keys.quant_method);
}

std::string last_component(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path;
  const size_t slash = path.find_last_of('/', end);
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(begin, end - begin + 1);
}

}  // namespace

MoeDecoderConfig read_moe_decoder(ConfigReader& config, const Checkpoint& checkpoint,
                                  const MoeDecoderKeys& keys) {
  MoeDecoderConfig out;
  ModelInfo& info = out.info;
  info.family = keys.family;
  info.architecture = config.is_gguf() ? config.prefix() : std::string(keys.family);
  info.hidden_size = config.integer("hidden_size", "embedding_length", 1, 1 << 20);
  info.num_hidden_layers = config.integer("num_hidden_layers", "block_count", 1, 1 << 14);
  info.num_attention_heads =
      config.integer("num_attention_heads", "attention.head_count", 1, 1 << 14);
  info.num_key_value_heads = config.maybe_int("num_key_value_heads", "attention.head_count_kv")
                                 .value_or(info.num_attention_heads);
  if (info.num_key_value_heads < 1 || info.num_attention_heads % info.num_key_value_heads != 0) {
    config.complain(Refusal::kRange, "num_attention_heads " +
                                         std::to_string(info.num_attention_heads) +
                                         " must be a multiple of num_key_value_heads " +
                                         std::to_string(info.num_key_value_heads));
    info.num_key_value_heads = info.num_attention_heads;
  }
  info.max_position_embeddings =
      config.integer("max_position_embeddings", "context_length", 1, int64_t{1} << 31);
  info.intermediate_size = config.maybe_int("intermediate_size", "feed_forward_length").value_or(0);
  if (keys.own_head_dim) read_heads(config, &out);
  out.rms_norm_eps =
      config.positive("rms_norm_eps", "attention.layer_norm_rms_epsilon",
                      config.is_gguf() ? std::optional<double>() : keys.rms_norm_eps);

  RouterConfig& router = out.router;
  const bool local = !config.is_gguf() && config.object().contains("num_local_experts");
  router.experts =
      config.integer(local ? "num_local_experts" : keys.experts, "expert_count", 1, 1 << 16);
  router.experts_per_token = config.integer("num_experts_per_tok", "expert_used_count", 1, 1 << 16);
  if (router.experts_per_token > router.experts) {
    config.complain(Refusal::kRange,
                    "num_experts_per_tok " + std::to_string(router.experts_per_token) +
                        " is more than the " + std::to_string(router.experts) + " experts");
    router.experts_per_token = router.experts;
  }
  // Files of the first families with experts have one width for everything.
  const bool has_width =
      config.maybe_int(keys.expert_width, "expert_feed_forward_length").has_value();
  out.expert_width =
      has_width || !config.is_gguf()
          ? config.integer(keys.expert_width, "expert_feed_forward_length", 1, 1 << 22)
          : config.integer("", "feed_forward_length", 1, 1 << 22);

  if (config.is_gguf()) {
    read_gguf_identity(config, checkpoint, &info);
  } else {
    read_hf_identity(config, keys, &out);
  }
  if (info.name.empty()) info.name = last_component(checkpoint.path);
  info.config["rms_norm_eps"] = out.rms_norm_eps;
  info.config["num_experts"] = router.experts;
  info.config["num_experts_per_tok"] = router.experts_per_token;
  info.config["moe_intermediate_size"] = out.expert_width;
  return out;
}

WeightRow MoeDecoderLayer::row(const std::string& name, const std::string& hf,
                               const std::string& gguf, Shape shape) const {
  const std::string at = std::to_string(layer_) + ".";
  return {"layers." + at + name, "model.layers." + at + hf, "blk." + at + gguf, std::move(shape)};
}
bool MoeDecoderLayer::has(const std::string& hf, const std::string& gguf) const {
  const WeightRow names = row("", hf, gguf, {});
  return w_.has(hf.empty() ? "" : names.hf_name, gguf.empty() ? "" : names.gguf_name);
}

ValueId MoeDecoderLayer::norm(ValueId x, const std::string& name, const std::string& hf,
                              const std::string& gguf, int64_t size) {
  WeightRow gain =
      row(name + ".weight", hf + ".weight", gguf + ".weight", {size ? size : c_.info.hidden_size});
  gain.role = Constant::Role::kNorm;
  return b_.add(RmsNormOp{c_.rms_norm_eps}, {x, w_.get(gain)}, name);
}

ValueId MoeDecoderLayer::vector(const std::string& name, const std::string& hf,
                                const std::string& gguf, int64_t size) {
  WeightRow values = row(name, hf, gguf, {size});
  values.role = Constant::Role::kBias;
  return w_.get(values);
}

ValueId MoeDecoderLayer::linear(ValueId x, const std::string& name, const std::string& hf,
                                const std::string& gguf, Shape shape, bool bias,
                                int64_t paired_heads) {
  WeightRow weight = row(name + ".weight", hf + ".weight", gguf + ".weight", shape);
  if (paired_heads) weight.gguf_transform = unpermute_heads(shape, paired_heads);
  const ValueId matrix = w_.get(weight);
  ValueId offset = kNoValue;
  if (bias || has("", gguf + ".bias"))
    offset = vector(name + ".bias", hf + ".bias", gguf + ".bias", shape[0]);
  return b_.linear(x, matrix, offset, name);
}

ValueId MoeDecoderLayer::attention(ValueId h, ValueId position, ValueId frequencies,
                                   const Attention& spec) {
  const ModelInfo& i = c_.info;
  const int64_t q_rows = i.num_attention_heads * i.head_dim,
                kv_rows = i.num_key_value_heads * i.head_dim;
  const std::string scope = "layers." + std::to_string(layer_) + ".";
  b_.scope("");
  const ValueId k_cache =
      b_.cache(index(), CachePair::Kind::kKey, i.num_key_value_heads, i.head_dim);
  const ValueId v_cache =
      b_.cache(index(), CachePair::Kind::kValue, i.num_key_value_heads, i.head_dim);
  b_.scope(scope);
  const bool bias = c_.attention_bias;
  ValueId q = linear(h, "attention.q", "self_attn.q_proj", "attn_q", {q_rows, i.hidden_size}, bias,
                     spec.paired_heads ? i.num_attention_heads : 0);
  ValueId k = linear(h, "attention.k", "self_attn.k_proj", "attn_k", {kv_rows, i.hidden_size}, bias,
                     spec.paired_heads ? i.num_key_value_heads : 0);
  ValueId v =
      linear(h, "attention.v", "self_attn.v_proj", "attn_v", {kv_rows, i.hidden_size}, bias);
  q = b_.split_heads(q, i.num_attention_heads, i.head_dim, "q_heads");
  k = b_.split_heads(k, i.num_key_value_heads, i.head_dim, "k_heads");
  v = b_.split_heads(v, i.num_key_value_heads, i.head_dim, "v_heads");
  if (spec.qk_norm) {
    q = norm(q, "q_norm", "self_attn.q_norm", "attn_q_norm", i.head_dim);
    k = norm(k, "k_norm", "self_attn.k_norm", "attn_k_norm", i.head_dim);
  }
  const RopeOp rope{RopeStyle::kHalves, c_.rope.rotary_dim, c_.rope.attention_factor};
  q = b_.add(rope, {q, position, frequencies}, "q_rope");
  k = b_.add(rope, {k, position, frequencies}, "k_rope");
  k = b_.kv_write(k_cache, k, position, "k_all");
  v = b_.kv_write(v_cache, v, position, "v_all");
  const AttentionOp op{1 / std::sqrt(static_cast<double>(i.head_dim)), spec.window};
  std::vector<ValueId> operands = {q, k, v};
  if (spec.sinks)
    operands.push_back(
        vector("attention.sinks", "self_attn.sinks", "attn_sinks.weight", i.num_attention_heads));
  const ValueId heads = b_.merge_heads(b_.add(op, operands, "attention"), "heads");
  return linear(heads, "attention.o", "self_attn.o_proj", "attn_output", {i.hidden_size, q_rows},
                bias);
}

ValueId MoeDecoderLayer::gated_mlp(ValueId h, const std::string& name, const std::string& hf,
                                   const std::string& gguf_suffix, int64_t width) {
  const int64_t hidden = c_.info.hidden_size;
  const ValueId gate = linear(h, name + ".gate", hf + ".gate_proj", "ffn_gate" + gguf_suffix,
                              {width, hidden}, false);
  const ValueId up =
      linear(h, name + ".up", hf + ".up_proj", "ffn_up" + gguf_suffix, {width, hidden}, false);
  return linear(b_.add(SwigluOp{c_.activation}, {gate, up}, name + ".swiglu"), name + ".down",
                hf + ".down_proj", "ffn_down" + gguf_suffix, {hidden, width}, false);
}

ValueId MoeDecoderLayer::experts(ValueId h, ValueId mix, const ExpertNames& names) {
  const int64_t count = c_.router.experts, hidden = c_.info.hidden_size, width = c_.expert_width;
  const Shape inner = {count, width, hidden}, outer = {count, hidden, width};
  const bool fused = has(names.fused + ".gate_up_proj", "");
  const auto stack = [&](const std::string& what, const std::string& module, const Shape& shape,
                         int64_t first_row) {
    WeightRow wanted = row("experts." + what + ".weight", names.hf + ".*." + module + ".weight",
                           "ffn_" + what + "_exps.weight", shape);
    if (!fused) {
      return w_.get_stack(wanted, [&](int64_t e) {
        return row("", names.hf + "." + std::to_string(e) + "." + module + ".weight", "", {})
            .hf_name;
      });
    }
    const bool down = what == "down";
    wanted.hf_name = row("", names.fused + (down ? ".down_proj" : ".gate_up_proj"), "", {}).hf_name;
    if (!down) {
      wanted.stored_shape = {count, 2 * width, hidden};
      wanted.transform = take_expert_rows(first_row, 1, shape);
    }
    return w_.get(wanted);
  };
  const ValueId gate = stack("gate", names.gate, inner, 0);
  const ValueId up = stack("up", names.up, inner, width);
  const ValueId down = stack("down", names.down, outer, 0);
  return b_.add(MoeOp{true, c_.activation}, {h, mix, gate, up, down}, "experts");
}

Result<Graph> build_moe_decoder(const Checkpoint& checkpoint, const MoeDecoderConfig& config,
                                const MoeLayerBuilder& layer) {
  const ModelInfo& info = config.info;
  GraphBuilder b(info);
  WeightSet weights(checkpoint, b);
  POME_ASSIGN_OR_RETURN(const std::vector<float> factors,
                        weights.read_vector("", "rope_freqs.weight"));
  if (!factors.empty())
    return unsupported("frequency factors in a model with experts")
        .in(checkpoint.path)
        .at("rope_freqs.weight");
  const ValueId ids = b.token_ids(), position = b.position();
  const ValueId frequencies =
      b.vector("rope.inverse_frequencies", inverse_frequencies(config.rope));
  const ValueId table = weights.get({"embedding.weight",
                                     "model.embed_tokens.weight",
                                     "token_embd.weight",
                                     {info.vocab_size, info.hidden_size},
                                     Constant::Role::kEmbedding});
  ValueId x = b.add(EmbeddingOp{}, {table, ids}, "embedding");
  for (int64_t i = 0; i < info.num_hidden_layers; ++i) {
    MoeDecoderLayer one(config, weights, b, i);
    b.scope("layers." + std::to_string(i) + ".");
    x = layer(one, i, x, position, frequencies);
    b.end_layer(x);
    b.scope("");
  }
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
  for (const std::string& prefix : config.ignored_prefixes) weights.ignore_prefix(prefix);
  const ValueId logits = b.linear(x, head, kNoValue, "logits");
  POME_RETURN_IF_ERROR(weights.finish());
  return b.finish(logits);
}

}  // namespace pome
