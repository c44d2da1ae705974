// Small decoder graphs with random weights for tests of the engine.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "graph/builder.h"
#include "quantize/prune.h"
#include "tensor/half.h"

namespace pome {

// A constant in any encoding, from random bytes; scales and tables are small numbers.
class RandomConstant final : public ConstantData {
 public:
  RandomConstant(Shape shape, const Encoding& encoding, uint32_t seed)
      : ConstantData(std::move(shape), encoding) {
    const auto layout = encoded_layout(encoding, rows(), columns());
    POME_CHECK(layout.ok());
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 0.2f);
    const auto put = [](std::vector<std::byte>& part, size_t at, const auto& value) {
      std::memcpy(part.data() + at, &value, sizeof value);
    };
    for (size_t p = 0; p < layout->part_bytes.size(); ++p) {
      std::vector<std::byte> part(static_cast<size_t>(layout->part_bytes[p]));
      for (std::byte& byte : part) byte = static_cast<std::byte>(random());
      if (p == 1)
        for (size_t i = 0; i < part.size(); i += 2) put(part, i, f32_to_f16(normal(random) / 8));
      if (encoding.kind == EncodingKind::kF32)
        for (size_t i = 0; i < part.size(); i += 4) put(part, i, normal(random));
      if (encoding.kind == EncodingKind::kF16)
        for (size_t i = 0; i < part.size(); i += 2) put(part, i, f32_to_f16(normal(random)));
      if (encoding.kind == EncodingKind::kBF16)
        for (size_t i = 0; i < part.size(); i += 2) put(part, i, f32_to_bf16(normal(random)));
      if (encoding.kind == EncodingKind::kQ8_0)
        for (size_t i = 0; i < part.size(); i += 34) put(part, i, f32_to_f16(0.003f));
      if (encoding.kind == EncodingKind::kQ4_0)
        for (size_t i = 0; i < part.size(); i += 18) put(part, i, f32_to_f16(0.03f));
      parts_.push_back(std::move(part));
    }
  }
  Status read_tile(int64_t row, int64_t count, EncodedTile* tile) const override {
    const auto before = encoded_layout(encoding(), row, columns());
    const auto mine = encoded_layout(encoding(), count, columns());
    POME_CHECK(before.ok() && mine.ok());
    tile->row = row;
    tile->rows = count;
    tile->parts.clear();
    for (size_t p = 0; p < parts_.size(); ++p)
      tile->parts.push_back(std::span<const std::byte>(parts_[p]).subspan(
          static_cast<size_t>(before->part_bytes[p]), static_cast<size_t>(mine->part_bytes[p])));
    return {};
  }
  std::optional<std::span<const std::byte>> view() const override {
    if (parts_.size() != 1) return std::nullopt;
    return std::span<const std::byte>(parts_[0]);
  }

 private:
  std::vector<std::vector<std::byte>> parts_;
};

struct TinyConfig {
  std::string name = "plain";
  int64_t vocab = 50, hidden = 32, layers = 2, heads = 4, kv_heads = 2, dim = 8, width = 64;
  RopeStyle style = RopeStyle::kHalves;
  int64_t rotary = 8;
  double rope_scale = 1;
  int64_t window = 0;
  double softcap = 0, final_softcap = 0;
  bool sinks = false, bias = false;
  bool layer_norm = false;        // with bias where `bias` is set
  int64_t learned_positions = 0;  // rows of a position table that is added to the embedding
  Activation activation = Activation::kSilu;
  bool gated = true;
  int64_t experts = 0, experts_per_token = 0;
  // > 0: keys (`dim` and `rotary` values) and values (2 `dim`) of all heads are expanded from so
  // many values of a token, at once or by constants [H, R, N] and [H, N, R].
  int64_t latent = 0;
  bool latent_apart = false;
  float latent_zero = 0;  // what is added to the shared key to copy it
  bool normalize = true;
  double sigmoid_scale = 1, limit = 0, up_offset = 0;
  Encoding encoding = Encoding::plain(EncodingKind::kBF16);
};

class TinyGraph {
 public:
  explicit TinyGraph(const TinyConfig& config) : c_(config), b_(info(config)) {}

