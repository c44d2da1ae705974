// The Core ML exporter: packages read back, run like the graph they come from, and are the same
// bytes every time.
#include "export/coreml.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>

#include "export/tiny_graph.h"
#include "formats/mil.h"
#include "graph/passes.h"
#include "interp/graph_eval.h"
#include "interp/mil_eval.h"

namespace pome {
namespace {

namespace fs = std::filesystem;

CoremlOptions options_for(int64_t context = 24, int64_t chunk = 8) {
  CoremlOptions out;
  out.context = context;
  out.chunk = chunk;
  out.scheme = "test";
  out.tokenizer_digest = "digest";
  out.model_name = "tiny";
  return out;
}

WorkContext threads(int count) {
  WorkContext work;
  work.threads = count;
  return work;
}

std::vector<float> logits_of(Runner* runner, const std::vector<int32_t>& ids, size_t prompt) {
  const size_t vocab = static_cast<size_t>(runner->info().vocab_size);
  std::vector<float> out(ids.size() * vocab);
  const Status first = runner->prefill(std::span(ids).first(prompt), LogitsOf::kAll,
                                       std::span(out).first(prompt * vocab));
  EXPECT_TRUE(first.ok()) << first.to_string();
  for (size_t i = prompt; i < ids.size(); ++i) {
    const Status next = runner->decode(ids[i], std::span(out).subspan(i * vocab, vocab));
    EXPECT_TRUE(next.ok()) << next.to_string();
  }
  return out;
}

std::vector<float> package_logits(const std::string& path, const std::vector<int32_t>& ids,
                                  size_t prompt, bool round_f16) {
  MilOptions options;
  options.round_f16 = round_f16;
  auto program = MilProgram::open(path, options);
  EXPECT_TRUE(program.ok()) << program.status().to_string();
  if (!program.ok()) return {};
  auto runner = package_runner(std::shared_ptr<MilProgram>(std::move(*program)));
  EXPECT_TRUE(runner.ok()) << runner.status().to_string();
  if (!runner.ok()) return {};
  return logits_of(runner->get(), ids, prompt);
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float out = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    out = std::max(out, std::abs(a[i] - b[i]));
  }
  return out;
}

std::vector<int32_t> some_ids(int64_t vocab, size_t count) {
  std::vector<int32_t> ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>((i * 37 + 11) % vocab);
  return ids;
}

// Exports, runs 13 tokens of prompt (a whole chunk and a padded one) and 5 single ones, and
// compares with the evaluation of the graph itself.
void expect_same_logits(const Graph& graph, const std::string& name, float tolerance,
                        const CoremlOptions& options = options_for()) {
  const std::string path = export_folder(name);
  const auto report = export_coreml(graph, options, path, threads(1));
  ASSERT_TRUE(report.ok()) << name << ": " << report.status().to_string();
  const auto package = mil::read_package(path);
  ASSERT_TRUE(package.ok()) << package.status().to_string();
  const std::vector<int32_t> ids = some_ids(graph.info.vocab_size, 18);
  ReferenceOptions reference_options;
  reference_options.capacity = 24;
  auto reference = reference_runner({graph}, reference_options);
  ASSERT_TRUE(reference.ok()) << reference.status().to_string();
  const auto wanted = logits_of(reference->get(), ids, 13);
  float magnitude = 0;
  for (const float value : wanted) magnitude = std::max(magnitude, std::abs(value));
  EXPECT_GT(magnitude, 0.5f) << name;
  const float exact = largest_difference(wanted, package_logits(path, ids, 13, false));
  const float rounded = largest_difference(wanted, package_logits(path, ids, 13, true));
  EXPECT_LT(exact, tolerance) << name;
  EXPECT_LT(rounded, 8 * tolerance) << name;
  EXPECT_GT(rounded, 0.0f) << name;
}

TEST(Coreml, RunsLikeTheGraph) {
  struct Case {
    const char* name;
    TinyOptions options;
  };
  std::vector<Case> cases(9);
  cases[0] = {"plain", {}};
  cases[1].name = "bias_untied";
  cases[1].options.bias = true;
  cases[1].options.tied = false;
  cases[2].name = "interleaved";
  cases[2].options.style = RopeStyle::kInterleaved;
  cases[3].name = "partial_rotary";
  cases[3].options.rotary_dim = 12;
  cases[4].name = "partial_interleaved";
  cases[4].options.style = RopeStyle::kInterleaved;
  cases[4].options.rotary_dim = 12;
  cases[5].name = "window";
  cases[5].options.window = 5;
  cases[6].name = "softcap_scale";
  cases[6].options.softcap = 4;
  cases[6].options.scale = 0.3;
  cases[6].options.activation = Activation::kGeluTanh;
  cases[7].name = "sinks_no_groups";
  cases[7].options.sinks = true;
  cases[7].options.kv_heads = 4;
  cases[7].options.activation = Activation::kGelu;
  cases[8].name = "sinks_window_groups";
  cases[8].options.sinks = true;
  cases[8].options.kv_heads = 1;
  cases[8].options.window = 3;
  for (const Case& each : cases) expect_same_logits(tiny_graph(each.options), each.name, 5e-3f);

  // The same as a decode step with caches going in and out.
  CoremlOptions step = options_for(24, 1);
  step.places = 20;
  for (const auto caches : {CoremlOptions::Caches::kFixed, CoremlOptions::Caches::kDynamic}) {
    step.caches = caches;
    for (const Case& each : cases) {
      const bool dynamic = caches == CoremlOptions::Caches::kDynamic;
      if (dynamic && each.options.window > 0) continue;
      SCOPED_TRACE(dynamic ? "dynamic" : "fixed");
      expect_same_logits(tiny_graph(each.options), std::string(each.name) + "_step", 5e-3f, step);
    }
  }
}

// Dots cannot stand in the names of values.
TEST(Coreml, DecodeStepNamesItsCaches) {
  CoremlOptions options = options_for(24, 1);
  options.caches = CoremlOptions::Caches::kFixed;
  options.places = 8;
  for (const bool latent : {false, true}) {
    Graph graph = tiny_graph({});
    if (latent) graph.info.config["kv_latent_dim"] = int64_t{32};
    const std::string path = export_folder("step_names");
    ASSERT_TRUE(export_coreml(graph, options, path, threads(1)).ok());
    const auto package = mil::read_package(path);
    ASSERT_TRUE(package.ok()) << package.status().to_string();
    ASSERT_EQ(package->model.descriptions.size(), 1u);
    const mil::FunctionDescription& main = package->model.descriptions[0];
    EXPECT_EQ(main.name, "main");
    EXPECT_TRUE(main.states.empty());
    std::vector<std::string> in, out;
    for (const mil::Feature& feature : main.inputs) in.push_back(feature.name);
    for (const mil::Feature& feature : main.outputs) out.push_back(feature.name);
    EXPECT_EQ(in[0] + " " + in[1] + " " + in[2], "input_ids position_ids causal_mask");
    EXPECT_EQ(in[5], latent ? "k_lat_1" : "past_key_values_1_key");
    EXPECT_EQ(out[0], "logits");
    EXPECT_EQ(out[4], latent ? "nv_lat_1" : "present_1_value");
    EXPECT_EQ(main.inputs[3].shape, (std::vector<int64_t>{1, 2, 8, 32}));
    EXPECT_EQ(main.inputs[3].shape, main.outputs[1].shape);
    EXPECT_EQ(main.inputs[2].shape, (std::vector<int64_t>{1, 1, 1, 8}));
    fs::remove_all(fs::path(path).parent_path());
  }
}

// Sizes that a call decides: the package says how far they go.
TEST(Coreml, DynamicCachesSayTheirRange) {
  CoremlOptions options = options_for(24, 1);
  options.caches = CoremlOptions::Caches::kDynamic;
  const std::string path = export_folder("step_dynamic");
  ASSERT_TRUE(export_coreml(tiny_graph({}), options, path, threads(1)).ok());
  const auto package = mil::read_package(path);
  ASSERT_TRUE(package.ok()) << package.status().to_string();
  const mil::FunctionDescription& main = package->model.descriptions[0];
  ASSERT_EQ(main.inputs.size(), 6u);
  EXPECT_EQ(main.inputs[2].ranges,
            (std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 2}, {0, 23}, {32, 32}}));
  EXPECT_TRUE(main.inputs[0].ranges.empty());
  EXPECT_TRUE(main.outputs[1].shape.empty());
  EXPECT_EQ(main.outputs[0].shape.size(), 3u);
  fs::remove_all(fs::path(path).parent_path());

  TinyOptions windows;
  windows.window = 4;
  const auto refused =
      export_coreml(tiny_graph(windows), options, export_folder("step_window"), threads(1));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(refused.status().to_string().find("--cache fixed"), std::string::npos);
}

