#include "interp/mil_ops.h"

#include <algorithm>
#include <limits>

#include "tensor/half.h"

namespace pome::mil_ops {

DType storage_of(DType type) {
  if (type == DType::kBool) return DType::kBool;
  return is_float(type) ? DType::kF32 : DType::kI32;
}
bool is_code(DType type) { return type != DType::kBool && !is_float(type) && bits_of(type) <= 8; }
bool is_integer(DType type) { return storage_of(type) == DType::kI32; }

namespace {

template <typename T>
Result<Value> widen_ints(const Tensor& stored, DType type) {
  Tensor out = Tensor::zeros(DType::kI32, stored.shape());
  auto to = out.mutable_as<int32_t>();
  auto from = stored.as<T>();
  for (size_t i = 0; i < to.size(); ++i) {
    if constexpr (sizeof(T) >= 4) {
      if (!std::in_range<int32_t>(from[i]))
        return unsupported("the constant holds " + std::to_string(from[i]) +
                           ", outside the 32-bit integers");
    }
    to[i] = static_cast<int32_t>(from[i]);
  }
  return Value{type, std::move(out), {}};
}

Value unpack_codes(const Tensor& stored) {
  const int bits = bits_of(stored.dtype());
  const bool is_signed = stored.dtype() == DType::kI4;
  Tensor out = Tensor::zeros(DType::kI32, stored.shape());
  auto to = out.mutable_as<int32_t>();
  constexpr int64_t kRun = 4096;
  uint8_t codes[kRun];
  for (int64_t first = 0; first < stored.count(); first += kRun) {
    const int64_t run = std::min(kRun, stored.count() - first);
    unpack_bits(stored.bytes(), bits, first, {codes, static_cast<size_t>(run)});
    for (int64_t i = 0; i < run; ++i) {
      const int code = codes[i];
      to[static_cast<size_t>(first + i)] = is_signed && code >= 8 ? code - 16 : code;
    }
  }
  return Value{stored.dtype(), std::move(out), {}};
}

}  // namespace

Result<Value> decode_constant(const Tensor& stored) {
  const DType type = stored.dtype();
  Tensor out;
  switch (type) {
    case DType::kF32: {
      // A file view may not be aligned for floats.
      out = Tensor::zeros(DType::kF32, stored.shape());
      std::copy(stored.bytes().begin(), stored.bytes().end(), out.mutable_bytes().begin());
      return Value{type, std::move(out), {}};
    }
    case DType::kF16:
      out = Tensor::zeros(DType::kF32, stored.shape());
      f16_to_f32(stored.as<uint16_t>(), out.mutable_as<float>());
      return Value{type, std::move(out), {}};
    case DType::kBF16:
      out = Tensor::zeros(DType::kF32, stored.shape());
      bf16_to_f32(stored.as<uint16_t>(), out.mutable_as<float>());
      return Value{type, std::move(out), {}};
    case DType::kBool: {
      out = Tensor::zeros(DType::kBool, stored.shape());
      auto to = out.mutable_as<bool>();
      for (size_t i = 0; i < to.size(); ++i) to[i] = stored.bytes()[i] != std::byte{0};
      return Value{type, std::move(out), {}};
    }
    case DType::kI8:
      return widen_ints<int8_t>(stored, type);
    case DType::kU8:
      return widen_ints<uint8_t>(stored, type);
    case DType::kI16:
      return widen_ints<int16_t>(stored, type);
    case DType::kU16:
      return widen_ints<uint16_t>(stored, type);
    case DType::kI32:
      return widen_ints<int32_t>(stored, type);
    case DType::kU32:
      return widen_ints<uint32_t>(stored, type);
    case DType::kI64:
      return widen_ints<int64_t>(stored, type);
    case DType::kU64:
      return widen_ints<uint64_t>(stored, type);
    case DType::kI4:
    case DType::kU1:
    case DType::kU2:
    case DType::kU3:
    case DType::kU4:
    case DType::kU6:
      return unpack_codes(stored);
    case DType::kF64:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
      break;
  }
  return unsupported("constants of type " + std::string(to_string(type)) +
                     " have no operation that takes them");
}

std::string shape_text(const Shape& shape) { return pome::to_string(shape); }
Status bad_operand(std::string_view parameter, std::string_view problem) {
  return bad_input(Refusal::kRange,
                   "parameter '" + std::string(parameter) + "' " + std::string(problem));
}
Status bad_types(DType x, DType y) {
  return bad_input(Refusal::kType, "operands of different types " + std::string(to_string(x)) +
                                       " and " + std::string(to_string(y)));
}
Status bad_shapes(const Shape& x, const Shape& y) {
  return bad_input(Refusal::kRange,
                   "operand shapes " + shape_text(x) + " and " + shape_text(y) + " do not fit");
}

const Input* Call::find(std::string_view name) const {
  for (const Input& input : step_.inputs)
    if (input.name == name) return &input;
  return nullptr;
}
size_t Call::count(std::string_view name) const {
  const Input* input = find(name);
  return input == nullptr ? 0 : input->bindings.size();
}
const Value& Call::at(std::string_view name, size_t index) const {
  const Input* input = find(name);
  POME_CHECK(input != nullptr && index < input->bindings.size());
  const Binding& binding = input->bindings[index];
  return binding.constant != nullptr ? *binding.constant
                                     : slots_[static_cast<size_t>(binding.slot)];
}
Value Call::take(std::string_view name) {
  const Input* input = find(name);
  POME_CHECK(input != nullptr && !input->bindings.empty());
  const Binding& binding = input->bindings.front();
  if (binding.constant != nullptr) return *binding.constant;
  Value& value = slots_[static_cast<size_t>(binding.slot)];
  return binding.last_use ? std::move(value) : value;
}

Result<Value> Call::floats(std::string_view name) const {
  const Value& value = at(name);
  if (value.is_text() || !is_float(value.type))
    return bad_input(Refusal::kType, "parameter '" + std::string(name) + "' must be fp16 or fp32");
  return value;
}
Result<std::vector<int64_t>> Call::ints(std::string_view name) const {
  const Value& value = at(name);
  if (value.is_text() || !is_integer(value.type) || value.tensor.rank() > 1)
    return bad_operand(name, "must be an integer or a list of integers");
  const auto from = value.tensor.as<int32_t>();
  return std::vector<int64_t>(from.begin(), from.end());
}
Result<int64_t> Call::integer(std::string_view name, int64_t fallback) const {
  if (!has(name)) return fallback;
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> list, ints(name));
  if (list.size() != 1) return bad_operand(name, "must be one integer");
  return list[0];
}
Result<bool> Call::flag(std::string_view name, bool fallback) const {
  if (!has(name)) return fallback;
  const Value& value = at(name);
  if (value.is_text() || value.type != DType::kBool || value.tensor.count() != 1)
    return bad_operand(name, "must be one boolean");
  return value.tensor.as<bool>()[0];
}
Result<std::vector<bool>> Call::flags(std::string_view name, size_t rank) const {
  if (!has(name)) return std::vector<bool>(rank, false);
  const Value& value = at(name);
  if (value.is_text() || value.type != DType::kBool || value.tensor.rank() != 1 ||
      value.tensor.count() != static_cast<int64_t>(rank))
    return bad_operand(name, "must hold one boolean per axis");
  const auto from = value.tensor.as<bool>();
  return std::vector<bool>(from.begin(), from.end());
}
Result<double> Call::number(std::string_view name, double fallback) const {
  if (!has(name)) return fallback;
  const Value& value = at(name);
  if (value.is_text() || value.tensor.count() != 1 || value.type == DType::kBool)
    return bad_operand(name, "must be one number");
  if (is_integer(value.type)) return static_cast<double>(value.tensor.as<int32_t>()[0]);
  return static_cast<double>(value.tensor.f32()[0]);
}
Result<std::string> Call::text(std::string_view name, std::string_view fallback) const {
  if (!has(name)) return std::string(fallback);
  const Value& value = at(name);
  if (value.strings.size() != 1) return bad_operand(name, "must be one string");
  return value.strings[0];
}
Result<int64_t> Call::axis(std::string_view name, int64_t fallback, int64_t rank) const {
  POME_ASSIGN_OR_RETURN(const int64_t given, integer(name, fallback));
  if (given < -rank || given >= rank)
    return bad_operand(
        name, "is " + std::to_string(given) + " for a value of rank " + std::to_string(rank));
  return given < 0 ? given + rank : given;
}
Result<std::vector<int64_t>> Call::axes(std::string_view name, int64_t rank) const {
  std::vector<int64_t> out;
  if (!has(name)) {
    for (int64_t i = 0; i < rank; ++i) out.push_back(i);
    return out;
  }
  POME_ASSIGN_OR_RETURN(const std::vector<int64_t> given, ints(name));
  for (const int64_t a : given) {
    if (a < -rank || a >= rank)
      return bad_operand(
          name, "holds " + std::to_string(a) + " for a value of rank " + std::to_string(rank));
    out.push_back(a < 0 ? a + rank : a);
    if (std::count(out.begin(), out.end(), out.back()) > 1)
      return bad_operand(name, "names an axis twice");
  }
  return out;
}

}  // namespace pome::mil_ops
