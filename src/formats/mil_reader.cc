// model.mlmodel -> Model. Field numbers are those of the Core ML specification (Model.proto,
// FeatureTypes.proto, MIL.proto), tabulated in docs/coreml.md.
#include <algorithm>
#include <set>

#include "formats/mil_internal.h"

namespace pome::mil {
namespace {

constexpr uint64_t kMaxModelBytes = (uint64_t{1} << 31) - 1;  // protobuf's own limit
constexpr size_t kMaxRank = 64;

// ---- maps: entries { 1 key, 2 value }. read(value) is called before the key is known.

template <typename Read>
std::string parse_entry(ProtoReader in, const char* name, Read&& read) {
  std::string key;
  bool value = false;
  while (in.next()) {
    if (in.field() == 1) {
      in.once();
      key = in.text();
    } else if (in.field() == 2) {
      in.once();
      value = true;
      read(in.message(name));
    }
  }
  if (in.ok() && !value) in.fail(Refusal::kRange, "a map entry without a value");
  return key;
}

// ---- program

std::vector<Binding> parse_argument(ProtoReader in) {
  std::vector<Binding> out;
  while (in.next()) {
    if (in.field() != 1) continue;
    ProtoReader binding = in.message("Argument.Binding");
    bool found = false;
    while (binding.next()) {
      if (binding.field() != 1 && binding.field() != 2) continue;
      if (found) binding.fail(Refusal::kDup, "a binding to two things");
      found = true;
      if (binding.field() == 1) {
        out.emplace_back(binding.text());
      } else {
        out.emplace_back(parse_value(binding.message("Binding.value")));
      }
    }
    if (!found) binding.fail(Refusal::kRange, "a binding to nothing");
  }
  return out;
}

void parse_block(ProtoReader in, std::vector<std::string>* outputs,
                 std::vector<Operation>* operations);

Operation parse_operation(ProtoReader in) {
  Operation op;
  bool nested = false;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        op.type = in.text();
        break;
      case 2: {
        std::vector<Binding> bindings;
        std::string key = parse_entry(in.message("Operation.inputs"), "Argument",
                                      [&](ProtoReader r) { bindings = parse_argument(r); });
        op.inputs.emplace_back(std::move(key), std::move(bindings));
        break;
      }
      case 3:
        op.outputs.push_back(parse_named_type(in.message("Operation.outputs")));
        break;
      case 4: {
        std::vector<std::string> outputs;
        std::vector<Operation> operations;
        parse_block(in.message("Operation.blocks"), &outputs, &operations);
        nested = true;
        break;
      }
      case 5: {
        ValueData value;
        std::string key = parse_entry(in.message("Operation.attributes"), "Value",
                                      [&](ProtoReader r) { value = parse_value(r); });
        if (!op.attributes.emplace(std::move(key), std::move(value)).second) {
          in.fail(Refusal::kDup, "two attributes of one name");
        }
        break;
      }
      default:
        break;
    }
  }
  std::sort(op.inputs.begin(), op.inputs.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 1; i < op.inputs.size(); ++i) {
    if (op.inputs[i].first == op.inputs[i - 1].first) {
      in.fail(Refusal::kDup, "two inputs named '" + op.inputs[i].first + "'");
    }
  }
  if (in.ok() && op.type.empty()) in.fail(Refusal::kRange, "an operation without a type");
  if (in.ok() && nested) {
    in.fail(Refusal::kNone, "operation '" + op.type + "' holds nested blocks (control flow)",
            StatusCode::kUnsupported);
  }
  return op;
}

void parse_block(ProtoReader in, std::vector<std::string>* outputs,
                 std::vector<Operation>* operations) {
  while (in.next()) {
    if (in.field() == 2) outputs->push_back(in.text());
    if (in.field() == 3) operations->push_back(parse_operation(in.message("Block.operations")));
  }
}

bool known_opset(const std::string& opset) {
  return opset.size() == 7 && opset.starts_with("CoreML") && opset[6] >= '5' && opset[6] <= '9';
}

Function parse_function(ProtoReader in) {
  struct Body {
    std::vector<std::string> outputs;
    std::vector<Operation> operations;
  };
  Function function;
  std::map<std::string, Body> bodies;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        function.inputs.push_back(parse_named_type(in.message("Function.inputs")));
        break;
      case 2:
        in.once();
        function.opset = in.text();
        break;
      case 3: {
        Body body;
        std::string key =
            parse_entry(in.message("Function.block_specializations"), "Block",
                        [&](ProtoReader r) { parse_block(r, &body.outputs, &body.operations); });
        if (!bodies.emplace(std::move(key), std::move(body)).second) {
          in.fail(Refusal::kDup, "two blocks for one opset");
        }
        break;
      }
      default:
        break;
    }
  }
  if (!in.ok()) return function;
  if (!known_opset(function.opset)) {
    in.fail(Refusal::kVersion, "opset '" + function.opset + "' (known: CoreML5 to CoreML9)",
            StatusCode::kUnsupported);
    return function;
  }
  const auto body = bodies.find(function.opset);
  if (body == bodies.end()) {
    in.fail(Refusal::kRange, "no block for the opset " + function.opset);
    return function;
  }
  function.outputs = std::move(body->second.outputs);
  function.operations = std::move(body->second.operations);
  return function;
}

