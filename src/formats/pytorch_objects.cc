#include "formats/pytorch_objects.h"

#include <algorithm>

#include "base/checked.h"

namespace pome::pytorch {
namespace {

constexpr size_t kMaxObjects = 1 << 20;  // storages, and tensors
constexpr size_t kMaxDims = 64;

enum class Meaning : uint8_t {
  kOrderedDict,
  kRebuildTensor,     // the storage knows the dtype
  kRebuildTyped,      // the dtype is an argument
  kRebuildParameter,  // a tensor that was trained
  kRebuildWithState,  // ... and has attributes
  kRebuildFromType,   // a tensor of a class, with attributes
  kSize,
  kDevice,
  kTensorClass,
  kStorageClass,
  kUntypedStorage,
  kDtype,
};
struct Known {
  std::string_view module, name;
  Meaning meaning;
  DType dtype = DType::kF32;
};
// The whole list. Pairs are compared as they are: no prefixes, no attributes of attributes.
constexpr Known kKnown[] = {
    {"collections", "OrderedDict", Meaning::kOrderedDict},
    {"torch._utils", "_rebuild_tensor_v2", Meaning::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor_v3", Meaning::kRebuildTyped},
    {"torch._utils", "_rebuild_parameter", Meaning::kRebuildParameter},
    {"torch._utils", "_rebuild_parameter_with_state", Meaning::kRebuildWithState},
    {"torch._tensor", "_rebuild_from_type_v2", Meaning::kRebuildFromType},
    {"torch", "Size", Meaning::kSize},
    {"torch", "device", Meaning::kDevice},
    {"torch", "Tensor", Meaning::kTensorClass},
    {"torch.nn.parameter", "Parameter", Meaning::kTensorClass},
    {"torch", "FloatStorage", Meaning::kStorageClass, DType::kF32},
    {"torch", "DoubleStorage", Meaning::kStorageClass, DType::kF64},
    {"torch", "HalfStorage", Meaning::kStorageClass, DType::kF16},
    {"torch", "BFloat16Storage", Meaning::kStorageClass, DType::kBF16},
    {"torch", "LongStorage", Meaning::kStorageClass, DType::kI64},
    {"torch", "IntStorage", Meaning::kStorageClass, DType::kI32},
    {"torch", "ShortStorage", Meaning::kStorageClass, DType::kI16},
    {"torch", "CharStorage", Meaning::kStorageClass, DType::kI8},
    {"torch", "ByteStorage", Meaning::kStorageClass, DType::kU8},
    {"torch", "BoolStorage", Meaning::kStorageClass, DType::kBool},
    {"torch.storage", "UntypedStorage", Meaning::kUntypedStorage},
    {"torch", "UntypedStorage", Meaning::kUntypedStorage},
    {"torch", "float32", Meaning::kDtype, DType::kF32},
    {"torch", "float64", Meaning::kDtype, DType::kF64},
    {"torch", "float16", Meaning::kDtype, DType::kF16},
    {"torch", "bfloat16", Meaning::kDtype, DType::kBF16},
    {"torch", "int64", Meaning::kDtype, DType::kI64},
    {"torch", "int32", Meaning::kDtype, DType::kI32},
    {"torch", "int16", Meaning::kDtype, DType::kI16},
    {"torch", "int8", Meaning::kDtype, DType::kI8},
    {"torch", "uint64", Meaning::kDtype, DType::kU64},
    {"torch", "uint32", Meaning::kDtype, DType::kU32},
    {"torch", "uint16", Meaning::kDtype, DType::kU16},
    {"torch", "uint8", Meaning::kDtype, DType::kU8},
    {"torch", "bool", Meaning::kDtype, DType::kBool},
    {"torch", "float8_e4m3fn", Meaning::kDtype, DType::kF8E4M3},
    {"torch", "float8_e5m2", Meaning::kDtype, DType::kF8E5M2},
};

const Known& known(int64_t global) { return kKnown[static_cast<size_t>(global)]; }

Status wrong_arguments(std::string_view callee, std::string_view what) {
  return bad_input(Refusal::kType, std::string(callee) + " is called with " + std::string(what));
}

// Objects are numbered: tensors even, storages odd.
int64_t tensor_number(size_t index) { return static_cast<int64_t>(index) * 2; }
int64_t storage_number(size_t index) { return static_cast<int64_t>(index) * 2 + 1; }

bool is_global(const PickleValues& values, PickleRef ref, Meaning meaning) {
  return values.kind(ref) == PickleKind::kGlobal && known(values.number(ref)).meaning == meaning;
}

Result<Shape> dims_of(const PickleValues& values, PickleRef ref, std::string_view what) {
  const auto wrong = [&] {
    return bad_input(Refusal::kType, std::string(what) + " of a tensor is no tuple of numbers");
  };
  if (values.kind(ref) != PickleKind::kTuple) return wrong();
  Shape out;
  if (values.items(ref).size() > kMaxDims) {
    return bad_input(Refusal::kLimit, "a tensor has more than 64 dimensions");
  }
  for (const PickleRef item : values.items(ref)) {
    if (values.kind(item) != PickleKind::kInt) return wrong();
    out.push_back(values.number(item));
  }
  return out;
}

}  // namespace

std::optional<int64_t> Objects::find_global(std::string_view module, std::string_view name) {
  for (size_t i = 0; i < std::size(kKnown); ++i) {
    if (kKnown[i].name == name && kKnown[i].module == module) return static_cast<int64_t>(i);
  }
  return std::nullopt;
}

Result<PickleRef> Objects::call(int64_t global, PickleRef arguments, PickleValues& values) {
  const Known& callee = known(global);
  const std::vector<PickleRef> given(values.items(arguments).begin(),
                                     values.items(arguments).end());
  const auto is_tensor = [&](size_t i) { return tensor(values, given[i]) != nullptr; };
  switch (callee.meaning) {
    case Meaning::kOrderedDict:
      if (!given.empty()) return wrong_arguments(callee.name, "arguments");
      return values.add_list(PickleKind::kOrderedDict, {});
    case Meaning::kRebuildTensor:
    case Meaning::kRebuildTyped:
      return rebuild_tensor(given, callee.meaning == Meaning::kRebuildTyped, values);
    case Meaning::kRebuildParameter:
      if (given.size() != 3 || !is_tensor(0)) return wrong_arguments(callee.name, "no tensor");
      return given[0];
    case Meaning::kRebuildWithState:
      if (given.size() != 4 || !is_tensor(0)) return wrong_arguments(callee.name, "no tensor");
      return given[0];
    case Meaning::kRebuildFromType:
      return rebuild_from_type(given, values);
    case Meaning::kSize:
      if (given.size() != 1 || values.kind(given[0]) != PickleKind::kTuple) {
        return wrong_arguments(callee.name, "no tuple");
      }
      return given[0];
    case Meaning::kDevice:
      if (given.empty() || given.size() > 2 || values.kind(given[0]) != PickleKind::kText) {
        return wrong_arguments(callee.name, "no name");
      }
      return given[0];
    default:
      return bad_input(Refusal::kGlobal, "the pickle calls " + std::string(callee.module) + "." +
                                             std::string(callee.name) +
                                             ", which may only be named");
  }
}

// (storage, offset, sizes, strides, requires_grad, hooks, [dtype,] [metadata])
Result<PickleRef> Objects::rebuild_tensor(std::span<const PickleRef> arguments, bool typed,
                                          PickleValues& values) {
  const std::string_view name = typed ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2";
  const size_t fixed = typed ? 7 : 6;
  if (arguments.size() != fixed && arguments.size() != fixed + 1) {
    return wrong_arguments(name, std::to_string(arguments.size()) + " arguments");
  }
  StatedTensor tensor;
  POME_ASSIGN_OR_RETURN(tensor.storage, storage_argument(values, arguments[0]));
  if (values.kind(arguments[1]) != PickleKind::kInt) return wrong_arguments(name, "no offset");
  tensor.offset = values.number(arguments[1]);
  POME_ASSIGN_OR_RETURN(tensor.sizes, dims_of(values, arguments[2], "the size"));
  POME_ASSIGN_OR_RETURN(tensor.strides, dims_of(values, arguments[3], "the stride"));
  const std::optional<DType> stored = storages_[tensor.storage].dtype;
  if (typed) {
    if (!is_global(values, arguments[6], Meaning::kDtype)) return wrong_arguments(name, "no dtype");
    tensor.dtype = known(values.number(arguments[6])).dtype;
    if (stored && *stored != tensor.dtype) return wrong_arguments(name, "two dtypes");
  } else {
    if (!stored) return wrong_arguments(name, "a storage without a dtype");
    tensor.dtype = *stored;
  }
  // Bits that say "negated" or "conjugated": the bytes are not the values.
  if (arguments.size() > fixed && values.kind(arguments[fixed]) != PickleKind::kNone &&
      !(values.kind(arguments[fixed]) == PickleKind::kDict &&
        values.items(arguments[fixed]).empty())) {
    return Status(StatusCode::kUnsupported, "a tensor is stored negated or conjugated",
                  Refusal::kType)
        .hint("call .resolve_neg().resolve_conj() on it before saving");
  }
  if (tensors_.size() >= kMaxObjects) {
    return bad_input(Refusal::kLimit, "the pickle has too many tensors");
  }
  tensors_.push_back(std::move(tensor));
  return values.add(PickleKind::kObject, tensor_number(tensors_.size() - 1));
}

// (function, class, its arguments, attributes): what torch writes for a tensor that has attributes.
Result<PickleRef> Objects::rebuild_from_type(std::span<const PickleRef> arguments,
                                             PickleValues& values) {
  constexpr std::string_view kName = "_rebuild_from_type_v2";
  if (arguments.size() != 4 || values.kind(arguments[2]) != PickleKind::kTuple ||
      !is_global(values, arguments[1], Meaning::kTensorClass)) {
    return wrong_arguments(kName, "no tensor");
  }
  const bool typed = is_global(values, arguments[0], Meaning::kRebuildTyped);
  if (!typed && !is_global(values, arguments[0], Meaning::kRebuildTensor)) {
    return bad_input(Refusal::kGlobal, std::string(kName) + " may only rebuild a plain tensor");
  }
  const std::vector<PickleRef> given(values.items(arguments[2]).begin(),
                                     values.items(arguments[2]).end());
  return rebuild_tensor(given, typed, values);
}

Result<size_t> Objects::storage_argument(const PickleValues& values, PickleRef ref) const {
  if (values.kind(ref) == PickleKind::kObject && values.number(ref) % 2 == 1) {
    return static_cast<size_t>(values.number(ref) / 2);
  }
  return bad_input(
      Refusal::kType,
      "a tensor is made of a " + std::string(to_string(values.kind(ref))) + ", not of a storage");
}

const StatedTensor* Objects::tensor(const PickleValues& values, PickleRef ref) const {
  if (values.kind(ref) != PickleKind::kObject || values.number(ref) % 2 != 0) return nullptr;
  return &tensors_[static_cast<size_t>(values.number(ref) / 2)];
}

Result<const ZipEntry*> Objects::find_entry(std::string_view key) const {
  const std::string shown = "\"" + escape_for_terminal(key, 80) + "\"";
  if (key.empty() || key.find_first_of(std::string_view("/\\:\0", 4)) != std::string_view::npos ||
      key == "." || key == "..") {
    return bad_input(Refusal::kPath, "the storage key " + shown + " is no plain name");
  }
  const ZipEntry* entry = archive_.find(root_ + "/data/" + std::string(key));
  if (!entry) {
    return bad_input(Refusal::kRange, "the archive has no data for the storage " + shown);
  }
  return entry;
}

// ("storage", class, key, device, elements)
Result<PickleRef> Objects::persistent(PickleRef id, PickleValues& values) {
  const auto wrong = [] {
    return bad_input(Refusal::kType, "a persistent id does not describe a storage");
  };
  if (values.kind(id) != PickleKind::kTuple) return wrong();
  const std::span<const PickleRef> parts = values.items(id);
  if (parts.size() != 5 || values.kind(parts[0]) != PickleKind::kText ||
      values.text(parts[0]) != "storage" || values.kind(parts[2]) != PickleKind::kText ||
      values.kind(parts[3]) != PickleKind::kText || values.kind(parts[4]) != PickleKind::kInt) {
    return wrong();
  }
  Storage storage;
  if (is_global(values, parts[1], Meaning::kStorageClass)) {
    storage.dtype = known(values.number(parts[1])).dtype;
  } else if (!is_global(values, parts[1], Meaning::kUntypedStorage)) {
    return wrong();
  }
  POME_ASSIGN_OR_RETURN(storage.entry, find_entry(values.text(parts[2])));
  const int64_t count = values.number(parts[4]);
  const std::string who = "the storage " + escape_for_terminal(storage.entry->name, 80);
  if (count < 0) return bad_input(Refusal::kRange, who + " has a negative size");
  const uint64_t item = storage.dtype ? static_cast<uint64_t>(bits_of(*storage.dtype) / 8) : 1;
  const auto bytes = checked_mul(static_cast<uint64_t>(count), item);
  if (!bytes) return bad_input(Refusal::kOverflow, "the size of " + who + " exceeds 64 bits");
  if (*bytes != storage.entry->bytes) {
    return bad_input(Refusal::kRange, who + " is said to have " + std::to_string(*bytes) +
                                          " bytes, the archive has " +
                                          std::to_string(storage.entry->bytes));
  }
  if (storages_.size() >= kMaxObjects) {
    return bad_input(Refusal::kLimit, "the pickle has too many storages");
  }
  storages_.push_back(storage);
  return values.add(PickleKind::kObject, storage_number(storages_.size() - 1));
}

}  // namespace pome::pytorch
