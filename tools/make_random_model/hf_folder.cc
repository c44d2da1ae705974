#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/checked.h"
#include "base/io.h"
#include "formats/safetensors.h"
#include "outputs.h"
#include "random_weights.h"

namespace pome::random_model {
namespace {

constexpr uint64_t kTileBytes = 4u << 20;

struct Shard {
  std::string name;
  std::vector<const TensorSpec*> tensors;
  uint64_t bytes = 0;
};

Result<DType> dtype_of(EncodingKind kind) {
  if (kind == EncodingKind::kF32) return DType::kF32;
  if (kind == EncodingKind::kF16) return DType::kF16;
  if (kind == EncodingKind::kBF16) return DType::kBF16;
  return usage_error("safetensors take --type bf16, f16 or f32, not " +
                     std::string(traits(kind).name));
}

DType stored_dtype(const TensorSpec& spec, DType dtype) {
  return spec.stored == Stored::kFloat ? dtype : DType::kU8;
}

// In order of the tensors; one that is larger than a shard has a shard of its own.
std::vector<Shard> cut_into_shards(const ModelShape& model, DType dtype, uint64_t shard_bytes) {
  std::vector<Shard> shards;
  for (const TensorSpec& spec : model.tensors) {
    if (spec.hf_name.empty()) continue;
    const uint64_t bytes = static_cast<uint64_t>(element_count(spec.shape).value_or(0)) *
                           static_cast<uint64_t>(bits_of(stored_dtype(spec, dtype))) / 8;
    if (shards.empty() || shards.back().bytes + bytes > shard_bytes) shards.emplace_back();
    shards.back().tensors.push_back(&spec);
    shards.back().bytes += bytes;
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    shards[i].name = shards.size() == 1 ? "model.safetensors" : name;
  }
  return shards;
}

Status write_shard(const ModelShape& model, const OutputOptions& options, DType dtype,
                   const Shard& shard, const std::string& folder) {
  std::vector<SafetensorsWriter::Declared> declared;
  for (const TensorSpec* spec : shard.tensors) {
    declared.push_back({spec->hf_name, stored_dtype(*spec, dtype), spec->shape});
  }
  POME_ASSIGN_OR_RETURN(
      const std::unique_ptr<SafetensorsWriter> writer,
      SafetensorsWriter::create(folder + "/" + shard.name, declared, {{"format", "pt"}}));
  std::vector<std::byte> tile;
  for (const TensorSpec* spec : shard.tensors) {
    POME_ASSIGN_OR_RETURN(const RandomTensor tensor,
                          RandomTensor::create(*spec, model, options.seed, options.type.base));
    const int64_t step =
        std::max<int64_t>(1, static_cast<int64_t>(kTileBytes / tensor.row_bytes()));
    for (int64_t row = 0; row < tensor.rows(); row += step) {
      const int64_t count = std::min(step, tensor.rows() - row);
      tile.resize(static_cast<uint64_t>(count) * tensor.row_bytes());
      tensor.fill(row, tile);
      POME_RETURN_IF_ERROR(writer->write(tile));
    }
  }
  return writer->finish();
}

Status check_room(uint64_t needed, const std::string& folder) {
  POME_ASSIGN_OR_RETURN(const uint64_t available, io::free_bytes(folder));
  if (available > needed) return {};
  return does_not_fit("needs " + std::to_string(needed) + " bytes on disk, " +
                      std::to_string(available) + " are free")
      .in(folder)
      .hint("free some space or write fewer --layers");
}

Status write_index(const std::vector<Shard>& shards, const std::string& folder) {
  Json index;
  uint64_t total = 0;
  for (const Shard& shard : shards) total += shard.bytes;
  index["metadata"]["total_size"] = total;
  for (const Shard& shard : shards) {
    for (const TensorSpec* spec : shard.tensors) index["weight_map"][spec->hf_name] = shard.name;
  }
  return io::write_file(folder + "/model.safetensors.index.json", dump_json(index, 2) + "\n");
}

Status copy_tokenizer(const std::string& from, const std::string& to) {
  bool any = false;
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                           "special_tokens_map.json", "added_tokens.json", "vocab.json",
                           "merges.txt", "chat_template.jinja", "generation_config.json"}) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(from + "/" + name, error)) continue;
    POME_RETURN_IF_ERROR(io::copy_file(from + "/" + name, to + "/" + name));
    any = true;
  }
  if (!any) return missing("no tokenizer files in " + from);
  return {};
}

}  // namespace

Result<uint64_t> write_hf_folder(const ModelShape& model, Json config,
                                 const OutputOptions& options) {
  POME_ASSIGN_OR_RETURN(const DType dtype, dtype_of(options.type.base));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<io::Staged> staged,
                        io::Staged::create(options.path, io::Staged::Kind::kFolder, options.force));
  const std::vector<Shard> shards = cut_into_shards(model, dtype, options.shard_bytes);
  uint64_t total = 0;
  for (const Shard& shard : shards) total += shard.bytes;
  POME_RETURN_IF_ERROR(check_room(total, staged->path()));
  for (const Shard& shard : shards) {
    POME_RETURN_IF_ERROR(write_shard(model, options, dtype, shard, staged->path()));
  }
  if (shards.size() > 1) POME_RETURN_IF_ERROR(write_index(shards, staged->path()));
  config["num_hidden_layers"] = model.num_hidden_layers;
  if (const auto types = config.find("layer_types"); types != config.end() && types->is_array()) {
    const auto layers = static_cast<size_t>(model.num_hidden_layers);
    while (types->size() > layers) types->erase(types->size() - 1);
  }
  config["torch_dtype"] = dtype == DType::kF32   ? "float32"
                          : dtype == DType::kF16 ? "float16"
                                                 : "bfloat16";
  POME_RETURN_IF_ERROR(
      io::write_file(staged->path() + "/config.json", dump_json(config, 2) + "\n"));
  if (!options.tokenizer_folder.empty()) {
    POME_RETURN_IF_ERROR(copy_tokenizer(options.tokenizer_folder, staged->path()));
  }
  POME_RETURN_IF_ERROR(staged->commit());
  return total;
}

}  // namespace pome::random_model