void parse_program(ProtoReader in, Model* model) {
  int64_t version = 0;
  std::set<std::string> names;
  while (in.next()) {
    if (in.field() == 1) {
      in.once();
      version = in.int64();
    } else if (in.field() == 2) {
      Function function;
      function.name = parse_entry(in.message("Program.functions"), "Function",
                                  [&](ProtoReader r) { function = parse_function(r); });
      if (!names.insert(function.name).second) {
        in.fail(Refusal::kDup, "two functions named '" + function.name + "'");
      }
      model->functions.push_back(std::move(function));
    }
  }
  if (in.ok() && version != 1) {
    in.fail(Refusal::kVersion, "program version " + std::to_string(version) + ", expected 1");
  }
  std::sort(model->functions.begin(), model->functions.end(),
            [](const Function& a, const Function& b) { return a.name < b.name; });
}

// ---- description

void parse_ranges(ProtoReader in, Feature* feature) {
  while (in.next()) {
    if (in.field() != 1) continue;
    if (feature->ranges.size() >= kMaxRank)
      in.fail(Refusal::kLimit, "an array of more than 64 dimensions");
    if (!in.ok()) return;
    uint64_t least = 0, most = 0;
    ProtoReader range = in.message("SizeRange");
    while (range.next()) {
      if (range.field() == 1) least = range.varint();
      if (range.field() == 2) most = range.varint();
    }
    if (in.ok() && least > INT64_MAX) in.fail(Refusal::kRange, "a negative dimension");
    feature->ranges.emplace_back(static_cast<int64_t>(least),
                                 std::max<int64_t>(static_cast<int64_t>(most), -1));
  }
}

void parse_array_feature(ProtoReader in, Feature* feature) {
  bool typed = false;
  while (in.next()) {
    if (in.field() == 1) {
      in.each_varint([&](uint64_t dim) {
        if (dim > INT64_MAX) in.fail(Refusal::kRange, "a negative dimension");
        if (feature->shape.size() >= kMaxRank) {
          in.fail(Refusal::kLimit, "an array of more than 64 dimensions");
        }
        if (in.ok()) feature->shape.push_back(static_cast<int64_t>(dim));
      });
    } else if (in.field() == 2) {
      const uint64_t code = in.varint();
      if (const auto dtype = dtype_from_array(code)) {
        feature->dtype = *dtype;
        typed = true;
      } else {
        in.fail(Refusal::kType, "array data type " + std::to_string(code) + " does not exist");
      }
    } else if (in.field() == 31) {
      in.once();
      parse_ranges(in.message("ShapeRange"), feature);
    }
  }
  if (in.ok() && !typed) in.fail(Refusal::kType, "an array without a data type");
}

Feature parse_feature(ProtoReader in) {
  Feature feature;
  feature.kind = Feature::Kind::kOther;
  while (in.next()) {
    if (in.field() == 1) feature.name = in.text();
    if (in.field() != 3) continue;
    in.once();
    ProtoReader type = in.message("FeatureType");
    while (type.next()) {
      if (type.field() == 5) {
        type.once();
        feature.kind = Feature::Kind::kArray;
        parse_array_feature(type.message("ArrayFeatureType"), &feature);
      } else if (type.field() == 8) {
        type.once();
        feature.kind = Feature::Kind::kState;
        ProtoReader state = type.message("StateFeatureType");
        while (state.next()) {
          if (state.field() == 1) parse_array_feature(state.message("ArrayFeatureType"), &feature);
        }
      }
    }
  }
  if (in.ok() && feature.name.empty()) in.fail(Refusal::kRange, "a feature without a name");
  return feature;
}

FunctionDescription parse_function_description(ProtoReader in) {
  FunctionDescription out;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        out.name = in.text();
        break;
      case 2:
        out.inputs.push_back(parse_feature(in.message("input")));
        break;
      case 3:
        out.outputs.push_back(parse_feature(in.message("output")));
        break;
      case 6:
        out.states.push_back(parse_feature(in.message("state")));
        break;
      default:
        break;
    }
  }
  return out;
}

void parse_metadata(ProtoReader in, Model* model) {
  while (in.next()) {
    switch (in.field()) {
      case 1:
        model->short_description = in.text();
        break;
      case 2:
        model->version = in.text();
        break;
      case 3:
        model->author = in.text();
        break;
      case 4:
        model->license = in.text();
        break;
      case 100: {
        ProtoReader entry = in.message("Metadata.userDefined");
        std::string key, value;
        while (entry.next()) {
          if (entry.field() == 1) key = entry.text();
          if (entry.field() == 2) value = entry.text();
        }
        if (!model->user_metadata.emplace(std::move(key), std::move(value)).second) {
          in.fail(Refusal::kDup, "two metadata values of one name");
        }
        break;
      }
      default:
        break;
    }
  }
}

