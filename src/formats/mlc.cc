#include "formats/mlc.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <numeric>
#include <optional>

#include "base/byte_source.h"
#include "base/checked.h"
#include "base/md5.h"
#include "formats/duplicates.h"
#include "formats/inside_folder.h"

namespace pome {

namespace {

constexpr uint64_t kMaxCacheBytes = uint64_t{64} << 20;
constexpr uint64_t kReadBytes = uint64_t{1} << 20;
constexpr size_t kMaxRank = 8;

struct DtypeName {
  std::string_view name;
  EncodingKind encoding;
};
constexpr std::array<DtypeName, 10> kDtypes = {{{"float16", EncodingKind::kF16},
                                                {"float32", EncodingKind::kF32},
                                                {"bfloat16", EncodingKind::kBF16},
                                                {"uint32", EncodingKind::kI32},
                                                {"int32", EncodingKind::kI32},
                                                {"uint16", EncodingKind::kI16},
                                                {"int16", EncodingKind::kI16},
                                                {"uint8", EncodingKind::kI8},
                                                {"int8", EncodingKind::kI8},
                                                {"int64", EncodingKind::kI64}}};

std::string in_quotes(std::string_view text) { return "\"" + escape_for_terminal(text, 80) + "\""; }

class CacheReader {
 public:
  explicit CacheReader(const std::string& name) : name_(name) {}

  Result<MlcCache> read(const Json& root) {
    if (!root.is_object()) return refuse(Refusal::kType, "", "must be an object");
    if (const auto found = root.find("metadata"); found != root.end()) {
      if (!found->is_object() && !found->is_null())
        return refuse(Refusal::kType, "/metadata", "must be an object");
      cache_.metadata = *found;
    }
    POME_ASSIGN_OR_RETURN(const Json* records, list(root, "records", ""));
    for (const Json& record : *records)
      POME_RETURN_IF_ERROR(shard(record, "/records/" + std::to_string(cache_.shards.size())));
    POME_RETURN_IF_ERROR(check_names());
    POME_RETURN_IF_ERROR(check_overlaps());
    return std::move(cache_);
  }

