#include "models/gpt_common.h"

#include <algorithm>
#include <cmath>

#include "models/stored_quantisation.h"

namespace pome {

namespace {

std::string last_component(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path;
  const size_t slash = path.find_last_of('/', end);
  const size_t first = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(first, end - first + 1);
}

void read_gguf_rest(ConfigReader& config, const Checkpoint& checkpoint, ModelInfo* info) {
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
  // llama.cpp's converter writes four times the embedding for GPT-2 and Phi-2, whatever the width.
  const CheckpointTensor* up = checkpoint.find("blk.0.ffn_up.weight");
  if (up && up->shape.size() == 2 && info->intermediate_size == 4 * info->hidden_size)
    info->intermediate_size = up->shape[0];
  if (const auto name = checkpoint.gguf.find("general.name");
      name != checkpoint.gguf.end() && name->is_string())
    info->name = name->get<std::string>();
}

}  // namespace

GptConfig read_gpt_config(ConfigReader& config, const Checkpoint& checkpoint,
                          std::string_view family, const GptKeys& keys) {
  GptConfig out;
  ModelInfo& info = out.info;
  info.family = family;
  info.architecture = config.is_gguf() ? config.prefix() : std::string(family);
  info.hidden_size = config.integer(keys.hidden_size, "embedding_length", 1, 1 << 20);
  info.num_hidden_layers = config.integer(keys.num_hidden_layers, "block_count", 1, 1 << 14);
  info.num_attention_heads =
      config.integer(keys.num_attention_heads, "attention.head_count", 1, 1 << 14);
  info.num_key_value_heads = info.num_attention_heads;
  info.head_dim = std::max<int64_t>(1, info.hidden_size / info.num_attention_heads);
  if (info.hidden_size % info.num_attention_heads != 0)
    config.complain(Refusal::kRange,
                    std::string(keys.hidden_size) + " " + std::to_string(info.hidden_size) +
                        " is not a multiple of " + std::string(keys.num_attention_heads) + " " +
                        std::to_string(info.num_attention_heads));
  info.max_position_embeddings =
      config.integer(keys.max_position_embeddings, "context_length", 1, int64_t{1} << 31);
  const bool has_width =
      config.maybe_int(keys.intermediate_size, "feed_forward_length").has_value();
  info.intermediate_size =
      has_width || keys.intermediate_size_required
          ? config.integer(keys.intermediate_size, "feed_forward_length", 1, 1 << 22)
          : 4 * info.hidden_size;
  out.layer_norm_eps = config.positive(keys.layer_norm_eps, "attention.layer_norm_epsilon", 1e-5);
  std::string act(keys.default_activation);
  if (config.is_gguf()) {
    read_gguf_rest(config, checkpoint, &info);
  } else {
    info.vocab_size = config.integer("vocab_size", "", 1, int64_t{1} << 24);
    info.tie_word_embeddings =
        config.maybe_bool("tie_word_embeddings", "").value_or(keys.tie_word_embeddings);
    act = config.maybe_string(keys.activation, "").value_or(act);
    check_stored_quantisation(config);
  }
  const auto activation = parse_activation(act);
  if (!activation)
    config.unsupported(std::string(keys.activation) + " '" + escape_for_terminal(act, 64) + "'");
  out.activation = activation.value_or(Activation::kGeluTanh);
  if (info.name.empty()) info.name = last_component(checkpoint.path);
  info.config["layer_norm_eps"] = out.layer_norm_eps;
  info.config["hidden_act"] = act;
  return out;
}

bool GptLayer::has_gguf(const std::string& module) const {
  return w_.has("", at_.gguf + module + ".weight");
}

ValueId GptLayer::norm(ValueId x, const std::string& name, const std::string& hf,
                       const std::string& gguf) {
  const auto vector = [&](const char* suffix, Constant::Role role) {
    return w_.get({at_.graph + name + suffix,
                   at_.hf + hf + suffix,
                   at_.gguf + gguf + suffix,
                   {c_.info.hidden_size},
                   role});
  };
  const ValueId gain = vector(".weight", Constant::Role::kNorm);
  const ValueId bias = vector(".bias", Constant::Role::kBias);
  return b_.add(LayerNormOp{c_.layer_norm_eps}, {x, gain, bias}, name);
}

ValueId GptLayer::linear(ValueId x, const Projection& p) {
  const int64_t stored = p.stored_outputs ? p.stored_outputs : p.outputs;
  const Shape shape = {p.outputs, p.inputs};
  const bool turned = p.conv1d && !w_.is_gguf();
  WeightRow weight{at_.graph + p.name + ".weight", at_.hf + p.hf + ".weight",
                   at_.gguf + p.gguf + ".weight", shape};
  weight.stored_shape = turned ? Shape{p.inputs, stored} : Shape{stored, p.inputs};
  weight.transform = [turned, shape, row = p.row](ConstantDataPtr in) {
    if (turned) in = transposed(std::move(in));
    return row ? permute_rows(std::move(in), shape, row) : in;
  };
  const ValueId matrix = w_.get(weight);
  ValueId offset = kNoValue;
  const std::string gguf_bias = at_.gguf + p.gguf + ".bias";
  if (w_.is_gguf() ? w_.has("", gguf_bias) : p.bias) {
    WeightRow bias{at_.graph + p.name + ".bias",
                   at_.hf + p.hf + ".bias",
                   gguf_bias,
                   {p.outputs},
                   Constant::Role::kBias};
    bias.stored_shape = {stored};
    if (p.row)
      bias.transform = [row = p.row, count = p.outputs](ConstantDataPtr in) {
        // Every stored element needs a source, also those that are cut off afterwards.
        const auto order = [row, count](int64_t i) { return i < count ? row(i) : i; };
        return slice_elements(permute_elements(std::move(in), order), 0, count);
      };
    offset = w_.get(bias);
  }
  return b_.linear(x, matrix, offset, p.name);
}

ValueId GptLayer::mlp(ValueId x, Projection up, Projection down) {
  up.name = "mlp.up";
  down.name = "mlp.down";
  up.gguf = "ffn_up";
  down.gguf = "ffn_down";
  up.outputs = down.inputs = c_.info.intermediate_size;
  up.inputs = down.outputs = c_.info.hidden_size;
  const ValueId wide = b_.add(ActivationOp{c_.activation}, {linear(x, up)}, "mlp.activation");
  return linear(wide, down);
}

ValueId GptLayer::attention(int32_t layer, ValueId q, ValueId k, ValueId v, ValueId position,
                            const AttentionOp& op, const std::optional<Rope>& rope) {
  const ModelInfo& i = c_.info;
  b_.scope("");
  const ValueId k_cache = b_.cache(layer, CachePair::Kind::kKey, i.num_key_value_heads, i.head_dim);
  const ValueId v_cache =
      b_.cache(layer, CachePair::Kind::kValue, i.num_key_value_heads, i.head_dim);
  b_.scope(at_.graph);
  q = b_.split_heads(q, i.num_attention_heads, i.head_dim, "q_heads");
  k = b_.split_heads(k, i.num_key_value_heads, i.head_dim, "k_heads");
  v = b_.split_heads(v, i.num_key_value_heads, i.head_dim, "v_heads");
  if (rope) {
    q = b_.add(rope->op, {q, position, rope->frequencies}, "q_rope");
    k = b_.add(rope->op, {k, position, rope->frequencies}, "k_rope");
  }
  k = b_.kv_write(k_cache, k, position, "k_all");
  v = b_.kv_write(v_cache, v, position, "v_all");
  return b_.merge_heads(b_.add(op, {q, k, v}, "attention"), "heads");
}

ValueId add_learned_positions(const GptConfig& config, WeightSet& weights, GraphBuilder& builder,
                              ValueId x, ValueId position, const std::string& hf_name,
                              const std::string& gguf_name) {
  const ValueId table = weights.get({"positions.weight",
                                     hf_name,
                                     gguf_name,
                                     {config.info.max_position_embeddings, config.info.hidden_size},
                                     Constant::Role::kTable});
  const ValueId steps = builder.add(IotaOp{Symbol::kTokens}, {}, "position_steps");
  const ValueId at = builder.binary(BinaryKind::kAdd, steps, position, "position_ids");
  const ValueId rows = builder.add(GatherOp{}, {table, at}, "position_embedding");
  return builder.binary(BinaryKind::kAdd, x, rows, "embedding_with_positions");
}

ValueId add_head(const GptConfig& config, WeightSet& weights, GraphBuilder& builder, ValueId x,
                 ValueId table, const std::string& hf_module, bool bias) {
  const ModelInfo& info = config.info;
  ValueId head = table, offset = kNoValue;
  if (info.tie_word_embeddings) {
    weights.ignore(hf_module + ".weight");
  } else {
    head = weights.get({"head.weight",
                        hf_module + ".weight",
                        "output.weight",
                        {info.vocab_size, info.hidden_size},
                        Constant::Role::kHead});
  }
  if (bias)
    offset = weights.get({"head.bias",
                          hf_module + ".bias",
                          "output.bias",
                          {info.vocab_size},
                          Constant::Role::kBias});
  return builder.linear(x, head, offset, "logits");
}

}  // namespace pome