TEST(Coreml, EveryEncodingRunsLikeTheGraph) {
  const std::vector<std::pair<const char*, Encoding>> encodings = {
      {"f32", Encoding::plain(EncodingKind::kF32)},
      {"int8", Encoding::int_blocks(8, 32)},
      {"int4", Encoding::int_blocks(4, 32)},
      {"lut8", Encoding::lut(8, 32)},
      {"lut6", Encoding::lut(6, 16)},
      {"lut4", Encoding::lut(4, 16)},
      {"lut3", Encoding::lut(3, 16)},
      {"lut2", Encoding::lut(2, 8)},
      {"lut1", Encoding::lut(1, 8)},
      {"lut4x2", Encoding::vector_lut(4, 2, 16)},
      {"lut6x4", Encoding::vector_lut(6, 4, 32)},
      {"sparse_f16", Encoding::sparse(Encoding::plain(EncodingKind::kF16), 35)},
      {"sparse_int4", Encoding::sparse(Encoding::int_blocks(4, 32), 48)},
      {"sparse_int8", Encoding::sparse(Encoding::int_blocks(8, 32), 41)},
      {"sparse_lut4", Encoding::sparse(Encoding::lut(4, 16), 48)},
      {"sparse_lut3", Encoding::sparse(Encoding::lut(3, 8), 40)}};
  for (const auto& [name, encoding] : encodings) {
    TinyOptions options;
    options.encoding = encoding;
    expect_same_logits(tiny_graph(options), std::string("encoding_") + name, 5e-3f);
  }
}

