// GPT-2, GPT-Neo, GPT-NeoX and Phi: names, stored forms, variants and refusals of configurations.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "models/models.h"

namespace pome {
namespace {

constexpr int64_t kHidden = 8, kHeads = 2, kDim = 4, kFfn = 12, kVocab = 10, kPositions = 16;

using Matrix = std::vector<float>;  // row by row

Matrix random_matrix(int64_t count, uint32_t seed) {
  Matrix out(static_cast<size_t>(count));
  for (float& value : out) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 16) / 65536.0f - 0.5f;
  }
  return out;
}
Matrix transpose(const Matrix& in, int64_t rows) {
  const auto n = static_cast<size_t>(rows), k = in.size() / n;
  Matrix out(in.size());
  for (size_t r = 0; r < n; ++r)
    for (size_t c = 0; c < k; ++c) out[c * n + r] = in[r * k + c];
  return out;
}
// Rows of q, k and v (each [hidden, columns]) as GPT-NeoX stores them: q, k and v of each head.
Matrix interleave_heads(const Matrix& in) {
  const size_t columns = in.size() / (3 * kHidden);
  Matrix out;
  for (size_t head = 0; head < kHeads; ++head)
    for (size_t part = 0; part < 3; ++part) {
      const auto first =
          in.begin() + static_cast<ptrdiff_t>((part * kHidden + head * kDim) * columns);
      out.insert(out.end(), first, first + static_cast<ptrdiff_t>(kDim * columns));
    }
  return out;
}

struct Fake {
  explicit Fake(const std::string& config, bool gguf = false) {
    checkpoint.format = gguf ? "gguf" : "safetensors";
    checkpoint.path = "fake";
    (gguf ? checkpoint.gguf : checkpoint.config) = *parse_json(config, "config");
  }
  void add(const std::string& name, Shape shape, const Matrix& values) {
    std::vector<std::byte> bytes(values.size() * 4);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    CheckpointTensor tensor;
    tensor.name = name;
    tensor.shape = std::move(shape);
    tensor.encoding = Encoding::plain(EncodingKind::kF32);
    tensor.bytes = bytes.size();
    tensor.source = memory_source(std::move(bytes), name);
    checkpoint.tensors.push_back(std::move(tensor));
  }
  void remove(const std::string& suffix) {
    std::erase_if(checkpoint.tensors, [&](const CheckpointTensor& tensor) {
      return tensor.name.size() >= suffix.size() &&
             tensor.name.substr(tensor.name.size() - suffix.size()) == suffix;
    });
  }
  void drop_prefix(const std::string& prefix) {
    for (CheckpointTensor& tensor : checkpoint.tensors)
      if (tensor.name.rfind(prefix, 0) == 0) tensor.name = tensor.name.substr(prefix.size());
  }
  Fake& with(const std::string& change) {
    const bool gguf = checkpoint.format == "gguf";
    (gguf ? checkpoint.gguf : checkpoint.config).update(*parse_json("{" + change + "}", "change"));
    return *this;
  }
  Graph build() const {
    auto graph = build_graph(checkpoint);
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    return graph.ok() ? std::move(*graph) : Graph{};
  }
  std::string error() const {
    const auto graph = build_graph(checkpoint);
    return graph.ok() ? "ok" : graph.status().to_string();
  }
  Checkpoint checkpoint;
};
#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// Adds NAME.weight and NAME.bias; the numbers depend on `seed` alone.
void add_module(Fake& fake, const std::string& name, int64_t rows, int64_t columns, uint32_t seed,
                bool turned = false, bool bias = true) {
  const Matrix weight = random_matrix(rows * columns, seed);
  if (turned)
    fake.add(name + ".weight", {columns, rows}, transpose(weight, rows));
  else
    fake.add(name + ".weight", {rows, columns}, weight);
  if (bias) fake.add(name + ".bias", {rows}, random_matrix(rows, seed + 1));
}
void add_norm(Fake& fake, const std::string& name, uint32_t seed) {
  fake.add(name + ".weight", {kHidden}, random_matrix(kHidden, seed));
  fake.add(name + ".bias", {kHidden}, random_matrix(kHidden, seed + 1));
}
void add_matrix(Fake& fake, const std::string& name, int64_t rows, uint32_t seed) {
  fake.add(name, {rows, kHidden}, random_matrix(rows * kHidden, seed));
}

