#include "models/mixture.h"

#include <algorithm>
#include <set>

namespace pome {

void read_mixture(ConfigReader& config, const MixtureKeys& keys, DecoderConfig* out) {
  RouterConfig& router = out->router;
  const bool other = !config.names(keys.experts) && config.names(keys.also);
  router.experts = config.integer(other ? keys.also : keys.experts, "expert_count", 1, 1 << 16);
  router.experts_per_token = config.integer("num_experts_per_tok", "expert_used_count", 1, 1 << 16);
  if (router.experts_per_token > router.experts) {
    config.complain(Refusal::kRange,
                    "num_experts_per_tok " + std::to_string(router.experts_per_token) +
                        " is more than the " + std::to_string(router.experts) + " experts");
    router.experts_per_token = router.experts;
  }
  // GGUF files of the first families with experts have one width for everything.
  const bool own = !config.is_gguf() || config.maybe_int("", "expert_feed_forward_length");
  out->expert_width = config.integer(
      keys.expert_width, own ? "expert_feed_forward_length" : "feed_forward_length", 1, 1 << 22);
  if (!out->act.gated_experts()) config.unsupported("this hidden_act in a mixture of experts");
  out->info.config["num_experts"] = router.experts;
  out->info.config["num_experts_per_tok"] = router.experts_per_token;
  out->info.config["moe_intermediate_size"] = out->expert_width;
}

std::vector<bool> read_sparse_layers(ConfigReader& config, const DecoderConfig& decoder) {
  std::vector<bool> sparse(static_cast<size_t>(decoder.info.num_hidden_layers), true);
  if (config.is_gguf()) return sparse;
  const int64_t step = config.integer("decoder_sparse_step", "", 1, 1 << 14);
  std::set<int64_t> dense;
  if (const Json* list = config.value("mlp_only_layers")) {
    const bool integers =
        list->is_array() && std::all_of(list->begin(), list->end(),
                                        [](const Json& item) { return item.is_number_integer(); });
    if (!integers) config.complain(Refusal::kType, "mlp_only_layers must be a list of integers");
    if (integers)
      for (const Json& item : *list) dense.insert(item.get<int64_t>());
  }
  for (size_t i = 0; i < sparse.size(); ++i) {
    const int64_t layer = static_cast<int64_t>(i);
    sparse[i] = !dense.count(layer) && (layer + 1) % step == 0;
  }
  return sparse;
}

ValueId router_logits(DecoderLayer& layer, ValueId h, const std::string& hf, bool bias) {
  const DecoderConfig& c = layer.config();
  return layer.linear(h,
                      {"router", hf, "ffn_gate_inp", {c.router.experts, c.info.hidden_size}, bias});
}

ValueId gated_experts(DecoderLayer& layer, ValueId h, ValueId mix, const ExpertNames& names) {
  const DecoderConfig& c = layer.config();
  const int64_t count = c.router.experts, hidden = c.info.hidden_size, width = c.expert_width;
  const Shape inner = {count, width, hidden}, outer = {count, hidden, width};
  const bool fused = layer.has(names.fused + ".gate_up_proj", "");
  const auto stack = [&](const std::string& what, const std::string& module, const Shape& shape,
                         int64_t first_row) {
    WeightRow wanted =
        layer.row("experts." + what + ".weight", names.hf + ".*." + module + ".weight",
                  "ffn_" + what + "_exps.weight", shape);
    if (!fused) {
      return layer.weights().get_stack(wanted, [&](int64_t e) {
        return layer.row("", names.hf + "." + std::to_string(e) + "." + module + ".weight", "", {})
            .hf_name;
      });
    }
    const bool down = what == "down";
    wanted.hf_name =
        layer.row("", names.fused + (down ? ".down_proj" : ".gate_up_proj"), "", {}).hf_name;
    if (!down) {
      wanted.stored_shape = {count, 2 * width, hidden};
      wanted.transform = take_expert_rows(first_row, 1, shape);
    }
    return layer.weights().get(wanted);
  };
  const ValueId gate = stack("gate", names.gate, inner, 0);
  const ValueId up = stack("up", names.up, inner, width);
  const ValueId down = stack("down", names.down, outer, 0);
  const MoeOp op = c.act.gated_experts().value_or(MoeOp());
  return layer.builder().add(op, {h, mix, gate, up, down}, "experts");
}

}  // namespace pome
