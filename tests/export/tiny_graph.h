// Tiny random models for the tests of exporters, written with the same builder calls as a family.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "graph/builder.h"
#include "models/moe.h"
#include "quantize/quantize.h"
#include "quantize/vector_palette.h"
#include "tensor/half.h"

namespace pome {

struct TinyOptions {
  int64_t hidden = 64, vocab = 96, heads = 4, kv_heads = 2, head_dim = 32, ffn = 96;
  int32_t layers = 2;
  bool tied = true, bias = false, sinks = false;
  RopeStyle style = RopeStyle::kHalves;
  int64_t rotary_dim = 32, window = 0;  // window: of odd layers
  double scale = 0, softcap = 0;        // scale 0: 1 / sqrt(head_dim)
  Activation activation = Activation::kSilu;
  Encoding encoding = Encoding::plain(EncodingKind::kF16);  // of matrices and embedding
  // Two of `experts` compute each token, as `moe` says, in place of the dense layer.
  int64_t experts = 0;
  MoeOp moe;
  bool expert_bias = false;
};

class TinyBuilder {
 public:
  explicit TinyBuilder(const TinyOptions& options) : o_(options), b_(info(options)) {}

  Graph build() {
    const ValueId ids = b_.token_ids(), position = b_.position();
    const ValueId table = matrix("embed.weight", o_.vocab, o_.hidden, Constant::Role::kEmbedding);
    std::vector<float> frequencies;
    for (int64_t i = 0; i < o_.rotary_dim / 2; ++i) {
      frequencies.push_back(static_cast<float>(
          std::pow(100.0, -2.0 * static_cast<double>(i) / static_cast<double>(o_.rotary_dim))));
    }
    const ValueId inverse = b_.vector("rope.inverse_frequencies", frequencies);
    ValueId h = b_.add(EmbeddingOp{}, {table, ids}, "embedding");
    for (int32_t layer = 0; layer < o_.layers; ++layer) h = add_layer(layer, h, position, inverse);
    b_.scope("");
    h = b_.add(RmsNormOp{1e-6}, {h, norm("norm.weight")}, "norm");
    const ValueId head =
        o_.tied ? table : matrix("head.weight", o_.vocab, o_.hidden, Constant::Role::kHead);
    auto graph = b_.finish(b_.linear(h, head, kNoValue, "head"));
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    return std::move(graph).value();
  }

 private:
  static ModelInfo info(const TinyOptions& o) {
    ModelInfo out;
    out.family = "tiny";
    out.name = "tiny";
    out.vocab_size = o.vocab;
    out.hidden_size = o.hidden;
    out.num_hidden_layers = o.layers;
    out.num_attention_heads = o.heads;
    out.num_key_value_heads = o.kv_heads;
    out.head_dim = o.head_dim;
    out.max_position_embeddings = 64;
    out.config["rope_theta"] = 100.0;
    return out;
  }

  std::vector<float> random(int64_t count, float spread, float mean = 0) {
    std::normal_distribution<float> normal(mean, spread);
    std::vector<float> out(static_cast<size_t>(count));
    for (float& value : out) value = round_to_f16(normal(rng_));
    return out;
  }
  ValueId add_constant(const std::string& name, Shape shape, std::vector<float> values,
                       Constant::Role role, const Encoding& encoding) {
    Constant constant;
    constant.name = name;
    constant.hf_name = "model." + name;
    constant.role = role;
    ConstantDataPtr data = inline_constant(Tensor::from_f32(std::move(shape), std::move(values)));
    constant.data = encoding.is_sparse() ? pruned_constant(data, encoding, {})
                    : encoding.kind == EncodingKind::kVectorLut ? vector_constant(data, encoding)
                                                                : encoded_constant(data, encoding);
    return b_.constant(std::move(constant));
  }
  ValueId matrix(const std::string& name, int64_t rows, int64_t columns,
                 Constant::Role role = Constant::Role::kMatrix) {
    const float spread = 1.2f / std::sqrt(static_cast<float>(columns));
    return add_constant(name, {rows, columns}, random(rows * columns, spread), role, o_.encoding);
  }
  ValueId norm(const std::string& name) {
    return add_constant(name, {o_.hidden}, random(o_.hidden, 0.2f, 1), Constant::Role::kNorm,
                        Encoding::plain(EncodingKind::kF32));
  }
  ValueId vector(const std::string& name, int64_t count) {
    return add_constant(name, {count}, random(count, 0.1f), Constant::Role::kBias,
                        Encoding::plain(EncodingKind::kF32));
  }

  ValueId project(const std::string& name, ValueId x, int64_t rows, int64_t columns, bool bias) {
    const ValueId weight = matrix(prefix_ + name + ".weight", rows, columns);
    if (!bias) return b_.linear(x, weight, kNoValue, name);
    const ValueId b = add_constant(prefix_ + name + ".bias", {rows}, random(rows, 0.1f),
                                   Constant::Role::kBias, Encoding::plain(EncodingKind::kF16));
    return b_.linear(x, weight, b, name);
  }

