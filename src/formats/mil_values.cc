// Types and values of MIL.proto.
#include <algorithm>
#include <cstring>

#include "formats/mil_internal.h"

namespace pome::mil {
namespace {

constexpr size_t kMaxRank = 64;

int64_t parse_dimension(ProtoReader in) {
  int64_t size = -1;
  bool known = false;
  while (in.next()) {
    if (in.field() == 1) {
      in.once();
      known = true;
      ProtoReader constant = in.message("Dimension.constant");
      uint64_t value = 0;
      while (constant.next()) {
        if (constant.field() == 1) value = constant.varint();
      }
      if (value > INT64_MAX) in.fail(Refusal::kOverflow, "a dimension of more than 63 bits");
      size = static_cast<int64_t>(value & INT64_MAX);
    } else if (in.field() == 2) {
      in.once();
      known = true;
      in.message("Dimension.unknown");
    }
  }
  if (!known) in.fail(Refusal::kRange, "a dimension that is neither a number nor unknown");
  return size;
}

void parse_tensor_type(ProtoReader in, Type* type) {
  int64_t rank = 0;
  bool known = false;
  while (in.next()) {
    switch (in.field()) {
      case 1: {
        in.once();
        const uint64_t code = in.varint();
        known = true;
        if (code == kMilString) {
          type->kind = Type::Kind::kString;
        } else if (const auto dtype = dtype_from_mil(code)) {
          type->dtype = *dtype;
        } else {
          in.fail(Refusal::kType, "data type " + std::to_string(code) + " does not exist");
        }
        break;
      }
      case 2:
        in.once();
        rank = in.int64();
        break;
      case 3:
        if (type->dims.size() >= kMaxRank) {
          in.fail(Refusal::kLimit, "a tensor of more than 64 dimensions");
        }
        type->dims.push_back(parse_dimension(in.message("TensorType.dimensions")));
        break;
      default:
        break;
    }
  }
  if (!known) in.fail(Refusal::kType, "a tensor without a data type");
  if (rank != static_cast<int64_t>(type->dims.size())) {
    in.fail(Refusal::kRange, "rank is " + std::to_string(rank) + ", there are " +
                                 std::to_string(type->dims.size()) + " dimensions");
  }
  const bool all_known =
      std::all_of(type->dims.begin(), type->dims.end(), [](int64_t d) { return d >= 0; });
  if (all_known && !element_count_of(*type)) {
    in.fail(Refusal::kOverflow, "the number of elements of " + to_string(*type) + " overflows");
  }
}

template <typename T>
void append(std::vector<std::byte>* out, T value) {
  const size_t at = out->size();
  out->resize(at + sizeof(T));
  std::memcpy(out->data() + at, &value, sizeof(T));
}

// One element of TensorValue.ints / longInts / bools in the bytes of `dtype`.
void append_integer(ProtoReader* in, DType dtype, uint64_t value, std::vector<std::byte>* out) {
  const int64_t number = static_cast<int64_t>(value);
  bool fits = true;
  switch (dtype) {
    case DType::kBool:
      fits = value <= 1;
      append(out, static_cast<uint8_t>(value));
      break;
    case DType::kI16:
      fits = number >= INT16_MIN && number <= INT16_MAX;
      append(out, static_cast<int16_t>(number));
      break;
    case DType::kU16:
      fits = value <= UINT16_MAX;
      append(out, static_cast<uint16_t>(value));
      break;
    case DType::kI32:
      fits = number >= INT32_MIN && number <= INT32_MAX;
      append(out, static_cast<int32_t>(number));
      break;
    default:
      append(out, value);
      break;
  }
  if (!fits) in->fail(Refusal::kRange, std::to_string(number) + " does not fit its data type");
}

void parse_numbers(ProtoReader in, uint32_t member, DType dtype, std::vector<std::byte>* out) {
  while (in.next()) {
    if (in.field() != 1) continue;
    if (member == 7) {
      in.once();
      const auto raw = in.bytes();
      out->assign(raw.begin(), raw.end());
    } else if (member == 1 || member == 6) {
      const auto raw = in.fixed(member == 1 ? 4 : 8);
      out->insert(out->end(), raw.begin(), raw.end());
    } else {
      in.each_varint([&](uint64_t value) { append_integer(&in, dtype, value, out); });
    }
  }
}

void parse_tensor_value(ProtoReader in, ValueData* value) {
  const bool strings = value->type.kind == Type::Kind::kString;
  const uint32_t wanted = strings ? 4 : member_of(value->type.dtype);
  const auto count = element_count_of(value->type);
  if (!count) {
    in.fail(Refusal::kRange, "a constant of unknown shape " + to_string(value->type));
    return;
  }
  std::vector<std::byte> bytes;
  std::vector<std::string> texts;
  bool found = false;
  while (in.next()) {
    if (in.field() < 1 || in.field() > 7) continue;
    if (in.field() != wanted || found) {
      in.fail(Refusal::kType, "the values of " + to_string(value->type) + " stand in member " +
                                  std::to_string(in.field()) + " and not once in member " +
                                  std::to_string(wanted));
      return;
    }
    found = true;
    ProtoReader inner = in.message("TensorValue");
    if (strings) {
      while (inner.next()) {
        if (inner.field() == 1) texts.push_back(inner.text());
        if (texts.size() > *count) break;
      }
    } else {
      parse_numbers(inner, wanted, value->type.dtype, &bytes);
    }
  }
  const auto size = storage_bytes(value->type.dtype, *count);
  const bool matches = strings ? texts.size() == *count : size && bytes.size() == *size;
  if (!matches || (!found && *count > 0)) {
    in.fail(Refusal::kRange,
            "the number of values does not match the type " + to_string(value->type));
    return;
  }
  if (strings) {
    value->data = std::move(texts);
  } else {
    value->data = std::move(bytes);
  }
}

void parse_immediate(ProtoReader in, ValueData* value) {
  bool found = false;
  while (in.next()) {
    if (in.field() < 1 || in.field() > 4) continue;
    const bool tensor = in.field() == 1;
    const bool wants_tensor = value->type.kind != Type::Kind::kOther;
    if (found || tensor != wants_tensor) {
      in.fail(Refusal::kType, "a value of another kind than its type");
      return;
    }
    found = true;
    if (tensor) parse_tensor_value(in.message("ImmediateValue.tensor"), value);
  }
  if (!found) in.fail(Refusal::kType, "an empty value");
}

BlobRef parse_blob_ref(ProtoReader in) {
  BlobRef ref;
  while (in.next()) {
    if (in.field() == 1) ref.file = in.text();
    if (in.field() == 2) ref.offset = in.varint();
  }
  return ref;
}

}  // namespace

uint32_t member_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 1;
    case DType::kI16:
    case DType::kU16:
    case DType::kI32:
      return 2;
    case DType::kBool:
      return 3;
    case DType::kI64:
    case DType::kU64:
      return 5;
    case DType::kF64:
      return 6;
    default:
      return 7;
  }
}

