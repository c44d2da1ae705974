#include <filesystem>

#include "formats/checkpoint_internal.h"
#include "formats/inside_folder.h"
#include "formats/mlc.h"

namespace pome::checkpoint {

namespace {

// The configuration of the model in MLC's words, where no config.json lies beside it.
Result<Json> read_chat_config(const std::string& path) {
  JsonLimits limits;
  limits.bytes = 16u << 20;
  POME_ASSIGN_OR_RETURN(Json config, read_json_file(path, limits));
  if (!config.is_object()) return bad_input(Refusal::kType, "expected a JSON object").in(path);
  for (const char* key : {"model_type", "quantization"}) {
    const auto found = config.find(key);
    if (found == config.end() || !found->is_string())
      return bad_input(Refusal::kType, std::string(key) + " must be a string").in(path);
  }
  return config;
}

Result<ByteSourcePtr> open_shard(const std::string& folder, const MlcShard& shard,
                                 const OpenOptions& options) {
  std::error_code error;
  const auto root = std::filesystem::canonical(folder, error);
  const std::string path = folder + "/" + shard.file;
  if (error) return missing("cannot open the folder: " + error.message()).in(folder);
  if (auto inside = path_inside(path, root); !inside.ok())
    return std::move(inside).status().in(path).hint("fetch the missing file of the package");
  POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_source(path, options));
  if (source->size() == shard.bytes) return source;
  const bool less = source->size() < shard.bytes;
  return bad_input(less ? Refusal::kTrunc : Refusal::kRange,
                   "has " + std::to_string(source->size()) + " bytes, the list of weights says " +
                       std::to_string(shard.bytes))
      .in(path)
      .at_offset(std::min(source->size(), shard.bytes))
      .hint("the file is damaged: fetch it again");
}

}  // namespace

Status add_mlc(Checkpoint& out, const std::string& folder, const OpenOptions& options) {
  out.format = "mlc";
  POME_ASSIGN_OR_RETURN(out.mlc, read_chat_config(folder + "/" + kMlcConfig));
  POME_ASSIGN_OR_RETURN(MlcCache cache, read_mlc_cache(folder));
  std::vector<ByteSourcePtr> shards;
  for (const MlcShard& shard : cache.shards) {
    POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_shard(folder, shard, options));
    shards.push_back(std::move(source));
  }
  if (options.checksums) POME_RETURN_IF_ERROR(check_mlc_sums(folder, cache, nullptr));
  for (MlcTensor& tensor : cache.tensors)
    out.tensors.push_back({std::move(tensor.name), std::move(tensor.shape),
                           Encoding::plain(tensor.encoding), shards[tensor.shard], tensor.offset,
                           tensor.bytes});
  return {};
}

}  // namespace pome::checkpoint
