#include "quantize/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "encoding/mlc_groups.h"
#include "graph/builder.h"
#include "quantize/fed_rounding.h"
#include "support/second_moments.h"
#include "tensor/half.h"
#include "tensor/tensor.h"

namespace pome {
namespace {

using Role = Constant::Role;

std::vector<float> draw(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::student_t_distribution<double> heavy(4);
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<float>(0.02 * heavy(random)));
  return out;
}

ConstantDataPtr data_of(Shape shape, std::vector<float> values) {
  return inline_constant(Tensor::from_f32(std::move(shape), std::move(values)));
}
ConstantDataPtr random_data(const Shape& shape, uint32_t seed) {
  return data_of(shape, draw(*element_count(shape), seed));
}

std::vector<float> decode(const ConstantData& data) {
  std::vector<float> out(static_cast<size_t>(data.rows() * data.columns()));
  const Status status = data.read_f32(0, data.rows(), out.data());
  EXPECT_TRUE(status.ok()) << status.to_string();
  return out;
}

double nmse(const std::vector<float>& original, const std::vector<float>& decoded) {
  double error = 0, squares = 0;
  for (size_t i = 0; i < original.size(); ++i) {
    error += std::pow(static_cast<double>(original[i]) - decoded[i], 2);
    squares += static_cast<double>(original[i]) * original[i];
  }
  return error / squares;
}

std::vector<std::byte> all_bytes(const ConstantData& data, int64_t step) {
  std::vector<std::vector<std::byte>> parts;
  for (int64_t row = 0; row < data.rows(); row += step) {
    EncodedTile tile;
    const Status status = data.read_tile(row, std::min(step, data.rows() - row), &tile);
    EXPECT_TRUE(status.ok()) << status.to_string();
    parts.resize(tile.parts.size());
    for (size_t p = 0; p < parts.size(); ++p) {
      parts[p].insert(parts[p].end(), tile.parts[p].begin(), tile.parts[p].end());
    }
  }
  std::vector<std::byte> out;
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

// ---- recipes

TEST(Recipe, KnownSchemes) {
  const struct {
    const char* name;
    Encoding encoding;
  } known[] = {{"f16", Encoding::plain(EncodingKind::kF16)},
               {"f32", Encoding::plain(EncodingKind::kF32)},
               {"int8", Encoding::int_blocks(8, 0)},
               {"int4", Encoding::int_blocks(4, 32)},
               {"lut8", Encoding::lut(8, 16)},
               {"lut6", Encoding::lut(6, 16)},
               {"lut4", Encoding::lut(4, 16)},
               {"lut3", Encoding::lut(3, 16)},
               {"lut2", Encoding::lut(2, 16)}};
  for (const auto& row : known) {
    const auto recipe = parse_recipe(row.name);
    ASSERT_TRUE(recipe.ok());
    EXPECT_EQ(recipe->scheme, row.name);
    EXPECT_EQ(recipe->matrices, row.encoding);
    EXPECT_EQ(recipe->embedding, row.encoding);
    EXPECT_EQ(recipe->head, row.encoding);
  }
  EXPECT_EQ(parse_recipe("f32")->small, EncodingKind::kF32);
  EXPECT_EQ(parse_recipe("lut4")->small, EncodingKind::kF16);
}

TEST(Recipe, EmbeddingOfItsOwn) {
  const auto recipe = parse_recipe("lut4", "int8");
  ASSERT_TRUE(recipe.ok());
  EXPECT_EQ(recipe->matrices, Encoding::lut(4, 16));
  EXPECT_EQ(recipe->embedding, Encoding::int_blocks(8, 0));
  EXPECT_EQ(recipe->head, Encoding::int_blocks(8, 0));
}

TEST(Recipe, UnknownNamesListTheKnownOnes) {
  for (const char* name : {"", "lut5", "INT4", "int4 ", "q\x1b[0m"}) {
    const auto recipe = parse_recipe(name);
    ASSERT_FALSE(recipe.ok());
    EXPECT_EQ(recipe.status().code(), StatusCode::kUsage);
    EXPECT_NE(recipe.status().to_string().find("lut4"), std::string::npos);
    EXPECT_EQ(recipe.status().to_string().find('\x1b'), std::string::npos);
  }
  EXPECT_EQ(parse_recipe("int4", "lut7").status().code(), StatusCode::kUsage);
}

// ---- encoded constants

const Encoding kEncodings[] = {Encoding::plain(EncodingKind::kF16),
                               Encoding::plain(EncodingKind::kF32),
                               Encoding::int_blocks(8, 35),
                               Encoding::int_blocks(4, 35),
                               Encoding::int_blocks(4, 5),
                               Encoding::int_blocks(4, 7),
                               Encoding::lut(8, 4),
                               Encoding::lut(6, 2),
                               Encoding::lut(4, 4),
                               Encoding::lut(3, 1),
                               Encoding::lut(3, 4),
                               Encoding::lut(2, 12),
                               Encoding::lut(1, 4)};

// 36 rows of 35 columns: rows do not end on bytes at 1, 2, 3, 4 and 6 bits.
TEST(EncodedConstant, TilesJoinToTheWhole) {
  const ConstantDataPtr source = random_data({36, 35}, 1);
  for (const Encoding& encoding : kEncodings) {
    const ConstantDataPtr data = encoded_constant(source, encoding);
    EXPECT_EQ(data->encoding(), encoding);
    EXPECT_EQ(data->shape(), source->shape());
    const std::vector<std::byte> whole = all_bytes(*data, 36);
    EXPECT_EQ(whole.size(), data->stored_bytes());
    const int64_t step = row_granularity(encoding, 35);
    for (int64_t rows = step; rows < 36; rows += step) {
      EXPECT_EQ(all_bytes(*data, rows), whole) << to_string(encoding) << " by " << rows;
    }
  }
}

TEST(EncodedConstant, ErrorFallsWithBits) {
  const ConstantDataPtr source = random_data({64, 96}, 2);
  const std::vector<float> original = decode(*source);
  const auto error = [&](const Encoding& encoding) {
    return nmse(original, decode(*encoded_constant(source, encoding)));
  };
  EXPECT_EQ(error(Encoding::plain(EncodingKind::kF32)), 0);
  EXPECT_LT(error(Encoding::plain(EncodingKind::kF16)), 1e-7);
  EXPECT_LT(error(Encoding::int_blocks(8, 96)), 2e-4);
  EXPECT_LT(error(Encoding::int_blocks(4, 32)), 0.015);
  double last = 1;
  for (const int bits : {1, 2, 3, 4, 6, 8}) {
    const double here = error(Encoding::lut(bits, 16));
    EXPECT_LT(here, last / 2);
    last = here;
  }
  // Smaller groups fit at least as well.
  EXPECT_LT(error(Encoding::lut(4, 4)), error(Encoding::lut(4, 16)) * 1.001);
}

TEST(EncodedConstant, RequantisingIsLossless) {
  const ConstantDataPtr source = random_data({36, 35}, 3);
  for (const Encoding& encoding : kEncodings) {
    const ConstantDataPtr once = encoded_constant(source, encoding);
    const std::vector<float> decoded = decode(*once);
    EXPECT_EQ(decode(*encoded_constant(data_of({36, 35}, decoded), encoding)), decoded)
        << to_string(encoding);
    EXPECT_EQ(decode(*encoded_constant(once, encoding)), decoded) << to_string(encoding);
  }
}

TEST(EncodedConstant, PermutedRowsInAGroupShareTheirTable) {
  const ConstantDataPtr source = random_data({32, 40}, 4);
  const auto other_row = [](int64_t i) { return i / 16 * 16 + (i * 5 + 3) % 16; };
  const ConstantDataPtr permuted = permute_rows(source, {32, 40}, other_row);
  for (const int bits : {1, 2, 3, 4, 6, 8}) {
    const Encoding encoding = Encoding::lut(bits, 16);
    EncodedTile tile, other;
    const ConstantDataPtr data = encoded_constant(source, encoding),
                          moved = encoded_constant(permuted, encoding);
    ASSERT_TRUE(data->read_tile(0, 32, &tile).ok());
    ASSERT_TRUE(moved->read_tile(0, 32, &other).ok());
    EXPECT_EQ(std::memcmp(tile.parts[1].data(), other.parts[1].data(), tile.parts[1].size()), 0);
    EXPECT_EQ(decode(*moved), decode(*permute_rows(data, {32, 40}, other_row))) << bits;
  }
}

TEST(EncodedConstant, ErrorsAreAtMostHalfAStep) {
  const std::vector<float> values = draw(64 * 96, 11);
  const ConstantDataPtr source = data_of({64, 96}, values);
  for (const Encoding& encoding : {Encoding::int_blocks(8, 96), Encoding::int_blocks(8, 32),
                                   Encoding::int_blocks(4, 32), Encoding::int_blocks(4, 8)}) {
    EncodedTile tile;
    const ConstantDataPtr data = encoded_constant(source, encoding);
    ASSERT_TRUE(data->read_tile(0, 64, &tile).ok());
    const std::vector<float> decoded = decode(*data);
    const float low = encoding.bits == 4 ? -8 : -127, high = encoding.bits == 4 ? 7 : 127;
    size_t beyond = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t half;
      std::memcpy(&half, tile.parts[1].data() + i / static_cast<size_t>(encoding.block) * 2, 2);
      const float scale = f16_to_f32(half), lost = std::fabs(values[i] - decoded[i]);
      if (values[i] / scale >= low && values[i] / scale <= high)
        ASSERT_LE(lost, std::fabs(scale) * 0.500001f) << to_string(encoding) << " " << i;
      else
        ++beyond;
    }
    EXPECT_LT(beyond, values.size() / 10) << to_string(encoding);
  }
}

// Of values as binary16 has them, which is what palettes are fitted to.
TEST(EncodedConstant, ErrorsOfPalettesAreAtMostHalfTheWidestGap) {
  std::vector<float> values = draw(32 * 96, 12);
  for (float& value : values) value = round_to_f16(value);
  const ConstantDataPtr source = data_of({32, 96}, values);
  for (const int bits : {1, 2, 3, 4, 6, 8}) {
    EncodedTile tile;
    const ConstantDataPtr data = encoded_constant(source, Encoding::lut(bits, 16));
    ASSERT_TRUE(data->read_tile(0, 32, &tile).ok());
    const std::vector<float> decoded = decode(*data);
    std::vector<float> tables(size_t{2} << bits);
    f16_to_f32(std::span(reinterpret_cast<const uint16_t*>(tile.parts[1].data()), tables.size()),
               tables);
    size_t inside = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const std::span<const float> table =
          std::span(tables).subspan(i / (16 * 96) << bits, size_t{1} << bits);
      if (values[i] < table.front() || values[i] > table.back()) continue;
      ++inside;
      float widest = 0;
      for (size_t k = 1; k < table.size(); ++k) widest = std::max(widest, table[k] - table[k - 1]);
      ASSERT_LE(std::fabs(values[i] - decoded[i]), widest / 2) << bits << " " << i;
    }
    EXPECT_GT(inside, values.size() / 2) << bits;
  }
}