// Lists, tuples and dictionaries have no place in a graph that we run; their types are read for
// their depth alone.
Type parse_type(ProtoReader in) {
  Type type;
  int alternatives = 0;
  while (in.next()) {
    if (in.field() < 1 || in.field() > 5) continue;
    if (++alternatives > 1) in.fail(Refusal::kDup, "a value type that says two things");
    const uint32_t field = in.field();
    ProtoReader inner = in.message("ValueType");
    if (field == 1) {
      parse_tensor_type(inner, &type);
      continue;
    }
    if (field == 5) {
      bool wrapped = false;
      while (inner.next()) {
        if (inner.field() != 1) continue;
        inner.once();
        type = parse_type(inner.message("StateType.wrappedType"));
        wrapped = true;
        if (type.kind != Type::Kind::kTensor) {
          inner.fail(Refusal::kType, "a state that holds no tensor");
        }
      }
      if (!wrapped) inner.fail(Refusal::kType, "a state that holds no tensor");
      type.kind = Type::Kind::kState;
      continue;
    }
    type.kind = Type::Kind::kOther;
    while (inner.next()) {
      const bool holds_type = inner.field() == 1 || (field == 4 && inner.field() == 2);
      if (holds_type) parse_type(inner.message("ValueType"));
    }
  }
  if (alternatives == 0) in.fail(Refusal::kType, "a value without a type");
  return type;
}

ValueData parse_value(ProtoReader in) {
  ValueData value;
  std::optional<ProtoReader> immediate;  // read when the type is known: fields come in any order
  bool typed = false, blob = false;
  while (in.next()) {
    switch (in.field()) {
      case 2:
        in.once();
        value.type = parse_type(in.message("Value.type"));
        typed = true;
        break;
      case 3:
        in.once();
        immediate = in.message("Value.immediateValue");
        break;
      case 5:
        in.once();
        blob = true;
        value.data = parse_blob_ref(in.message("Value.blobFileValue"));
        break;
      default:
        break;
    }
  }
  if (!in.ok()) return value;
  if (!typed || value.type.kind == Type::Kind::kState) {
    in.fail(Refusal::kType, "a value without a type that can have one");
  } else if (blob == immediate.has_value()) {
    in.fail(Refusal::kRange, "a value needs either an immediate or a place in a weight file");
  } else if (blob && (value.type.kind != Type::Kind::kTensor || !element_count_of(value.type))) {
    in.fail(Refusal::kType, "a weight file cannot hold " + to_string(value.type));
  } else if (immediate) {
    parse_immediate(*immediate, &value);
  }
  return value;
}

NamedType parse_named_type(ProtoReader in) {
  NamedType out;
  bool typed = false;
  while (in.next()) {
    if (in.field() == 1) out.name = in.text();
    if (in.field() == 2) {
      in.once();
      out.type = parse_type(in.message("NamedValueType.type"));
      typed = true;
    }
  }
  if (in.ok() && (out.name.empty() || !typed)) {
    in.fail(Refusal::kRange, "a value without a name or type");
  }
  return out;
}

}  // namespace pome::mil