  Graph build() {
    const ValueId ids = b_.token_ids(), position = b_.position();
    std::vector<float> frequencies;
    for (int64_t i = 0; i < c_.rotary / 2; ++i)
      frequencies.push_back(
          std::pow(100.0f, -2.0f * static_cast<float>(i) / static_cast<float>(c_.rotary)));
    const ValueId inverse = b_.vector("inverse_frequencies", frequencies);
    const ValueId table = weight({c_.vocab, c_.hidden});
    ValueId x = b_.add(EmbeddingOp{}, {table, ids});
    if (c_.learned_positions > 0) {
      const ValueId at = b_.binary(BinaryKind::kAdd, b_.add(IotaOp{Symbol::kTokens}, {}), position);
      x = b_.binary(BinaryKind::kAdd, x,
                    b_.add(GatherOp{}, {weight({c_.learned_positions, c_.hidden}), at}));
    }
    for (int32_t layer = 0; layer < c_.layers; ++layer) {
      const ValueId h_in = norm(x);
      x = b_.binary(BinaryKind::kAdd, x,
                    c_.latent ? latent_attention(h_in, position, inverse, layer)
                              : attention(h_in, position, inverse, layer));
      const ValueId h = norm(x);
      x = b_.binary(BinaryKind::kAdd, x, c_.experts ? moe(h) : feed_forward(h));
      b_.end_layer(x);
    }
    ValueId logits = b_.linear(norm(x), table);
    if (c_.final_softcap > 0) {
      const ValueId cap = b_.scalar(static_cast<float>(c_.final_softcap));
      logits = b_.binary(BinaryKind::kMul,
                         b_.unary(UnaryKind::kTanh, b_.binary(BinaryKind::kDiv, logits, cap)), cap);
    }
    auto graph = b_.finish(logits);
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    return std::move(*graph);
  }

