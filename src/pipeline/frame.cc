#include "pipeline/frame.h"

#include <limits.h>
#include <stdlib.h>

#include <algorithm>

#include "base/io.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"

namespace pome {

namespace {

// Whether `inner` is `outer` or lies below it; paths that do not exist lie nowhere.
bool lies_in(const std::string& inner, const std::string& outer) {
  char a[PATH_MAX], b[PATH_MAX];
  if (!realpath(inner.c_str(), a) || !realpath(outer.c_str(), b)) return false;
  const std::string inside = std::string(a) + "/", outside = std::string(b) + "/";
  return inside.rfind(outside, 0) == 0;
}

// The tokenizer of a GGUF file as a GGUF file of its own, without tensors.
Status write_gguf_tokenizer(const Checkpoint& checkpoint, const std::string& folder) {
  if (checkpoint.tensors.empty()) return {};
  POME_ASSIGN_OR_RETURN(const GgufFile file, read_gguf(checkpoint.tensors[0].source));
  std::vector<std::pair<std::string, GgufValue>> kept;
  for (const char* key : {"general.architecture", "general.name"})
    if (const GgufValue* value = file.find(key)) kept.emplace_back(key, *value);
  for (auto& entry : tokenizer_keys(file)) kept.push_back(std::move(entry));
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<GgufWriter> writer,
                        GgufWriter::create(folder + "/tokenizer.gguf", kept, {}));
  return writer->finish();
}

}  // namespace

std::string parent_of(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  const size_t slash = path.find_last_of('/', end);
  return slash == std::string::npos || end == std::string::npos ? "."
         : slash == 0                                           ? "/"
                                                                : path.substr(0, slash);
}

bool is_semver(const std::string& text) {
  int parts = 0;
  for (size_t begin = 0; begin <= text.size(); ++parts) {
    const size_t end = std::min(text.find('.', begin), text.size());
    if (end == begin || end - begin > 9 ||
        !std::all_of(text.begin() + static_cast<ptrdiff_t>(begin),
                     text.begin() + static_cast<ptrdiff_t>(end),
                     [](char c) { return c >= '0' && c <= '9'; }))
      return false;
    begin = end + 1;
  }
  return parts == 3;
}

Status check_replaceable(const ConvertOptions& options) {
  if (!options.force) return {};
  for (const auto& [path, what] : {std::pair(options.model, "the model"),
                                   std::pair(std::string("."), "the working directory")}) {
    if (!lies_in(path, options.output)) continue;
    return usage_error(std::string("--force would replace the folder that holds ") + what)
        .in(options.output)
        .hint("choose another name");
  }
  return {};
}

Status check_disk(uint64_t stored, const std::string& folder) {
  uint64_t needed = stored + (16 << 20);
  needed += needed / 20;
  POME_ASSIGN_OR_RETURN(const uint64_t available, io::free_bytes(folder));
  if (available < needed)
    return does_not_fit("needs " + std::to_string(needed) + " bytes on disk, " +
                        std::to_string(available) + " are free")
        .in(folder)
        .hint("free some space or choose a smaller scheme");
  return {};
}

Manifest manifest_of(const Written& written, const Source& source, const ConvertOptions& options) {
  Manifest manifest;
  manifest.name = source.graph.info.name;
  manifest.version = options.version;
  manifest.target = options.target;
  manifest.scheme = source.scheme;
  manifest.model = written.model;
  manifest.created = build_time();
  manifest.pome_version = manifest.minimum_runtime = kPomeVersion;
  manifest.license_id = options.license_id;
  manifest.license_source = options.license_source;
  manifest.graph_hash = written.exported.hashes.graph_hash;
  manifest.source_hash = written.exported.hashes.source_hash;
  manifest.tokenizer_digest = source.tokenizer_digest;
  manifest.context = source.context;
  manifest.chunk = source.chunk;
  manifest.parameters = written.exported.parameters;
  manifest.bits_per_weight = written.exported.bits_per_weight;
  manifest.tensors = written.tensors;
  return manifest;
}

Status write_tokenizer_files(const Checkpoint& checkpoint, const std::string& folder) {
  if (checkpoint.format == "gguf")
    return checkpoint.tokenizer.model == TokenizerSource::Model::kNone
               ? Status()
               : write_gguf_tokenizer(checkpoint, folder);
  for (const auto& [name, path] : checkpoint.sidecars)
    POME_RETURN_IF_ERROR(io::copy_file(path, folder + "/" + name));
  return {};
}

Status finish_folder(const Written& written, const Source& source, const ConvertOptions& options,
                     const std::string& folder, const WorkContext& work, ConvertReport* report) {
  Manifest manifest = manifest_of(written, source, options);
  POME_RETURN_IF_ERROR(fill_digests(folder, &manifest, work));
  const std::string text = to_json(manifest);
  POME_RETURN_IF_ERROR(io::write_file(folder + "/" + kManifestName, text));
  report->bytes = text.size();
  for (const ManifestFile& file : manifest.files) report->bytes += file.size;
  report->tree_hash = manifest.tree_hash;
  return {};
}

}  // namespace pome
