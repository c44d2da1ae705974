// Checkpoints that are split over several files, with or without an index: what must hold between
// the files, whatever their format.
#include <filesystem>
#include <set>
#include <unordered_map>

#include "formats/checkpoint_internal.h"
#include "formats/duplicates.h"

namespace pome::checkpoint {
namespace {

namespace fs = std::filesystem;

Status refuse_in(const std::string& file, Refusal refusal, std::string message) {
  return bad_input(refusal, std::move(message)).in(file);
}

Status check_unique(const Checkpoint& out) {
  const auto duplicate = first_duplicate(
      out.tensors.size(), [&](size_t i) { return std::string_view(out.tensors[i].name); });
  if (!duplicate) return {};
  const CheckpointTensor& tensor = out.tensors[*duplicate];
  std::string other;
  for (size_t i = 0; i < *duplicate && other.empty(); ++i) {
    if (out.tensors[i].name == tensor.name) other = out.tensors[i].source->name();
  }
  return refuse_in(tensor.source->name(), Refusal::kRange,
                   "tensor " + in_quotes(tensor.name) + " is also in " +
                       in_quotes(fs::path(other).filename().string()))
      .at(tensor.name)
      .hint("a shard of another download lies among these; fetch the shards again");
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

// What one shard must hold, and where its tensors begin in the checkpoint.
struct Shard {
  const std::string& name;
  const std::vector<std::string>& expected;
  size_t first = 0, end = 0;
};

// Every tensor of the map must be in its shard; a tensor that only the shard knows is a warning.
Status check_shard(Checkpoint& out, const Shard& shard, const std::string& index_path,
                   const OpenOptions& options) {
  std::unordered_map<std::string_view, bool> mapped;
  for (size_t i = shard.first; i < shard.end; ++i) mapped[out.tensors[i].name] = false;
  for (const std::string& name : shard.expected) {
    const auto found = mapped.find(name);
    if (found == mapped.end()) {
      const CheckpointTensor* elsewhere = out.find(name);
      return refuse_in(
                 index_path, Refusal::kRange,
                 "the index puts tensor " + in_quotes(name) + " into " + in_quotes(shard.name) +
                     ", but it is " +
                     (elsewhere
                          ? "in " +
                                in_quotes(fs::path(elsewhere->source->name()).filename().string())
                          : "not there"))
          .at("/weight_map")
          .hint("index and shards belong to different downloads; fetch them again");
    }
    found->second = true;
  }
  size_t unmapped = 0;
  std::string example;
  for (size_t i = shard.first; i < shard.end; ++i) {
    if (mapped[out.tensors[i].name]) continue;
    if (++unmapped == 1) example = out.tensors[i].name;
  }
  if (unmapped == 0) return {};
  const std::string message = std::to_string(unmapped) + " tensor(s) of " + in_quotes(shard.name) +
                              " are not in the index: " + in_quotes(example) +
                              (unmapped > 1 ? ", ..." : "");
  if (options.strict) return refuse_in(index_path, Refusal::kRange, message).at("/weight_map");
  out.warnings.push_back(message);
  return {};
}

Status check_total(Checkpoint& out, const Index& index, const std::string& index_path,
                   const OpenOptions& options) {
  uint64_t total = 0;  // of files that exist: far below 2^64
  // Some writers count what two names share once, some for each name.
  uint64_t distinct = 0;
  std::set<std::pair<const ByteSource*, uint64_t>> seen;
  for (const CheckpointTensor& tensor : out.tensors) {
    total += tensor.bytes;
    if (seen.emplace(tensor.source.get(), tensor.offset).second) distinct += tensor.bytes;
  }
  if (!index.total_size) return {};
  const auto stated = static_cast<uint64_t>(*index.total_size);
  if (stated == total || stated == distinct) return {};
  const std::string message = "the index states a total_size of " +
                              std::to_string(*index.total_size) + " bytes, the shards hold " +
                              std::to_string(total);
  if (options.strict) {
    return refuse_in(index_path, Refusal::kRange, message).at("/metadata/total_size");
  }
  out.warnings.push_back(message);
  return {};
}

}  // namespace

EncodingKind stored_encoding(DType dtype) {
  if (const auto kind = encoding_from_dtype(dtype)) return *kind;
  switch (dtype) {
    case DType::kU16:
      return EncodingKind::kI16;
    case DType::kU32:
      return EncodingKind::kI32;
    case DType::kU64:
      return EncodingKind::kI64;
    default:
      POME_CHECK(dtype == DType::kU8 || dtype == DType::kBool);
      return EncodingKind::kI8;
  }
}

Status add_files(Checkpoint& out, const std::vector<std::string>& paths, const OpenOptions& options,
                 AddFile* add_file) {
  for (const std::string& path : paths) POME_RETURN_IF_ERROR(add_file(out, path, options));
  return check_unique(out);
}

Status add_index(Checkpoint& out, const std::string& index_path, const OpenOptions& options,
                 AddFile* add_file) {
  POME_ASSIGN_OR_RETURN(const Index index, read_index(index_path));
  const fs::path folder = fs::path(index_path).parent_path();
  // All that is missing is named at once, before anything is read.
  std::string absent;
  for (const auto& [name, tensors] : index.tensors_of) {
    std::error_code error;
    if (!fs::exists(folder / name, error)) absent += (absent.empty() ? "" : ", ") + in_quotes(name);
  }
  if (!absent.empty()) {
    return Status(StatusCode::kMissing, "missing shard " + absent, Refusal::kRange)
        .in(index_path)
        .hint("download the remaining files of the model");
  }
  std::vector<Shard> shards;
  for (const auto& [name, tensors] : index.tensors_of) {
    Shard shard{name, tensors, out.tensors.size(), 0};
    POME_RETURN_IF_ERROR(add_file(out, (folder / name).string(), options));
    shard.end = out.tensors.size();
    shards.push_back(shard);
  }
  for (const Shard& shard : shards) {
    POME_RETURN_IF_ERROR(check_shard(out, shard, index_path, options));
  }
  POME_RETURN_IF_ERROR(check_unique(out));
  return check_total(out, index, index_path, options);
}

}  // namespace pome::checkpoint