// The lowering of every primitive: the same model after its composites were taken apart. The mask
// and the angles are then made of iota, comparisons, select, sin and cos.
TEST(Coreml, PrimitivesRunLikeTheGraph) {
  TinyOptions options;
  options.rotary_dim = 12;
  options.window = 5;
  expect_same_logits(decompose(tiny_graph(options)), "primitives", 2e-2f);
  TinyOptions others;
  others.style = RopeStyle::kInterleaved;
  others.softcap = 4;
  others.sinks = true;
  others.bias = true;
  others.activation = Activation::kGelu;
  expect_same_logits(decompose(tiny_graph(others)), "primitives_others", 2e-2f);
}

std::map<std::string, std::string> contents(const std::string& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    out[fs::relative(entry.path(), folder).string()] =
        std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  }
  return out;
}

TEST(Coreml, BytesDependOnNothingButTheGraph) {
  TinyOptions options;
  options.encoding = Encoding::lut(4, 16);
  options.vocab = 4000;  // several tiles
  const Graph graph = tiny_graph(options);
  const std::string a = export_folder("bytes_a"), b = export_folder("bytes_b");
  const auto first = export_coreml(graph, options_for(), a, threads(1));
  ASSERT_TRUE(first.ok()) << first.status().to_string();
  EXPECT_EQ(contents(a).size(), 3u);
  for (const int count : {1, 2, 8}) {
    fs::remove_all(b);
    ASSERT_TRUE(export_coreml(graph, options_for(), b, threads(count)).ok());
    EXPECT_TRUE(contents(a) == contents(b)) << count;
  }
  // The hashes are those of the graph module, and the source does not depend on the encoding.
  const auto hashes = hash_graph(graph, nullptr);
  ASSERT_TRUE(hashes.ok());
  EXPECT_EQ(first->hashes.graph_hash, hashes->graph_hash);
  EXPECT_EQ(first->hashes.source_hash, hashes->source_hash);
  options.encoding = Encoding::plain(EncodingKind::kF16);
  const auto plain =
      export_coreml(tiny_graph(options), options_for(), export_folder("bytes_c"), threads(2));
  ASSERT_TRUE(plain.ok());
  EXPECT_NE(plain->hashes.graph_hash, first->hashes.graph_hash);
  EXPECT_EQ(plain->hashes.source_hash, first->hashes.source_hash);
}