Fake gpt2(const std::string& prefix = "transformer.") {
  Fake fake(R"({"model_type": "gpt2", "vocab_size": 10, "n_embd": 8, "n_layer": 2, "n_head": 2,
                "n_positions": 16, "n_inner": null})");
  add_matrix(fake, prefix + "wte.weight", kVocab, 1);
  add_matrix(fake, prefix + "wpe.weight", kPositions, 2);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const std::string at = prefix + "h." + std::to_string(layer) + ".";
    const uint32_t seed = 100 * (layer + 1);
    add_norm(fake, at + "ln_1", seed);
    add_module(fake, at + "attn.c_attn", 3 * kHidden, kHidden, seed + 10, true);
    add_module(fake, at + "attn.c_proj", kHidden, kHidden, seed + 20, true);
    add_norm(fake, at + "ln_2", seed + 30);
    add_module(fake, at + "mlp.c_fc", 4 * kHidden, kHidden, seed + 40, true);
    add_module(fake, at + "mlp.c_proj", kHidden, 4 * kHidden, seed + 50, true);
  }
  add_norm(fake, prefix + "ln_f", 3);
  return fake;
}

// What llama.cpp's converter makes of the models here.
Fake gguf(const std::string& architecture, int64_t ffn) {
  const std::string a = "\"" + architecture + ".";
  Fake fake("{\"general.architecture\": \"" + architecture + "\", " + a +
                "embedding_length\": 8, " + a + "block_count\": 2, " + a +
                "attention.head_count\": 2, " + a + "context_length\": 16, " + a +
                "attention.layer_norm_epsilon\": 1e-5, " + a +
                "feed_forward_length\": " + std::to_string(ffn) + "}",
            true);
  add_matrix(fake, "token_embd.weight", kVocab, 1);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const std::string at = "blk." + std::to_string(layer) + ".";
    const uint32_t seed = 100 * (layer + 1);
    add_norm(fake, at + "attn_norm", seed);
    add_module(fake, at + "attn_qkv", 3 * kHidden, kHidden, seed + 10);
    add_module(fake, at + "attn_output", kHidden, kHidden, seed + 20);
    if (architecture != "phi2") add_norm(fake, at + "ffn_norm", seed + 30);
    add_module(fake, at + "ffn_up", ffn, kHidden, seed + 40);
    add_module(fake, at + "ffn_down", kHidden, ffn, seed + 50);
  }
  add_norm(fake, "output_norm", 3);
  return fake;
}

Fake gpt_neo() {
  Fake fake(R"({"model_type": "gpt_neo", "vocab_size": 10, "hidden_size": 8, "num_layers": 4,
                "num_heads": 2, "max_position_embeddings": 16, "intermediate_size": null,
                "window_size": 5, "attention_types": [[["global", "local"], 2]]})");
  const std::string prefix = "transformer.";
  add_matrix(fake, prefix + "wte.weight", kVocab, 1);
  add_matrix(fake, prefix + "wpe.weight", kPositions, 2);
  for (uint32_t layer = 0; layer < 4; ++layer) {
    const std::string at = prefix + "h." + std::to_string(layer) + ".";
    const uint32_t seed = 100 * (layer + 1);
    add_norm(fake, at + "ln_1", seed);
    for (const char* name : {"q_proj", "k_proj", "v_proj"})
      add_matrix(fake, at + "attn.attention." + name + ".weight", kHidden, seed + 10);
    add_module(fake, at + "attn.attention.out_proj", kHidden, kHidden, seed + 20);
    add_norm(fake, at + "ln_2", seed + 30);
    add_module(fake, at + "mlp.c_fc", 4 * kHidden, kHidden, seed + 40);
    add_module(fake, at + "mlp.c_proj", kHidden, 4 * kHidden, seed + 50);
  }
  add_norm(fake, prefix + "ln_f", 3);
  return fake;
}