// q4f16_1 holds what int4/32 holds, by another rule.
TEST(EncodedConstant, MlcGroupsAreBoundedAndRequantisedWithoutLoss) {
  const std::vector<float> values = draw(16 * 96, 13);
  const auto mlc_values = [](const std::vector<float>& in, std::vector<float>* scales) {
    EncodedTile tile;
    const ConstantDataPtr data =
        encoded_constant(data_of({16, 96}, in), Encoding::int_blocks(4, kMlcGroup));
    EXPECT_TRUE(data->read_tile(0, 16, &tile).ok());
    std::vector<std::byte> codes(tile.parts[0].begin(), tile.parts[0].end());
    std::vector<uint16_t> halves(codes.size() / static_cast<size_t>(kMlcGroupBytes));
    std::memcpy(halves.data(), tile.parts[1].data(), tile.parts[1].size());
    int4_to_mlc(codes, halves);
    scales->resize(halves.size());
    f16_to_f32(halves, *scales);
    std::vector<float> out(in.size());
    for (size_t i = 0; i < out.size(); ++i) {
      const int code = std::to_integer<int>(codes[i / 2]) >> 4 * (i % 2) & 15;
      out[i] = static_cast<float>(code - kMlcZero) * (*scales)[i / 32];
    }
    return out;
  };
  std::vector<float> scales, again;
  const std::vector<float> decoded = mlc_values(values, &scales);
  for (size_t i = 0; i < values.size(); ++i) {
    const float level = values[i] / scales[i / 32];
    if (level < -7 || level > 8) continue;
    ASSERT_LE(std::fabs(values[i] - decoded[i]), std::fabs(scales[i / 32]) * 0.500001f) << i;
  }
  EXPECT_EQ(mlc_values(decoded, &again), decoded);
}

