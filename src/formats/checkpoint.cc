#include "formats/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "formats/checkpoint_internal.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "formats/mlc.h"
#include "formats/pytorch.h"
#include "formats/sniff.h"
#include "formats/tokenizer_json.h"

namespace pome {
namespace checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSafetensors = ".safetensors";
constexpr std::string_view kGguf = ".gguf";
constexpr std::string_view kPickleEndings[] = {".bin", ".pt", ".pth", ".ckpt"};
constexpr uint64_t kMaxConfigBytes = 16u << 20;
constexpr std::string_view kSupported =
    "pome reads safetensors and PyTorch checkpoints (with config.json), MLC packages and GGUF; "
    "convert the model to one of them";

// Formats that come as one file, or as shards, with an index beside them.
struct ShardedFormat {
  std::string_view name;           // Checkpoint::format
  std::string_view ending;         // of a shard
  std::string_view single, index;  // as the usual tools call them
  std::string_view index_ending;
  AddFile* add_file;
};
constexpr ShardedFormat kSafetensorsFormat = {"safetensors",
                                              kSafetensors,
                                              "model.safetensors",
                                              "model.safetensors.index.json",
                                              ".safetensors.index.json",
                                              add_safetensors};
constexpr ShardedFormat kPytorchFormat = {"pytorch",           ".bin",
                                          "pytorch_model.bin", "pytorch_model.bin.index.json",
                                          ".bin.index.json",   add_pytorch};

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// Null when the file is absent; an object otherwise.
Result<Json> read_config(const fs::path& path) {
  if (!is_there(path)) return Json();
  JsonLimits limits;
  limits.bytes = kMaxConfigBytes;
  POME_ASSIGN_OR_RETURN(Json json, read_json_file(path.string(), limits));
  if (!json.is_object()) {
    return bad_input(Refusal::kType, "expected a JSON object").in(path.string());
  }
  return json;
}

// What lies in the folder beside the weights.
Status add_neighbours(Checkpoint& out, const fs::path& folder, const OpenOptions& options) {
  POME_ASSIGN_OR_RETURN(out.config, read_config(folder / "config.json"));
  POME_ASSIGN_OR_RETURN(out.generation_config, read_config(folder / "generation_config.json"));
  if (out.config.is_null() && out.format != "mlc") {
    out.warnings.push_back("there is no config.json beside the weights: the family is unknown");
  }
  for (const char* name : {"config.json", "generation_config.json", "tokenizer_config.json",
                           "special_tokens_map.json", "chat_template.jinja"}) {
    if (is_there(folder / name)) out.sidecars[name] = (folder / name).string();
  }
  for (const std::string& path : vocabulary_files(folder.string())) {
    out.sidecars[fs::path(path).filename().string()] = path;
  }
  if (!options.read_tokenizer) return {};
  return set_tokenizer(
      out, read_folder_tokenizer(folder.string(), out.config, out.generation_config), options);
}

struct Listing {
  std::vector<std::string> safetensors, gguf, pickles;  // full paths, sorted
};

// What training leaves beside a model: settings, states of the optimiser, random numbers.
bool is_training_state(const std::string& name) {
  for (const std::string_view known :
       {"training_args", "optimizer", "scheduler", "rng_state", "random_states", "scaler"}) {
    if (name.starts_with(known)) return true;
  }
  return false;
}

Result<Listing> list_folder(const std::string& folder) {
  Listing out;
  std::error_code error;
  fs::directory_iterator it(folder, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const fs::path& path = it->path();
    const std::string ending = path.extension().string();
    if (ending == kSafetensors) out.safetensors.push_back(path.string());
    if (ending == kGguf) out.gguf.push_back(path.string());
    const bool pickle = std::find(std::begin(kPickleEndings), std::end(kPickleEndings), ending) !=
                        std::end(kPickleEndings);
    if (pickle && !is_training_state(path.filename().string()))
      out.pickles.push_back(path.string());
  }
  if (error) return missing("cannot list the folder: " + error.message()).in(folder);
  for (auto* list : {&out.safetensors, &out.gguf, &out.pickles})
    std::sort(list->begin(), list->end());
  return out;
}

std::string names_of(const std::vector<std::string>& paths) {
  constexpr size_t kShown = 8;
  std::string out;
  for (size_t i = 0; i < std::min(paths.size(), kShown); ++i) {
    out += (i > 0 ? ", " : "") + escape_for_terminal(fs::path(paths[i]).filename().string(), 80);
  }
  if (paths.size() > kShown) out += ", …";
  return out;
}

// Whether the paths are parts of one model; some may be missing.
bool are_parts_of_one(const std::vector<std::string>& paths, std::string_view ending) {
  const auto first = paths.empty() ? std::nullopt : parse_shard_name(paths.front(), ending);
  if (!first) return false;
  return std::all_of(paths.begin(), paths.end(), [&](const std::string& path) {
    const auto part = parse_shard_name(path, ending);
    return part && part->prefix == first->prefix && part->count == first->count;
  });
}

// Parts without an index: all of them must be there.
Result<std::vector<std::string>> all_parts(const std::string& path, std::string_view ending) {
  const auto name = parse_shard_name(path, ending);
  std::vector<std::string> paths;
  std::vector<std::string> absent;
  for (uint32_t i = 1; i <= name->count && absent.size() <= 8; ++i) {
    const std::string part = shard_path(*name, i, ending);
    (is_there(part) ? paths : absent).push_back(part);
  }
  if (name->number >= 1 && name->number <= name->count && absent.empty()) return paths;
  return Status(StatusCode::kMissing,
                absent.empty() ? "this is part " + std::to_string(name->number) + " of " +
                                     std::to_string(name->count)
                               : "missing shard " + names_of(absent),
                Refusal::kRange)
      .in(path)
      .hint("download the remaining files of the model");
}

Status choose_one(const std::string& folder, const std::vector<std::string>& paths) {
  return usage_error("the folder holds several models: " + names_of(paths))
      .in(folder)
      .hint("name the file you want");
}

Status open_sharded_folder(Checkpoint& out, const std::string& folder, const ShardedFormat& format,
                           const std::vector<std::string>& files, const OpenOptions& options) {
  const fs::path base(folder);
  const fs::path index = base / format.index, single = base / format.single;
  out.format = format.name;
  if (is_there(single)) {
    POME_RETURN_IF_ERROR(add_files(out, {single.string()}, options, format.add_file));
  } else if (is_there(index)) {
    POME_RETURN_IF_ERROR(add_index(out, index.string(), options, format.add_file));
  } else if (are_parts_of_one(files, format.ending)) {
    POME_ASSIGN_OR_RETURN(const auto parts, all_parts(files.front(), format.ending));
    POME_RETURN_IF_ERROR(add_files(out, parts, options, format.add_file));
  } else if (files.size() == 1) {
    POME_RETURN_IF_ERROR(add_files(out, files, options, format.add_file));
  } else {
    return choose_one(folder, files);
  }
  return add_neighbours(out, base, options);
}

Status open_folder(Checkpoint& out, const std::string& folder, const OpenOptions& options) {
  POME_ASSIGN_OR_RETURN(const Listing listing, list_folder(folder));
  const fs::path base(folder);
  if (is_mlc_folder(folder)) {
    POME_RETURN_IF_ERROR(add_mlc(out, folder, options));
    return add_neighbours(out, base, options);
  }
  if (!listing.safetensors.empty() || is_there(base / kSafetensorsFormat.index)) {
    return open_sharded_folder(out, folder, kSafetensorsFormat, listing.safetensors, options);
  }
  if (!listing.gguf.empty()) {
    if (listing.gguf.size() > 1 && !are_parts_of_one(listing.gguf, kGguf)) {
      return choose_one(folder, listing.gguf);
    }
    return add_gguf(out, listing.gguf.front(), options);
  }
  if (!listing.pickles.empty() || is_there(base / kPytorchFormat.index)) {
    return open_sharded_folder(out, folder, kPytorchFormat, listing.pickles, options);
  }
  return missing("the folder holds no model weights").in(folder).hint(kSupported);
}

fs::path folder_of(const std::string& path) {
  return fs::path(path).has_parent_path() ? fs::path(path).parent_path() : ".";
}

Status open_sharded_file(Checkpoint& out, const std::string& path, const ShardedFormat& format,
                         const OpenOptions& options) {
  out.format = format.name;
  const fs::path folder = folder_of(path);
  // One shard alone is no model: take all of them.
  const bool shard = parse_shard_name(path, format.ending).has_value();
  if (shard && is_there(folder / format.index)) {
    POME_RETURN_IF_ERROR(
        add_index(out, (folder / format.index).string(), options, format.add_file));
  } else if (shard) {
    POME_ASSIGN_OR_RETURN(const auto parts, all_parts(path, format.ending));
    POME_RETURN_IF_ERROR(add_files(out, parts, options, format.add_file));
  } else {
    POME_RETURN_IF_ERROR(add_files(out, {path}, options, format.add_file));
  }
  return add_neighbours(out, folder, options);
}

// The container by its first bytes; the ending decides only whose error message a damaged file
// gets.
Status open_file(Checkpoint& out, const std::string& path, const OpenOptions& options) {
  for (const ShardedFormat* format : {&kSafetensorsFormat, &kPytorchFormat}) {
    if (!path.ends_with(format->index_ending)) continue;
    out.format = format->name;
    const fs::path folder = folder_of(path);
    POME_RETURN_IF_ERROR(
        add_index(out, (folder / fs::path(path).filename()).string(), options, format->add_file));
    return add_neighbours(out, folder, options);
  }
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_source(path, options));
  std::string head(static_cast<size_t>(std::min<uint64_t>(source->size(), 9)), '\0');
  POME_RETURN_IF_ERROR(source->read(0, std::as_writable_bytes(std::span(head))));
  if (head.starts_with("GGUF") || path.ends_with(kGguf)) return add_gguf(out, path, options);
  const bool header_first =
      head.size() == 9 && head[8] == '{' && head[7] == '\0' && head[6] == '\0';
  if (header_first || path.ends_with(kSafetensors))
    return open_sharded_file(out, path, kSafetensorsFormat, options);
  POME_RETURN_IF_ERROR(check_not_placeholder(*source));
  if (looks_like_pytorch(*source)) return open_sharded_file(out, path, kPytorchFormat, options);
  const std::string foreign = foreign_format(*source);
  if (!foreign.empty()) {
    return unsupported("this is " + foreign).in(path).hint(kSupported);
  }
  return bad_input(Refusal::kMagic, "this is neither a safetensors nor a GGUF nor a PyTorch file")
      .in(path)
      .at_offset(0)
      .hint(kSupported);
}

}  // namespace