Fake gpt_neox(bool bias = true) {
  Fake fake(R"({"model_type": "gpt_neox", "vocab_size": 10, "hidden_size": 8,
                "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16,
                "intermediate_size": 12, "rotary_pct": 0.5})");
  const std::string prefix = "gpt_neox.";
  add_matrix(fake, prefix + "embed_in.weight", kVocab, 1);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const std::string at = prefix + "layers." + std::to_string(layer) + ".";
    const uint32_t seed = 100 * (layer + 1);
    add_norm(fake, at + "input_layernorm", seed);
    fake.add(at + "attention.query_key_value.weight", {3 * kHidden, kHidden},
             interleave_heads(random_matrix(3 * kHidden * kHidden, seed + 10)));
    if (bias)
      fake.add(at + "attention.query_key_value.bias", {3 * kHidden},
               interleave_heads(random_matrix(3 * kHidden, seed + 11)));
    add_module(fake, at + "attention.dense", kHidden, kHidden, seed + 20, false, bias);
    add_norm(fake, at + "post_attention_layernorm", seed + 30);
    add_module(fake, at + "mlp.dense_h_to_4h", kFfn, kHidden, seed + 40);
    add_module(fake, at + "mlp.dense_4h_to_h", kHidden, kFfn, seed + 50);
  }
  add_norm(fake, prefix + "final_layer_norm", 3);
  add_matrix(fake, "embed_out.weight", kVocab, 5);
  return fake;
}

Fake phi() {
  Fake fake(R"({"model_type": "phi", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 2,
                "num_attention_heads": 2, "max_position_embeddings": 16, "intermediate_size": 12,
                "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "rope_theta": 10000.0})");
  add_matrix(fake, "model.embed_tokens.weight", kVocab, 1);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const std::string at = "model.layers." + std::to_string(layer) + ".";
    const uint32_t seed = 100 * (layer + 1);
    add_norm(fake, at + "input_layernorm", seed);
    const Matrix weight = random_matrix(3 * kHidden * kHidden, seed + 10),
                 bias = random_matrix(3 * kHidden, seed + 11);
    const char* names[] = {"q_proj", "k_proj", "v_proj"};
    for (ptrdiff_t i = 0; i < 3; ++i) {
      constexpr ptrdiff_t kSize = kHidden * kHidden;
      fake.add(at + "self_attn." + names[i] + ".weight", {kHidden, kHidden},
               Matrix(weight.begin() + i * kSize, weight.begin() + (i + 1) * kSize));
      fake.add(at + "self_attn." + names[i] + ".bias", {kHidden},
               Matrix(bias.begin() + i * kHidden, bias.begin() + (i + 1) * kHidden));
    }
    add_module(fake, at + "self_attn.dense", kHidden, kHidden, seed + 20);
    add_module(fake, at + "mlp.fc1", kFfn, kHidden, seed + 40);
    add_module(fake, at + "mlp.fc2", kHidden, kFfn, seed + 50);
  }
  add_norm(fake, "model.final_layernorm", 3);
  add_module(fake, "lm_head", kVocab, kHidden, 5);
  return fake;
}

Matrix values_of(const Constant& constant) {
  Matrix out(static_cast<size_t>(constant.data->rows() * constant.data->columns()));
  EXPECT_TRUE(constant.data->read_f32(0, constant.data->rows(), out.data()).ok());
  return out;
}
Matrix values_of(const Graph& graph, const std::string& name) {
  for (const Constant& constant : graph.constants)
    if (constant.name == name) return values_of(constant);
  ADD_FAILURE() << "no constant " << name;
  return {};
}
template <typename OpType>
std::vector<OpType> ops_of(const Graph& graph) {
  std::vector<OpType> out;
  for (const Node& node : graph.nodes)
    if (const auto* op = std::get_if<OpType>(&node.op)) out.push_back(*op);
  return out;
}
// The same operations on the same weights, whatever the constants are called in the file.
void expect_equal_graphs(const Graph& a, const Graph& b) {
  ASSERT_EQ(a.nodes.size(), b.nodes.size());
  for (size_t i = 0; i < a.nodes.size(); ++i) {
    EXPECT_EQ(a.nodes[i].op, b.nodes[i].op) << i;
    EXPECT_EQ(a.nodes[i].operands, b.nodes[i].operands) << i;
  }
  ASSERT_EQ(a.constants.size(), b.constants.size());
  for (size_t i = 0; i < a.constants.size(); ++i) {
    EXPECT_EQ(a.constants[i].name, b.constants[i].name);
    EXPECT_EQ(values_of(a.constants[i]), values_of(b.constants[i])) << a.constants[i].name;
  }
}

