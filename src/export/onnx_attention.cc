// Positions, rotations, caches and attention.
#include <cmath>

#include "export/onnx_lower.h"

namespace pome::onnx_export {
namespace {

// Far below every score, so that softmax gives such keys exactly nothing, and finite, so that a row
// without a visible key (padding) stays a row of numbers.
constexpr double kMasked = -1e9;

std::string number_key(double value) { return std::to_string(value); }

}  // namespace

Val Lowering::positions() {
  if (!options_.logits_only) return "position_ids";
  return cached("positions", [&](const std::string& n) {
    const Val steps = op("Range", out_->unique(n + "/steps"),
                         {out_->i64(0), scalar_of(Symbol::kTokens), out_->i64(1)});
    return unsqueeze(n, steps, {0});
  });
}

// The angle is a product in binary32, as the graph has it; no table limits the context.
std::pair<Val, Val> Lowering::rotation(const RopeOp& rope, int32_t frequencies) {
  const std::string base = graph_.constants[static_cast<size_t>(frequencies)].name;
  const Val angles = cached(base + "/angles", [&](const std::string& n) {
    const Val at = cached("positions.f32", [&](const std::string& name) {
      const Val floats = cast(out_->unique(name + "/flat"), positions(), DType::kF32);
      return unsqueeze(name, floats, {1, 3});
    });
    return op("Mul", n, {at, constant(frequencies)});  // [B, 1, T, 1] times [half]
  });
  const auto part = [&](const char* type) {
    const std::string key = base + "/" + type + (rope.scale == 1 ? "" : number_key(rope.scale));
    return cached(key, [&](const std::string& n) {
      if (rope.scale == 1) return op(type, n, {angles});
      return scaled(n, op(type, out_->unique(n + "/unscaled"), {angles}), rope.scale);
    });
  };
  return {part("Cos"), part("Sin")};
}

// Pairs (a, b) turn by their angle: (a cos - b sin, b cos + a sin).
Result<Val> Lowering::emit(const RopeOp& rope, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const auto frequencies = constant_of(node.operands[2]);
  if (node.operands[1] != graph_.position || !frequencies)
    return no_lowering(node, "its position is not the graph's, or its frequencies are computed");
  const auto [cosine, sine] = rotation(rope, *frequencies);
  const int64_t half = rope.rotary_dim / 2, whole = shape(node.operands[0]).back().size;
  const bool halves = rope.style == RopeStyle::kHalves;
  const Val a = halves ? slice(helper(node, "a"), x, -1, 0, half)
                       : slice(helper(node, "a"), x, -1, 0, rope.rotary_dim, 2);
  const Val b = halves ? slice(helper(node, "b"), x, -1, half, rope.rotary_dim)
                       : slice(helper(node, "b"), x, -1, 1, rope.rotary_dim, 2);
  const auto times = [&](const char* name, const Val& v, const Val& by) {
    return op("Mul", helper(node, name), {v, by});
  };
  const Val first =
      op("Sub", helper(node, "first"), {times("a_cos", a, cosine), times("b_sin", b, sine)});
  const Val second =
      op("Add", helper(node, "second"), {times("b_cos", b, cosine), times("a_sin", a, sine)});
  const bool all = rope.rotary_dim == whole;
  const onnx::Attribute last = attribute("axis", int64_t{-1});
  if (halves) {
    std::vector<Val> parts = {first, second};
    if (!all) parts.push_back(slice(helper(node, "rest"), x, -1, rope.rotary_dim, whole));
    return op("Concat", result_name(node), parts, {last});
  }
  const Val pairs = op("Concat", helper(node, "pairs"),
                       {unsqueeze(helper(node, "first_column"), first, {-1}),
                        unsqueeze(helper(node, "second_column"), second, {-1})},
                       {last});
  const int64_t heads = shape(node.operands[0])[1].size;
  const std::vector<int64_t> flat = {0, heads, -1, rope.rotary_dim};
  if (all) return reshape(result_name(node), pairs, flat);
  const Val turned = reshape(helper(node, "turned"), pairs, flat);
  return op("Concat", result_name(node),
            {turned, slice(helper(node, "rest"), x, -1, rope.rotary_dim, whole)}, {last});
}

Result<Val> Lowering::emit(const KvWriteOp&, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val value, operand(node, 1));
  if (options_.logits_only) return value;
  POME_ASSIGN_OR_RETURN(const Val cache, operand(node, 0));
  return op("Concat", result_name(node), {cache, value}, {attribute("axis", int64_t{2})});
}

