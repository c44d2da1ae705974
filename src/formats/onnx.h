// ONNX models: model.onnx and the files of external data beside it, as plain structs.
//
// A format knows no operators: nodes are names, attributes and edges. Source of the messages and
// numbers: onnx.proto (https://github.com/onnx/onnx), as tabulated in docs/onnx.md. What this
// reader leaves out, and refuses where it is present: subgraphs, functions, sparse tensors,
// sequences and maps.
//
// Thread safety: values.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/byte_source.h"
#include "base/io.h"
#include "base/status.h"
#include "tensor/tensor.h"

namespace pome::onnx {

inline constexpr std::string_view kMicrosoft = "com.microsoft";

// Bytes in a file beside the model.
struct External {
  std::string location;  // a relative path
  uint64_t offset = 0, length = 0;
  friend bool operator==(const External&, const External&) = default;
};

struct TensorData {
  std::string name;
  DType dtype = DType::kF32;
  Shape dims;
  std::vector<std::byte> raw;  // little-endian, row-major; empty when external
  std::optional<External> external;

  static TensorData i64s(std::string name, Shape dims, const std::vector<int64_t>& values);
  static TensorData f32s(std::string name, Shape dims, const std::vector<float>& values);
};

struct Attribute {
  std::string name;
  std::variant<int64_t, float, std::string, std::vector<int64_t>, std::vector<float>,
               std::vector<std::string>, TensorData>
      value;
};

struct Node {
  std::string op_type, domain, name;         // domain "" is ONNX's own
  std::vector<std::string> inputs, outputs;  // "" = optional and absent
  std::vector<Attribute> attributes;
};

struct Dimension {
  int64_t size = -1;   // -1: by name, or unknown when that is empty
  std::string symbol;  // "sequence_length"
};
struct ValueInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<Dimension> dims;
};

struct Graph {
  std::string name;
  std::vector<Node> nodes;  // execution order
  std::vector<TensorData> initializers;
  std::vector<ValueInfo> inputs, outputs, values;  // values: what is known of inner ones
};

struct Model {
  int64_t ir_version = 0;
  std::string producer_name, producer_version, doc_string;
  std::map<std::string, int64_t> opsets;        // by domain
  std::map<std::string, std::string> metadata;  // metadata_props
  Graph graph;
};

// Fields in number order: equal models give equal bytes. Element types without a number in ONNX
// are our bug. kDoesNotFit beyond what one protobuf message may hold (2 GiB).
Result<std::vector<std::byte>> serialize(const Model& model);
// Refusals: those of ProtoReader; kType for parts listed above, kRange for sizes that contradict
// themselves, kDup for names that are given twice, kVersion for what is newer than this reader.
Result<Model> parse_model(ByteSourcePtr file);

// A model and the files its tensors lie in, every reference checked.
struct Package {
  std::string path;  // of the .onnx file
  Model model;
  std::map<std::string, ByteSourcePtr> files;  // by location
};
// External data must lie in the folder of the model or below it (kPath, kLink), inside its file
// (kBounds), with the length that type and dimensions ask for (kRange).
Result<Package> read_package(const std::string& path);
// Bytes of a tensor of the package, in place where the file is mapped.
Result<Tensor> read_tensor(const Package& package, const TensorData& tensor);

// TensorProto.DataType <-> ours.
std::optional<DType> dtype_from_onnx(uint64_t code);
std::optional<int32_t> onnx_from_dtype(DType dtype);

}  // namespace pome::onnx
