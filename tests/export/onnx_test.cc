// ONNX models of tiny graphs: executed from disk against the graph's own evaluator, in every
// profile and encoding.
#include "export/onnx.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>

#include "export/tiny_graph.h"
#include "interp/graph_eval.h"
#include "interp/onnx_eval.h"

namespace pome {
namespace {

using Profile = OnnxOptions::Profile;

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string folder_for(const std::string& name) {
  return std::filesystem::path(export_folder(name)).parent_path().string();
}

std::vector<float> logits_of(Runner& runner, const std::vector<int32_t>& ids, size_t prompt) {
  const size_t vocab = static_cast<size_t>(runner.info().vocab_size);
  std::vector<float> out(ids.size() * vocab);
  EXPECT_TRUE(runner
                  .prefill(std::span(ids).first(prompt), LogitsOf::kAll,
                           std::span(out).first(prompt * vocab))
                  .ok());
  for (size_t i = prompt; i < ids.size(); ++i)
    EXPECT_TRUE(runner.decode(ids[i], std::span(out).subspan(i * vocab, vocab)).ok());
  return out;
}

class OnnxTest : public ::testing::Test {
 protected:
  // Largest difference between the model on disk and the graph. Names of operators that must be
  // there are `wanted`.
  double difference(const Graph& graph, Profile profile, const std::vector<std::string>& wanted,
                    bool logits_only = false, bool explicit_kv = false) {
    OnnxOptions options;
    options.profile = profile;
    options.logits_only = logits_only;
    options.explicit_kv = explicit_kv;
    options.context = 32;
    const std::string folder = folder_for("onnx");
    WorkContext work;
    work.threads = 2;
    const auto report = export_onnx(graph, options, folder, work);
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    if (!report.ok()) return HUGE_VAL;
    auto program = OnnxProgram::open(folder + "/" + kOnnxModel, {2});
    EXPECT_TRUE(program.ok()) << program.status().to_string();
    if (!program.ok()) return HUGE_VAL;
    const std::shared_ptr<OnnxProgram> shared = std::move(*program);
    for (const std::string& type : wanted) {
      const auto& nodes = shared->model().graph.nodes;
      EXPECT_TRUE(std::any_of(nodes.begin(), nodes.end(), [&](const onnx::Node& node) {
        return node.op_type == type;
      })) << type;
    }
    if (profile == Profile::kPlain) {
      EXPECT_EQ(shared->model().opsets.size(), 1u);
    }
    auto runner = onnx_runner(shared);
    auto reference = reference_runner({graph}, {2, 32});
    EXPECT_TRUE(runner.ok() && reference.ok());
    if (!runner.ok() || !reference.ok()) return HUGE_VAL;
    const std::vector<int32_t> ids = {5, 17, 3, 90, 41, 8, 8, 63, 2, 77, 30, 12};
    const auto a = logits_of(**runner, ids, 7), b = logits_of(**reference, ids, 7);
    // Forgetting and going on gives the same again.
    EXPECT_TRUE((*runner)->truncate(7).ok());
    std::vector<float> again(static_cast<size_t>((*runner)->info().vocab_size));
    EXPECT_TRUE((*runner)->decode(ids[7], again).ok());
    double largest = 0;
    for (size_t i = 0; i < a.size(); ++i)
      largest = std::max(largest, static_cast<double>(std::fabs(a[i] - b[i])));
    for (size_t i = 0; i < again.size(); ++i)
      largest =
          std::max(largest, static_cast<double>(std::fabs(again[i] - b[7 * again.size() + i])));
    std::filesystem::remove_all(folder);
    return largest;
  }
};

TEST_F(OnnxTest, EveryEncodingInBothProfiles) {
  for (const Encoding& encoding :
       {Encoding::plain(EncodingKind::kF32), Encoding::plain(EncodingKind::kF16),
        Encoding::int_blocks(8, 32), Encoding::int_blocks(8, 64), Encoding::int_blocks(4, 32),
        Encoding::int_blocks(4, 16), Encoding::int_blocks(4, 8)}) {
    SCOPED_TRACE(to_string(encoding));
    TinyOptions tiny;
    tiny.encoding = encoding;
    tiny.ffn = 64;
    const bool blocks = encoding.kind == EncodingKind::kInt && encoding.block >= 16;
    std::vector<std::string> ort = {"GroupQueryAttention", "SkipSimplifiedLayerNormalization"};
    if (blocks) ort.insert(ort.end(), {"MatMulNBits", "GatherBlockQuantized"});
    EXPECT_LT(difference(tiny_graph(tiny), Profile::kOrt, ort), 2e-5);
    EXPECT_LT(difference(tiny_graph(tiny), Profile::kPlain, {"Softmax", "MatMul"}), 2e-5);
  }
}

TEST_F(OnnxTest, FormsOfAttention) {
  for (const Profile profile : {Profile::kOrt, Profile::kPlain}) {
    TinyOptions tiny;
    tiny.style = RopeStyle::kInterleaved;
    tiny.window = 4;
    tiny.softcap = 3;
    tiny.sinks = true;
    tiny.bias = true;
    tiny.tied = false;
    tiny.activation = Activation::kGeluTanh;
    EXPECT_LT(difference(tiny_graph(tiny), profile, {}), 2e-5);
    tiny.rotary_dim = 12;  // no form in GroupQueryAttention: rotations of their own
    tiny.kv_heads = 4;
    EXPECT_LT(difference(tiny_graph(tiny), profile, {}), 2e-5);
    tiny.activation = Activation::kGelu;
    EXPECT_LT(difference(tiny_graph(tiny), profile, {}, true), 2e-5);
  }
}

TEST_F(OnnxTest, ExpertsAsOneOperatorAndAsAllOfThem) {
  TinyOptions tiny;
  tiny.encoding = Encoding::int_blocks(4, 32);
  tiny.experts = 5;
  const auto both = [&](const std::string& ort) {
    EXPECT_LT(difference(tiny_graph(tiny), Profile::kOrt, {ort}), 2e-5);
    EXPECT_LT(difference(tiny_graph(tiny), Profile::kPlain, {"OneHot"}), 2e-5);
  };
  both("QMoE");
  tiny.expert_bias = true;
  both("QMoE");
  tiny.moe = {true, Activation::kSilu, 1.702, 0.4, 1};
  both("QMoE");
  for (const Activation activation :
       {Activation::kSilu, Activation::kRelu, Activation::kGeluTanh}) {
    tiny.moe = {false, activation};
    both("QMoE");
  }
  // What QMoE cannot say: other functions, 8 bits (its kernel rounds activations), wide blocks.
  tiny.moe = {false, Activation::kGelu};
  both("OneHot");
  tiny.moe = {true, Activation::kGeluTanh};
  both("OneHot");
  tiny.moe = {};
  tiny.encoding = Encoding::int_blocks(8, 32);
  both("OneHot");
  tiny.encoding = Encoding::int_blocks(4, 8);
  both("OneHot");
}

// One token at a stated position; what the caches hold is all that it sees.
TEST_F(OnnxTest, DecodeStep) {
  for (const Profile profile : {Profile::kOrt, Profile::kPlain}) {
    TinyOptions tiny;
    const std::vector<std::string> ort = {"GroupQueryAttention"};
    EXPECT_LT(difference(tiny_graph(tiny), profile,
                         profile == Profile::kOrt ? ort : std::vector<std::string>(), false, true),
              2e-5);
    tiny.window = 4;
    tiny.softcap = 3;
    tiny.sinks = true;
    tiny.style = RopeStyle::kInterleaved;
    EXPECT_LT(difference(tiny_graph(tiny), profile, {}, false, true), 2e-5);
    tiny.kv_heads = 4;
    tiny.rotary_dim = 12;
    EXPECT_LT(difference(tiny_graph(tiny), profile, {}, false, true), 2e-5);
  }
}

TEST_F(OnnxTest, DecodeStepNamesItsCaches) {
  for (const bool latent : {false, true}) {
    Graph graph = tiny_graph({});
    if (latent) graph.info.config["kv_latent_dim"] = int64_t{32};
    OnnxOptions options;
    options.explicit_kv = true;
    options.context = 32;
    const std::string folder = folder_for("onnx_step");
    ASSERT_TRUE(export_onnx(graph, options, folder, {}).ok());
    const auto package = onnx::read_package(folder + "/" + kOnnxModel);
    ASSERT_TRUE(package.ok()) << package.status().to_string();
    std::vector<std::string> in, out;
    for (const onnx::ValueInfo& value : package->model.graph.inputs) {
      in.push_back(value.name);
      EXPECT_EQ(value.dims[0].size, 1);
      EXPECT_EQ(value.dims.size() == 4 ? value.dims[2].size : value.dims[1].size,
                value.dims.size() == 4 ? -1 : 1);
    }
    for (const onnx::ValueInfo& value : package->model.graph.outputs) out.push_back(value.name);
    const std::vector<std::string> start = {"input_ids", "position_ids"};
    std::vector<std::string> wanted = start, given = {"logits"};
    for (const std::string layer : {"0", "1"}) {
      if (latent) {
        wanted.insert(wanted.end(), {"k_lat_" + layer, "v_lat_" + layer});
        given.insert(given.end(), {"nk_lat_" + layer, "nv_lat_" + layer});
      } else {
        wanted.insert(wanted.end(),
                      {"past_key_values." + layer + ".key", "past_key_values." + layer + ".value"});
        given.insert(given.end(), {"present." + layer + ".key", "present." + layer + ".value"});
      }
    }
    EXPECT_EQ(in, wanted);
    EXPECT_EQ(out, given);
    EXPECT_EQ(package->model.metadata.at("pome.kv"), "explicit");
    std::filesystem::remove_all(folder);
  }
}

TEST_F(OnnxTest, TheSameBytesForEveryNumberOfThreads) {
  TinyOptions tiny;
  tiny.encoding = Encoding::int_blocks(4, 32);
  tiny.experts = 4;
  for (const Profile profile : {Profile::kOrt, Profile::kPlain}) {
    std::string first;
    for (const int threads : {1, 1, 2, 8}) {
      const std::string folder = folder_for("onnx_threads");
      OnnxOptions options;
      options.profile = profile;
      options.context = 32;
      WorkContext work;
      work.threads = threads;
      ASSERT_TRUE(export_onnx(tiny_graph(tiny), options, folder, work).ok());
      const std::string all =
          bytes_of(folder + "/" + kOnnxModel) + bytes_of(folder + "/" + kOnnxData);
      if (first.empty()) first = all;
      EXPECT_TRUE(all == first);
      std::filesystem::remove_all(folder);
    }
  }
}

// What MatMulNBits holds is what the encoder finds again in the decoded weight.
TEST_F(OnnxTest, RequantisingWhatIsStoredLosesNothing) {
  for (const Encoding& encoding : {Encoding::int_blocks(4, 32), Encoding::int_blocks(8, 32),
                                   Encoding::int_blocks(8, 64), Encoding::int_blocks(4, 16)}) {
    TinyOptions tiny;
    tiny.encoding = encoding;
    tiny.ffn = 64;
    OnnxOptions options;
    options.profile = Profile::kOrt;
    options.context = 32;
    const std::string folder = folder_for("onnx_again");
    ASSERT_TRUE(export_onnx(tiny_graph(tiny), options, folder, {}).ok());
    auto program = OnnxProgram::open(folder + "/" + kOnnxModel, {});
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    for (const char* name : {"layers.0.q.weight", "layers.1.down.weight"}) {
      const auto weight = (*program)->weight(name);
      ASSERT_TRUE(weight.ok() && weight->defined()) << name;
      const std::vector<float> stored(weight->f32().begin(), weight->f32().end());
      std::vector<float> again(stored.size());
      const ConstantDataPtr data = encoded_constant(inline_constant(*weight), encoding);
      ASSERT_TRUE(data->read_f32(0, data->rows(), again.data()).ok());
      EXPECT_EQ(again, stored) << to_string(encoding) << " " << name;
    }
    std::filesystem::remove_all(folder);
  }
}

// Other writers store a last block that is not full; ours takes a block that divides the columns.
TEST_F(OnnxTest, TheLastBlockOfMatMulNBitsMayBeRagged) {
  constexpr int64_t kRows = 3;
  std::mt19937 random(9);
  for (const int64_t bits : {4, 8})
    for (const int64_t columns : {1, 15, 33, 40, 47, 48})
      for (const bool zeros : {false, true}) {
        SCOPED_TRACE(testing::Message() << bits << " bits, " << columns << " columns" << zeros);
        constexpr int64_t kBlock = 16;
        const int64_t blocks = (columns + kBlock - 1) / kBlock, codes = int64_t{1} << bits;
        const auto count = static_cast<size_t>(kRows * blocks * kBlock);
        std::vector<uint8_t> stored(count);  // what lies behind the columns is not zero
        for (uint8_t& code : stored) code = static_cast<uint8_t>(random() % codes);
        std::vector<float> scales(static_cast<size_t>(kRows * blocks));
        for (float& scale : scales) scale = static_cast<float>(random() % 64 + 1) / 64;
        // A zero for each block, packed row by row as the codes are.
        std::vector<uint8_t> zero_codes(scales.size(), static_cast<uint8_t>(codes / 2));
        for (uint8_t& zero : zero_codes)
          if (zeros) zero = static_cast<uint8_t>(random() % codes);
        const auto packed = [&](const std::vector<uint8_t>& in) {
          const size_t width = in.size() / kRows,
                       bytes = (width * static_cast<size_t>(bits) + 7) / 8;
          std::vector<std::byte> out(kRows * bytes);
          for (size_t row = 0; row < kRows; ++row)
            pack_bits(std::span(in).subspan(row * width, width), static_cast<int>(bits),
                      std::span(out).subspan(row * bytes, bytes));
          return out;
        };
        onnx::Package package;
        package.model.ir_version = 10;
        package.model.opsets = {{"", 21}, {std::string(onnx::kMicrosoft), 1}};
        onnx::Graph& graph = package.model.graph;
        graph.inputs = {{"x", DType::kF32, {{columns, ""}, {columns, ""}}}};
        graph.outputs = {{"y", DType::kF32, {{columns, ""}, {kRows, ""}}}};
        onnx::TensorData b{"b", DType::kU8, {kRows, blocks, kBlock * bits / 8}, packed(stored), {}};
        graph.initializers = {b, onnx::TensorData::f32s("s", {kRows, blocks}, scales)};
        onnx::Node node;
        node.op_type = "MatMulNBits";
        node.domain = onnx::kMicrosoft;
        node.inputs = {"x", "b", "s"};
        node.outputs = {"y"};
        node.attributes = {{"K", columns}, {"N", kRows}, {"bits", bits}, {"block_size", kBlock}};
        if (zeros) {
          const auto bytes = packed(zero_codes);
          graph.initializers.push_back(
              {"z", DType::kU8, {static_cast<int64_t>(bytes.size())}, bytes, {}});
          node.inputs.push_back("z");
        }
        graph.nodes = {node};
        auto program = OnnxProgram::create(std::move(package), {});
        ASSERT_TRUE(program.ok()) << program.status().to_string();
        // Of the unit matrix: the columns of the weight.
        std::vector<float> unit(static_cast<size_t>(columns * columns));
        for (int64_t i = 0; i < columns; ++i) unit[static_cast<size_t>(i * (columns + 1))] = 1;
        const auto result =
            (*program)->run({{"x", Tensor::from_f32({columns, columns}, std::move(unit))}});
        ASSERT_TRUE(result.ok()) << result.status().to_string();
        const Tensor& y = result->at(0).second;
        ASSERT_EQ(y.shape(), (Shape{columns, kRows}));
        for (int64_t c = 0; c < columns; ++c)
          for (int64_t r = 0; r < kRows; ++r) {
            const auto block = static_cast<size_t>(r * blocks + c / kBlock);
            const int code = stored[static_cast<size_t>(r * blocks * kBlock + c)];
            EXPECT_EQ(y.f32()[static_cast<size_t>(c * kRows + r)],
                      static_cast<float>(code - zero_codes[block]) * scales[block]);
          }
      }
}

TEST_F(OnnxTest, RefusesWhatOnnxCannotSay) {
  TinyOptions tiny;
  tiny.encoding = Encoding::lut(4, 16);
  OnnxOptions options;
  options.context = 32;
  const auto palettes = export_onnx(tiny_graph(tiny), options, folder_for("onnx_lut"), {});
  ASSERT_FALSE(palettes.ok());
  EXPECT_EQ(palettes.status().code(), StatusCode::kUnsupported);
  options.context = 0;
  tiny.encoding = Encoding::plain(EncodingKind::kF32);
  const auto nothing = export_onnx(tiny_graph(tiny), options, folder_for("onnx_context"), {});
  ASSERT_FALSE(nothing.ok());
  EXPECT_EQ(nothing.status().code(), StatusCode::kUsage);
}

}  // namespace
}  // namespace pome