TEST(EncodedConstant, DegenerateRows) {
  std::vector<float> values(5 * 33, 0.0f);
  for (size_t i = 33; i < 66; ++i) values[i] = -0.7f;                                 // constant
  for (size_t i = 66; i < 99; ++i) values[i] = 0x1p-24f * static_cast<float>(i % 3);  // subnormal
  values[100] = 65504;                                                                // one outlier
  for (size_t i = 132; i < 165; ++i) values[i] = 1e-30f;  // below binary16
  const ConstantDataPtr source = data_of({5, 33}, values);
  for (const Encoding& encoding :
       {Encoding::int_blocks(8, 33), Encoding::int_blocks(4, 33), Encoding::int_blocks(4, 11),
        Encoding::lut(4, 1), Encoding::lut(3, 5), Encoding::lut(2, 1)}) {
    const std::vector<float> decoded = decode(*encoded_constant(source, encoding));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_TRUE(std::isfinite(decoded[i])) << to_string(encoding) << " " << i;
      // All of these rows have at most three distinct values: every scheme holds them but for the
      // precision of its binary16 scale.
      ASSERT_NEAR(decoded[i], values[i], std::fabs(values[i]) * 6e-4 + 2e-8)
          << to_string(encoding) << " " << i;
    }
  }
}