 private:
  Status refuse(Refusal refusal, const std::string& at, std::string message) const {
    return bad_input(refusal, std::move(message)).in(name_).at(at.empty() ? "/" : at);
  }
  Result<const Json*> list(const Json& object, const char* key, const std::string& at) const {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_array())
      return refuse(Refusal::kType, at + "/" + key, "must be a list");
    return &*found;
  }
  Result<std::string> text(const Json& object, const char* key, const std::string& at) const {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string())
      return refuse(Refusal::kType, at + "/" + key, "must be a string");
    return found->get<std::string>();
  }
  Result<uint64_t> size(const Json& object, const char* key, const std::string& at) const {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number_integer() ||
        (!found->is_number_unsigned() && found->get<int64_t>() < 0))
      return refuse(Refusal::kType, at + "/" + key, "must be a number of bytes");
    return found->get<uint64_t>();
  }

  Status shard(const Json& record, const std::string& at) {
    if (!record.is_object()) return refuse(Refusal::kType, at, "must be an object");
    MlcShard shard;
    POME_ASSIGN_OR_RETURN(shard.file, text(record, "dataPath", at));
    if (Status status = check_relative_path(shard.file); !status.ok())
      return std::move(status).in(name_).at(at + "/dataPath");
    POME_ASSIGN_OR_RETURN(const std::string format, text(record, "format", at));
    if (format != "raw-shard")
      return Status(StatusCode::kUnsupported, "a shard of format " + in_quotes(format),
                    Refusal::kType)
          .in(name_)
          .at(at + "/format")
          .hint("pome reads raw-shard");
    POME_ASSIGN_OR_RETURN(shard.bytes, size(record, "nbytes", at));
    if (record.contains("md5sum")) {
      POME_ASSIGN_OR_RETURN(shard.md5, text(record, "md5sum", at));
      if (shard.md5.size() != 32 ||
          shard.md5.find_first_not_of("0123456789abcdef") != std::string::npos)
        return refuse(Refusal::kRange, at + "/md5sum", "must be 32 hexadecimal digits");
    }
    cache_.shards.push_back(std::move(shard));
    POME_ASSIGN_OR_RETURN(const Json* tensors, list(record, "records", at));
    size_t index = 0;
    for (const Json& item : *tensors)
      POME_RETURN_IF_ERROR(tensor(item, at + "/records/" + std::to_string(index++)));
    return {};
  }

  Status tensor(const Json& item, const std::string& at) {
    if (!item.is_object()) return refuse(Refusal::kType, at, "must be an object");
    MlcTensor tensor;
    tensor.shard = cache_.shards.size() - 1;
    POME_ASSIGN_OR_RETURN(tensor.name, text(item, "name", at));
    POME_ASSIGN_OR_RETURN(const Json* dims, list(item, "shape", at));
    if (dims->size() > kMaxRank)
      return refuse(Refusal::kLimit, at + "/shape", "has more than 8 dimensions");
    for (const Json& dim : *dims) {
      if (!dim.is_number_integer() || (dim.is_number_unsigned() && dim.get<uint64_t>() >> 62) ||
          dim.get<int64_t>() < 0)
        return refuse(Refusal::kType, at + "/shape", "must list whole numbers");
      tensor.shape.push_back(dim.get<int64_t>());
    }
    POME_ASSIGN_OR_RETURN(const std::string dtype, text(item, "dtype", at));
    const auto known = std::find_if(kDtypes.begin(), kDtypes.end(),
                                    [&](const DtypeName& d) { return d.name == dtype; });
    if (known == kDtypes.end())
      return Status(StatusCode::kUnsupported,
                    in_quotes(tensor.name) + " has the unknown dtype " + in_quotes(dtype),
                    Refusal::kType)
          .in(name_)
          .at(at + "/dtype")
          .hint("pome reads float16, float32, bfloat16 and integers of MLC packages");
    tensor.encoding = known->encoding;
    POME_ASSIGN_OR_RETURN(const std::string format, text(item, "format", at));
    if (format == "f32-to-bf16" && tensor.encoding == EncodingKind::kF32)
      tensor.encoding = EncodingKind::kBF16;
    POME_ASSIGN_OR_RETURN(tensor.offset, size(item, "byteOffset", at));
    POME_ASSIGN_OR_RETURN(tensor.bytes, size(item, "nbytes", at));
    const auto count = element_count(tensor.shape);
    const auto bytes = count ? checked_mul<uint64_t>(static_cast<uint64_t>(*count),
                                                     mlc_element_bytes(tensor.encoding))
                             : std::nullopt;
    if (!bytes) return refuse(Refusal::kOverflow, at + "/shape", "has too many elements");
    if (*bytes != tensor.bytes)
      return refuse(Refusal::kRange, at + "/nbytes",
                    in_quotes(tensor.name) + " of shape " + to_string(tensor.shape) +
                        " and dtype " + dtype + " takes " + std::to_string(*bytes) +
                        " bytes, not " + std::to_string(tensor.bytes));
    const MlcShard& shard = cache_.shards.back();
    if (!span_fits(tensor.offset, tensor.bytes, shard.bytes))
      return refuse(Refusal::kBounds, at,
                    in_quotes(tensor.name) + " ends behind the " + std::to_string(shard.bytes) +
                        " bytes of " + shard.file);
    cache_.tensors.push_back(std::move(tensor));
    return {};
  }

  Status check_names() const {
    const auto& tensors = cache_.tensors;
    const auto& shards = cache_.shards;
    if (const auto twice = first_duplicate(
            tensors.size(), [&](size_t i) { return std::string_view(tensors[i].name); }))
      return refuse(Refusal::kDup, "/records",
                    "the tensor " + in_quotes(tensors[*twice].name) + " is listed twice");
    if (const auto twice = first_duplicate(
            shards.size(), [&](size_t i) { return std::string_view(shards[i].file); }))
      return refuse(Refusal::kDup, "/records",
                    "the shard " + in_quotes(shards[*twice].file) + " is listed twice");
    return {};
  }

  Status check_overlaps() const {
    std::vector<const MlcTensor*> order;
    for (const MlcTensor& tensor : cache_.tensors) order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [](const MlcTensor* a, const MlcTensor* b) {
      return std::tie(a->shard, a->offset, a->bytes) < std::tie(b->shard, b->offset, b->bytes);
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const MlcTensor &before = *order[i - 1], &after = *order[i];
      if (before.shard == after.shard && before.offset + before.bytes > after.offset)
        return refuse(Refusal::kOverlap, "/records",
                      in_quotes(before.name) + " and " + in_quotes(after.name) +
                          " share bytes of " + cache_.shards[after.shard].file);
    }
    return {};
  }

  const std::string& name_;
  MlcCache cache_;
};