// Key j of the cache is seen by query t when j <= P + t, j > P + t - window, and the mask has it.
// Distances are those of cache places, which are those of positions where padding stands in front.
// A decode step sees all that its caller left in the caches, but for the window.
Val Lowering::visible(int64_t window, bool grouped) {
  if (options_.explicit_kv && window == 0) return {};
  const std::string key = "visible" + (window > 0 ? ".window" + std::to_string(window) : "");
  const Val plain = cached(key, [&](const std::string& n) {
    const auto step = [&](const char* suffix) { return out_->unique(n + "/" + suffix); };
    const Val keys = cached("key_places", [&](const std::string& name) {
      return op("Range", name, {out_->i64(0), scalar_of(Symbol::kTotal), out_->i64(1)});
    });
    const Val queries = cached("query_places", [&](const std::string& name) {
      const Val start = options_.logits_only ? out_->i64(0) : scalar_of(Symbol::kPast);
      const Val flat = op("Range", out_->unique(name + "/flat"),
                          {start, scalar_of(Symbol::kTotal), out_->i64(1)});
      return unsqueeze(name, flat, {1});
    });
    const bool last = !masked();
    const auto both = [&](const char* suffix, const Val& x, const Val& y, bool end) {
      return op("And", end ? n : step(suffix), {x, y});
    };
    Val seen = op("LessOrEqual", last && window == 0 ? n : step("causal"), {keys, queries});
    if (window > 0) {
      const Val ends = op("Add", step("ends"), {keys, out_->i64(window)});
      seen = both("windowed", seen, op("Less", step("near"), {queries, ends}), last);
    }
    if (last) return seen;
    const Val mask = cached("mask", [&](const std::string& name) {
      const Val flat = cast(out_->unique(name + "/flat"), "attention_mask", DType::kBool);
      return unsqueeze(name, flat, {1, 2});
    });
    return both("masked", seen, mask, true);
  });
  if (!grouped || !masked()) return plain;  // [T, P + T] broadcasts as it is
  return cached(key + ".grouped", [&](const std::string& n) { return unsqueeze(n, plain, {1}); });
}