TEST(Gpt2, TurnsAndSplitsStoredProjections) {
  const Graph graph = gpt2().build();
  EXPECT_EQ(graph.info.intermediate_size, 4 * kHidden);
  EXPECT_TRUE(graph.info.tie_word_embeddings);
  const Matrix fused = random_matrix(3 * kHidden * kHidden, 110);
  constexpr ptrdiff_t kSize = kHidden * kHidden;
  EXPECT_EQ(values_of(graph, "layers.0.attention.k.weight"),
            Matrix(fused.begin() + kSize, fused.begin() + 2 * kSize));
  const Matrix bias = random_matrix(3 * kHidden, 111);
  EXPECT_EQ(values_of(graph, "layers.0.attention.v.bias"),
            Matrix(bias.begin() + 2 * kHidden, bias.end()));
  EXPECT_EQ(values_of(graph, "layers.1.mlp.down.weight"), random_matrix(4 * kSize, 250));
}

TEST(Gpt2, GgufIsTheSameGraph) {
  Fake file = gguf("gpt2", 4 * kHidden);
  add_matrix(file, "position_embd.weight", kPositions, 2);
  expect_equal_graphs(file.build(), gpt2().build());
  add_matrix(file, "output.weight", kVocab, 77);  // a head of its own wins
  EXPECT_EQ(values_of(file.build(), "head.weight"), random_matrix(kVocab * kHidden, 77));
}

TEST(Gpt2, NamesWithoutPrefixAndSavedMasks) {
  const Graph with = gpt2().build();
  Fake fake = gpt2("");
  fake.add("h.0.attn.bias", {1, 1, 16, 16}, Matrix(256));
  fake.add("h.0.attn.masked_bias", {}, Matrix(1));
  fake.add("lm_head.weight", {kVocab, kHidden}, random_matrix(kVocab * kHidden, 1));
  expect_equal_graphs(fake.build(), with);
  // A layer too many is not mistaken for a mask.
  add_module(fake, "h.2.attn.c_attn", 3 * kHidden, kHidden, 9, true);
  EXPECT_HAS(fake.error(), "unused: h.2.attn.c_attn.bias");
}

TEST(Gpt2, ScalesOfScores) {
  const auto scales = [](const std::string& change) {
    std::vector<double> out;
    Fake fake = gpt2();
    for (const AttentionOp& op : ops_of<AttentionOp>(fake.with(change).build()))
      out.push_back(op.scale);
    return out;
  };
  using Scales = std::vector<double>;
  EXPECT_EQ(scales(R"("use_cache": true)"), (Scales{0.5, 0.5}));
  EXPECT_EQ(scales(R"("scale_attn_weights": false)"), (Scales{1, 1}));
  EXPECT_EQ(scales(R"("scale_attn_by_inverse_layer_idx": true)"), (Scales{0.5, 0.25}));
}

TEST(Gpt2, PositionsAreAddedOnce) {
  const Graph graph = gpt2().build();
  EXPECT_EQ(ops_of<GatherOp>(graph).size(), 1u);
  EXPECT_EQ(ops_of<RopeOp>(graph).size(), 0u);
  EXPECT_EQ(ops_of<LayerNormOp>(graph).size(), 5u);
  EXPECT_EQ(values_of(graph, "positions.weight"), random_matrix(kPositions * kHidden, 2));
  Fake fewer = gpt2();
  EXPECT_HAS(fewer.with(R"("n_positions": 17)").error(),
             "wrong shape: transformer.wpe.weight must be [17, 8], is [16, 8]");
}

TEST(GptNeo, LayersTakeTurns) {
  const auto windows = [](Fake fake) {
    std::vector<int64_t> out;
    for (const AttentionOp& op : ops_of<AttentionOp>(fake.build())) {
      EXPECT_EQ(op.scale, 1.0);
      out.push_back(op.window);
    }
    return out;
  };
  using Windows = std::vector<int64_t>;
  EXPECT_EQ(windows(gpt_neo()), (Windows{0, 5, 0, 5}));
  EXPECT_EQ(windows(gpt_neo().with(R"("attention_types": [[["local"], 1], [["global"], 3]])")),
            (Windows{5, 0, 0, 0}));
  EXPECT_EQ(
      windows(gpt_neo().with(
          R"("attention_types": null, "attention_layers": ["local", "local", "global", "global"])")),
      (Windows{5, 5, 0, 0}));
  Fake silent = gpt_neo();
  silent.checkpoint.config.erase("attention_types");
  silent.checkpoint.config.erase("window_size");
  EXPECT_EQ(windows(silent), (Windows{0, 256, 0, 256}));
}

