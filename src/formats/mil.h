// An ML Program (Core ML's MIL) as plain data, and the .mlpackage around it: what lies on disk, no
// meaning attached.
//
// Source: the Core ML model specification (docs/coreml.md lists messages and fields). The reader
// accepts specification versions 6 to 10 (opsets CoreML5 to CoreML9); the writer writes version 9,
// opset CoreML8.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/byte_source.h"
#include "base/io.h"
#include "base/status.h"
#include "tensor/tensor.h"

namespace pome::mil {

struct Type {
  enum class Kind : uint8_t {
    kTensor,
    kString,
    kState,
    kOther
  } kind = Kind::kTensor;     // kString: tensor of strings
  DType dtype = DType::kF32;  // of a tensor or of the tensor a state wraps
  std::vector<int64_t> dims;  // -1 = unknown
  friend bool operator==(const Type&, const Type&) = default;
};
std::string to_string(const Type& type);

// Where a value lies in a weight file: `offset` is that of the 64-byte metadata record.
struct BlobRef {
  std::string file;  // "@model_path/weights/weight.bin"
  uint64_t offset = 0;
  friend bool operator==(const BlobRef&, const BlobRef&) = default;
};
struct ValueData {
  Type type;
  // Tensor bytes little-endian in row-major order (sub-byte types packed), strings, or a reference.
  std::variant<std::vector<std::byte>, std::vector<std::string>, BlobRef> data;

  static ValueData scalar_i32(int32_t value);
  static ValueData scalar_u8(uint8_t value);
  static ValueData scalar_bool(bool value);
  static ValueData scalar_f16(float value);
  static ValueData string(std::string value);
  static ValueData i32s(std::vector<int32_t> values);  // rank 1
  static ValueData bools(std::vector<bool> values);    // rank 1
  static ValueData blob(Type type, BlobRef ref);
  friend bool operator==(const ValueData&, const ValueData&) = default;
};

using Binding = std::variant<std::string, ValueData>;  // a name, or an inline value
struct NamedType {
  std::string name;
  Type type;
  friend bool operator==(const NamedType&, const NamedType&) = default;
};
struct Operation {
  std::string type;                                                  // "linear"
  std::vector<std::pair<std::string, std::vector<Binding>>> inputs;  // sorted by name when written
  std::vector<NamedType> outputs;
  std::map<std::string, ValueData> attributes;  // "name", "val"
  friend bool operator==(const Operation&, const Operation&) = default;
};
struct Function {
  std::string name, opset;
  std::vector<NamedType> inputs;  // states have Kind::kState
  std::vector<std::string> outputs;
  std::vector<Operation> operations;
  friend bool operator==(const Function&, const Function&) = default;
};
struct Feature {  // interface description
  std::string name;
  enum class Kind : uint8_t { kArray, kState, kOther } kind = Kind::kArray;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // of an array that a call sizes: the default; of such outputs empty
  // Least and most of every dimension where a call decides; most -1: no limit. Empty: fixed.
  std::vector<std::pair<int64_t, int64_t>> ranges;
  friend bool operator==(const Feature&, const Feature&) = default;
};
struct FunctionDescription {
  std::string name;
  std::vector<Feature> inputs, outputs, states;
  friend bool operator==(const FunctionDescription&, const FunctionDescription&) = default;
};
struct Model {
  int32_t specification_version = 9;
  std::vector<FunctionDescription> descriptions;  // one named "main" for a single-function model
  std::string default_function;                   // empty for a single-function model
  std::map<std::string, std::string> user_metadata;
  std::string short_description, author, license, version;
  std::vector<Function> functions;
  friend bool operator==(const Model&, const Model&) = default;
};

// ---- reading
// --------------------------------------------------------------------------------------------------------

struct Package {
  std::string path;
  Model model;
  std::map<std::string, ByteSourcePtr> weight_files;  // BlobRef::file -> source; opened on reading
};
// Containment of manifest paths, wire format, versions, UTF-8, depth and sizes are checked; every
// BlobRef is checked against its record (sentinel, dtype, size, bounds). `path` is the .mlpackage
// folder.
Result<Package> read_package(const std::string& path);
Result<Model> parse_model(ByteSourcePtr bytes);
// The bytes of a value: inline bytes, or a view / copy of the blob. Type Kind::kTensor.
Result<Tensor> load_value(const Package& package, const ValueData& value);

// ---- writing
// --------------------------------------------------------------------------------------------------------

// weight.bin, streamed: begin() reserves a record, write() appends its data, end() completes the
// record.
class BlobWriter {
 public:
  static Result<std::unique_ptr<BlobWriter>> create(const std::string& path);
  // Returns the offset to use in BlobRef.
  Result<uint64_t> begin(DType dtype, uint64_t elements);
  Status write(std::span<const std::byte> bytes);
  // Reserves the data of this blob without writing it now; fill it with write_at (data_offset =
  // record + 64).
  Result<uint64_t> reserve(DType dtype, uint64_t elements);
  Status write_at(uint64_t offset, std::span<const std::byte> bytes);
  Status end();
  Status finish();  // patches the blob count, syncs and closes
  uint64_t size() const { return end_; }
  io::OutputFile& output() { return *file_; }  // for flush_behind()

 private:
  BlobWriter() = default;
  Result<uint64_t> place(DType dtype, uint64_t elements);

  std::unique_ptr<io::OutputFile> file_;
  uint32_t count_ = 0;
  uint64_t left_ = 0;
  uint64_t end_ = 0;   // of the records placed so far
  bool open_ = false;  // between begin() and end()
};
// Deterministic protobuf bytes (maps in key order).
Result<std::vector<std::byte>> serialize(const Model& model);
// Manifest.json of a package whose model and weights lie at the usual places; identifiers derive
// from `seed`.
std::string package_manifest(const std::string& seed);

}  // namespace pome::mil