Result<ByteSourcePtr> open_source(const std::string& path, const OpenOptions& options) {
  return options.mapped ? open_mapped(path) : open_for_reading(path);
}

std::optional<ShardName> parse_shard_name(const std::string& path, std::string_view ending) {
  constexpr size_t kTail = sizeof("-00001-of-00002") - 1;
  if (!path.ends_with(ending) || path.size() <= kTail + ending.size()) return std::nullopt;
  const size_t at = path.size() - ending.size() - kTail;
  const std::string_view tail = std::string_view(path).substr(at, kTail);
  const auto number = [&](size_t first) -> std::optional<uint32_t> {
    uint32_t value = 0;
    for (const char c : tail.substr(first, 5)) {
      if (c < '0' || c > '9') return std::nullopt;
      value = value * 10 + static_cast<uint32_t>(c - '0');
    }
    return value;
  };
  const auto part = number(1), count = number(10);
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || !part || !count) return std::nullopt;
  return ShardName{path.substr(0, at), *part, *count};
}

std::string shard_path(const ShardName& name, uint32_t number, std::string_view ending) {
  char tail[64];
  std::snprintf(tail, sizeof(tail), "-%05u-of-%05u", number, name.count);
  return name.prefix + tail + std::string(ending);
}

Status set_tokenizer(Checkpoint& out, Result<TokenizerSource> tokenizer,
                     const OpenOptions& options) {
  if (tokenizer.ok() && tokenizer->model == TokenizerSource::Model::kNone &&
      options.need_tokenizer) {
    return missing("the model has no tokenizer").in(out.path);
  }
  if (tokenizer.ok()) {
    out.tokenizer = std::move(tokenizer).value();
    return {};
  }
  if (options.need_tokenizer) return tokenizer.status();
  out.warnings.push_back("no usable tokenizer: " + tokenizer.status().to_string());
  return {};
}

}  // namespace checkpoint

