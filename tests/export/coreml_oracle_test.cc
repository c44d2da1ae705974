// coremltools' own rules about our packages: structure, types and weights.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "export/coreml.h"
#include "export/tiny_graph.h"
#include "graph/passes.h"
#include "models/models.h"
#include "support/npy.h"

namespace pome {
namespace {

namespace fs = std::filesystem;

const std::string kShared = std::string(POME_SOURCE_DIR) + "/../shared";

std::string run(const std::string& command, int* status) {
  std::string out;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return out;
  char buffer[4096];
  while (const size_t got = fread(buffer, 1, sizeof(buffer), pipe)) out.append(buffer, got);
  *status = pclose(pipe);
  return out;
}

class CoremlOracle : public ::testing::Test {
 protected:
  void SetUp() override {
    script_ = kShared + "/oracles/coreml_check.py";
    if (!fs::exists(script_)) GTEST_SKIP() << script_ << " is not there";
    int status = 0;
    std::string out =
        run("python3 -c 'import coremltools, os; print(\"at \" + "
            "os.path.dirname(os.path.dirname(coremltools.__file__)))'",
            &status);
    const size_t at = out.rfind("at ");
    if (status != 0 || at == std::string::npos) GTEST_SKIP() << "python3 has no coremltools";
    tools_ = out.substr(at + 3);
    while (!tools_.empty() && tools_.back() == '\n') tools_.pop_back();
  }

  void check(const Graph& graph, const std::string& name, int64_t context = 24, int64_t chunk = 8,
             CoremlOptions::Caches caches = CoremlOptions::Caches::kState,
             std::map<std::string, ActivationGrid> activations = {}) {
    CoremlOptions options;
    options.activations = std::move(activations);
    options.caches = caches;
    options.places = context / 2;
    options.context = context;
    options.chunk = chunk;
    options.one_function = name.ends_with("_main");
    const std::string path = export_folder("oracle_" + name);
    WorkContext work;
    work.threads = 2;
    const auto report = export_coreml(graph, options, path, work);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    int status = 0;
    const std::string out =
        run("python3 " + script_ + " " + path + " " + tools_ + " --strict --decompress", &status);
    EXPECT_EQ(status, 0) << name << "\n" << out;
    fs::remove_all(fs::path(path).parent_path());
  }

  std::string script_, tools_;
};

TEST_F(CoremlOracle, TinyModels) {
  TinyOptions options;
  check(tiny_graph(options), "plain");
  check(tiny_graph(options), "plain_main");
  options.tied = false;
  options.bias = true;
  options.style = RopeStyle::kInterleaved;
  options.rotary_dim = 12;
  options.window = 5;
  options.encoding = Encoding::int_blocks(4, 32);
  check(tiny_graph(options), "int4_interleaved_window");
  options.softcap = 4;
  options.sinks = true;
  options.kv_heads = 1;
  options.activation = Activation::kGeluTanh;
  options.encoding = Encoding::lut(3, 16);
  check(tiny_graph(options), "lut3_sinks_softcap");
  check(decompose(tiny_graph(options)), "primitives");
}

// coremltools' own expansion of masks and vectors, number by number.
TEST_F(CoremlOracle, MasksAndVectorsExpandToWhatTheyEncode) {
  int compared = 0;
  for (const Encoding& encoding :
       {Encoding::vector_lut(3, 4, 32), Encoding::sparse(Encoding::plain(EncodingKind::kF16), 35),
        Encoding::sparse(Encoding::int_blocks(4, 32), 48),
        Encoding::sparse(Encoding::lut(3, 8), 40)}) {
    SCOPED_TRACE(to_string(encoding));
    TinyOptions tiny;
    tiny.layers = 1;
    tiny.encoding = encoding;
    const Graph graph = tiny_graph(tiny);
    CoremlOptions options;
    options.context = 24;
    options.chunk = 8;
    const std::string path = export_folder("oracle_expanded");
    ASSERT_TRUE(export_coreml(graph, options, path, {}).ok());
    const std::string folder = fs::path(path).parent_path().string() + "/values";
    int status = 0;
    const std::string out = run(
        "python3 " + script_ + " " + path + " " + tools_ + " --strict --expand " + folder, &status);
    ASSERT_EQ(status, 0) << out;
    for (const Constant& constant : graph.constants) {
      if (constant.data->encoding() != encoding) continue;
      std::string name = constant.name;
      std::replace(name.begin(), name.end(), '.', '_');
      const auto theirs = test::read_npy(folder + "/decode." + name + ".npy");
      ASSERT_TRUE(theirs) << name;
      ASSERT_EQ(theirs->shape(), constant.data->shape());
      const Tensor wide = theirs->to(DType::kF32);
      std::vector<float> ours(wide.f32().size());
      ASSERT_TRUE(constant.data->read_f32(0, constant.data->rows(), ours.data()).ok());
      for (size_t i = 0; i < ours.size(); ++i)
        ASSERT_EQ(wide.f32()[i], round_to_f16(ours[i])) << name << " " << i;
      ++compared;
    }
    fs::remove_all(fs::path(path).parent_path());
  }
  EXPECT_EQ(compared, 4 * 8);
}

TEST_F(CoremlOracle, Int8Activations) {
  TinyOptions options;
  options.bias = true;
  options.encoding = Encoding::int_blocks(8, 32);
  const Graph graph = tiny_graph(options);
  std::map<std::string, ActivationGrid> grids;
  for (const Constant& constant : graph.constants)
    grids[constant.name] = constant.name.ends_with("down.weight")
                               ? ActivationGrid{0.03125f, 40, true}
                               : ActivationGrid{0.0625f, 0, false};
  using Caches = CoremlOptions::Caches;
  check(graph, "w8a8", 24, 8, Caches::kState, grids);
  check(graph, "w8a8_step", 24, 1, Caches::kFixed, grids);
}

TEST_F(CoremlOracle, DecodeSteps) {
  TinyOptions options;
  options.bias = true;
  options.softcap = 4;
  options.sinks = true;
  using Caches = CoremlOptions::Caches;
  check(tiny_graph(options), "step_dynamic", 24, 1, Caches::kDynamic);
  options.window = 5;
  options.style = RopeStyle::kInterleaved;
  check(tiny_graph(options), "step_fixed", 24, 1, Caches::kFixed);
  for (const char* model : {"tales", "zoo/latent-kv"}) {
    const auto checkpoint = open_checkpoint(POME_SOURCE_DIR "/models/" + std::string(model));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    const auto graph = build_graph(*checkpoint);
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    for (const Caches caches : {Caches::kFixed, Caches::kDynamic})
      check(*graph, std::string("step_of_") + (model[0] == 't' ? "tales" : "latent"), 256, 1,
            caches);
  }
}

TEST_F(CoremlOracle, TalesInEveryScheme) {
  const std::string tales = kShared + "/models/tales";
  if (!fs::exists(tales)) GTEST_SKIP() << tales << " is not there";
  const auto checkpoint = open_checkpoint(tales);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  const auto graph = build_graph(*checkpoint);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  for (const char* scheme :
       {"f16", "int8", "int4", "lut8", "lut6", "lut4", "lut3", "lut2", "lut4x2", "sparse-int4"}) {
    const auto recipe = parse_recipe(scheme);
    ASSERT_TRUE(recipe.ok()) << recipe.status().to_string();
    const auto quantized = quantize(*graph, *recipe);
    ASSERT_TRUE(quantized.ok()) << quantized.status().to_string();
    check(quantized->graph, scheme, 512, 64);
  }
}

}  // namespace
}  // namespace pome
