// model.onnx -> Model.
#include <cstring>
#include <set>

#include "formats/onnx.h"
#include "formats/protobuf.h"

namespace pome::onnx {
namespace {

constexpr uint64_t kMaxModelBytes = (uint64_t{1} << 31) - 1;  // protobuf's own limit
constexpr size_t kMaxRank = 64;
constexpr int64_t kNewestIr = 14, kNewestOpset = 27;

DType parse_dtype_code(ProtoReader& in) {
  const uint64_t code = in.varint();
  const auto dtype = dtype_from_onnx(code);
  if (in.ok() && !dtype)
    in.fail(Refusal::kType, "element type " + std::to_string(code) + " is not supported",
            StatusCode::kUnsupported);
  return dtype.value_or(DType::kF32);
}

// Numbers of at most 32 bits travel in int32_data, one varint each.
void append_number(uint64_t value, int bits, std::vector<std::byte>* raw) {
  for (int at = 0; at < std::max(bits, 8); at += 8)
    raw->push_back(static_cast<std::byte>(value >> at & 0xFF));
}

std::pair<std::string, std::string> parse_pair(ProtoReader in) {
  std::pair<std::string, std::string> out;
  while (in.next()) {
    if (in.field() == 1) out.first = in.text();
    if (in.field() == 2) out.second = in.text();
  }
  return out;
}

// A decimal number of bytes.
std::optional<uint64_t> parse_count(const std::string& text) {
  if (text.empty() || text.size() > 18) return std::nullopt;
  uint64_t out = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    out = out * 10 + static_cast<uint64_t>(c - '0');
  }
  return out;
}

class TensorParser {
 public:
  TensorData parse(ProtoReader in) {
    while (in.next()) field(in);
    if (in.ok()) finish(in);
    return std::move(out_);
  }

 private:
  void field(ProtoReader& in) {
    switch (in.field()) {
      case 1:
        in.each_varint([&](uint64_t v) { dimension(in, static_cast<int64_t>(v)); });
        break;
      case 2:
        in.once();
        out_.dtype = parse_dtype_code(in);
        break;
      case 4:
      case 10: {
        const auto bytes = in.fixed(in.field() == 4 ? 4 : 8);
        out_.raw.insert(out_.raw.end(), bytes.begin(), bytes.end());
        ++typed_;
        break;
      }
      case 5:
      case 7:
      case 11:
        in.each_varint([&](uint64_t v) { numbers_.push_back(v); });
        ++typed_;
        break;
      case 8:
        in.once();
        out_.name = in.text();
        break;
      case 9: {
        in.once();
        const auto bytes = in.bytes();
        out_.raw.assign(bytes.begin(), bytes.end());
        break;
      }
      case 13:
        external(in);
        break;
      case 14:
        is_external_ = in.varint() == 1;
        break;
      case 3:
      case 6:
        in.fail(Refusal::kType, "strings and segments of tensors are not supported",
                StatusCode::kUnsupported);
        break;
      default:
        break;
    }
  }

  void dimension(ProtoReader& in, int64_t size) {
    if (size < 0 || out_.dims.size() == kMaxRank)
      return in.fail(Refusal::kRange, "a dimension of " + std::to_string(size));
    out_.dims.push_back(size);
  }

  void external(ProtoReader& in) {
    const auto [key, value] = parse_pair(in.message("TensorProto.external_data"));
    if (key == "location") reference_.location = value;
    if (key != "offset" && key != "length") return;
    const auto count = parse_count(value);
    if (!count) return in.fail(Refusal::kRange, key + " '" + value + "' is no number of bytes");
    if (key == "length") has_length_ = true;
    (key == "offset" ? reference_.offset : reference_.length) = *count;
  }

  void finish(ProtoReader& in) {
    const auto count = element_count(out_.dims);
    const auto size =
        count ? storage_bytes(out_.dtype, static_cast<uint64_t>(*count)) : std::nullopt;
    if (!size) return in.fail(Refusal::kOverflow, "tensor '" + out_.name + "' is too large");
    if (is_external_) {
      if (!has_length_) reference_.length = *size;
      if (reference_.length != *size)
        return in.fail(Refusal::kRange, "tensor '" + out_.name + "' has " +
                                            std::to_string(reference_.length) +
                                            " bytes of external data, type and shape ask for " +
                                            std::to_string(*size));
      out_.raw.clear();
      out_.external = std::move(reference_);
      return;
    }
    for (const uint64_t number : numbers_) append_number(number, bits_of(out_.dtype), &out_.raw);
    if (out_.raw.size() != *size || typed_ > 1)
      in.fail(Refusal::kRange, "tensor '" + out_.name + "' holds " +
                                   std::to_string(out_.raw.size()) +
                                   " bytes, type and shape ask for " + std::to_string(*size));
  }