TEST(EncodedConstant, NamesTheOffender) {
  const struct {
    float value;
    const char* text;
  } cases[] = {{std::numeric_limits<float>::quiet_NaN(), "NaN"},
               {-std::numeric_limits<float>::infinity(), "infinite"},
               {65520.0f, "65520"},
               {-1e30f, "65504"}};
  for (const auto& bad : cases) {
    std::vector<float> values = draw(40 * 24, 5);
    values[17 * 24 + 5] = bad.value;
    const ConstantDataPtr source = data_of({40, 24}, values);
    for (const Encoding& encoding :
         {Encoding::plain(EncodingKind::kF16), Encoding::plain(EncodingKind::kF32),
          Encoding::int_blocks(8, 24), Encoding::int_blocks(4, 8), Encoding::lut(4, 8),
          Encoding::lut(3, 40)}) {
      EncodedTile tile;
      const ConstantDataPtr data = encoded_constant(source, encoding, "layers.0.ffn.up.weight");
      const Status status = data->read_tile(0, 40, &tile);
      if (encoding.kind == EncodingKind::kF32 && std::isfinite(bad.value)) {
        EXPECT_TRUE(status.ok());
        continue;
      }
      ASSERT_FALSE(status.ok()) << to_string(encoding);
      EXPECT_EQ(status.code(), StatusCode::kBadInput);
      for (const char* part : {"layers.0.ffn.up.weight", "row 17, column 5", bad.text}) {
        EXPECT_NE(status.to_string().find(part), std::string::npos) << status.to_string();
      }
    }
  }
}

