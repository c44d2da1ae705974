// A small ONNX model with every kind of attribute and of tensor.
#pragma once

#include "formats/onnx.h"

namespace pome::onnx {

inline Model small_model() {
  Model model;
  model.ir_version = 8;
  model.producer_name = "test";
  model.opsets = {{"", 17}, {std::string(kMicrosoft), 1}};
  model.metadata = {{"key", "value"}};
  model.graph.name = "g";
  Node node;
  node.op_type = "Op";
  node.domain = kMicrosoft;
  node.name = "n";
  node.inputs = {"x", "", "w"};
  node.outputs = {"y"};
  node.attributes = {{"i", int64_t{-3}},
                     {"f", 0.5f},
                     {"s", std::string("text")},
                     {"is", std::vector<int64_t>{1, -2, 3}},
                     {"fs", std::vector<float>{1.5f, -2}},
                     {"ss", std::vector<std::string>{"a", "b"}},
                     {"t", TensorData::f32s("", {2}, {1, 2})}};
  model.graph.nodes = {node};
  TensorData weight;
  weight.name = "w";
  weight.dtype = DType::kI4;
  weight.dims = {3, 3};
  weight.external = External{"data.bin", 4, 5};
  model.graph.initializers = {weight, TensorData::i64s("shape", {2}, {0, -1})};
  model.graph.inputs = {{"x", DType::kF32, {{-1, "batch"}, {4, {}}, {}}}};
  model.graph.outputs = {{"y", DType::kF32, {}}};
  return model;
}

}  // namespace pome::onnx
