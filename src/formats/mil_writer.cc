// Model -> model.mlmodel: fields in number order, maps in key order, so that equal models give
// equal bytes.
#include <algorithm>
#include <cstring>
#include <protozero/pbf_writer.hpp>

#include "formats/mil_internal.h"

namespace pome::mil {
namespace {

using Writer = protozero::pbf_writer;

// The library leaves out a nested message in which nothing was written; here presence has a
// meaning.
void write_empty(Writer* out, uint32_t field) { out->add_message(field, protozero::data_view()); }

void write_type(Writer out, const Type& type) {
  if (type.kind == Type::Kind::kState) {
    Writer state(out, 5);
    Type wrapped = type;
    wrapped.kind = Type::Kind::kTensor;
    write_type(Writer(state, 1), wrapped);
    return;
  }
  POME_CHECK(type.kind != Type::Kind::kOther);
  Writer tensor(out, 1);
  tensor.add_enum(
      1, static_cast<int32_t>(type.kind == Type::Kind::kString ? kMilString
                                                               : mil_from_dtype(type.dtype)));
  if (!type.dims.empty()) tensor.add_int64(2, static_cast<int64_t>(type.dims.size()));
  for (const int64_t dim : type.dims) {
    Writer dimension(tensor, 3);
    if (dim > 0) {
      Writer(dimension, 1).add_uint64(1, static_cast<uint64_t>(dim));
    } else {
      write_empty(&dimension, dim < 0 ? 2 : 1);
    }
  }
}

template <typename T>
T element(const std::vector<std::byte>& bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

// The bytes as sign-extended 64-bit numbers, the way protobuf's int32 and int64 travel.
template <typename T>
std::vector<int64_t> widen(const std::vector<std::byte>& bytes) {
  std::vector<int64_t> out(bytes.size() / sizeof(T));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int64_t>(element<T>(bytes, i));
  return out;
}

void write_integers(Writer* tensor, uint32_t member, const std::vector<int64_t>& values) {
  Writer inner(*tensor, member);
  inner.add_packed_int64(1, values.begin(), values.end());
}

void write_tensor_value(Writer tensor, const ValueData& value) {
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value.data)) {
    if (texts->empty()) return write_empty(&tensor, 4);
    Writer inner(tensor, 4);
    for (const std::string& text : *texts) inner.add_string(1, text);
    return;
  }
  const auto& bytes = std::get<std::vector<std::byte>>(value.data);
  const char* raw = reinterpret_cast<const char*>(bytes.data());
  const DType dtype = value.type.dtype;
  if (bytes.empty()) return write_empty(&tensor, member_of(dtype));
  switch (dtype) {
    case DType::kBool:
      write_integers(&tensor, 3, widen<uint8_t>(bytes));
      break;
    case DType::kI16:
      write_integers(&tensor, 2, widen<int16_t>(bytes));
      break;
    case DType::kU16:
      write_integers(&tensor, 2, widen<uint16_t>(bytes));
      break;
    case DType::kI32:
      write_integers(&tensor, 2, widen<int32_t>(bytes));
      break;
    case DType::kI64:
    case DType::kU64:
      write_integers(&tensor, 5, widen<int64_t>(bytes));
      break;
    default: {
      // A packed float or double field is its little-endian bytes, like the field `bytes`.
      Writer inner(tensor, member_of(dtype));
      inner.add_bytes(1, raw, bytes.size());
      break;
    }
  }
}

void write_value(Writer out, const ValueData& value) {
  write_type(Writer(out, 2), value.type);
  if (const auto* ref = std::get_if<BlobRef>(&value.data)) {
    Writer blob(out, 5);
    blob.add_string(1, ref->file);
    if (ref->offset != 0) blob.add_uint64(2, ref->offset);
    return;
  }
  Writer immediate(out, 3);
  write_tensor_value(Writer(immediate, 1), value);
}

void write_named_type(Writer out, const NamedType& value) {
  out.add_string(1, value.name);
  write_type(Writer(out, 2), value.type);
}

void write_argument(Writer out, const std::vector<Binding>& bindings) {
  for (const Binding& binding : bindings) {
    Writer inner(out, 1);
    if (const auto* name = std::get_if<std::string>(&binding)) {
      inner.add_string(1, *name);
    } else {
      write_value(Writer(inner, 2), std::get<ValueData>(binding));
    }
  }
}

void write_operation(Writer out, const Operation& op) {
  out.add_string(1, op.type);
  std::vector<const std::pair<std::string, std::vector<Binding>>*> inputs;
  for (const auto& input : op.inputs) inputs.push_back(&input);
  std::sort(inputs.begin(), inputs.end(),
            [](const auto* a, const auto* b) { return a->first < b->first; });
  for (const auto* input : inputs) {
    Writer entry(out, 2);
    entry.add_string(1, input->first);
    if (input->second.empty()) {
      write_empty(&entry, 2);
    } else {
      write_argument(Writer(entry, 2), input->second);
    }
  }
  for (const NamedType& output : op.outputs) write_named_type(Writer(out, 3), output);
  for (const auto& [name, value] : op.attributes) {
    if (value.type.kind == Type::Kind::kOther) continue;  // lists and dictionaries: never ours
    Writer entry(out, 5);
    entry.add_string(1, name);
    write_value(Writer(entry, 2), value);
  }
}

void write_function(Writer out, const Function& function) {
  for (const NamedType& input : function.inputs) write_named_type(Writer(out, 1), input);
  out.add_string(2, function.opset);
  Writer entry(out, 3);
  entry.add_string(1, function.opset);
  if (function.outputs.empty() && function.operations.empty()) return write_empty(&entry, 2);
  Writer block(entry, 2);
  for (const std::string& output : function.outputs) block.add_string(2, output);
  for (const Operation& op : function.operations) write_operation(Writer(block, 3), op);
}

void write_program(Writer out, const Model& model) {
  out.add_int64(1, 1);
  std::vector<const Function*> functions;
  for (const Function& function : model.functions) functions.push_back(&function);
  std::sort(functions.begin(), functions.end(),
            [](const Function* a, const Function* b) { return a->name < b->name; });
  for (const Function* function : functions) {
    Writer entry(out, 2);
    entry.add_string(1, function->name);
    write_function(Writer(entry, 2), *function);
  }
}

void write_feature(Writer out, const Feature& feature) {
  out.add_string(1, feature.name);
  Writer type(out, 3);
  const auto write_array = [&](Writer array) {
    array.add_packed_int64(1, feature.shape.begin(), feature.shape.end());
    array.add_enum(2, static_cast<int32_t>(array_from_dtype(feature.dtype)));
    if (feature.ranges.empty()) return;
    Writer all(array, 31);
    for (const auto& [least, most] : feature.ranges) {
      Writer range(all, 1);
      range.add_uint64(1, static_cast<uint64_t>(least));
      range.add_int64(2, most);
    }
  };
  if (feature.kind == Feature::Kind::kState) {
    Writer state(type, 8);
    write_array(Writer(state, 1));
  } else {
    write_array(Writer(type, 5));
  }
}

void write_features(Writer* out, uint32_t field, const std::vector<Feature>& features) {
  for (const Feature& feature : features) write_feature(Writer(*out, field), feature);
}

void write_metadata(Writer out, const Model& model) {
  if (!model.short_description.empty()) out.add_string(1, model.short_description);
  if (!model.version.empty()) out.add_string(2, model.version);
  if (!model.author.empty()) out.add_string(3, model.author);
  if (!model.license.empty()) out.add_string(4, model.license);
  for (const auto& [key, value] : model.user_metadata) {
    Writer entry(out, 100);
    entry.add_string(1, key);
    entry.add_string(2, value);
  }
}

void write_description(Writer out, const Model& model) {
  const bool single = model.default_function.empty() && model.descriptions.size() == 1 &&
                      model.descriptions[0].name == "main";
  if (single) {
    write_features(&out, 1, model.descriptions[0].inputs);
    write_features(&out, 10, model.descriptions[0].outputs);
    write_features(&out, 13, model.descriptions[0].states);
  } else {
    for (const FunctionDescription& description : model.descriptions) {
      Writer function(out, 20);
      function.add_string(1, description.name);
      write_features(&function, 2, description.inputs);
      write_features(&function, 3, description.outputs);
      write_features(&function, 6, description.states);
    }
    if (!model.default_function.empty()) out.add_string(21, model.default_function);
  }
  write_metadata(Writer(out, 100), model);
}

// What cannot be written is a mistake of the caller who made the model.
Status check_writable(const Model& model) {
  for (const FunctionDescription& description : model.descriptions) {
    for (const auto* features : {&description.inputs, &description.outputs, &description.states}) {
      for (const Feature& feature : *features) {
        if (feature.kind == Feature::Kind::kOther || array_from_dtype(feature.dtype) == 0) {
          return unsupported("feature '" + feature.name + "' of function '" + description.name +
                             "' has a type that the interface does not know");
        }
      }
    }
  }
  const auto writable = [](const Type& type) { return type.kind != Type::Kind::kOther; };
  for (const Function& function : model.functions) {
    POME_RETURN_IF_ERROR(check_function(function, "model.mlmodel"));
    bool all = true;
    for (const NamedType& input : function.inputs) all = all && writable(input.type);
    for (const Operation& op : function.operations) {
      for (const NamedType& output : op.outputs) all = all && writable(output.type);
      for (const auto& [key, bindings] : op.inputs) {
        for (const Binding& binding : bindings) {
          const auto* value = std::get_if<ValueData>(&binding);
          all = all && (value == nullptr || writable(value->type));
        }
      }
      if (!all) {
        return unsupported("operation '" + op.type + "' of function '" + function.name +
                           "' has a list, tuple or dictionary");
      }
    }
  }
  return {};
}

}  // namespace

Result<std::vector<std::byte>> serialize(const Model& model) {
  POME_RETURN_IF_ERROR(check_writable(model));
  std::string out;
  {
    Writer root(out);
    root.add_int32(1, model.specification_version);
    write_description(Writer(root, 2), model);
    write_program(Writer(root, 502), model);
  }
  const auto bytes = std::as_bytes(std::span(out));
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

}  // namespace pome::mil
