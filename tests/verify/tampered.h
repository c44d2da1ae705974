// Artefacts of the embedded model, and ways to spoil copies of them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/io.h"
#include "base/temp_folder.h"
#include "formats/manifest.h"
#include "formats/mil.h"
#include "pipeline/convert.h"

namespace pome::test {

inline const std::string kTales = POME_SOURCE_DIR "/models/tales";
inline const std::string kModelFile = "model.mlpackage/Data/com.apple.CoreML/model.mlmodel";
inline const std::string kWeightFile = "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin";

inline Status make_artefact(const std::string& output, const std::string& scheme,
                            int64_t context = 128, int threads = 2,
                            const std::string& model = kTales, bool one_function = false) {
  ConvertOptions options;
  options.model = model;
  options.output = output;
  options.weights = scheme;
  options.context = context;
  options.one_function = one_function;
  WorkContext work;
  work.threads = threads;
  return convert(options, work).status();
}

inline void copy_folder(const std::string& from, const std::string& to) {
  std::filesystem::remove_all(to);
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

inline Manifest manifest_of(const std::string& folder) {
  auto manifest = read_manifest(folder + "/" + kManifestName);
  EXPECT_TRUE(manifest.ok()) << manifest.status().to_string();
  return manifest.ok() ? *manifest : Manifest();
}
inline ManifestTensor tensor_of(const std::string& folder, const std::string& name) {
  for (const ManifestTensor& tensor : manifest_of(folder).tensors)
    if (tensor.name == name) return tensor;
  ADD_FAILURE() << "no tensor " << name;
  return {};
}
inline void change_byte(const std::string& path, uint64_t offset,
                        const std::function<char(char)>& change) {
  std::string bytes = slurp(path);
  ASSERT_LT(offset, bytes.size());
  const char before = bytes[offset];
  bytes[offset] = change(before);
  ASSERT_NE(bytes[offset], before);
  spit(path, bytes);
}
// Makes the manifest agree with what lies in the folder.
inline void rewrite_manifest(const std::string& folder) {
  Manifest manifest = manifest_of(folder);
  ASSERT_TRUE(fill_digests(folder, &manifest, {}).ok());
  spit(folder + "/" + kManifestName, to_json(manifest));
}

inline void change_program(const std::string& folder,
                           const std::function<void(mil::Model*)>& change) {
  auto package = mil::read_package(folder + "/model.mlpackage");
  ASSERT_TRUE(package.ok()) << package.status().to_string();
  const mil::Model before = package->model;
  change(&package->model);
  ASSERT_FALSE(package->model == before);
  const auto bytes = mil::serialize(package->model);
  ASSERT_TRUE(bytes.ok()) << bytes.status().to_string();
  spit(folder + "/" + kModelFile,
       std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()));
}
inline mil::Operation* find_op(mil::Model* model, const std::string& function,
                               const std::string& output) {
  for (mil::Function& f : model->functions)
    if (f.name == function)
      for (mil::Operation& op : f.operations)
        if (!op.outputs.empty() && op.outputs[0].name == output) return &op;
  ADD_FAILURE() << "no value " << output << " in " << function;
  return nullptr;
}
inline std::vector<mil::Binding>* find_input(mil::Operation* op, const std::string& key) {
  for (auto& [name, bindings] : op->inputs)
    if (name == key) return &bindings;
  ADD_FAILURE() << op->type << " has no input " << key;
  return nullptr;
}
// Exchanges two inputs of the operation that computes `output`.
inline void swap_inputs(const std::string& folder, const std::vector<std::string>& functions,
                        const std::string& output, const std::string& a, const std::string& b) {
  change_program(folder, [&](mil::Model* model) {
    for (const std::string& function : functions) {
      mil::Operation* op = find_op(model, function, output);
      ASSERT_NE(op, nullptr);
      auto *x = find_input(op, a), *y = find_input(op, b);
      ASSERT_TRUE(x && y);
      std::swap(*x, *y);
    }
  });
}

}  // namespace pome::test