  ValueId dense(ValueId x) {
    const ValueId gate = project("gate", x, o_.ffn, o_.hidden, false);
    const ValueId up = project("up", x, o_.ffn, o_.hidden, false);
    const ValueId mixed = b_.add(SwigluOp{o_.activation}, {gate, up}, "swiglu");
    return project("down", mixed, o_.hidden, o_.ffn, false);
  }

  ValueId mixture(ValueId x) {
    const int64_t e = o_.experts;
    const ValueId logits =
        b_.linear(x, matrix(prefix_ + "router.weight", e, o_.hidden), kNoValue, "router");
    std::vector<ValueId> operands = {x, softmax_router(b_, logits, {e, 2, 1, 1, true})};
    const auto add = [&](const std::string& name, Shape shape, Constant::Role role,
                         const Encoding& encoding, float spread) {
      const int64_t count = *element_count(shape);
      operands.push_back(
          add_constant(prefix_ + name, std::move(shape), random(count, spread), role, encoding));
    };
    const auto weight = [&](const std::string& name, int64_t rows, int64_t columns) {
      add(name + ".weight", {e, rows, columns}, Constant::Role::kMatrix, o_.encoding,
          1.2f / std::sqrt(static_cast<float>(columns)));
    };
    const auto bias = [&](const std::string& name, int64_t rows) {
      add(name + ".bias", {e, rows}, Constant::Role::kBias, Encoding::plain(EncodingKind::kF32),
          0.3f);
    };
    weight("experts.gate", o_.ffn, o_.hidden);
    if (o_.moe.gated) weight("experts.up", o_.ffn, o_.hidden);
    weight("experts.down", o_.hidden, o_.ffn);
    if (o_.expert_bias) {
      bias("experts.gate", o_.ffn);
      if (o_.moe.gated) bias("experts.up", o_.ffn);
      bias("experts.down", o_.hidden);
    }
    return b_.add(o_.moe, operands, "experts");
  }

  ValueId add_layer(int32_t layer, ValueId h, ValueId position, ValueId inverse) {
    prefix_ = "layers." + std::to_string(layer) + ".";
    b_.scope(prefix_);
    const ValueId x =
        b_.add(RmsNormOp{1e-5}, {h, norm(prefix_ + "attention_norm.weight")}, "norm1");
    const int64_t d = o_.head_dim;
    ValueId q = project("q", x, o_.heads * d, o_.hidden, o_.bias);
    ValueId k = project("k", x, o_.kv_heads * d, o_.hidden, o_.bias);
    ValueId v = project("v", x, o_.kv_heads * d, o_.hidden, false);
    const RopeOp rope{o_.style, o_.rotary_dim, 1.0};
    q = b_.add(rope, {b_.split_heads(q, o_.heads, d), position, inverse}, "q_rope");
    k = b_.add(rope, {b_.split_heads(k, o_.kv_heads, d), position, inverse}, "k_rope");
    v = b_.split_heads(v, o_.kv_heads, d, "v_heads");
    const ValueId k_cache = b_.cache(layer, CachePair::Kind::kKey, o_.kv_heads, d);
    const ValueId v_cache = b_.cache(layer, CachePair::Kind::kValue, o_.kv_heads, d);
    const ValueId keys = b_.kv_write(k_cache, k, position, "keys");
    const ValueId values = b_.kv_write(v_cache, v, position, "values");
    AttentionOp attention;
    attention.scale = o_.scale > 0 ? o_.scale : 1 / std::sqrt(static_cast<double>(d));
    attention.window = layer % 2 == 1 ? o_.window : 0;
    attention.softcap = o_.softcap;
    std::vector<ValueId> operands = {q, keys, values};
    if (o_.sinks) operands.push_back(vector(prefix_ + "sinks", o_.heads));
    ValueId a = b_.add(attention, operands, "attention");
    a = project("o", b_.merge_heads(a, "merged"), o_.hidden, o_.heads * d, false);
    h = b_.binary(BinaryKind::kAdd, h, a, "residual1");
    const ValueId y = b_.add(RmsNormOp{1e-5}, {h, norm(prefix_ + "ffn_norm.weight")}, "norm2");
    h = b_.binary(BinaryKind::kAdd, h, o_.experts > 0 ? mixture(y) : dense(y), "residual2");
    b_.end_layer(h);
    return h;
  }

  TinyOptions o_;
  GraphBuilder b_;
  std::mt19937 rng_{7};
  std::string prefix_;
};

inline Graph tiny_graph(const TinyOptions& options) { return TinyBuilder(options).build(); }

inline std::string export_folder(const std::string& name) {
  const auto path = std::filesystem::path(::testing::TempDir()) /
                    ("pome_export_" + std::to_string(getpid()) + "_" + name);
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return (path / "model.mlpackage").string();
}

}  // namespace pome