// Query heads that share a K/V head become rows of one matrix, [B, kv_heads, groups * T, D]; K and
// V are used as they lie in the cache.
Result<Val> Lowering::emit(const AttentionOp& attention, const Node& node) {
  if (const auto fused = group_queries_.find(node.result); fused != group_queries_.end())
    return group_query_attention(attention, node, fused->second);
  POME_ASSIGN_OR_RETURN(const Val q, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val k, operand(node, 1));
  POME_ASSIGN_OR_RETURN(const Val v, operand(node, 2));
  const int64_t heads = shape(node.operands[0])[1].size, dim = shape(node.operands[0])[3].size;
  const int64_t kv_heads = shape(node.operands[1])[1].size, groups = heads / kv_heads;
  const int64_t value_dim = shape(node.operands[2])[3].size;
  const bool grouped = groups > 1;
  const Val queries = grouped ? reshape(helper(node, "queries"), q, {0, kv_heads, -1, dim}) : q;
  const Val keys = transpose(helper(node, "keys"), k, {0, 1, 3, 2});
  const double factor =
      attention.softcap > 0 ? attention.scale / attention.softcap : attention.scale;
  Val scores = op("MatMul", helper(node, "products"), {queries, keys});
  if (factor != 1) scores = scaled(helper(node, "scores"), scores, factor);
  if (attention.softcap > 0)
    scores = scaled(helper(node, "capped"), op("Tanh", helper(node, "tanh"), {scores}),
                    attention.softcap);
  const auto shape_of = [&](const std::string& key, std::vector<Val> parts) {
    return cached(key, [&](const std::string& n) {
      return op("Concat", n, std::move(parts), {attribute("axis", int64_t{0})});
    });
  };
  if (grouped) {  // [B, kv_heads, groups, T, P + T], so that the mask broadcasts over groups
    const Val to =
        shape_of("scores_shape." + std::to_string(kv_heads) + "." + std::to_string(groups),
                 {out_->i64s({0, kv_heads, groups, -1}), dimension(Symbol::kTotal)});
    scores = op("Reshape", helper(node, "by_group"), {scores, to});
  }
  if (const Val seen = visible(attention.window, grouped); !seen.empty())
    scores = op("Where", helper(node, "masked"), {seen, scores, out_->f32(kMasked)});
  Val weights;
  if (node.operands.size() == 4) {
    // A sink is one more logit per head that takes no value.
    POME_ASSIGN_OR_RETURN(const Val sinks, operand(node, 3));
    const Val sink = reshape(helper(node, "sinks"), sinks,
                             grouped ? std::vector<int64_t>{1, kv_heads, groups, 1, 1}
                                     : std::vector<int64_t>{1, heads, 1, 1});
    const Val largest = op("Max", helper(node, "largest"),
                           {reduce("ReduceMax", helper(node, "best"), scores, -1, true), sink});
    const auto exponential = [&](const char* name, const Val& x) {
      const std::string difference = helper(node, std::string(name) + "_difference");
      return op("Exp", helper(node, name), {op("Sub", difference, {x, largest})});
    };
    const Val e = exponential("exponentials", scores);
    const Val total = op("Add", helper(node, "total"),
                         {reduce("ReduceSum", helper(node, "total_of_keys"), e, -1, true),
                          exponential("sink_part", sink)});
    weights = op("Div", helper(node, "weights"), {e, total});
  } else {
    weights = op("Softmax", helper(node, "weights"), {scores}, {attribute("axis", int64_t{-1})});
  }
  if (!grouped) return op("MatMul", result_name(node), {weights, v});
  const Val flat =
      op("Reshape", helper(node, "rows"),
         {weights, shape_of("weights_shape." + std::to_string(kv_heads),
                            {out_->i64s({0, kv_heads, -1}), dimension(Symbol::kTotal)})});
  const Val mixed = op("MatMul", helper(node, "mixed"), {flat, v});
  return reshape(result_name(node), mixed, {0, heads, -1, value_dim});
}

// ---- one operator for rotations, caches and attention

std::optional<Lowering::GroupQuery> Lowering::group_query(const Node& node) const {
  if (options_.logits_only) return std::nullopt;
  const SymShape &q = shape(node.operands[0]), &v = shape(node.operands[2]);
  // What the CPU kernel takes (docs/onnx.md).
  if (q[3] != v[3] || q[3].size % 8 != 0) return std::nullopt;
  GroupQuery out;
  const auto write = [&](size_t index, CachePair::Kind kind) -> const Node* {
    const Node* from = producer(node.operands[index]);
    if (from == nullptr || !std::holds_alternative<KvWriteOp>(from->op) ||
        !only_reader(from->result))
      return nullptr;
    for (const CachePair& pair : graph_.caches)
      if (pair.output == from->result && pair.input == from->operands[0] && pair.kind == kind)
        return from;
    return nullptr;
  };
  out.key_write = write(1, CachePair::Kind::kKey);
  out.value_write = write(2, CachePair::Kind::kValue);
  if (out.key_write == nullptr || out.value_write == nullptr) return std::nullopt;
  // The operator takes positions from the length of the caches, a decode step is told its own.
  if (options_.explicit_kv) return out;
  const auto rope = [&](ValueId id) -> const Node* {
    const Node* from = producer(id);
    return from != nullptr && std::holds_alternative<RopeOp>(from->op) && only_reader(id) &&
                   from->operands[1] == graph_.position && constant_of(from->operands[2])
               ? from
               : nullptr;
  };
  const Node *query = rope(node.operands[0]), *key = rope(out.key_write->operands[1]);
  if (query == nullptr || key == nullptr || query->operands[2] != key->operands[2]) return out;
  const auto& turn = std::get<RopeOp>(query->op);
  if (turn == std::get<RopeOp>(key->op) && turn.rotary_dim / 2 % 8 == 0) {
    out.query_rope = query;
    out.key_rope = key;
  }
  return out;
}