bool is_there(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

}  // namespace

uint64_t mlc_element_bytes(EncodingKind encoding) {
  return static_cast<uint64_t>(traits(encoding).block_bytes);
}

Result<MlcCache> parse_mlc_cache(std::string_view text, const std::string& name) {
  JsonLimits limits;
  limits.bytes = kMaxCacheBytes;
  POME_ASSIGN_OR_RETURN(const Json root, parse_json(text, name, limits));
  return CacheReader(name).read(root);
}

bool is_mlc_folder(const std::string& folder) {
  const int marks =
      int{is_there(folder + "/" + kMlcConfig)} +
      int{is_there(folder + "/" + kMlcCache) || is_there(folder + "/" + kMlcOldCache)} +
      int{is_there(folder + "/params_shard_0.bin")};
  return marks >= 2;
}

Result<MlcCache> read_mlc_cache(const std::string& folder) {
  const std::string now = folder + "/" + kMlcCache, before = folder + "/" + kMlcOldCache;
  const std::string& path = is_there(now) ? now : before;
  if (!is_there(path))
    return missing("there is no list of the weights").in(now).hint("fetch the package again");
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(path));
  if (source->size() > kMaxCacheBytes)
    return bad_input(Refusal::kLimit, "is larger than 64 MiB").in(path);
  std::string text(static_cast<size_t>(source->size()), '\0');
  POME_RETURN_IF_ERROR(source->read(0, std::as_writable_bytes(std::span(text))));
  return parse_mlc_cache(text, path);
}

Result<std::string> mlc_sum(const std::string& path, const CancelToken* cancel) {
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(path));
  std::vector<std::byte> buffer(kReadBytes);
  Md5 sum;
  for (uint64_t at = 0; at < source->size();) {
    POME_RETURN_IF_ERROR(check_cancelled(cancel));
    const auto piece = std::span(buffer).first(
        static_cast<size_t>(std::min<uint64_t>(buffer.size(), source->size() - at)));
    POME_RETURN_IF_ERROR(source->read(at, piece));
    sum.update(piece);
    at += piece.size();
  }
  return sum.finish();
}

Status check_mlc_sums(const std::string& folder, const MlcCache& cache, const CancelToken* cancel) {
  for (const MlcShard& shard : cache.shards) {
    if (shard.md5.empty()) continue;
    const std::string path = folder + "/" + shard.file;
    POME_ASSIGN_OR_RETURN(const std::string found, mlc_sum(path, cancel));
    if (found != shard.md5)
      return bad_input(Refusal::kIntegrity,
                       "the MD5 sum is " + found + ", the list of weights says " + shard.md5)
          .in(path)
          .hint("the file is damaged: fetch it again");
  }
  return {};
}

}  // namespace pome