TEST(Coreml, PackageSaysWhatItIs) {
  TinyOptions options;
  options.encoding = Encoding::int_blocks(4, 32);
  const std::string path = export_folder("says");
  const auto report = export_coreml(tiny_graph(options), options_for(), path, threads(1));
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto package = mil::read_package(path);
  ASSERT_TRUE(package.ok()) << package.status().to_string();
  const mil::Model& model = package->model;
  EXPECT_EQ(model.default_function, "decode");
  ASSERT_EQ(model.functions.size(), 2u);
  EXPECT_EQ(model.user_metadata.at("pome.graph_hash"), report->hashes.graph_hash);
  EXPECT_EQ(model.user_metadata.at("pome.context"), "24");
  EXPECT_EQ(model.user_metadata.at("pome.chunk"), "8");
  EXPECT_EQ(model.user_metadata.at("pome.tokenizer_digest"), "digest");
  EXPECT_NE(model.user_metadata.at("pome.config").find("\"rope_theta\":100"), std::string::npos);
  for (const mil::FunctionDescription& description : model.descriptions) {
    const int64_t tokens = description.name == "prefill" ? 8 : 1;
    ASSERT_EQ(description.inputs.size(), 3u);
    EXPECT_EQ(description.inputs[0].shape, (std::vector<int64_t>{1, tokens}));
    EXPECT_EQ(description.inputs[2].shape, (std::vector<int64_t>{1, 1, tokens, 24}));
    ASSERT_EQ(description.states.size(), 2u);
    EXPECT_EQ(description.states[0].shape, (std::vector<int64_t>{2, 1, 2, 24, 32}));
    EXPECT_EQ(description.outputs[0].shape, (std::vector<int64_t>{1, tokens, 96}));
  }
  // Matrices: 96*64 + 2 * (128*64 + 2*64*64 + 64*128 + 3*96*64); norms: 5 * 64.
  EXPECT_EQ(report->parameters,
            96 * 64 + 2 * (128 * 64 + 2 * 64 * 64 + 64 * 128 + 3 * 96 * 64) + 320);
  EXPECT_NEAR(report->bits_per_weight, 4.5, 0.1);
  uint64_t size = 0;
  for (const auto& [name, bytes] : contents(path)) size += bytes.size();
  EXPECT_EQ(report->bytes, size);
  EXPECT_FALSE(report->tensors.empty());
  EXPECT_EQ(report->tensors[0].name, "embed.weight");
  EXPECT_EQ(report->tensors[0].size, 96u * 64 / 2);
}