Result<Val> Lowering::token_major(ValueId id) {
  const auto known = token_major_.find(id);
  if (known != token_major_.end()) return known->second;
  const int64_t width = shape(id)[1].size * shape(id)[3].size;
  const Node* turned = producer(id);
  if (turned != nullptr && std::holds_alternative<TransposeOp>(turned->op)) {
    const Node* split = producer(turned->operands[0]);
    if (split != nullptr && std::holds_alternative<ReshapeOp>(split->op) &&
        shape(split->operands[0]) == SymShape{Symbol::kBatch, Symbol::kTokens, width} &&
        std::get<TransposeOp>(turned->op).permutation == std::vector<int32_t>{0, 2, 1, 3})
      return operand(*split, 0);
  }
  const auto value = values_.find(id);
  if (value == values_.end())
    return unsupported("a value is read before it is made").at(graph_.name(id));
  const Val back =
      transpose(out_->unique(graph_.name(id) + "/by_token"), value->second, {0, 2, 1, 3});
  return token_major_[id] = reshape(out_->unique(graph_.name(id) + "/flat"), back, {0, 0, width});
}

Result<Val> Lowering::group_query_attention(const AttentionOp& attention, const Node& node,
                                            const GroupQuery& plan) {
  const bool turns = plan.query_rope != nullptr;
  const ValueId q = turns ? plan.query_rope->operands[0] : node.operands[0];
  const ValueId k = turns ? plan.key_rope->operands[0] : plan.key_write->operands[1];
  POME_ASSIGN_OR_RETURN(const Val query, token_major(q));
  POME_ASSIGN_OR_RETURN(const Val key, token_major(k));
  POME_ASSIGN_OR_RETURN(const Val value, token_major(plan.value_write->operands[1]));
  POME_ASSIGN_OR_RETURN(const Val past_key, operand(*plan.key_write, 0));
  POME_ASSIGN_OR_RETURN(const Val past_value, operand(*plan.value_write, 0));
  // Its caches are as long as the mask is wide; how much of them counts, per sequence, is the sum
  // of the mask.
  const Val lengths = cached("lengths", [&](const std::string& n) {
    if (!masked()) return cast(n, dimension(Symbol::kPast), DType::kI32);
    const Val sums = reduce("ReduceSum", out_->unique(n + "/sums"), "attention_mask", 1, false);
    return cast(n, op("Sub", out_->unique(n + "/last"), {sums, out_->i64(1)}), DType::kI32);
  });
  const Val total = cached("total.i32", [&](const std::string& n) {
    return cast(n, scalar_of(Symbol::kTotal), DType::kI32);
  });
  std::vector<Val> inputs = {query, key, value, past_key, past_value, lengths, total};
  Attributes attributes = {attribute("num_heads", shape(q)[1].size),
                           attribute("kv_num_heads", shape(k)[1].size),
                           attribute("scale", attention.scale)};
  if (turns) {
    const auto& rope = std::get<RopeOp>(plan.query_rope->op);
    const auto [cosine, sine] = weights_->rope_tables(*constant_of(plan.query_rope->operands[2]),
                                                      options_.context, rope.scale);
    inputs.insert(inputs.end(), {cosine, sine});
    attributes.push_back(attribute("do_rotary", int64_t{1}));
    attributes.push_back(
        attribute("rotary_interleaved", int64_t{rope.style == RopeStyle::kInterleaved}));
  }
  if (attention.softcap > 0) attributes.push_back(attribute("softcap", attention.softcap));
  if (attention.window > 0) attributes.push_back(attribute("local_window_size", attention.window));
  if (node.operands.size() == 4) {
    POME_ASSIGN_OR_RETURN(const Val sinks, operand(node, 3));
    inputs.resize(11);  // what stands between is optional and absent
    inputs.push_back(sinks);
  }
  const std::vector<Val> results =
      out_->op("GroupQueryAttention",
               {helper(node, "flat"), result_name(*plan.key_write), result_name(*plan.value_write)},
               inputs, attributes, onnx::kMicrosoft);
  values_[plan.key_write->result] = results[1];
  values_[plan.value_write->result] = results[2];
  token_major_[node.result] = results[0];
  const SymShape& out = shape(node.result);
  const Val heads = reshape(helper(node, "by_head"), results[0], {0, 0, out[1].size, out[3].size});
  return transpose(result_name(node), heads, {0, 2, 1, 3});
}

}  // namespace pome::onnx_export
