// A reader of MLC packages that shares no code with pome: names and shapes are those that MLC's own
// models have, and values those that pome reads.
#include <filesystem>
#include <fstream>

#include "base/temp_folder.h"
#include "models/models.h"
#include "pipeline/convert.h"
#include "support/zoo.h"
#include "tokenizer/python_oracle.h"

namespace pome {
namespace {

void dump(const std::string& package, int64_t context, const std::string& folder) {
  const auto checkpoint = open_checkpoint(package);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  const auto graph = build_graph(*checkpoint, {context});
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  std::filesystem::create_directory(folder);
  Json index = Json::array();
  for (const Constant& constant : graph->constants) {
    if (constant.hf_name.empty()) continue;
    const ConstantData& data = *constant.data;
    std::vector<float> values(static_cast<size_t>(data.rows() * data.columns()));
    ASSERT_TRUE(data.read_f32(0, data.rows(), values.data()).ok()) << constant.name;
    const std::string file = std::to_string(index.size());
    std::ofstream(folder + "/" + file, std::ios::binary)
        .write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(float)));
    index.push_back({{"hf_name", constant.hf_name}, {"shape", data.shape()}, {"file", file}});
  }
  spit(folder + "/index.json", dump_json(index));
}

TEST(MlcOracle, PackagesHoldWhatMlcsModelsExpect) {
  POME_NEED_PYTHON("numpy");
  const TempFolder folder(true);
  Json cases = Json::array();
  std::vector<std::string> models = {test::kModels + "tales"};
  for (const std::string& name : test::zoo_names()) models.push_back(test::kZoo + name);
  for (const std::string& model : models)
    for (const char* scheme : {"q4f16_1", "q0f16", "q0f32"}) {
      ConvertOptions options;
      options.model = model;
      options.output = folder / ("package_" + std::to_string(cases.size()));
      options.target = "mlc";
      options.weights = scheme;
      const auto report = convert(options, {});
      if (report.status().code() == StatusCode::kUnsupported) continue;
      ASSERT_TRUE(report.ok()) << model << ": " << report.status().to_string();
      const std::string values = folder / ("dump_" + std::to_string(cases.size()));
      dump(options.output, report->context, values);
      cases.push_back({{"folder", options.output}, {"dump", values}});
    }
  EXPECT_GE(cases.size(), 45u);
  const Json out =
      run_python_file(POME_SOURCE_DIR "/tests/pipeline/mlc_package.py", {{"cases", cases}});
  ASSERT_TRUE(out.is_object());
  EXPECT_TRUE(out["problems"].empty()) << dump_json(out["problems"], 1).substr(0, 4000);
  EXPECT_GT(out["tensors"].get<int>(), 2000);
}

}  // namespace
}  // namespace pome
