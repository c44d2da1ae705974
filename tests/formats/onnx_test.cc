// ONNX models: written, read back, and refused when damaged.
#include "formats/onnx.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "base/temp_folder.h"
#include "formats/onnx_samples.h"

namespace pome::onnx {
namespace {

Result<Model> parse(const std::vector<std::byte>& bytes) {
  return parse_model(memory_source(bytes, "model.onnx"));
}

void expect_equal(const Model& a, const Model& b) {
  const auto first = serialize(a), second = serialize(b);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_TRUE(*first == *second);
}

TEST(Onnx, ReadsWhatItWrites) {
  const auto bytes = serialize(small_model());
  ASSERT_TRUE(bytes.ok());
  const auto model = parse(*bytes);
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  expect_equal(*model, small_model());
  const Node& node = model->graph.nodes[0];
  EXPECT_EQ(node.inputs, (std::vector<std::string>{"x", "", "w"}));
  EXPECT_EQ(std::get<std::vector<int64_t>>(node.attributes[3].value),
            (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(model->graph.initializers[0].external, (External{"data.bin", 4, 5}));
  EXPECT_EQ(model->graph.inputs[0].dims[0].symbol, "batch");
}

TEST(Onnx, EveryCutIsRefused) {
  const auto bytes = serialize(small_model());
  ASSERT_TRUE(bytes.ok());
  size_t read = 0;
  for (size_t size = 0; size < bytes->size(); ++size) {
    const auto model = parse({bytes->begin(), bytes->begin() + static_cast<ptrdiff_t>(size)});
    // Whole fields at the end of the outermost message may be missing: they are optional.
    if (model.ok()) ++read;
  }
  EXPECT_LT(read, 3u);
}

TEST(Onnx, RefusesContradictions) {
  const auto refusal = [](const Model& model) {
    const auto bytes = serialize(model);
    EXPECT_TRUE(bytes.ok());
    const auto read = parse(*bytes);
    EXPECT_FALSE(read.ok());
    return read.ok() ? Refusal::kNone : read.status().refusal();
  };
  Model model = small_model();
  model.graph.nodes[0].inputs[0] = "nowhere";
  EXPECT_EQ(refusal(model), Refusal::kRange);
  model = small_model();
  model.graph.nodes[0].outputs = {"x"};
  EXPECT_EQ(refusal(model), Refusal::kDup);
  model = small_model();
  model.graph.outputs[0].name = "z";
  EXPECT_EQ(refusal(model), Refusal::kRange);
  model = small_model();
  model.graph.initializers[1].raw.pop_back();
  EXPECT_EQ(refusal(model), Refusal::kRange);
  model = small_model();
  model.graph.initializers[0].external->length = 6;
  EXPECT_EQ(refusal(model), Refusal::kRange);
  model = small_model();
  model.graph.initializers[0].dims = {int64_t{1} << 40, int64_t{1} << 40};
  EXPECT_EQ(refusal(model), Refusal::kOverflow);
  model = small_model();
  model.ir_version = 99;
  EXPECT_EQ(refusal(model), Refusal::kVersion);
  model = small_model();
  model.opsets.erase("");
  EXPECT_EQ(refusal(model), Refusal::kRange);
}

TEST(Onnx, ExternalDataStaysInItsFolderAndFile) {
  TempFolder folder{true};
  const auto write = [&](const std::string& location, uint64_t offset) {
    Model model = small_model();
    model.graph.initializers[0].external = External{location, offset, 5};
    const auto bytes = serialize(model);
    std::ofstream(folder / "model.onnx", std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes->data()),
               static_cast<std::streamsize>(bytes->size()));
  };
  std::ofstream(folder / "data.bin", std::ios::binary) << "0123456789";
  write("data.bin", 4);
  const auto package = read_package(folder / "model.onnx");
  ASSERT_TRUE(package.ok()) << package.status().to_string();
  const auto tensor = read_tensor(*package, package->model.graph.initializers[0]);
  ASSERT_TRUE(tensor.ok());
  EXPECT_EQ(static_cast<char>(tensor->bytes()[0]), '4');
  write("data.bin", 6);
  EXPECT_EQ(read_package(folder / "model.onnx").status().refusal(), Refusal::kBounds);
  write("../data.bin", 0);
  EXPECT_EQ(read_package(folder / "model.onnx").status().refusal(), Refusal::kPath);
  write("absent.bin", 0);
  EXPECT_EQ(read_package(folder / "model.onnx").status().code(), StatusCode::kMissing);
}

}  // namespace
}  // namespace pome::onnx