TEST(EncodedConstant, LargestBinary16IsAccepted) {
  std::vector<float> values = draw(8 * 8, 6);
  values[9] = 65504;
  values[10] = -65504;
  const ConstantDataPtr source = data_of({8, 8}, values);
  for (const Encoding& encoding : {Encoding::plain(EncodingKind::kF16), Encoding::int_blocks(8, 8),
                                   Encoding::int_blocks(4, 8), Encoding::lut(4, 8)}) {
    for (const float value : decode(*encoded_constant(source, encoding))) {
      EXPECT_TRUE(std::isfinite(value));
    }
  }
}

TEST(EncodedConstant, SameEncodingPassesThrough) {
  const ConstantDataPtr source = random_data({8, 8}, 7);
  const ConstantDataPtr data = encoded_constant(source, Encoding::plain(EncodingKind::kF32));
  ASSERT_TRUE(data->view().has_value());
  EXPECT_EQ(data->view()->data(), source->view()->data());
  const ConstantDataPtr half = encoded_constant(source, Encoding::plain(EncodingKind::kF16));
  EXPECT_FALSE(half->view().has_value());
  EXPECT_EQ(&half->canonical(), source.get());
  EXPECT_EQ(&encoded_constant(half, Encoding::lut(4, 8))->canonical(), source.get());
}

// With and without feedback, and in a second run.
TEST(EncodedConstant, BytesDoNotDependOnThreads) {
  const ConstantDataPtr source = random_data({1024, 1024}, 8);
  const auto feedback = Feedback::create(*test::directed_moments(1024), Feedback::kRun);
  ASSERT_TRUE(feedback.ok());
  for (const Encoding& encoding :
       {Encoding::lut(4, 16), Encoding::int_blocks(4, 32), Encoding::int_blocks(8, 1024),
        Encoding::plain(EncodingKind::kQ4_K)}) {
    const ConstantDataPtr plain = encoded_constant(source, encoding);
    for (const ConstantDataPtr& data : {plain, with_feedback(plain, {*feedback})}) {
      ASSERT_TRUE(data);
      const auto alone = digest_of(*data, nullptr);
      ASSERT_TRUE(alone.ok());
      for (const int threads : {1, 2, 8}) {
        ThreadPool pool(threads);
        const auto digest = digest_of(*data, &pool);
        ASSERT_TRUE(digest.ok());
        EXPECT_EQ(*digest, *alone) << to_string(encoding) << (data == plain ? "" : " fed");
      }
    }
    EXPECT_NE(*digest_of(*plain, nullptr), *digest_of(*with_feedback(plain, {*feedback}), nullptr));
  }
}

// The same on every machine and under every POME_ISA: values from integers alone, digests recorded.
TEST(EncodedConstant, RecordedBytes) {
  std::vector<float> values;
  uint64_t state = 1;
  for (int i = 0; i < 64 * 96; ++i) {
    int64_t sum = 0;  // of four draws: a bell
    for (int j = 0; j < 4; ++j) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sum += static_cast<int64_t>(state >> 40) - (1 << 23);
    }
    values.push_back(static_cast<float>(sum) * 0x1p-29f);
  }
  const ConstantDataPtr source = data_of({64, 96}, values);
  const struct {
    Encoding encoding;
    const char* digest;
  } recorded[] = {{Encoding::int_blocks(8, 96), "4952a0e26d2fd4d7"},
                  {Encoding::int_blocks(4, 32), "fada36a4ea01df82"},
                  {Encoding::lut(8, 16), "d1c28cd19d2434af"},
                  {Encoding::lut(6, 16), "13cd7289826703b2"},
                  {Encoding::lut(4, 16), "6b2b9e12eed40cbb"},
                  {Encoding::lut(3, 16), "f7721563a9b78cc6"},
                  {Encoding::lut(2, 16), "76b9d2409e843c12"}};
  for (const auto& row : recorded) {
    const auto digest = digest_of(*encoded_constant(source, row.encoding), nullptr);
    ASSERT_TRUE(digest.ok());
    EXPECT_EQ(to_hex(*digest).substr(0, 16), row.digest) << to_string(row.encoding);
  }
}

