#include "models/stored_quantisation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "models/models.h"
#include "tensor/half.h"

namespace pome {
namespace {

uint8_t code_of(size_t i) { return static_cast<uint8_t>(i * 37 % 251 % 0x7F | (i % 2 ? 0x80 : 0)); }
float scale_of(size_t i) { return 0.25f + 0.125f * static_cast<float>(i); }

CheckpointTensor tensor_of(const std::string& name, Shape shape, EncodingKind kind) {
  const auto count = static_cast<size_t>(*element_count(shape));
  std::vector<std::byte> bytes;
  if (kind == EncodingKind::kF32) {
    bytes.resize(4 * count);
    for (size_t i = 0; i < count; ++i) {
      const float value = scale_of(i);
      std::memcpy(bytes.data() + 4 * i, &value, 4);
    }
  } else {
    for (size_t i = 0; i < count; ++i) bytes.push_back(static_cast<std::byte>(code_of(i)));
  }
  CheckpointTensor tensor{name, std::move(shape), Encoding::plain(kind), nullptr, 0, bytes.size()};
  tensor.source = memory_source(std::move(bytes), name);
  return tensor;
}
Json config_of(const std::string& quantisation) {
  return *parse_json(
      R"({"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12,
          "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true)" +
          (quantisation.empty() ? "" : ", \"quantization_config\": " + quantisation) + "}",
      "config.json");
}

TEST(StoredQuantisation, ScalesBlocks) {
  constexpr int64_t kRows = 5, kColumns = 7;
  for (const ScaledFloat8 form : {ScaledFloat8{2, 3}, ScaledFloat8{128, 128}, ScaledFloat8{1, 7},
                                  ScaledFloat8{5, 1}, ScaledFloat8{}}) {
    const bool whole = form.block_rows == 0;
    const int64_t down = whole ? 1 : (kRows + form.block_rows - 1) / form.block_rows;
    const int64_t across = whole ? 1 : (kColumns + form.block_columns - 1) / form.block_columns;
    for (const EncodingKind kind : {EncodingKind::kF8E4M3, EncodingKind::kF8E5M2}) {
      const auto data =
          scaled_constant(stored_constant(tensor_of("w", {kRows, kColumns}, kind)),
                          stored_constant(tensor_of("s", whole ? Shape{} : Shape{down, across},
                                                    EncodingKind::kF32)),
                          form);
      EXPECT_EQ(data->shape(), (Shape{kRows, kColumns}));
      EXPECT_EQ(data->encoding(), Encoding::plain(EncodingKind::kF32));
      for (int64_t first = 0; first < kRows; ++first) {
        for (int64_t rows = 1; rows <= kRows - first; ++rows) {
          std::vector<float> out(static_cast<size_t>(rows * kColumns));
          ASSERT_TRUE(data->read_f32(first, rows, out.data()).ok());
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t c = 0; c < kColumns; ++c) {
              const auto i = static_cast<size_t>((first + r) * kColumns + c);
              const float code = kind == EncodingKind::kF8E4M3 ? f8e4m3_to_f32(code_of(i))
                                                               : f8e5m2_to_f32(code_of(i));
              const auto block =
                  whole ? 0 : (first + r) / form.block_rows * across + c / form.block_columns;
              const float expected = code * scale_of(static_cast<size_t>(block));
              const float found = out[static_cast<size_t>(r * kColumns + c)];
              EXPECT_TRUE(found == expected || (std::isnan(found) && std::isnan(expected)));
            }
          }
        }
      }
    }
  }
}