TEST(Coreml, OneFunction) {
  CoremlOptions options = options_for();
  options.one_function = true;
  const std::string path = export_folder("one");
  ASSERT_TRUE(export_coreml(tiny_graph({}), options, path, threads(1)).ok());
  const auto package = mil::read_package(path);
  ASSERT_TRUE(package.ok()) << package.status().to_string();
  ASSERT_EQ(package->model.functions.size(), 1u);
  EXPECT_EQ(package->model.functions[0].name, "main");
  EXPECT_TRUE(package->model.default_function.empty());
  const auto two = export_folder("one_two");
  ASSERT_TRUE(export_coreml(tiny_graph({}), options_for(), two, threads(1)).ok());
  const auto ids = some_ids(96, 12);
  EXPECT_LT(
      largest_difference(package_logits(path, ids, 9, false), package_logits(two, ids, 9, false)),
      1e-4f);
}

// x^2 of what fp16 can hold does not fit fp16; x / sqrt(mean(x^2) + epsilon) always does.
TEST(Coreml, RmsNormHoldsTheWholeRange) {
  const int64_t dim = 48;
  for (const double epsilon : {1e-6, 1e-5, 1e-3}) {
    std::vector<std::vector<float>> rows;
    std::mt19937 rng(3);
    std::normal_distribution<float> normal;
    for (const float spread : {65504.0f / 4, 300.0f, 1.0f, 0.01f, 1e-4f, 1e-6f}) {
      rows.emplace_back();
      for (int64_t i = 0; i < dim; ++i) {
        rows.back().push_back(round_to_f16(std::clamp(normal(rng) * spread, -65504.0f, 65504.0f)));
      }
    }
    rows.push_back(std::vector<float>(static_cast<size_t>(dim), 65504.0f));
    rows.push_back(std::vector<float>(static_cast<size_t>(dim), 0.0f));
    rows.push_back(std::vector<float>(static_cast<size_t>(dim), 0.03125f));  // one far outlier
    rows.back()[5] = -65504.0f;
    std::vector<float> table;
    for (const auto& row : rows) table.insert(table.end(), row.begin(), row.end());

    GraphBuilder b(ModelInfo{});
    Constant embedding, gain;
    embedding.name = "table";
    embedding.role = Constant::Role::kEmbedding;
    embedding.data =
        inline_constant(Tensor::from_f32({static_cast<int64_t>(rows.size()), dim}, table));
    gain.name = "gain";
    gain.role = Constant::Role::kNorm;
    gain.data = inline_constant(
        Tensor::from_f32({dim}, std::vector<float>(static_cast<size_t>(dim), 1.5f)));
    const ValueId x = b.add(EmbeddingOp{}, {b.constant(embedding), b.token_ids()}, "x");
    const auto graph = b.finish(b.add(RmsNormOp{epsilon}, {x, b.constant(gain)}, "norm"));
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    const std::string path = export_folder("norm");
    const int64_t count = static_cast<int64_t>(rows.size());
    const auto report = export_coreml(*graph, options_for(count, count), path, threads(1));
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    MilOptions options;
    options.round_f16 = true;
    auto program = MilProgram::open(path, options);
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    std::vector<int32_t> ids(rows.size());
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
    NamedTensors states;
    const auto out =
        (*program)->run("prefill",
                        {{"input_ids", Tensor::from_i32({1, count}, ids)},
                         {"position", Tensor::from_i32({1}, {0})},
                         {"causal_mask", Tensor::zeros(DType::kF32, {1, 1, count, count})}},
                        &states);
    ASSERT_TRUE(out.ok()) << out.status().to_string();
    const auto got = out->front().second.to(DType::kF32);
    for (size_t r = 0; r < rows.size(); ++r) {
      double mean = 0;
      for (const float value : rows[r]) mean += static_cast<double>(value) * value / dim;
      const double factor = 1.5 / std::sqrt(mean + epsilon);
      for (size_t i = 0; i < rows[r].size(); ++i) {
        const double wanted = rows[r][i] * factor;
        const double value = got.f32()[r * static_cast<size_t>(dim) + i];
        // A handful of roundings of 2^-11 each; what is below 1e-3 of the largest value may lose
        // bits to the smallest numbers of fp16.
        EXPECT_NEAR(value, wanted, std::abs(wanted) * 4e-3 + 1e-6) << "row " << r << ", " << i;
      }
    }
  }
}

