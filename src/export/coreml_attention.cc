// Norm, rope, cache and attention (docs/coreml.md).
#include <algorithm>
#include <cmath>

#include "export/coreml_lower.h"

namespace pome::coreml {
namespace {

using mil::ValueData;

// What a masked score gets: far below any score, and two of them still fit fp16.
constexpr float kMasked = -30000.0f;

// The smallest divisor that keeps epsilon / m^2 below 2^14, as a power of two; never a subnormal.
double norm_floor(double epsilon) {
  double floor = std::ldexp(1.0, -14);
  while (epsilon / (floor * floor) > 16384.0) floor *= 2;
  return floor;
}

bool is_one_over_sqrt(double scale, int64_t dim) {
  const double wanted = 1 / std::sqrt(static_cast<double>(dim));
  return std::abs(scale - wanted) <= 1e-6 * wanted;
}

}  // namespace

// x^2 leaves fp16 for |x| > 255, so the vector is divided by its largest magnitude m first:
//   u = x / m;   y = u * rsqrt(mean(u^2) + (sqrt(epsilon) / m)^2) * gain
// which is x / sqrt(mean(x^2) + epsilon) for every m > 0. All intermediate values lie in fp16's
// normal range for every finite x.
Result<Val> Lowering::emit(const RmsNormOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val gain, operand(node, 1));
  const Val magnitude = out_.op("abs", helper(node, "abs"), {{"x", x}}, x.dtype, x.dims);
  const Val largest = reduce("reduce_max", helper(node, "max"), magnitude, -1);
  const Val divisor = out_.op(
      "maximum", helper(node, "divisor"),
      {{"x", largest}, {"y", ValueData::scalar_f16(static_cast<float>(norm_floor(op.epsilon)))}},
      x.dtype, largest.dims);
  const Val unit = pointwise("real_div", helper(node, "unit"), x, divisor);
  const Val square = pointwise("mul", helper(node, "square"), unit, unit);
  Val mean = reduce("reduce_mean", helper(node, "mean"), square, -1);
  if (op.epsilon > 0) {
    const Val root = out_.op(
        "real_div", helper(node, "root"),
        {{"x", ValueData::scalar_f16(static_cast<float>(std::sqrt(op.epsilon)))}, {"y", divisor}},
        x.dtype, divisor.dims);
    mean = pointwise("add", helper(node, "sum"), mean,
                     pointwise("mul", helper(node, "epsilon"), root, root));
  }
  const Val factor =
      out_.op("rsqrt", helper(node, "rsqrt"), {{"x", mean}, {"epsilon", ValueData::scalar_f16(0)}},
              x.dtype, mean.dims);
  const Val normed = pointwise("mul", helper(node, "normed"), unit, factor);
  return pointwise("mul", result_name(node), normed, gain);
}

// Core ML has the operation; in which precision it sums is its own affair. Below the smallest
// number of fp16 the epsilon would be zero, and rows of equal values not a number.
Result<Val> Lowering::emit(const LayerNormOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val gain, operand(node, 1));
  const auto epsilon = static_cast<float>(std::max(op.epsilon, std::ldexp(1.0, -24)));
  const bool has_bias = node.operands.size() == 3;
  if (!constant_of(node.operands[1]) || (has_bias && !constant_of(node.operands[2])))
    return no_lowering(node, "its gain or bias is computed");
  Operands operands = {{"x", x}, {"axes", ValueData::i32s({-1})}, {"gamma", gain}};
  if (has_bias) {
    POME_ASSIGN_OR_RETURN(const Val bias, operand(node, 2));
    operands.emplace_back("beta", bias);
  }
  operands.emplace_back("epsilon", ValueData::scalar_f16(epsilon));
  return out_.op("layer_norm", result_name(node), std::move(operands), x.dtype, x.dims);
}

// ---- positions

Val Lowering::positions() {
  if (positions_) return *positions_;
  if (tokens_ == 1) {
    positions_ = position_;
  } else {
    std::vector<int32_t> steps(static_cast<size_t>(tokens_));
    for (size_t i = 0; i < steps.size(); ++i) steps[i] = static_cast<int32_t>(i);
    positions_ = out_.op("add", out_.unique("positions"),
                         {{"x", position_}, {"y", ValueData::i32s(std::move(steps))}}, DType::kI32,
                         {tokens_});
  }
  return *positions_;
}

// ---- rope

