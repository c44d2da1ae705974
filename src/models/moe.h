// Mixtures of experts: routers written with primitives, and stacked expert weights as checkpoints
// store them.
//
// A router turns logits [B, T, E] into mixing weights [B, T, E] that are exactly 0 for experts that
// were not chosen (graph.h: MoeOp).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "models/weights.h"

namespace pome {

struct RouterConfig {
  int64_t experts = 0, experts_per_token = 0;
  // Group-limited choice: only experts of the best groups_per_token groups (consecutive experts)
  // can be chosen. 1 group: no limit.
  int64_t groups = 1, groups_per_token = 1;
  bool normalize = false;  // the weights of a token sum to 1 before they are scaled
  double scale = 1;
};
// softmax over all experts, the largest kept; normalised, that is the softmax over the chosen ones.
// Groups are ranked by their best expert (DeepSeek-V2, arXiv 2405.04434).
ValueId softmax_router(GraphBuilder& builder, ValueId logits, const RouterConfig& config);
// Weights are sigmoids; experts and groups are ranked by sigmoid + correction [E], groups by the
// sum of their two best (DeepSeek-V3, arXiv 2412.19437). `correction` may be kNoValue.
ValueId sigmoid_router(GraphBuilder& builder, ValueId logits, ValueId correction,
                       const RouterConfig& config);

// Rows first, first + step, .. of every expert: [E, S, K] -> [E, N, K]; keeps the encoding.
WeightTransform take_expert_rows(int64_t first, int64_t step, Shape shape);
// The same of biases [E, S] -> [E, N]; decodes.
WeightTransform take_expert_columns(int64_t first, int64_t step, Shape shape);
// Experts stored as input by output: columns first, first + step, .. of [E, K, S] -> [E, N, K].
// Plain floats keep their type; other encodings are decoded.
WeightTransform transpose_experts(int64_t first, int64_t step, Shape shape);
// MXFP4 as GPT-OSS publishes it: blocks u8 [E, S, K/32, 16] with elements 2j and 2j + 1 in byte j,
// and E8M0 scales u8 [E, S, K/32], to encoding kMXFP4 [E, N, K] of rows first, first + step, ..
// Lossless: nibbles move, nothing is decoded. Null scales (they are missing, which has been noted)
// fail when they are read.
ConstantDataPtr mxfp4_experts(ConstantDataPtr blocks, ConstantDataPtr scales, int64_t first,
                              int64_t step, Shape shape);

// A constant [1, heads, 1, 1]: adding it to a single head [B, 1, T, D] copies that to all heads.
ValueId zero_heads(GraphBuilder& builder, int64_t heads);

}  // namespace pome