// A position table is gathered at position .. position + T - 1; the norm is one operation.
TEST(Coreml, LayerNormAndLearnedPositions) {
  const int64_t dim = 24, rows = 16, tokens = 4;
  std::mt19937 rng(4);
  std::normal_distribution<float> normal;
  const auto values = [&](int64_t count) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& value : out) value = round_to_f16(normal(rng));
    return out;
  };
  const std::vector<float> table = values(rows * dim), positions = values(rows * dim),
                           gain = values(dim), bias = values(dim);
  for (const bool has_bias : {true, false}) {
    GraphBuilder b(ModelInfo{});
    const auto matrix = [&](const char* name, const std::vector<float>& of) {
      Constant out;
      out.name = name;
      out.data = inline_constant(Tensor::from_f32({rows, dim}, of));
      return b.constant(out);
    };
    const ValueId ids = b.token_ids(), position = b.position();
    const ValueId at = b.binary(BinaryKind::kAdd, b.add(IotaOp{Symbol::kTokens}, {}), position);
    const ValueId x =
        b.binary(BinaryKind::kAdd, b.add(EmbeddingOp{}, {matrix("table", table), ids}),
                 b.add(GatherOp{}, {matrix("positions", positions), at}));
    const auto graph = b.finish(
        b.add(LayerNormOp{0.01},
              {x, b.vector("gain", gain), has_bias ? b.vector("bias", bias) : kNoValue}, "norm"));
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    const std::string path = export_folder("layer_norm");
    const auto report = export_coreml(*graph, options_for(rows, tokens), path, threads(1));
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    auto program = MilProgram::open(path, MilOptions{});
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    NamedTensors states;
    const std::vector<int32_t> some = {3, 0, 15, 7};
    const auto out =
        (*program)->run("prefill",
                        {{"input_ids", Tensor::from_i32({1, tokens}, some)},
                         {"position", Tensor::from_i32({1}, {8})},
                         {"causal_mask", Tensor::zeros(DType::kF32, {1, 1, tokens, rows})}},
                        &states);
    ASSERT_TRUE(out.ok()) << out.status().to_string();
    const auto got = out->front().second.to(DType::kF32);
    for (size_t t = 0; t < some.size(); ++t) {
      std::vector<double> row;
      for (size_t i = 0; i < static_cast<size_t>(dim); ++i)
        row.push_back(static_cast<double>(table[static_cast<size_t>(some[t] * dim) + i]) +
                      positions[(8 + t) * static_cast<size_t>(dim) + i]);
      double mean = 0, variance = 0;
      for (const double value : row) mean += value / static_cast<double>(dim);
      for (const double value : row)
        variance += (value - mean) * (value - mean) / static_cast<double>(dim);
      for (size_t i = 0; i < row.size(); ++i) {
        const double wanted = (row[i] - mean) / std::sqrt(variance + 0.01) * gain[i] +
                              (has_bias ? static_cast<double>(bias[i]) : 0.0);
        EXPECT_NEAR(got.f32()[t * row.size() + i], wanted, 2e-3) << t << ", " << i;
      }
    }
  }
}

// ---- refusals

