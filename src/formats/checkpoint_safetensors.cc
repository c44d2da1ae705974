#include <filesystem>
#include <unordered_map>

#include "formats/checkpoint_internal.h"
#include "formats/duplicates.h"
#include "formats/safetensors.h"

namespace pome::checkpoint {
namespace {

namespace fs = std::filesystem;

// Buffers that no family reads (causal masks as bool or u8, position ids) keep their bytes under
// the signed type of the same width. Floats of 8 bits would be misread that way, so they are
// refused.
Result<EncodingKind> encoding_of(const SafetensorsEntry& entry, const std::string& file) {
  if (const auto kind = encoding_from_dtype(entry.dtype)) return *kind;
  switch (entry.dtype) {
    case DType::kU8:
    case DType::kBool:
      return EncodingKind::kI8;
    case DType::kU16:
      return EncodingKind::kI16;
    case DType::kU32:
      return EncodingKind::kI32;
    case DType::kU64:
      return EncodingKind::kI64;
    default:
      break;
  }
  return Status(StatusCode::kUnsupported,
                "tensor " + in_quotes(entry.name) + " is stored as " +
                    std::string(safetensors_dtype_name(entry.dtype)) +
                    ", which pome does not decode",
                Refusal::kType)
      .in(file)
      .hint("use a checkpoint in BF16, F16 or F32");
}

Status refuse_in(const std::string& file, Refusal refusal, std::string message) {
  return bad_input(refusal, std::move(message)).in(file);
}

Status check_unique(const Checkpoint& out) {
  const auto duplicate = first_duplicate(
      out.tensors.size(), [&](size_t i) { return std::string_view(out.tensors[i].name); });
  if (!duplicate) return {};
  const CheckpointTensor& tensor = out.tensors[*duplicate];
  return refuse_in(tensor.source->name(), Refusal::kRange,
                   "tensor " + in_quotes(tensor.name) + " is also in another shard");
}

struct Index {
  std::map<std::string, std::vector<std::string>> tensors_of;  // shard -> its tensors
  std::optional<int64_t> total_size;
};

// A shard lies beside its index or below it. Links are followed: the cache of the Hugging Face hub
// consists of them, and the user named this folder.
Status check_shard_path(const std::string& shard, const std::string& index_path) {
  const fs::path path(shard);
  bool inside = !shard.empty() && path.is_relative() && shard.find('\0') == std::string::npos &&
                shard.find('\\') == std::string::npos;
  for (const fs::path& part : path) inside = inside && part != "..";
  if (inside) return {};
  return refuse_in(index_path, Refusal::kPath,
                   "the shard " + in_quotes(shard) + " lies outside the folder of the index")
      .at("/weight_map");
}

Result<Index> read_index(const std::string& path) {
  POME_ASSIGN_OR_RETURN(const Json json, read_json_file(path));
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    return refuse_in(path, Refusal::kType, "the index has no object weight_map").at("/weight_map");
  }
  Index index;
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    if (!shard.is_string()) {
      return refuse_in(path, Refusal::kType, "the shard of " + in_quotes(tensor) + " is not a text")
          .at("/weight_map");
    }
    index.tensors_of[shard.get<std::string>()].push_back(tensor);
  }
  if (json.contains("metadata") && json["metadata"].is_object()) {
    const auto total = json_number(json["metadata"], "total_size");  // some writers state a float
    if (!total.ok()) return Status(total.status()).in(path);
    if (*total && **total >= 0 && **total < 9e18) index.total_size = static_cast<int64_t>(**total);
  }
  for (const auto& [shard, tensors] : index.tensors_of) {
    POME_RETURN_IF_ERROR(check_shard_path(shard, path));
  }
  return index;
}

Status add_file(Checkpoint& out, const std::string& path, const OpenOptions& options) {
  POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_source(path, options));
  POME_ASSIGN_OR_RETURN(SafetensorsFile file, read_safetensors(std::move(source)));
  for (SafetensorsEntry& entry : file.entries) {
    POME_ASSIGN_OR_RETURN(const EncodingKind kind, encoding_of(entry, path));
    out.tensors.push_back({std::move(entry.name), std::move(entry.shape), Encoding::plain(kind),
                           file.source, entry.offset, entry.bytes});
  }
  return {};
}

// Every tensor of the map must be in its shard; a tensor that only the shard knows is a warning.
Status check_shard(Checkpoint& out, size_t first, const std::string& index_path,
                   const std::string& shard, const std::vector<std::string>& expected) {
  std::unordered_map<std::string_view, bool> mapped;
  for (size_t i = first; i < out.tensors.size(); ++i) mapped[out.tensors[i].name] = false;
  for (const std::string& name : expected) {
    const auto found = mapped.find(name);
    if (found == mapped.end()) {
      return refuse_in(index_path, Refusal::kRange,
                       "the index puts tensor " + in_quotes(name) + " into " + in_quotes(shard) +
                           ", but it is not there")
          .at("/weight_map");
    }
    found->second = true;
  }
  size_t unmapped = 0;
  for (const auto& [name, known] : mapped) unmapped += known ? 0 : 1;
  if (unmapped > 0) {
    out.warnings.push_back(std::to_string(unmapped) + " tensor(s) of " + in_quotes(shard) +
                           " are not in the index");
  }
  return {};
}

}  // namespace

Status add_safetensors(Checkpoint& out, const std::vector<std::string>& paths,
                       const OpenOptions& options) {
  for (const std::string& path : paths) POME_RETURN_IF_ERROR(add_file(out, path, options));
  return check_unique(out);
}

Status add_safetensors_index(Checkpoint& out, const std::string& index_path,
                             const OpenOptions& options) {
  POME_ASSIGN_OR_RETURN(const Index index, read_index(index_path));
  const fs::path folder = fs::path(index_path).parent_path();
  for (const auto& [shard, tensors] : index.tensors_of) {
    const std::string path = (folder / shard).string();
    std::error_code error;
    if (!fs::exists(path, error)) {
      return Status(StatusCode::kMissing, "missing shard " + in_quotes(shard), Refusal::kRange)
          .in(index_path)
          .hint("download the remaining files of the model");
    }
    const size_t first = out.tensors.size();
    POME_RETURN_IF_ERROR(add_file(out, path, options));
    POME_RETURN_IF_ERROR(check_shard(out, first, index_path, shard, tensors));
  }
  POME_RETURN_IF_ERROR(check_unique(out));
  uint64_t total = 0;  // of files that exist: far below 2^64
  for (const CheckpointTensor& tensor : out.tensors) total += tensor.bytes;
  if (!index.total_size || static_cast<uint64_t>(*index.total_size) == total) return {};
  const std::string message = "the index states a total_size of " +
                              std::to_string(*index.total_size) + " bytes, the shards hold " +
                              std::to_string(total);
  if (options.strict) {
    return refuse_in(index_path, Refusal::kRange, message).at("/metadata/total_size");
  }
  out.warnings.push_back(message);
  return {};
}

}  // namespace pome::checkpoint