// ---- graphs

Constant constant_of(std::string name, Role role, const Shape& shape) {
  Constant constant;
  constant.name = std::move(name);
  constant.role = role;
  constant.data = random_data(shape, static_cast<uint32_t>(shape.back()));
  return constant;
}

// Only the constants matter here.
Graph graph_with(std::vector<Constant> constants) {
  Graph graph;
  graph.constants = std::move(constants);
  return graph;
}

TensorChoice choice_for(const char* scheme, const Shape& shape, Role role = Role::kMatrix) {
  const auto quantized =
      quantize(graph_with({constant_of("w", role, shape)}), *parse_recipe(scheme));
  EXPECT_TRUE(quantized.ok());
  const TensorChoice& choice = quantized->tensors.at(0);
  const ConstantData& data = *quantized->graph.constants[0].data;
  EXPECT_EQ(choice.used, data.encoding());
  EXPECT_EQ(data.shape(), shape);
  EXPECT_TRUE(encoded_layout(choice.used, data.rows(), data.columns()).ok());
  decode(data);
  return choice;
}

TEST(Quantize, RolesGetTheirEncodings) {
  const Graph graph = graph_with(
      {constant_of("w", Role::kMatrix, {64, 128}), constant_of("e", Role::kEmbedding, {96, 128}),
       constant_of("h", Role::kHead, {96, 128}), constant_of("n", Role::kNorm, {128}),
       constant_of("b", Role::kBias, {64}), constant_of("f", Role::kTable, {32}),
       constant_of("p", Role::kTable, {16, 128}), constant_of("s", Role::kTable, {1})});
  const auto quantized = quantize(graph, *parse_recipe("lut4", "int8"));
  ASSERT_TRUE(quantized.ok());
  const Encoding f16 = Encoding::plain(EncodingKind::kF16);
  const Encoding f32 = Encoding::plain(EncodingKind::kF32);
  const Encoding int8 = Encoding::int_blocks(8, 128);
  const Encoding expected[] = {Encoding::lut(4, 16), int8, int8, f16, f16, f32, f16, f32};
  ASSERT_EQ(quantized->tensors.size(), std::size(expected));
  for (size_t i = 0; i < std::size(expected); ++i) {
    EXPECT_EQ(quantized->tensors[i].used, expected[i]) << i;
    EXPECT_EQ(quantized->tensors[i].name, graph.constants[i].name);
    EXPECT_EQ(quantized->tensors[i].fallback, "") << i;
    EXPECT_EQ(&quantized->graph.constants[i].data->canonical(), graph.constants[i].data.get());
  }
  // The graph that was given stays as it was.
  EXPECT_EQ(graph.constants[0].data->encoding(), f32);
}

TEST(Quantize, LadderOfPalettes) {
  EXPECT_EQ(choice_for("lut4", {48, 64}).used, Encoding::lut(4, 16));
  EXPECT_EQ(choice_for("lut4", {40, 64}).used, Encoding::lut(4, 8));
  EXPECT_EQ(choice_for("lut4", {20, 64}).used, Encoding::lut(4, 4));
  EXPECT_EQ(choice_for("lut4", {22, 128}).used, Encoding::lut(4, 2));
  EXPECT_EQ(choice_for("lut4", {21, 512}).used, Encoding::lut(4, 1));
  EXPECT_NE(choice_for("lut4", {40, 64}).fallback.find("40 rows"), std::string::npos);
  // A table per row of 64 columns would cost as much as the indices.
  EXPECT_EQ(choice_for("lut4", {21, 64}).used, Encoding::lut(4, 21));
  EXPECT_EQ(choice_for("lut8", {16, 64}).used, Encoding::lut(8, 16));
  EXPECT_EQ(choice_for("lut8", {16, 16}).used, Encoding::int_blocks(8, 16));
  EXPECT_EQ(choice_for("lut8", {3, 2}).used, Encoding::plain(EncodingKind::kF16));
  EXPECT_EQ(choice_for("lut3", {17, 5}, Role::kEmbedding).used, Encoding::lut(3, 17));
}