  TensorData out_;
  External reference_;
  std::vector<uint64_t> numbers_;
  int typed_ = 0;  // of the fields that hold numbers by type
  bool is_external_ = false, has_length_ = false;
};

Attribute parse_attribute(ProtoReader in) {
  Attribute out;
  std::vector<int64_t> ints;
  std::vector<float> floats;
  std::vector<std::string> strings;
  uint64_t type = 0;
  const auto add_floats = [&](std::span<const std::byte> bytes) {
    for (size_t at = 0; at + 4 <= bytes.size(); at += 4)
      std::memcpy(&floats.emplace_back(), bytes.data() + at, 4);
  };
  while (in.next()) {
    switch (in.field()) {
      case 1:
        out.name = in.text();
        break;
      case 2:
      case 7:
        add_floats(in.fixed(4));
        break;
      case 3:
      case 8:
        in.each_varint([&](uint64_t v) { ints.push_back(static_cast<int64_t>(v)); });
        break;
      case 4:
      case 9: {
        const auto bytes = in.bytes();
        strings.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        break;
      }
      case 5:
        out.value = TensorParser().parse(in.message("AttributeProto.t"));
        break;
      case 20:
        type = in.varint();
        break;
      default:
        break;
    }
  }
  const auto first = [](const auto& list) {
    return list.empty() ? typename std::decay_t<decltype(list)>::value_type() : list.front();
  };
  switch (type) {
    case 1:
      out.value = first(floats);
      break;
    case 2:
      out.value = first(ints);
      break;
    case 3:
      out.value = first(strings);
      break;
    case 4:
      break;
    case 6:
      out.value = std::move(floats);
      break;
    case 7:
      out.value = std::move(ints);
      break;
    case 8:
      out.value = std::move(strings);
      break;
    default:
      if (in.ok())
        in.fail(Refusal::kType,
                "attribute '" + out.name + "' of type " + std::to_string(type) +
                    " (subgraphs and lists of tensors are not supported)",
                StatusCode::kUnsupported);
  }
  return out;
}

Node parse_node(ProtoReader in) {
  Node out;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        out.inputs.push_back(in.text());
        break;
      case 2:
        out.outputs.push_back(in.text());
        break;
      case 3:
        out.name = in.text();
        break;
      case 4:
        out.op_type = in.text();
        break;
      case 5:
        out.attributes.push_back(parse_attribute(in.message("NodeProto.attribute")));
        break;
      case 7:
        out.domain = in.text();
        break;
      default:
        break;
    }
  }
  if (out.domain == "ai.onnx") out.domain.clear();
  return out;
}

std::vector<Dimension> parse_shape(ProtoReader in) {
  std::vector<Dimension> out;
  while (in.next()) {
    if (in.field() != 1) continue;
    Dimension& dim = out.emplace_back();
    ProtoReader inner = in.message("Dimension");
    while (inner.next()) {
      if (inner.field() == 1) dim.size = inner.int64();
      if (inner.field() == 2) dim.symbol = inner.text();
    }
    if (out.size() > kMaxRank) in.fail(Refusal::kRange, "a shape of too many dimensions");
  }
  return out;
}

ValueInfo parse_value_info(ProtoReader in) {
  ValueInfo out;
  while (in.next()) {
    if (in.field() == 1) out.name = in.text();
    if (in.field() != 2) continue;
    ProtoReader type = in.message("TypeProto");
    while (type.next()) {
      if (type.field() != 1) {
        if (type.field() != 6)
          type.fail(Refusal::kType, "'" + out.name + "' is no tensor", StatusCode::kUnsupported);
        continue;
      }
      ProtoReader tensor = type.message("TypeProto.Tensor");
      while (tensor.next()) {
        if (tensor.field() == 1) out.dtype = parse_dtype_code(tensor);
        if (tensor.field() == 2) out.dims = parse_shape(tensor.message("TensorShapeProto"));
      }
    }
  }
  return out;
}