TEST(GptNeo, OnlyTheOutputProjectionHasABias) {
  Fake fake = gpt_neo();
  fake.add("transformer.h.0.attn.attention.bias", {1, 1, 16, 16}, Matrix(256));
  fake.add("transformer.h.0.attn.attention.masked_bias", {}, Matrix(1));
  EXPECT_EQ(fake.error(), "ok");
  fake.add("transformer.h.0.attn.attention.q_proj.bias", {kHidden}, Matrix(kHidden));
  EXPECT_HAS(fake.error(), "unused: transformer.h.0.attn.attention.q_proj.bias");
  Fake lacking = gpt_neo();
  lacking.remove("h.1.attn.attention.out_proj.bias");
  EXPECT_HAS(lacking.error(), "missing: transformer.h.1.attn.attention.out_proj.bias [8]");
}

TEST(GptNeox, HeadsAreTakenApart) {
  const Graph graph = gpt_neox().build();
  const Matrix all = random_matrix(3 * kHidden * kHidden, 110), bias = random_matrix(24, 111);
  constexpr ptrdiff_t kSize = kHidden * kHidden;
  EXPECT_EQ(values_of(graph, "layers.0.attention.q.weight"),
            Matrix(all.begin(), all.begin() + kSize));
  EXPECT_EQ(values_of(graph, "layers.0.attention.v.weight"),
            Matrix(all.begin() + 2 * kSize, all.end()));
  EXPECT_EQ(values_of(graph, "layers.0.attention.k.bias"),
            Matrix(bias.begin() + kHidden, bias.begin() + 2 * kHidden));
  EXPECT_EQ(ops_of<ActivationOp>(graph)[0].activation, Activation::kGelu);
  EXPECT_EQ(ops_of<RopeOp>(graph)[0].rotary_dim, 2);
}

TEST(GptNeox, GgufIsTheSameGraph) {
  Fake file = gguf("gptneox", kFfn);
  file.with(R"("gptneox.rope.dimension_count": 2, "gptneox.use_parallel_residual": true)");
  add_matrix(file, "output.weight", kVocab, 5);
  expect_equal_graphs(file.build(), gpt_neox().build());
}

TEST(GptNeox, VariantsOfTheConfiguration) {
  const Graph plain = gpt_neox().build();
  // The second norm reads the residual between, and nothing else changes.
  const auto second_norm = [](const Graph& graph) {
    for (const Node& node : graph.nodes)
      if (graph.name(node.result) == "layers.0.mlp_norm") return graph.name(node.operands[0]);
    return std::string();
  };
  const Graph serial = gpt_neox().with(R"("use_parallel_residual": false)").build();
  EXPECT_EQ(second_norm(plain), "embedding");
  EXPECT_EQ(second_norm(serial), "layers.0.attention_residual");
  EXPECT_EQ(serial.nodes.size(), plain.nodes.size());
  expect_equal_graphs(gpt_neox()
                          .with(R"("rotary_pct": null, "rope_parameters":
                                {"rope_type": "default", "partial_rotary_factor": 0.5})")
                          .build(),
                      plain);
  EXPECT_EQ(gpt_neox(false).with(R"("attention_bias": false)").error(), "ok");
  EXPECT_HAS(gpt_neox(false).error(), "missing: gpt_neox.layers.0.attention.dense.bias [8]");
  Fake buffers = gpt_neox();
  buffers.add("gpt_neox.layers.0.attention.bias", {1, 1, 16, 16}, Matrix(256));
  buffers.add("gpt_neox.layers.0.attention.masked_bias", {}, Matrix(1));
  buffers.add("gpt_neox.layers.0.attention.rotary_emb.inv_freq", {1}, Matrix(1));
  EXPECT_EQ(buffers.error(), "ok");
  Fake base = gpt_neox();
  base.drop_prefix("gpt_neox.");
  EXPECT_EQ(base.error(), "ok");
  // head_dim 4 and a base of 16: the second frequency is 1/4.
  Fake theta = gpt_neox();
  theta.with(R"("rotary_pct": 1.0, "rotary_emb_base": 16)");
  EXPECT_EQ(values_of(theta.build(), "rope.inverse_frequencies"), (Matrix{1, 0.25f}));
}