TEST(Quantize, LadderOfBlocks) {
  EXPECT_EQ(choice_for("int4", {3, 96}).used, Encoding::int_blocks(4, 32));
  EXPECT_EQ(choice_for("int4", {3, 48}).used, Encoding::int_blocks(4, 16));
  EXPECT_EQ(choice_for("int4", {3, 40}).used, Encoding::int_blocks(4, 8));
  EXPECT_EQ(choice_for("int4", {3, 35}).used, Encoding::int_blocks(4, 35));
  EXPECT_NE(choice_for("int4", {3, 35}).fallback.find("35 columns"), std::string::npos);
  EXPECT_EQ(choice_for("int4", {64, 1}).used, Encoding::plain(EncodingKind::kF16));
  EXPECT_EQ(choice_for("int8", {3, 35}).used, Encoding::int_blocks(8, 35));
  EXPECT_EQ(choice_for("int8", {3, 35}).fallback, "");
  EXPECT_EQ(choice_for("int8", {3, 2}).used, Encoding::plain(EncodingKind::kF16));
}

TEST(Quantize, GroupsDoNotStraddleExperts) {
  EXPECT_EQ(choice_for("lut4", {4, 32, 64}).used, Encoding::lut(4, 16));
  // 4 * 24 rows are a multiple of 16, the 24 rows of one expert are not.
  EXPECT_EQ(choice_for("lut4", {4, 24, 64}).used, Encoding::lut(4, 8));
  // No table for a whole stack: one per expert would not be aligned to its tiles.
  EXPECT_EQ(choice_for("lut8", {4, 3, 64}).used, Encoding::int_blocks(8, 64));
}

TEST(Quantize, EmptyAndVectorShapes) {
  EXPECT_EQ(choice_for("lut4", {300}).used, Encoding::plain(EncodingKind::kF16));
  EXPECT_EQ(choice_for("f32", {64, 64}).used, Encoding::plain(EncodingKind::kF32));
  EXPECT_EQ(choice_for("f32", {64}, Role::kNorm).used, Encoding::plain(EncodingKind::kF32));
  EXPECT_EQ(choice_for("f16", {64, 64}).used, Encoding::plain(EncodingKind::kF16));
  const auto empty =
      quantize(graph_with({constant_of("w", Role::kMatrix, {0, 16})}), *parse_recipe("lut4"));
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->tensors[0].used, Encoding::plain(EncodingKind::kF16));
}

TEST(Quantize, ABuiltGraphStaysValid) {
  GraphBuilder builder(ModelInfo{});
  const ValueId ids = builder.token_ids();
  const ValueId table = builder.constant(constant_of("embedding", Role::kEmbedding, {32, 64}));
  const ValueId weight = builder.constant(constant_of("w", Role::kMatrix, {32, 64}));
  const ValueId hidden = builder.add(EmbeddingOp{}, {table, ids});
  const auto graph = builder.finish(builder.linear(hidden, weight));
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  const auto quantized = quantize(*graph, *parse_recipe("lut4"));
  ASSERT_TRUE(quantized.ok());
  EXPECT_TRUE(validate(quantized->graph).ok());
  const auto before = hash_graph(*graph, nullptr), after = hash_graph(quantized->graph, nullptr);
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_NE(before->graph_hash, after->graph_hash);
  EXPECT_EQ(before->source_hash, after->source_hash);
}

}  // namespace
}  // namespace pome