std::pair<Val, Val> Lowering::rope_rows(const WeightStore::RopeKey& key) {
  const auto known = ropes_.find(key);
  if (known != ropes_.end()) return known->second;
  const auto [cosine, sine] = weights_->rope_tables(key);
  const auto rows = [&](const ValueData& table, bool is_sine) {
    const std::string base = weights_->rope_name(key, is_sine);
    const Val whole = out_.constant(out_.unique(base), table);
    return gather_rows(out_.unique(base + "_rows"), whole, positions());
  };
  const Val cos_rows = rows(cosine, false);
  const Val sin_rows = rows(sine, true);
  return ropes_.emplace(key, std::pair(cos_rows, sin_rows)).first->second;
}

// x with the members of each rotated pair exchanged; what lies behind rotary_dim stays.
Result<Val> Lowering::swap_pairs(const RopeOp& op, const Node& node, const Val& x) {
  const int64_t half = op.rotary_dim / 2, rest = x.dims.back() - op.rotary_dim;
  if (op.style == RopeStyle::kHalves) {
    std::vector<int64_t> sizes = {half, half};
    if (rest > 0) sizes.push_back(rest);
    std::vector<Val> parts = split(helper(node, "halves"), x, sizes);
    std::swap(parts[0], parts[1]);
    return concat(helper(node, "swapped"), std::move(parts), -1);
  }
  Val turned = x;
  std::vector<Val> parts;
  if (rest > 0) {
    parts = split(helper(node, "parts"), x, {op.rotary_dim, rest});
    turned = parts[0];
  }
  const Dims flat = turned.dims;
  Dims paired = flat;
  paired.back() = half;
  paired.push_back(2);
  const Val pairs = reshape(helper(node, "pairs"), turned, paired);
  std::vector<Val> members = split(helper(node, "members"), pairs, {1, 1});
  std::swap(members[0], members[1]);
  const Val swapped = concat(helper(node, "exchanged"), std::move(members), -1);
  const Val back = reshape(helper(node, "swapped"), swapped, flat);
  if (rest == 0) return back;
  return concat(helper(node, "whole"), {back, parts[1]}, -1);
}

Result<Val> Lowering::emit(const RopeOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val x, operand(node, 0));
  const auto frequencies = constant_of(node.operands[2]);
  if (node.operands[1] != graph_.position || !frequencies) {
    return no_lowering(node, "its position is not the graph's, or its frequencies are computed");
  }
  const WeightStore::RopeKey key{*frequencies,  form_.context, op.rotary_dim,
                                 x.dims.back(), op.scale,      op.style};
  const auto [cosine, sine] = rope_rows(key);
  POME_ASSIGN_OR_RETURN(const Val swapped, swap_pairs(op, node, x));
  const Val straight = pointwise("mul", helper(node, "cos"), x, cosine);
  const Val across = pointwise("mul", helper(node, "sin"), swapped, sine);
  return pointwise("add", result_name(node), straight, across);
}

// ---- cache

const std::pair<Val, Val>& Lowering::cache_range(int32_t layer) {
  const auto known = ranges_.find(layer);
  if (known != ranges_.end()) return known->second;
  if (!position_end_) {
    position_end_ =
        out_.op("add", out_.unique("position_end"),
                {{"x", position_}, {"y", ValueData::scalar_i32(static_cast<int32_t>(tokens_))}},
                DType::kI32, {1});
  }
  const auto bound = [&](const char* suffix, int32_t first, const Val& at) {
    const std::string name = out_.unique("layer_" + std::to_string(layer) + suffix);
    const auto part = [&](const char* which, std::vector<int32_t> values) {
      return out_.constant(out_.unique(name + which), ValueData::i32s(std::move(values)));
    };
    return concat(name, {part("_layer", {first}), part("_heads", {0, 0}), at, part("_dim", {0})},
                  0);
  };
  const Val begin = bound("_begin", layer, position_);
  const Val end = bound("_end", layer + 1, *position_end_);
  return ranges_.emplace(layer, std::pair(begin, end)).first->second;
}

Result<Val> Lowering::emit(const KvWriteOp&, const Node& node) {
  if (!form_.is_step()) return write_state(node);
  const bool known =
      std::any_of(graph_.caches.begin(), graph_.caches.end(), [&](const CachePair& pair) {
        return pair.input == node.operands[0] && pair.output == node.result;
      });
  if (!known || node.operands[2] != graph_.position)
    return no_lowering(node, "it writes no cache of the graph at the graph's position");
  POME_ASSIGN_OR_RETURN(const Val past, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val value, operand(node, 1));
  return concat(result_name(node), {past, value}, 2);
}

