// Model -> model.onnx.
#include <cstring>
#include <protozero/pbf_writer.hpp>

#include "formats/onnx.h"

namespace pome::onnx {
namespace {

using Writer = protozero::pbf_writer;

constexpr uint64_t kMaxMessage = (uint64_t{2} << 30) - 1;
// AttributeProto.AttributeType, in the order of Attribute::value.
constexpr int32_t kAttributeTypes[] = {2, 1, 3, 7, 6, 8, 4};

struct Code {
  DType dtype;
  int32_t onnx;
};
constexpr Code kCodes[] = {
    {DType::kF32, 1},   {DType::kU8, 2},      {DType::kI8, 3},      {DType::kU16, 4},
    {DType::kI16, 5},   {DType::kI32, 6},     {DType::kI64, 7},     {DType::kBool, 9},
    {DType::kF16, 10},  {DType::kF64, 11},    {DType::kU32, 12},    {DType::kU64, 13},
    {DType::kBF16, 16}, {DType::kF8E4M3, 17}, {DType::kF8E5M2, 19}, {DType::kU4, 21},
    {DType::kI4, 22},   {DType::kU2, 25},
};

int32_t code_of(DType dtype) {
  const auto code = onnx_from_dtype(dtype);
  POME_CHECK(code.has_value());
  return *code;
}

void add_bytes(Writer* out, uint32_t field, const std::vector<std::byte>& bytes) {
  out->add_bytes(field, reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void write_pair(Writer out, const std::string& key, const std::string& value) {
  out.add_string(1, key);
  out.add_string(2, value);
}

void write_tensor(Writer out, const TensorData& tensor) {
  if (!tensor.dims.empty()) out.add_packed_int64(1, tensor.dims.begin(), tensor.dims.end());
  out.add_int32(2, code_of(tensor.dtype));
  if (!tensor.name.empty()) out.add_string(8, tensor.name);
  if (!tensor.external) {
    add_bytes(&out, 9, tensor.raw);
    return;
  }
  write_pair(Writer(out, 13), "location", tensor.external->location);
  write_pair(Writer(out, 13), "offset", std::to_string(tensor.external->offset));
  write_pair(Writer(out, 13), "length", std::to_string(tensor.external->length));
  out.add_enum(14, 1);
}

void write_attribute(Writer out, const Attribute& attribute) {
  out.add_string(1, attribute.name);
  const auto& value = attribute.value;
  if (const auto* f = std::get_if<float>(&value)) out.add_float(2, *f);
  if (const auto* i = std::get_if<int64_t>(&value)) out.add_int64(3, *i);
  if (const auto* s = std::get_if<std::string>(&value)) out.add_bytes(4, *s);
  if (const auto* t = std::get_if<TensorData>(&value)) write_tensor(Writer(out, 5), *t);
  if (const auto* floats = std::get_if<std::vector<float>>(&value))
    for (const float f : *floats) out.add_float(7, f);
  if (const auto* ints = std::get_if<std::vector<int64_t>>(&value))
    for (const int64_t i : *ints) out.add_int64(8, i);
  if (const auto* strings = std::get_if<std::vector<std::string>>(&value))
    for (const std::string& s : *strings) out.add_bytes(9, s);
  out.add_enum(20, kAttributeTypes[value.index()]);
}

void write_node(Writer out, const Node& node) {
  for (const std::string& input : node.inputs) out.add_string(1, input);
  for (const std::string& output : node.outputs) out.add_string(2, output);
  out.add_string(3, node.name);
  out.add_string(4, node.op_type);
  for (const Attribute& attribute : node.attributes) write_attribute(Writer(out, 5), attribute);
  if (!node.domain.empty()) out.add_string(7, node.domain);
}

void write_value(Writer out, const ValueInfo& value) {
  out.add_string(1, value.name);
  Writer type(out, 2);
  Writer tensor(type, 1);
  tensor.add_int32(1, code_of(value.dtype));
  if (value.dims.empty()) {
    tensor.add_message(2, protozero::data_view());  // a scalar has a shape, though an empty one
    return;
  }
  Writer shape(tensor, 2);
  for (const Dimension& dim : value.dims) {
    if (dim.size < 0 && dim.symbol.empty()) {
      shape.add_message(1, protozero::data_view());
      continue;
    }
    Writer inner(shape, 1);
    if (dim.size >= 0) {
      inner.add_int64(1, dim.size);
    } else {
      inner.add_string(2, dim.symbol);
    }
  }
}

void write_graph(Writer out, const Graph& graph) {
  for (const Node& node : graph.nodes) write_node(Writer(out, 1), node);
  out.add_string(2, graph.name);
  for (const TensorData& tensor : graph.initializers) write_tensor(Writer(out, 5), tensor);
  for (const ValueInfo& value : graph.inputs) write_value(Writer(out, 11), value);
  for (const ValueInfo& value : graph.outputs) write_value(Writer(out, 12), value);
  for (const ValueInfo& value : graph.values) write_value(Writer(out, 13), value);
}

TensorData immediate(std::string name, DType dtype, Shape dims, const void* data, size_t size) {
  TensorData out;
  out.name = std::move(name);
  out.dtype = dtype;
  out.dims = std::move(dims);
  const auto* bytes = static_cast<const std::byte*>(data);
  out.raw.assign(bytes, bytes + size);
  return out;
}

}  // namespace

std::optional<DType> dtype_from_onnx(uint64_t code) {
  for (const Code& entry : kCodes)
    if (static_cast<uint64_t>(entry.onnx) == code) return entry.dtype;
  return std::nullopt;
}

std::optional<int32_t> onnx_from_dtype(DType dtype) {
  for (const Code& entry : kCodes)
    if (entry.dtype == dtype) return entry.onnx;
  return std::nullopt;
}

TensorData TensorData::i64s(std::string name, Shape dims, const std::vector<int64_t>& values) {
  return immediate(std::move(name), DType::kI64, std::move(dims), values.data(),
                   values.size() * sizeof(int64_t));
}
TensorData TensorData::f32s(std::string name, Shape dims, const std::vector<float>& values) {
  return immediate(std::move(name), DType::kF32, std::move(dims), values.data(),
                   values.size() * sizeof(float));
}

Result<std::vector<std::byte>> serialize(const Model& model) {
  std::string buffer;
  Writer out(buffer);
  out.add_int64(1, model.ir_version);
  out.add_string(2, model.producer_name);
  out.add_string(3, model.producer_version);
  if (!model.doc_string.empty()) out.add_string(6, model.doc_string);
  write_graph(Writer(out, 7), model.graph);
  for (const auto& [domain, version] : model.opsets) {
    Writer opset(out, 8);
    opset.add_string(1, domain);
    opset.add_int64(2, version);
  }
  for (const auto& [key, value] : model.metadata) write_pair(Writer(out, 14), key, value);
  if (buffer.size() > kMaxMessage)
    return does_not_fit("the ONNX model would take " + std::to_string(buffer.size()) +
                        " bytes without its weights; one file may hold " +
                        std::to_string(kMaxMessage));
  const auto* bytes = reinterpret_cast<const std::byte*>(buffer.data());
  return std::vector<std::byte>(bytes, bytes + buffer.size());
}

}  // namespace pome::onnx
