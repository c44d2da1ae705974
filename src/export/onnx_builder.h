// OnnxBuilder: writes the nodes of an ONNX graph one by one. Names are made unique; every node has
// the name of its first output (older runtimes collide on nodes without names). Small constants are
// shared. Private to export.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "formats/onnx.h"

namespace pome::onnx_export {

using Val = std::string;  // a value is its name
using Attributes = std::vector<onnx::Attribute>;

class OnnxBuilder {
 public:
  // `reserved`: names of inputs and outputs, which unique() never gives out.
  explicit OnnxBuilder(std::set<std::string> reserved) : used_(std::move(reserved)) {}

  std::string unique(const std::string& wanted);
  // `name` comes from unique() or is one of the reserved names.
  Val op(const std::string& type, const std::string& name, std::vector<Val> inputs,
         Attributes attributes = {}, std::string_view domain = {});
  std::vector<Val> op(const std::string& type, std::vector<std::string> names,
                      std::vector<Val> inputs, Attributes attributes = {},
                      std::string_view domain = {});
  // Inline constants; equal ones share a name. Shape inference reads such constants, so they never
  // lie in a file of external data.
  Val i64s(const std::vector<int64_t>& values);  // [n]
  Val i64(int64_t value);                        // scalar
  Val f32(double value);                         // scalar
  // Large or named constants of the caller's making.
  Val initializer(onnx::TensorData tensor);

  // Drops what no output needs. Inputs that nothing reads are dropped too unless they are listed in
  // `kept`.
  onnx::Graph finish(std::vector<onnx::ValueInfo> inputs, std::vector<onnx::ValueInfo> outputs,
                     const std::map<std::string, onnx::ValueInfo>& known,
                     const std::set<std::string>& kept);

 private:
  onnx::Graph graph_;
  std::set<std::string> used_;
  std::map<std::string, int64_t> next_;  // per wanted name
  std::map<std::string, Val> shared_;
};

onnx::Attribute attribute(std::string name, int64_t value);
onnx::Attribute attribute(std::string name, double value);
onnx::Attribute attribute(std::string name, std::vector<int64_t> value);
onnx::Attribute attribute(std::string name, const char* value);

}  // namespace pome::onnx_export