TEST(StoredQuantisation, ReadsTheConfiguration) {
  Checkpoint checkpoint;
  checkpoint.format = "safetensors";
  const auto form = [&](const std::string& quantisation) {
    checkpoint.config = config_of(quantisation);
    return read_scaled_float8(checkpoint);
  };
  const auto blocks = form(
      R"({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
          "weight_block_size": [128, 64]})");
  ASSERT_TRUE(blocks.has_value());
  EXPECT_EQ(blocks->block_rows, 128);
  EXPECT_EQ(blocks->block_columns, 64);
  EXPECT_EQ(form(R"({"quant_method": "fp8", "weight_block_size": null})")->block_rows, 0);
  EXPECT_FALSE(form("").has_value());
  EXPECT_FALSE(form("null").has_value());
  for (const char* other :
       {R"({"quant_method": "gptq", "bits": 4})", R"({"quant_method": "awq"})",
        R"({"quant_method": "bitsandbytes", "load_in_4bit": true})",
        R"({"quant_method": "compressed-tensors"})", R"({"quant_method": "fbgemm_fp8"})",
        R"({"quant_method": "fp8", "fmt": "e5m2"})", R"({"quant_method": 8})", "{}", "[]", "7",
        R"({"quant_method": "fp8", "weight_block_size": [128]})",
        R"({"quant_method": "fp8", "weight_block_size": [0, 128]})",
        R"({"quant_method": "fp8", "weight_block_size": [-1, 128]})",
        R"({"quant_method": "fp8", "weight_block_size": ["a", 128]})",
        R"({"quant_method": "fp8", "weight_block_size": 128})"}) {
    EXPECT_FALSE(form(other).has_value()) << other;
    const auto info = read_model_info(checkpoint);
    ASSERT_FALSE(info.ok()) << other;
    EXPECT_EQ(info.status().code(), StatusCode::kUnsupported) << info.status().to_string();
    EXPECT_NE(info.status().message().find("quantization_config"), std::string_view::npos);
    EXPECT_NE(info.status().message().find("take the"), std::string_view::npos);
  }
  checkpoint.config = config_of(R"({"quant_method": "gptq", "bits": 4})");
  EXPECT_NE(read_model_info(checkpoint).status().message().find("'gptq'"), std::string_view::npos);
}

// A llama whose matrices are 8-bit floats with scales for blocks of [4, 8].
Checkpoint scaled_llama() {
  Checkpoint out;
  out.format = "safetensors";
  out.path = "fake";
  out.config = config_of(R"({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [4, 8]})");
  const std::string at = "model.layers.0.";
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t columns) {
    out.tensors.push_back(tensor_of(name, {rows, columns}, EncodingKind::kF8E4M3));
    out.tensors.push_back(
        tensor_of(name + "_scale_inv", {(rows + 3) / 4, (columns + 7) / 8}, EncodingKind::kF32));
  };
  out.tensors.push_back(tensor_of("model.embed_tokens.weight", {10, 8}, EncodingKind::kF32));
  out.tensors.push_back(tensor_of("model.norm.weight", {8}, EncodingKind::kF32));
  for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"})
    out.tensors.push_back(tensor_of(at + norm, {8}, EncodingKind::kF32));
  matrix(at + "self_attn.q_proj.weight", 8, 8);
  matrix(at + "self_attn.k_proj.weight", 4, 8);
  matrix(at + "self_attn.v_proj.weight", 4, 8);
  matrix(at + "self_attn.o_proj.weight", 8, 8);
  matrix(at + "mlp.gate_proj.weight", 12, 8);
  matrix(at + "mlp.up_proj.weight", 12, 8);
  matrix(at + "mlp.down_proj.weight", 8, 12);
  return out;
}
std::string problem_of(const Checkpoint& checkpoint) {
  const auto graph = build_graph(checkpoint);
  EXPECT_FALSE(graph.ok());
  return graph.ok() ? "" : std::string(graph.status().message());
}

TEST(StoredQuantisation, AGraphReadsScaledWeights) {
  const auto graph = build_graph(scaled_llama());
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  size_t seen = 0;
  for (const Constant& constant : graph->constants) {
    if (constant.hf_name != "model.layers.0.mlp.down_proj.weight") continue;
    ++seen;
    std::vector<float> out(8 * 12);
    ASSERT_TRUE(constant.data->read_f32(0, 8, out.data()).ok());
    EXPECT_EQ(out[0], f8e4m3_to_f32(code_of(0)) * scale_of(0));
    EXPECT_EQ(out[7 * 12 + 11], f8e4m3_to_f32(code_of(95)) * scale_of(3));
  }
  EXPECT_EQ(seen, 1u);
}

TEST(StoredQuantisation, NamesMissingAndWrongScales) {
  const std::string name = "model.layers.0.mlp.down_proj.weight_scale_inv";
  Checkpoint missing = scaled_llama();
  std::erase_if(missing.tensors, [&](const CheckpointTensor& t) { return t.name == name; });
  EXPECT_NE(problem_of(missing).find("missing: " + name), std::string::npos);

  Checkpoint wrong = scaled_llama();
  for (CheckpointTensor& tensor : wrong.tensors) {
    if (tensor.name == name) tensor = tensor_of(name, {2, 1}, EncodingKind::kF32);
  }
  EXPECT_NE(problem_of(wrong).find("wrong scales: " + name + " must be [2, 2]"), std::string::npos)
      << problem_of(wrong);

  // Without a quantization_config the scales belong to nothing.
  Checkpoint plain = scaled_llama();
  plain.config = config_of("");
  EXPECT_NE(problem_of(plain).find("unused: " + name), std::string::npos);
}

}  // namespace
}  // namespace pome