// read -> slice_update -> write -> read again -> the layer's slice: the order that Core ML's own
// converter writes.
Result<Val> Lowering::write_state(const Node& node) {
  const auto slot = caches_.slots.find(node.operands[0]);
  if (slot == caches_.slots.end() || node.operands[2] != graph_.position) {
    return no_lowering(node, "it writes no cache of the graph at the graph's position");
  }
  POME_ASSIGN_OR_RETURN(const Val value, operand(node, 1));
  const auto [layer, key] = slot->second;
  const int64_t dim = key ? caches_.key_dim : caches_.value_dim;
  const Val state{
      key ? "k_cache" : "v_cache", DType::kF16, {caches_.layers, 1, caches_.heads, places_, dim}};
  const auto& [begin, end] = cache_range(layer);
  const ValueData open = ValueData::bools({false, true, true, false, true});
  const Val before =
      out_.op("read_state", helper(node, "before"), {{"input", state}}, state.dtype, state.dims);
  Dims wide = value.dims;
  wide.insert(wide.begin(), 1);
  const Val update = out_.op("expand_dims", helper(node, "update"),
                             {{"x", value}, {"axes", ValueData::i32s({0})}}, value.dtype, wide);
  const Val after = out_.op("slice_update", helper(node, "updated"),
                            {{"x", before},
                             {"update", update},
                             {"begin", begin},
                             {"end", end},
                             {"begin_mask", open},
                             {"end_mask", open}},
                            state.dtype, state.dims);
  out_.effect("write_state", helper(node, "write_state"), {{"input", state}, {"data", after}});
  const Val stored =
      out_.op("read_state", helper(node, "state"), {{"input", state}}, state.dtype, state.dims);
  const ValueData others = ValueData::bools({false, true, true, true, true});
  return out_.op("slice_by_index", result_name(node),
                 {{"x", stored},
                  {"begin", ValueData::i32s({layer, 0, 0, 0, 0})},
                  {"end", ValueData::i32s({layer + 1, 0, 0, 0, 0})},
                  {"begin_mask", others},
                  {"end_mask", others},
                  {"squeeze_mask", ValueData::bools({true, false, false, false, false})}},
                 state.dtype, {1, caches_.heads, places_, dim});
}

// ---- attention

// 0 where key j > position + t - window, else kMasked.
Val Lowering::window_mask(int64_t window) {
  const auto known = window_masks_.find(window);
  if (known != window_masks_.end()) return known->second;
  const std::string base = "window_" + std::to_string(window);
  if (form_.is_step()) {  // the token of the call has the last place
    std::vector<float> row(static_cast<size_t>(places_), 0.0f);
    std::fill_n(row.begin(), std::max<int64_t>(places_ - window, 0), kMasked);
    const Val out = out_.constant(out_.unique(base + "_mask"), f16_values({1, places_}, row));
    return window_masks_.emplace(window, out).first->second;
  }
  std::vector<int32_t> ends(static_cast<size_t>(places_));
  for (size_t j = 0; j < ends.size(); ++j) {
    ends[j] = static_cast<int32_t>(std::min<int64_t>(static_cast<int64_t>(j) + window, INT32_MAX));
  }
  const Val queries =
      out_.op("reshape", out_.unique(base + "_queries"),
              {{"x", positions()}, {"shape", i32_list({tokens_, 1})}}, DType::kI32, {tokens_, 1});
  const Val seen = out_.op("less", out_.unique(base + "_seen"),
                           {{"x", queries}, {"y", ValueData::i32s(std::move(ends))}}, DType::kBool,
                           {tokens_, places_});
  const Val ones =
      out_.op("cast", out_.unique(base + "_ones"),
              {{"x", seen}, {"dtype", ValueData::string("fp16")}}, DType::kF16, {tokens_, places_});
  const Val shifted =
      out_.op("sub", out_.unique(base + "_shifted"), {{"x", ones}, {"y", ValueData::scalar_f16(1)}},
              DType::kF16, {tokens_, places_});
  const Val out = scaled(out_.unique(base + "_mask"), shifted, -kMasked);
  return window_masks_.emplace(window, out).first->second;
}