 private:
  static ModelInfo info(const TinyConfig& config) {
    ModelInfo out;
    out.name = config.name;
    out.vocab_size = config.vocab;
    out.max_position_embeddings = 64;
    return out;
  }
  std::string next() { return "w" + std::to_string(count_++); }
  ValueId weight(Shape shape, std::optional<Encoding> encoding = std::nullopt) {
    Constant made;
    made.name = next();
    const Encoding stored = encoding.value_or(c_.encoding);
    // A mask is no row of random bits.
    made.data = std::make_shared<RandomConstant>(
        std::move(shape), stored.is_sparse() ? Encoding::plain(EncodingKind::kF16) : stored,
        count_);
    if (stored.is_sparse()) made.data = pruned_constant(made.data, stored, {});
    return b_.constant(std::move(made));
  }
  ValueId vector(int64_t n, float mean) {
    std::mt19937 random(count_ + 1000);
    std::normal_distribution<float> normal(mean, 0.1f);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = normal(random);
    return b_.vector(next(), std::move(values));
  }
  ValueId linear(ValueId x, int64_t n, int64_t k) {
    // Not as arguments: compilers differ in which of them comes first, and so in the numbers.
    const ValueId bias = c_.bias ? vector(n, 0) : kNoValue;
    return b_.linear(x, weight({n, k}), bias);
  }
  ValueId norm(ValueId x) {
    if (!c_.layer_norm) return b_.add(RmsNormOp{1e-5}, {x, vector(c_.hidden, 1)});
    return b_.add(LayerNormOp{1e-5},
                  {x, vector(c_.hidden, 1), c_.bias ? vector(c_.hidden, 0) : kNoValue});
  }
  ValueId heads(ValueId x, int64_t count) {
    return b_.split_heads(linear(x, count * c_.dim, c_.hidden), count, c_.dim);
  }
  ValueId attention(ValueId h, ValueId position, ValueId inverse, int32_t layer) {
    const ValueId k_cache = b_.cache(layer, CachePair::Kind::kKey, c_.kv_heads, c_.dim);
    const ValueId v_cache = b_.cache(layer, CachePair::Kind::kValue, c_.kv_heads, c_.dim);
    const RopeOp rope{c_.style, c_.rotary, c_.rope_scale};
    const ValueId q = b_.add(rope, {heads(h, c_.heads), position, inverse});
    const ValueId k = b_.add(rope, {heads(h, c_.kv_heads), position, inverse});
    const ValueId keys = b_.kv_write(k_cache, k, position);
    const ValueId values = b_.kv_write(v_cache, heads(h, c_.kv_heads), position);
    const AttentionOp op{0.5, c_.window, c_.softcap};
    const ValueId sinks = c_.sinks ? vector(c_.heads, 1) : kNoValue;
    return linear(b_.merge_heads(b_.add(op, {q, keys, values, sinks})), c_.hidden,
                  c_.heads * c_.dim);
  }
  ValueId latent_attention(ValueId h, ValueId position, ValueId inverse, int32_t layer) {
    const int64_t wide = c_.dim + c_.rotary, value = 2 * c_.dim;
    const ValueId k_cache = b_.cache(layer, CachePair::Kind::kKey, c_.heads, wide);
    const ValueId v_cache = b_.cache(layer, CachePair::Kind::kValue, c_.heads, value);
    const RopeOp rope{c_.style, c_.rotary, c_.rope_scale};
    const auto part = [&](ValueId x, int64_t begin, int64_t end) {
      return b_.add(SliceOp{-1, begin, end}, {x});
    };
    const ValueId q_all = b_.split_heads(linear(h, c_.heads * wide, c_.hidden), c_.heads, wide);
    const ValueId q_turned = b_.add(rope, {part(q_all, c_.dim, wide), position, inverse});
    const ValueId q = b_.add(ConcatOp{-1}, {part(q_all, 0, c_.dim), q_turned});
    const ValueId low = linear(h, c_.latent + c_.rotary, c_.hidden);
    const ValueId c = b_.add(RmsNormOp{1e-6}, {part(low, 0, c_.latent), vector(c_.latent, 1)});
    const ValueId one = b_.split_heads(part(low, c_.latent, c_.latent + c_.rotary), 1, c_.rotary);
    const ValueId r = b_.add(rope, {one, position, inverse});
    ValueId k, v;
    if (c_.latent_apart) {
      const ValueId x = b_.reshape(c, {Symbol::kBatch, 1, Symbol::kTokens, c_.latent});
      k = b_.add(MatMulOp{false}, {x, weight({c_.heads, c_.latent, c_.dim})});
      v = b_.add(MatMulOp{true}, {x, weight({c_.heads, value, c_.latent})});
    } else {
      const ValueId rows = b_.linear(c, weight({c_.heads * (c_.dim + value), c_.latent}));
      const ValueId both = b_.split_heads(rows, c_.heads, c_.dim + value);
      k = part(both, 0, c_.dim);
      v = part(both, c_.dim, c_.dim + value);
    }
    Constant zeros;
    zeros.name = next();
    const std::vector<float> values(static_cast<size_t>(c_.heads), c_.latent_zero);
    zeros.data = inline_constant(Tensor::from_f32({1, c_.heads, 1, 1}, values));
    const ValueId shared = b_.binary(BinaryKind::kAdd, r, b_.constant(std::move(zeros)));
    const ValueId keys = b_.kv_write(k_cache, b_.add(ConcatOp{-1}, {k, shared}), position);
    const ValueId values_all = b_.kv_write(v_cache, v, position);
    const AttentionOp op{0.3, c_.window, c_.softcap};
    const ValueId sinks = c_.sinks ? vector(c_.heads, 1) : kNoValue;
    return linear(b_.merge_heads(b_.add(op, {q, keys, values_all, sinks})), c_.hidden,
                  c_.heads * value);
  }
  ValueId feed_forward(ValueId h) {
    const ValueId gate = linear(h, c_.width, c_.hidden);
    const ValueId inner =
        c_.gated ? b_.add(SwigluOp{c_.activation}, {gate, linear(h, c_.width, c_.hidden)})
                 : b_.add(ActivationOp{c_.activation}, {gate});
    return linear(inner, c_.hidden, c_.width);
  }
  ValueId matrix_of_biases(int64_t n) {
    return b_.reshape(vector(c_.experts * n, 0), {c_.experts, n});
  }
  ValueId moe(ValueId h) {
    const ValueId router = linear(h, c_.experts, c_.hidden);
    const ValueId chosen = b_.add(TopKMaskOp{c_.experts_per_token}, {router});
    const ValueId zero = b_.scalar(0);
    ValueId mix = b_.add(SelectOp{}, {chosen, b_.add(SoftmaxOp{}, {router}), zero});
    if (c_.normalize)
      mix = b_.binary(BinaryKind::kDiv, mix, b_.add(ReduceOp{ReduceKind::kSum, -1}, {mix}));
    std::vector<ValueId> operands = {h, mix, weight({c_.experts, c_.width, c_.hidden})};
    if (c_.gated) operands.push_back(weight({c_.experts, c_.width, c_.hidden}));
    operands.push_back(weight({c_.experts, c_.hidden, c_.width}));
    if (c_.bias) {
      operands.push_back(matrix_of_biases(c_.width));
      if (c_.gated) operands.push_back(matrix_of_biases(c_.width));
      operands.push_back(matrix_of_biases(c_.hidden));
    }
    return b_.add(MoeOp{c_.gated, c_.activation, c_.sigmoid_scale, c_.limit, c_.up_offset},
                  operands);
  }

  TinyConfig c_;
  GraphBuilder b_;
  uint32_t count_ = 0;
};

}  // namespace pome
