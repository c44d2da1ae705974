// Small packages that the tests of the ML Program format take apart.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "formats/mil.h"

namespace pome::mil {

inline std::string temp_folder(const std::string& name) {
  const auto path = std::filesystem::path(::testing::TempDir()) / ("pome_mil_" + name);
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return path.string();
}

inline void write_raw(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
}
inline void write_raw(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
}
inline std::vector<std::byte> read_raw(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

inline Type tensor_type(DType dtype, std::vector<int64_t> dims) {
  return {Type::Kind::kTensor, dtype, std::move(dims)};
}

inline Operation constant(const std::string& name, ValueData value) {
  Operation op;
  op.type = "const";
  op.outputs.push_back({name, value.type});
  op.attributes["name"] = ValueData::string(name);
  op.attributes["val"] = std::move(value);
  return op;
}

// y = linear(x, w), w a blob fp16 [3, 5] at `offset`; a state that is read; every kind of
// immediate.
inline Model sample_model(uint64_t offset = 64) {
  Model model;
  model.user_metadata = {{"b", "2"}, {"a", "1"}};
  model.author = "nobody";
  Function function;
  function.name = "main";
  function.opset = "CoreML8";
  function.inputs = {{"x", tensor_type(DType::kF16, {1, 5})},
                     {"cache", {Type::Kind::kState, DType::kF16, {2, 32}}}};
  auto& ops = function.operations;
  ops.push_back(constant("w", ValueData::blob(tensor_type(DType::kF16, {3, 5}),
                                              {"@model_path/weights/weight.bin", offset})));
  ops.push_back(constant("axis", ValueData::scalar_i32(-1)));
  ops.push_back(constant("axes", ValueData::i32s({0, -7, 1 << 30})));
  ops.push_back(constant("flags", ValueData::bools({true, false, true})));
  ops.push_back(constant("mode", ValueData::string("EXACT")));
  ops.push_back(constant("eps", ValueData::scalar_f16(1e-5f)));
  ops.push_back(constant("none", ValueData::i32s({})));
  Operation expand;
  expand.type = "constexpr_blockwise_shift_scale";
  expand.inputs = {
      {"data",
       {ValueData{tensor_type(DType::kI4, {1, 3}),
                  std::vector<std::byte>{std::byte{0x78}, std::byte{1}}}}},
      {"scale", {ValueData{tensor_type(DType::kF16, {1, 1}), std::vector<std::byte>(2)}}}};
  expand.outputs = {{"q", tensor_type(DType::kF16, {1, 3})}};
  expand.attributes["name"] = ValueData::string("q");
  ops.push_back(expand);
  Operation read;
  read.type = "read_state";
  read.inputs = {{"input", {std::string("cache")}}};
  read.outputs = {{"c", tensor_type(DType::kF16, {2, 32})}};
  read.attributes["name"] = ValueData::string("c");
  ops.push_back(read);
  Operation linear;
  linear.type = "linear";
  linear.inputs = {{"weight", {std::string("w")}}, {"x", {std::string("x")}}};
  linear.outputs = {{"y", tensor_type(DType::kF16, {1, 3})}};
  linear.attributes["name"] = ValueData::string("y");
  ops.push_back(linear);
  function.outputs = {"y"};
  model.functions.push_back(function);
  model.descriptions = {{"main",
                         {{"x", Feature::Kind::kArray, DType::kF16, {1, 5}, {{1, 1}, {0, 5}}}},
                         {{"y", Feature::Kind::kArray, DType::kF16, {1, 3}, {}}},
                         {{"cache", Feature::Kind::kState, DType::kF16, {2, 32}, {}}}}};
  return model;
}

// The inputs of every operation in key order: what the reader returns.
inline Model sorted(Model model) {
  for (Function& function : model.functions) {
    for (Operation& op : function.operations) {
      std::sort(op.inputs.begin(), op.inputs.end(),
                [](const auto& a, const auto& b) { return a.first < b.first; });
    }
  }
  return model;
}

inline std::string manifest_with(const std::string& model_path,
                                 const std::string& version = "1.0.0",
                                 const std::string& root = "m") {
  const auto item = [](const std::string& path) {
    return R"({"author": "a", "name": "n", "description": "d", "path": ")" + path + "\"}";
  };
  return "{\"fileFormatVersion\": \"" + version +
         "\", \"itemInfoEntries\": {\"m\": " + item(model_path) +
         ", \"w\": " + item("com.apple.CoreML/weights") + "}, \"rootModelIdentifier\": \"" + root +
         "\"}";
}

struct SamplePackage {
  std::string path, model, weights, manifest;
};
// A whole package on disk; the blob holds 0..14 as fp16 bits.
inline SamplePackage write_sample(const std::string& name) {
  SamplePackage out;
  out.path = temp_folder(name) + "/x.mlpackage";
  const std::string core = out.path + "/Data/com.apple.CoreML";
  std::filesystem::create_directories(core + "/weights");
  out.model = core + "/model.mlmodel";
  out.weights = core + "/weights/weight.bin";
  out.manifest = out.path + "/Manifest.json";
  auto writer = BlobWriter::create(out.weights);
  EXPECT_TRUE(writer.ok()) << writer.status().to_string();
  std::vector<uint16_t> values(15);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i);
  auto at = (*writer)->begin(DType::kF16, 15);
  EXPECT_TRUE(at.ok());
  EXPECT_TRUE((*writer)->write(std::as_bytes(std::span(values)).first(10)).ok());
  EXPECT_TRUE((*writer)->write(std::as_bytes(std::span(values)).subspan(10)).ok());
  EXPECT_TRUE((*writer)->end().ok());
  EXPECT_TRUE((*writer)->finish().ok());
  auto bytes = serialize(sample_model(*at));
  EXPECT_TRUE(bytes.ok()) << bytes.status().to_string();
  write_raw(out.model, *bytes);
  write_raw(out.manifest, package_manifest("sample"));
  return out;
}

}  // namespace pome::mil
