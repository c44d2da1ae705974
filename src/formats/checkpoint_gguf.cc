#include <filesystem>

#include "formats/checkpoint_internal.h"
#include "formats/duplicates.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"

namespace pome::checkpoint {
namespace {

constexpr size_t kMaxArray = 4096;  // longer arrays are vocabularies, not configuration
constexpr std::string_view kEnding = ".gguf";

bool is_vocabulary(std::string_view key) {
  return key == "tokenizer.ggml.tokens" || key == "tokenizer.ggml.scores" ||
         key == "tokenizer.ggml.merges" || key == "tokenizer.ggml.token_type";
}

struct ToJson {
  template <typename T>
  std::optional<Json> operator()(const T& value) const {
    return Json(value);
  }
  std::optional<Json> operator()(const std::vector<uint8_t>& bools) const {
    if (bools.size() > kMaxArray) return std::nullopt;
    Json out = Json::array();
    for (const uint8_t value : bools) out.push_back(value != 0);
    return out;
  }
  template <typename T>
  std::optional<Json> operator()(const std::vector<T>& values) const {
    if (values.size() > kMaxArray) return std::nullopt;
    Json out = Json::array();
    for (const T& value : values) out.push_back(value);
    return out;
  }
};

Json metadata_json(const GgufFile& file) {
  Json::object_t members;
  for (const auto& [key, value] : file.metadata) {
    if (is_vocabulary(key)) continue;
    auto json = std::visit(ToJson{}, value.data);
    // Keys are unique; the map's own insert would look through all of them each time.
    if (json) members.Json::object_t::Container::emplace_back(key, std::move(*json));
  }
  return Json(std::move(members));
}

Status refuse_in(const GgufFile& file, Refusal refusal, std::string message) {
  return bad_input(refusal, std::move(message)).in(file.source->name());
}

// nullopt when absent; kType when it is no whole number.
Result<std::optional<uint64_t>> split_value(const GgufFile& file, std::string_view key) {
  const GgufValue* value = file.find(key);
  if (!value) return std::optional<uint64_t>();
  const auto number = value->as_unsigned();
  if (!number) {
    return refuse_in(file, Refusal::kType, std::string(key) + " is not a whole number").at(key);
  }
  return number;
}

Result<GgufFile> open_one(const std::string& path, const OpenOptions& options) {
  POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_source(path, options));
  GgufReadOptions read_options;
  read_options.strict = options.strict;
  return read_gguf(std::move(source), read_options);
}

void take(Checkpoint& out, GgufFile& file) {
  for (GgufTensor& tensor : file.tensors) {
    out.tensors.push_back({std::move(tensor.name), std::move(tensor.shape),
                           Encoding::plain(tensor.encoding), file.source, tensor.offset,
                           tensor.bytes});
  }
  for (std::string& warning : file.warnings) {
    out.warnings.push_back(file.source->name() + ": " + warning);
  }
}

Status check_part(const GgufFile& part, const GgufFile& first, uint64_t number, uint64_t count) {
  POME_ASSIGN_OR_RETURN(const auto stated_count, split_value(part, "split.count"));
  POME_ASSIGN_OR_RETURN(const auto stated_number, split_value(part, "split.no"));
  if (stated_count != count) {
    return refuse_in(part, Refusal::kRange,
                     "split.count is not the " + std::to_string(count) + " of the first part")
        .at("split.count");
  }
  if (stated_number != number) {
    return refuse_in(part, Refusal::kRange,
                     "split.no is " + (stated_number ? std::to_string(*stated_number) : "absent") +
                         ", expected " + std::to_string(number))
        .at("split.no")
        .hint("a part was renamed or copied over another; fetch the parts again");
  }
  const GgufValue* mine = part.find("general.architecture");
  const GgufValue* theirs = first.find("general.architecture");
  if (mine && theirs && mine->data != theirs->data) {
    return refuse_in(part, Refusal::kRange, "this part belongs to a model of another architecture")
        .at("general.architecture");
  }
  return {};
}

Status check_whole(const Checkpoint& out, const GgufFile& first) {
  const auto duplicate = first_duplicate(
      out.tensors.size(), [&](size_t i) { return std::string_view(out.tensors[i].name); });
  if (duplicate) {
    const CheckpointTensor& tensor = out.tensors[*duplicate];
    return bad_input(Refusal::kDup, "tensor " + in_quotes(tensor.name) + " is also in another part")
        .in(tensor.source->name());
  }
  POME_ASSIGN_OR_RETURN(const auto expected, split_value(first, "split.tensors.count"));
  if (expected && *expected != out.tensors.size()) {
    return refuse_in(first, Refusal::kRange,
                     "split.tensors.count is " + std::to_string(*expected) + ", the parts hold " +
                         std::to_string(out.tensors.size()) + " tensors")
        .at("split.tensors.count");
  }
  return {};
}

Status check_all_there(const ShardName& name) {
  constexpr size_t kShown = 8;
  std::string numbers, first;
  size_t absent = 0;
  for (uint32_t i = 1; i <= name.count; ++i) {
    const std::string path = shard_path(name, i, kEnding);
    std::error_code error;
    if (std::filesystem::exists(path, error)) continue;
    if (absent == 0) first = path;
    if (absent < kShown) numbers += (absent == 0 ? "" : ", ") + std::to_string(i);
    ++absent;
  }
  if (absent == 0) return {};
  return Status(StatusCode::kMissing,
                "missing shard " + numbers + (absent > kShown ? " ..." : "") + " of " +
                    std::to_string(name.count),
                Refusal::kRange)
      .in(first)
      .hint("download all parts of the model into one folder");
}

// All parts of a split model, of which `named` is one. The first part has the metadata.
Status add_parts(Checkpoint& out, GgufFile named, uint64_t count, const std::string& path,
                 const OpenOptions& options, GgufFile& first) {
  POME_ASSIGN_OR_RETURN(const auto number, split_value(named, "split.no"));
  if (!number || *number >= count) {
    return refuse_in(named, Refusal::kRange,
                     "split.no is " + (number ? std::to_string(*number) : "absent") + " of " +
                         std::to_string(count) + " parts")
        .at("split.no");
  }
  const auto name = parse_shard_name(path, kEnding);
  if (!name || name->count != count) {
    return refuse_in(named, Refusal::kRange,
                     "this is part " + std::to_string(*number + 1) + " of " +
                         std::to_string(count) +
                         ", but the file name does not end in -NNNNN-of-NNNNN.gguf accordingly")
        .hint("give the parts their original names");
  }
  POME_RETURN_IF_ERROR(check_all_there(*name));
  for (uint32_t i = 0; i < count; ++i) {
    const std::string part_path = shard_path(*name, i + 1, kEnding);
    POME_ASSIGN_OR_RETURN(GgufFile part, open_one(part_path, options));
    POME_RETURN_IF_ERROR(check_part(part, i == 0 ? part : first, i, count));
    take(out, part);
    if (i == 0) first = std::move(part);
  }
  return check_whole(out, first);
}

}  // namespace

Status add_gguf(Checkpoint& out, const std::string& path, const OpenOptions& options) {
  POME_ASSIGN_OR_RETURN(GgufFile file, open_one(path, options));
  out.format = "gguf";
  POME_ASSIGN_OR_RETURN(const auto count, split_value(file, "split.count"));
  if (count && *count > 1) {
    GgufFile first;
    POME_RETURN_IF_ERROR(add_parts(out, std::move(file), *count, path, options, first));
    file = std::move(first);
  } else {
    // The usual tool writes 0 when it has merged parts into one file again.
    if (count == 0u && options.strict) {
      return refuse_in(file, Refusal::kRange, "split.count is 0").at("split.count");
    }
    POME_ASSIGN_OR_RETURN(const auto number, split_value(file, "split.no"));
    if (number && *number > 0) {
      return refuse_in(file, Refusal::kRange,
                       "split.no is " + std::to_string(*number) + " of a file that is not split")
          .at("split.no");
    }
    take(out, file);
  }
  out.gguf = metadata_json(file);
  if (!options.read_tokenizer) return {};
  return set_tokenizer(out, read_gguf_tokenizer(file), options);
}

}  // namespace pome::checkpoint