const CheckpointTensor* Checkpoint::find(const std::string& name) const {
  for (const CheckpointTensor& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

std::map<std::string, std::string> Checkpoint::metadata() const {
  std::map<std::string, std::string> out;
  const std::string prefix = "pome.";
  for (const auto& [key, value] : gguf.items())
    if (key.starts_with(prefix) && value.is_string()) out[key] = value.get<std::string>();
  if (const auto own = mlc.find("pome"); own != mlc.end())
    for (const auto& [key, value] : own->items())
      if (value.is_string()) out[prefix + key] = value.get<std::string>();
  return out;
}

Result<TokenizerSource> read_folder_tokenizer(const std::string& folder, const Json& config,
                                              const Json& generation_config) {
  const std::string packed = folder + "/tokenizer.gguf";
  std::error_code error;
  if (!std::filesystem::exists(packed, error))
    return read_hf_tokenizer(folder, config, generation_config);
  POME_ASSIGN_OR_RETURN(const ByteSourcePtr source, open_for_reading(packed));
  POME_ASSIGN_OR_RETURN(const GgufFile file, read_gguf(source));
  return read_gguf_tokenizer(file);
}

Result<Checkpoint> open_checkpoint(const std::string& path, const OpenOptions& options) {
  Checkpoint out;
  out.path = path;
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return missing("there is no such file or folder").in(path).hint("check the path");
  }
  POME_RETURN_IF_ERROR(std::filesystem::is_directory(status)
                           ? checkpoint::open_folder(out, path, options)
                           : checkpoint::open_file(out, path, options));
  return out;
}

}  // namespace pome