Graph parse_graph(ProtoReader in) {
  Graph out;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        out.nodes.push_back(parse_node(in.message("NodeProto")));
        break;
      case 2:
        out.name = in.text();
        break;
      case 5:
        out.initializers.push_back(TensorParser().parse(in.message("TensorProto")));
        break;
      case 11:
        out.inputs.push_back(parse_value_info(in.message("GraphProto.input")));
        break;
      case 12:
        out.outputs.push_back(parse_value_info(in.message("GraphProto.output")));
        break;
      case 13:
        out.values.push_back(parse_value_info(in.message("GraphProto.value_info")));
        break;
      case 15:
        in.fail(Refusal::kType, "sparse tensors are not supported", StatusCode::kUnsupported);
        break;
      default:
        break;
    }
  }
  return out;
}

// Every name has one origin, and stands before its use.
Status check_names(const Graph& graph) {
  std::set<std::string_view> known;
  const auto define = [&](const std::string& name) -> Status {
    if (!known.insert(name).second)
      return bad_input(Refusal::kDup, "the value '" + name + "' is given twice");
    return {};
  };
  for (const TensorData& tensor : graph.initializers) POME_RETURN_IF_ERROR(define(tensor.name));
  for (const ValueInfo& input : graph.inputs)
    if (known.count(input.name) == 0) POME_RETURN_IF_ERROR(define(input.name));
  for (const Node& node : graph.nodes) {
    for (const std::string& input : node.inputs)
      if (!input.empty() && known.count(input) == 0)
        return bad_input(Refusal::kRange, "node '" + node.name + "' (" + node.op_type +
                                              ") reads '" + input +
                                              "', which nothing before gives");
    for (const std::string& output : node.outputs)
      if (!output.empty()) POME_RETURN_IF_ERROR(define(output));
  }
  for (const ValueInfo& output : graph.outputs)
    if (known.count(output.name) == 0)
      return bad_input(Refusal::kRange, "nothing gives the output '" + output.name + "'");
  return {};
}

Status check_versions(const Model& model) {
  const auto newer = [](const std::string& what, int64_t found, int64_t known) {
    return bad_input(Refusal::kVersion, what + " " + std::to_string(found) +
                                            ", this version knows up to " + std::to_string(known));
  };
  if (model.ir_version < 3 || model.ir_version > kNewestIr)
    return newer("IR version", model.ir_version, kNewestIr);
  const auto opset = model.opsets.find("");
  if (opset == model.opsets.end())
    return bad_input(Refusal::kRange, "the model states no operator set");
  if (opset->second < 1 || opset->second > kNewestOpset)
    return newer("operator set", opset->second, kNewestOpset);
  return {};
}

Result<Model> parse_bytes(std::span<const std::byte> bytes, const std::string& name) {
  ProtoContext context{name, bytes, {}};
  ProtoReader in(&context, "ModelProto");
  Model model;
  bool graph = false;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        model.ir_version = in.int64();
        break;
      case 2:
        model.producer_name = in.text();
        break;
      case 3:
        model.producer_version = in.text();
        break;
      case 6:
        model.doc_string = in.text();
        break;
      case 7:
        in.once();
        graph = true;
        model.graph = parse_graph(in.message("GraphProto"));
        break;
      case 8: {
        std::string domain;
        int64_t version = 0;
        ProtoReader opset = in.message("OperatorSetIdProto");
        while (opset.next()) {
          if (opset.field() == 1) domain = opset.text();
          if (opset.field() == 2) version = opset.int64();
        }
        model.opsets[domain == "ai.onnx" ? "" : domain] = version;
        break;
      }
      case 14: {
        auto [key, value] = parse_pair(in.message("ModelProto.metadata_props"));
        model.metadata[std::move(key)] = std::move(value);
        break;
      }
      case 25:
        in.fail(Refusal::kType, "model-local functions are not supported",
                StatusCode::kUnsupported);
        break;
      default:
        break;
    }
  }
  if (!context.error.ok()) return context.error;
  Status status = graph ? check_versions(model)
                        : bad_input(Refusal::kMagic, "this is no ONNX model: it holds no graph");
  if (status.ok()) status = check_names(model.graph);
  if (!status.ok()) return std::move(status).in(name);
  return model;
}

}  // namespace

Result<Model> parse_model(ByteSourcePtr file) {
  if (file->size() > kMaxModelBytes) {
    return bad_input(Refusal::kLimit, "a model of " + std::to_string(file->size()) +
                                          " bytes; protobuf ends at 2 GiB")
        .in(file->name())
        .hint("weights belong into a file of external data beside it");
  }
  if (const auto view = file->view(0, file->size())) return parse_bytes(*view, file->name());
  std::vector<std::byte> copy(static_cast<size_t>(file->size()));
  POME_RETURN_IF_ERROR(file->read(0, copy));
  return parse_bytes(copy, file->name());
}

}  // namespace pome::onnx