TEST(Phi, GgufIsTheSameGraph) {
  Fake file = gguf("phi2", kFfn);
  file.with(R"("phi2.rope.dimension_count": 2)");
  add_module(file, "output", kVocab, kHidden, 5);
  const Graph graph = phi().build();
  expect_equal_graphs(file.build(), graph);
  EXPECT_EQ(ops_of<LayerNormOp>(graph).size(), 3u);
  EXPECT_EQ(ops_of<RopeOp>(graph)[0].rotary_dim, 2);
  EXPECT_EQ(ops_of<ActivationOp>(graph)[0].activation, Activation::kGeluTanh);
}

// llama.cpp's converter writes four times the embedding, and the tensors as they are.
TEST(Phi, GgufWidthIsThatOfTheTensors) {
  Fake file = gguf("phi2", kFfn);
  file.with(R"("phi2.rope.dimension_count": 2, "phi2.feed_forward_length": 32)");
  add_module(file, "output", kVocab, kHidden, 5);
  expect_equal_graphs(file.build(), phi().build());
}

TEST(Phi, GgufMayHoldQKAndVOnTheirOwn) {
  Fake file = gguf("phi2", kFfn);
  file.with(R"("phi2.rope.dimension_count": 2)");
  add_module(file, "output", kVocab, kHidden, 5);
  file.remove("attn_qkv.weight");
  file.remove("attn_qkv.bias");
  for (int layer = 0; layer < 2; ++layer)
    for (const char* part : {"attn_q", "attn_k", "attn_v"})
      add_module(file, "blk." + std::to_string(layer) + "." + part, kHidden, kHidden, 60);
  EXPECT_EQ(file.error(), "ok");
}

TEST(Phi, SharedKeyHeadsAndDefaults) {
  Fake fake = phi();
  fake.with(R"("num_key_value_heads": 1)");
  EXPECT_HAS(fake.error(),
             "wrong shape: model.layers.0.self_attn.k_proj.weight must be [4, 8], is [8, 8]");
  for (int layer = 0; layer < 2; ++layer)
    for (const char* part : {"k_proj", "v_proj"}) {
      const std::string name = "model.layers." + std::to_string(layer) + ".self_attn." + part;
      fake.remove(name + ".weight");
      fake.remove(name + ".bias");
      add_module(fake, name, kDim, kHidden, 60);
    }
  const Graph graph = fake.build();
  EXPECT_EQ(graph.caches.size(), 4u);
  EXPECT_EQ(to_string(graph.type(graph.caches[0].input).shape), "[B, 1, P, 4]");
  Fake silent = phi();
  silent.checkpoint.config.erase("partial_rotary_factor");
  EXPECT_EQ(ops_of<RopeOp>(silent.build())[0].rotary_dim, 2);
  Fake tied = phi();
  tied.with(R"("tie_word_embeddings": true)");
  EXPECT_EQ(tied.error(), "ok");
  tied.remove("lm_head.bias");
  EXPECT_HAS(tied.error(), "missing: lm_head.bias [10]");
}

