// Packages that coremltools wrote.
#include <map>
#include <set>

#include "formats/mil.h"
#include "formats/mil_samples.h"
#include "tensor/half.h"

namespace pome::mil {
namespace {

namespace fs = std::filesystem;

std::string golden_folder() { return std::string(POME_SOURCE_DIR) + "/../shared/golden/coreml"; }

std::vector<std::string> golden_packages() {
  std::vector<std::string> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(golden_folder(), error)) {
    if (entry.path().extension() == ".mlpackage") out.push_back(entry.path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

TEST(MlPackageGolden, AllParseAndComeBack) {
  const auto packages = golden_packages();
  if (packages.empty()) GTEST_SKIP() << "no packages in " << golden_folder();
  for (const std::string& path : packages) {
    const auto package = read_package(path);
    ASSERT_TRUE(package.ok()) << package.status().to_string();
    const auto bytes = serialize(package->model);
    ASSERT_TRUE(bytes.ok()) << path << ": " << bytes.status().to_string();
    const auto back = parse_model(memory_source(*bytes, "back"));
    ASSERT_TRUE(back.ok()) << back.status().to_string();
    EXPECT_TRUE(*back == package->model) << path;
    size_t blobs = 0;
    for (const Function& function : package->model.functions) {
      for (const Operation& op : function.operations) {
        for (const auto& [key, value] : op.attributes) {
          if (!std::holds_alternative<BlobRef>(value.data)) continue;
          EXPECT_TRUE(load_value(*package, value).ok());
          ++blobs;
        }
        for (const auto& [key, bindings] : op.inputs) {
          for (const Binding& binding : bindings) {
            const auto* value = std::get_if<ValueData>(&binding);
            if (value == nullptr || value->type.kind != Type::Kind::kTensor) continue;
            EXPECT_TRUE(load_value(*package, *value).ok()) << key;
            blobs += std::holds_alternative<BlobRef>(value->data) ? 1 : 0;
          }
        }
      }
    }
    EXPECT_GT(blobs, 0u) << path;
  }
}

TEST(MlPackageGolden, LlmMulti) {
  const std::string path = golden_folder() + "/llm_multi.mlpackage";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not there";
  const auto package = read_package(path);
  ASSERT_TRUE(package.ok()) << package.status().to_string();
  const Model& model = package->model;
  EXPECT_EQ(model.specification_version, 9);
  EXPECT_EQ(model.default_function, "decode");
  ASSERT_EQ(model.functions.size(), 2u);
  EXPECT_EQ(model.functions[0].name, "decode");
  EXPECT_EQ(model.functions[1].name, "prefill");
  EXPECT_EQ(model.functions[1].opset, "CoreML8");
  ASSERT_EQ(model.descriptions.size(), 2u);
  std::map<std::string, std::set<uint64_t>> offsets;
  for (const Function& function : model.functions) {
    for (const Operation& op : function.operations) {
      for (const auto& [key, value] : op.attributes) {
        if (const auto* ref = std::get_if<BlobRef>(&value.data)) {
          offsets[function.name].insert(ref->offset);
        }
      }
      for (const auto& [key, bindings] : op.inputs) {
        for (const Binding& binding : bindings) {
          const auto* value = std::get_if<ValueData>(&binding);
          const auto* ref = value ? std::get_if<BlobRef>(&value->data) : nullptr;
          if (ref) offsets[function.name].insert(ref->offset);
        }
      }
    }
  }
  EXPECT_EQ(offsets["decode"].size(), 41u);  // all records, shared by both functions
  EXPECT_EQ(offsets["decode"], offsets["prefill"]);
  for (const FunctionDescription& description : model.descriptions) {
    ASSERT_EQ(description.states.size(), 2u);
    EXPECT_EQ(description.states[0].shape, (std::vector<int64_t>{2, 1, 2, 32, 32}));
    EXPECT_EQ(description.states[0].dtype, DType::kF16);
    ASSERT_EQ(description.outputs.size(), 1u);
    EXPECT_EQ(description.outputs[0].shape[2], 128);
  }
}

TEST(MlPackageGolden, EveryPrefixOfASmallModelIsRefused) {
  const std::string path =
      golden_folder() + "/w8a8_ios18.mlpackage/Data/com.apple.CoreML/model.mlmodel";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not there";
  const auto bytes = read_raw(path);
  ASSERT_TRUE(parse_model(memory_source(bytes, "whole")).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(parse_model(memory_source({bytes.begin(), bytes.begin() + static_cast<long>(size)},
                                           "prefix"))
                     .ok())
        << size;
  }
}

}  // namespace
}  // namespace pome::mil