TEST(Coreml, RefusesWhatItCannotLower) {
  const Graph good = tiny_graph({});
  const auto refused = [](const Graph& graph, const CoremlOptions& options) {
    const std::string path = export_folder("refused");
    const Status status = export_coreml(graph, options, path, threads(1)).status();
    EXPECT_FALSE(fs::exists(path)) << "nothing may be written";
    return status;
  };
  EXPECT_EQ(refused(good, options_for(24, 7)).code(), StatusCode::kUsage);
  EXPECT_EQ(refused(good, options_for(0, 0)).code(), StatusCode::kUsage);
  EXPECT_EQ(refused(good, options_for(8, 16)).code(), StatusCode::kUsage);

  GraphBuilder b(ModelInfo{});
  const ValueId ids = b.token_ids();
  Constant table;
  table.name = "table";
  // More values to choose from than sums of ones in fp16 can count.
  table.data = inline_constant(Tensor::from_f32({4, 2049}, std::vector<float>(4 * 2049, 1.0f)));
  const ValueId x = b.add(EmbeddingOp{}, {b.constant(table), ids}, "x");
  const ValueId top = b.add(TopKMaskOp{2}, {x}, "top");
  const auto graph = b.finish(b.add(SelectOp{}, {top, x, b.scalar(0)}, "chosen"));
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  const Status status = refused(*graph, options_for());
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_NE(status.to_string().find("topk_mask"), std::string::npos) << status.to_string();
  EXPECT_NE(status.to_string().find("top"), std::string::npos) << status.to_string();

  Graph uneven = good;
  for (const CachePair& pair : uneven.caches) {
    if (pair.layer == 1) {
      uneven.values[static_cast<size_t>(pair.input)].type.shape[1] = Dim(1);
    }
  }
  EXPECT_FALSE(export_coreml(uneven, options_for(), export_folder("uneven"), threads(1)).ok());
}

TEST(Coreml, RefusesWeightsBeyondFp16) {
  for (const float bad : {65520.0f, -1e30f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    for (const EncodingKind kind : {EncodingKind::kF32, EncodingKind::kF16}) {
      GraphBuilder b(ModelInfo{});
      Constant table;
      table.name = "table";
      table.hf_name = "model.embed_tokens.weight";
      std::vector<float> values(60, 0.5f);
      values[37] = bad;
      table.data = inline_constant(Tensor::from_f32({10, 6}, values));
      if (kind == EncodingKind::kF16)
        table.data = encoded_constant(table.data, Encoding::plain(kind));
      const ValueId x = b.add(EmbeddingOp{}, {b.constant(table), b.token_ids()}, "x");
      const auto graph = b.finish(b.unary(UnaryKind::kNeg, x));
      ASSERT_TRUE(graph.ok());
      const Status status =
          export_coreml(*graph, options_for(), export_folder("beyond"), threads(1)).status();
      EXPECT_EQ(status.code(), StatusCode::kBadInput) << bad;
      if (kind == EncodingKind::kF32) {
        EXPECT_NE(status.to_string().find("model.embed_tokens.weight"), std::string::npos);
        EXPECT_NE(status.to_string().find("[6, 1]"), std::string::npos) << status.to_string();
      }
    }
  }
}

TEST(Coreml, ReportsProgressAndStops) {
  struct Watch : Progress {
    void begin(std::string_view, uint64_t bytes, std::string_view) override { total = bytes; }
    void advance(uint64_t now) override {
      EXPECT_GE(now, done);
      done = now;
      ++calls;
      if (cancel) cancel->cancel();
    }
    void end() override { ended = true; }
    uint64_t total = 0, done = 0;
    int calls = 0;
    bool ended = false;
    CancelToken* cancel = nullptr;
  };
  TinyOptions options;
  options.encoding = Encoding::int_blocks(8, 32);
  const Graph graph = tiny_graph(options);
  Watch watch;
  WorkContext work = threads(2);
  work.progress = &watch;
  ASSERT_TRUE(export_coreml(graph, options_for(), export_folder("progress"), work).ok());
  EXPECT_EQ(watch.done, watch.total);
  EXPECT_GT(watch.calls, 10);
  EXPECT_TRUE(watch.ended);
  Watch stops;
  CancelToken cancel;
  stops.cancel = &cancel;
  work.progress = &stops;
  work.cancel = &cancel;
  const auto stopped = export_coreml(graph, options_for(), export_folder("stopped"), work);
  EXPECT_EQ(stopped.status().code(), StatusCode::kInterrupted);
}

}  // namespace
}  // namespace pome