TEST(Gpt, RefusesBadConfigurations) {
  const std::map<std::string, Fake> models = {
      {"gpt2", gpt2()}, {"gpt_neo", gpt_neo()}, {"gpt_neox", gpt_neox()}, {"phi", phi()}};
  struct Case {
    const char *model, *change, *message;
  };
  const Case cases[] = {
      {"gpt2", R"("n_layer": 0)", "n_layer must lie in"},
      {"gpt2", R"("n_layer": 3)", "missing: transformer.h.2.ln_1.weight [8]"},
      {"gpt2", R"("n_layer": 1)", "unused: transformer.h.1.attn.c_attn.weight"},
      {"gpt2", R"("n_head": 3)", "n_embd 8 is not a multiple of n_head 3"},
      {"gpt2", R"("n_head": 0)", "n_head must lie in"},
      {"gpt2", R"("n_positions": 0)", "n_positions must lie in"},
      {"gpt2", R"("n_inner": 0)", "n_inner must lie in"},
      {"gpt2", R"("layer_norm_epsilon": 0)", "layer_norm_epsilon must be positive"},
      {"gpt2", R"("scale_attn_weights": 1)", "scale_attn_weights must be true or false"},
      {"gpt_neo", R"("attention_types": 5)", "attention_types is not a list"},
      {"gpt_neo", R"("attention_types": [["global", 4]])", "attention_types is not a list"},
      {"gpt_neo", R"("attention_types": [[["global"], -1]])", "attention_types is not a list"},
      {"gpt_neo", R"("attention_types": [[["global"], 3]])", "describe 3 layers, num_layers is 4"},
      {"gpt_neo", R"("attention_types": [[["global", "local"], 4]])",
       "describe more layers, num_layers is 4"},
      {"gpt_neo", R"("attention_types": [[[7], 4]])", "attention_types is not a list"},
      {"gpt_neo", R"("window_size": 0)", "window_size must lie in"},
      {"gpt_neox", R"("intermediate_size": null)", "intermediate_size is missing"},
      {"gpt_neox", R"("rotary_pct": 0)", "rotary_pct must lie in"},
      {"gpt_neox", R"("rotary_pct": 0.2)", "rotary dimension 0"},
      {"gpt_neox", R"("rotary_emb_base": 0)", "rotary_emb_base must be positive"},
      {"phi", R"("num_key_value_heads": 3)", "must be a multiple of num_key_value_heads"},
      {"phi", R"("partial_rotary_factor": 0.75)", "odd rotary dimension of 3"},
      {"phi", R"("partial_rotary_factor": 1.5)", "partial_rotary_factor must lie in"},
  };
  for (const Case& c : cases) {
    Fake fake = models.at(c.model);
    const auto graph = build_graph(fake.with(c.change).checkpoint);
    ASSERT_FALSE(graph.ok()) << c.change;
    EXPECT_EQ(exit_code(graph.status().code()), 3) << c.change;
    EXPECT_HAS(graph.status().to_string(), c.message);
  }
}

TEST(Gpt, NamesWhatItDoesNotSupport) {
  const std::map<std::string, Fake> models = {
      {"gpt2", gpt2()}, {"gpt_neo", gpt_neo()}, {"gpt_neox", gpt_neox()}, {"phi", phi()}};
  struct Case {
    const char *model, *change, *message;
  };
  const Case cases[] = {
      {"gpt2", R"("activation_function": "mish")", "activation_function 'mish'"},
      {"gpt2", R"("add_cross_attention": true)", "add_cross_attention"},
      {"gpt2", R"("quantization_config": {"quant_method": "gptq"})", "quantization_config"},
      {"gpt_neo", R"("attention_types": [[["global", "sparse"], 2]])", "attention type 'sparse'"},
      {"gpt_neo", R"("attention_layers": ["global", "global", "global", "global"])",
       "attention_layers that differ from attention_types"},
      {"gpt_neox", R"("hidden_act": "softplus")", "hidden_act 'softplus'"},
      {"gpt_neox", R"("rope_scaling": {"type": "spiral", "factor": 2})", "rope type 'spiral'"},
      {"phi", R"("model_type": "phi-msft")", "model_type 'phi-msft'"},
  };
  for (const Case& c : cases) {
    Fake fake = models.at(c.model);
    const auto graph = build_graph(fake.with(c.change).checkpoint);
    ASSERT_FALSE(graph.ok()) << c.change;
    EXPECT_EQ(graph.status().code(), StatusCode::kUnsupported) << c.change;
    EXPECT_HAS(graph.status().to_string(), c.message);
  }
}

TEST(Gpt, RefusesBadMetadata) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("gpt2.block_count": 0)", "gpt2.block_count must lie in"},
      {R"("gpt2.attention.head_count": 3)", "is not a multiple of"},
      {R"("gpt2.context_length": 17)", "wrong shape: position_embd.weight must be [17, 8]"},
      {R"("gpt2.attention.layer_norm_epsilon": -1)", "must be positive"},
      {R"("gpt2.vocab_size": 11)", "differs from the 10 rows"},
  };
  for (const auto& [change, message] : cases) {
    Fake file = gguf("gpt2", 4 * kHidden);
    add_matrix(file, "position_embd.weight", kPositions, 2);
    EXPECT_HAS(file.with(change).error(), message);
  }
}

}  // namespace
}  // namespace pome