void parse_description(ProtoReader in, Model* model) {
  FunctionDescription top;
  top.name = "main";
  while (in.next()) {
    switch (in.field()) {
      case 1:
        top.inputs.push_back(parse_feature(in.message("input")));
        break;
      case 10:
        top.outputs.push_back(parse_feature(in.message("output")));
        break;
      case 13:
        top.states.push_back(parse_feature(in.message("state")));
        break;
      case 20:
        model->descriptions.push_back(parse_function_description(in.message("functions")));
        break;
      case 21:
        model->default_function = in.text();
        break;
      case 100:
        in.once();
        parse_metadata(in.message("Metadata"), model);
        break;
      default:
        break;
    }
  }
  const bool top_empty = top.inputs.empty() && top.outputs.empty() && top.states.empty();
  const bool several = !model->descriptions.empty() || !model->default_function.empty();
  if (several && !top_empty) {
    in.fail(Refusal::kRange, "features at the top level of a model with several functions");
  }
  if (!several) model->descriptions.push_back(std::move(top));
}

// ---- the model as a whole

std::set<std::string> names_of(const std::vector<Feature>& features) {
  std::set<std::string> out;
  for (const Feature& feature : features) out.insert(feature.name);
  return out;
}

Status check_description(const FunctionDescription& description, const Function& function) {
  std::set<std::string> inputs, states, outputs(function.outputs.begin(), function.outputs.end());
  for (const NamedType& input : function.inputs) {
    (input.type.kind == Type::Kind::kState ? states : inputs).insert(input.name);
  }
  if (names_of(description.inputs) != inputs || names_of(description.outputs) != outputs ||
      names_of(description.states) != states) {
    return bad_input(Refusal::kRange, "the described inputs, outputs or states of function '" +
                                          function.name + "' are not those of its body");
  }
  return {};
}

Status check_model(const Model& model, const std::string& file) {
  std::set<std::string> described;
  for (const FunctionDescription& description : model.descriptions) {
    if (!described.insert(description.name).second) {
      return bad_input(Refusal::kDup, "function '" + description.name + "' is described twice")
          .in(file);
    }
    const auto function =
        std::find_if(model.functions.begin(), model.functions.end(),
                     [&](const Function& f) { return f.name == description.name; });
    if (function == model.functions.end()) {
      return bad_input(Refusal::kRange,
                       "function '" + description.name + "' is described but not defined")
          .in(file);
    }
    if (Status s = check_description(description, *function); !s.ok()) {
      return std::move(s).in(file);
    }
  }
  if (described.size() != model.functions.size()) {
    return bad_input(Refusal::kRange, "a function is defined but not described").in(file);
  }
  if (!model.default_function.empty() && described.count(model.default_function) == 0) {
    return bad_input(Refusal::kRange,
                     "the default function '" + model.default_function + "' does not exist")
        .in(file);
  }
  for (const Function& function : model.functions) {
    POME_RETURN_IF_ERROR(check_function(function, file));
  }
  return {};
}

Result<Model> parse_bytes(std::span<const std::byte> bytes, const std::string& file) {
  ProtoContext context{file, bytes, {}};
  ProtoReader in(&context, "Model");
  Model model;
  int64_t version = 0;
  bool program = false;
  // The version decides what the rest may mean, so it is judged first, wherever it stands.
  for (ProtoReader scan = in; scan.next();) {
    if (scan.field() == 1) version = scan.int64();
  }
  if (!context.error.ok()) return context.error;
  if (version < 6 || version > 10) {
    const StatusCode code = version < 1 ? StatusCode::kBadInput : StatusCode::kUnsupported;
    return Status(code,
                  "specification version " + std::to_string(version) +
                      " (ML Programs have 6, pome knows up to 10)",
                  Refusal::kVersion)
        .in(file);
  }
  model.specification_version = static_cast<int32_t>(version);
  while (in.next()) {
    if (in.field() == 2) {
      in.once();
      parse_description(in.message("ModelDescription"), &model);
    } else if (in.field() == 502) {
      in.once();
      program = true;
      parse_program(in.message("Program"), &model);
    }
  }
  if (!context.error.ok()) return context.error;
  if (!program) {
    return Status(StatusCode::kUnsupported, "the model is no ML Program (field 502 is absent)",
                  Refusal::kRange)
        .in(file);
  }
  POME_RETURN_IF_ERROR(check_model(model, file));
  return model;
}

}  // namespace

Result<Model> parse_model(ByteSourcePtr bytes) {
  if (bytes->size() > kMaxModelBytes) {
    return bad_input(Refusal::kLimit, "a model of " + std::to_string(bytes->size()) +
                                          " bytes; protobuf ends at 2 GiB")
        .in(bytes->name())
        .hint("weights belong into a weight file beside it");
  }
  if (const auto view = bytes->view(0, bytes->size())) return parse_bytes(*view, bytes->name());
  std::vector<std::byte> copy(static_cast<size_t>(bytes->size()));
  POME_RETURN_IF_ERROR(bytes->read(0, copy));
  return parse_bytes(copy, bytes->name());
}

}  // namespace pome::mil