Val Lowering::mask(int64_t groups, int64_t window) {
  const auto key = std::pair(groups, window);
  const auto known = masks_.find(key);
  if (known != masks_.end()) return known->second;
  Val out{"causal_mask", DType::kF16, {1, 1, tokens_, places_}};
  // The smaller of the two and not their sum: any mask value stays finite.
  if (groups == 1 && window > 0) {
    out = pointwise("minimum", out_.unique("mask_window_" + std::to_string(window)), out,
                    window_mask(window));
  } else if (groups > 1) {
    out = mask(1, window);
    out = out_.op("tile", out_.unique("mask_of_groups"),
                  {{"x", out}, {"reps", i32_list({1, 1, groups, 1})}}, DType::kF16,
                  {1, 1, groups * tokens_, places_});
  }
  return masks_.emplace(key, out).first->second;
}

// Query heads that share a K/V head become rows of one matrix, [1, kv_heads, groups * T, D], and
// the mask is repeated once for all layers; K and V are used as they lie in the cache.
Result<Val> Lowering::emit(const AttentionOp& op, const Node& node) {
  POME_ASSIGN_OR_RETURN(const Val q, operand(node, 0));
  POME_ASSIGN_OR_RETURN(const Val k, operand(node, 1));
  POME_ASSIGN_OR_RETURN(const Val v, operand(node, 2));
  const int64_t heads = q.dims[1], kv_heads = k.dims[1], groups = heads / kv_heads;
  const int64_t rows = groups * tokens_;
  if (k.dims[2] != places_) return no_lowering(node, "its keys are not those of the cache");
  const bool masked = places_ != kAny;  // else all that is in the caches is seen
  if (!masked && op.window > 0)
    return no_lowering(node, "a sliding window needs caches of fixed length (--cache fixed)");
  const bool sinks = node.operands.size() == 4;
  const Dims out_dims = dims_of(node.result);
  Val queries =
      groups == 1 ? q : reshape(helper(node, "queries"), q, {1, kv_heads, rows, q.dims[3]});
  const Val bias = masked ? mask(groups, op.window) : Val{};
  const auto name = [&](const char* suffix) {
    return groups == 1 ? result_name(node) : helper(node, suffix);
  };
  Val out;
  if (is_one_over_sqrt(op.scale, q.dims[3]) && op.softcap == 0 && !sinks) {
    Operands operands = {{"query", queries}, {"key", k}, {"value", v}};
    if (masked) operands.emplace_back("attn_mask", bias);
    out = out_.op("scaled_dot_product_attention", name("grouped"), std::move(operands), q.dtype,
                  {1, kv_heads, rows, v.dims[3]});
  } else {
    // The scale goes to the queries: a product of unscaled vectors may leave fp16.
    const double factor = op.softcap > 0 ? op.scale / op.softcap : op.scale;
    if (factor != 1) queries = scaled(helper(node, "scaled"), queries, factor);
    Val scores = matmul(helper(node, "scores"), queries, k, true);
    if (op.softcap > 0) {
      scores = out_.op("tanh", helper(node, "tanh"), {{"x", scores}}, scores.dtype, scores.dims);
      scores = scaled(helper(node, "capped"), scores, op.softcap);
    }
    if (masked) scores = pointwise("add", helper(node, "masked"), scores, bias);
    if (sinks) {
      POME_ASSIGN_OR_RETURN(const Val sink, operand(node, 3));
      Val column = reshape(helper(node, "sinks"), sink, {1, kv_heads, groups, 1});
      column = out_.op("tile", helper(node, "sink_rows"),
                       {{"x", column}, {"reps", i32_list({1, 1, 1, tokens_})}}, column.dtype,
                       {1, kv_heads, groups, tokens_});
      column = reshape(helper(node, "sink_column"), column, {1, kv_heads, rows, 1});
      scores = concat(helper(node, "with_sinks"), {scores, column}, -1);
    }
    Val weights =
        out_.op("softmax", helper(node, "weights"),
                {{"x", scores}, {"axis", ValueData::scalar_i32(-1)}}, scores.dtype, scores.dims);
    if (sinks) {
      const Dims kept = {1, kv_heads, rows, places_};  // where kAny, -1: all but the last
      weights =
          out_.op("slice_by_index", helper(node, "kept"),
                  {{"x", weights}, {"begin", i32_list({0, 0, 0, 0})}, {"end", i32_list(kept)}},
                  weights.dtype, kept);
    }
    out = matmul(name("grouped"), weights, v, false);
  }
  if (groups == 1) return out;
  return reshape(result_name(node), out, out_dims);
}

}  // namespace pome::coreml
