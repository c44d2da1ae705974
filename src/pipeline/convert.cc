#include "pipeline/convert.h"

#include <limits.h>
#include <stdlib.h>

#include <algorithm>
#include <set>

#include "base/io.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/manifest.h"
#include "formats/mil.h"
#include "models/models.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

constexpr const char* kPackageName = "model.mlpackage";

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

// Context and chunk that the artefact will have.
Status settle_context(const ModelInfo& info, const ConvertOptions& options, int64_t* context,
                      int64_t* chunk) {
  if (options.chunk < 1 || options.chunk > 4096)
    return usage_error("--chunk must lie between 1 and 4096, is " + std::to_string(options.chunk));
  *chunk = options.chunk;
  if (options.context == 0) {
    const int64_t wanted = std::min<int64_t>(info.max_position_embeddings, 4096);
    *chunk = std::min(*chunk, wanted);
    *context = wanted / *chunk * *chunk;
    return {};
  }
  *context = options.context;
  if (*context < 2 || *context > info.max_position_embeddings)
    return usage_error("--context " + std::to_string(*context) + " is outside 2 to " +
                       std::to_string(info.max_position_embeddings) +
                       ", the positions this model was made for");
  *chunk = std::min(*chunk, *context);
  if (*context % *chunk != 0)
    return usage_error("--context " + std::to_string(*context) +
                       " is not a multiple of the prefill chunk " + std::to_string(*chunk))
        .hint("use --context " + std::to_string(std::max(*chunk, *context / *chunk * *chunk)) +
              " or another --chunk");
  return {};
}

// Whether `inner` is `outer` or lies below it; paths that do not exist lie nowhere.
bool lies_in(const std::string& inner, const std::string& outer) {
  char a[PATH_MAX], b[PATH_MAX];
  if (!realpath(inner.c_str(), a) || !realpath(outer.c_str(), b)) return false;
  const std::string inside = std::string(a) + "/", outside = std::string(b) + "/";
  return inside.rfind(outside, 0) == 0;
}

// --force replaces what is there, but never what the work itself stands on.
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

Status check_disk(const Graph& graph, const std::string& folder) {
  uint64_t needed = 16 << 20;
  for (const Constant& constant : graph.constants) needed += constant.data->stored_bytes();
  needed += needed / 20;
  POME_ASSIGN_OR_RETURN(const uint64_t available, io::free_bytes(folder));
  if (available < needed)
    return does_not_fit("needs " + std::to_string(needed) + " bytes on disk, " +
                        std::to_string(available) + " are free")
        .in(folder)
        .hint("free some space or choose a smaller scheme");
  return {};
}

// Every blob of the package once, under the name of the value it becomes.
Result<std::vector<ManifestTensor>> list_tensors(const std::string& package_path) {
  POME_ASSIGN_OR_RETURN(const mil::Package package, mil::read_package(package_path));
  std::vector<ManifestTensor> tensors;
  std::set<std::pair<std::string, uint64_t>> seen;
  const auto add = [&](const std::string& name, const mil::ValueData& value) {
    const auto* ref = std::get_if<mil::BlobRef>(&value.data);
    if (!ref || !seen.insert({ref->file, ref->offset}).second) return;
    const std::string prefix = "@model_path/";
    const std::string inside =
        ref->file.rfind(prefix, 0) == 0 ? ref->file.substr(prefix.size()) : ref->file;
    uint64_t count = 1;
    for (const int64_t dim : value.type.dims)
      count *= static_cast<uint64_t>(std::max<int64_t>(dim, 0));
    ManifestTensor tensor;
    tensor.name = name;
    tensor.file = std::string(kPackageName) + "/Data/com.apple.CoreML/" + inside;
    tensor.offset = ref->offset + 64;  // behind its record
    tensor.size = storage_bytes(value.type.dtype, count).value_or(0);
    tensors.push_back(std::move(tensor));
  };
  for (const mil::Function& function : package.model.functions)
    for (const mil::Operation& op : function.operations) {
      const std::string name = op.outputs.empty() ? op.type : op.outputs[0].name;
      for (const auto& [key, bindings] : op.inputs)
        for (const mil::Binding& binding : bindings)
          if (const auto* value = std::get_if<mil::ValueData>(&binding))
            add(name + "." + key, *value);
      for (const auto& [key, value] : op.attributes)
        add(key == "val" ? name : name + "." + key, value);
    }
  return tensors;
}

// The tokenizer of a GGUF file as a GGUF file of its own, without tensors.
Status write_gguf_tokenizer(const Checkpoint& checkpoint, const std::string& folder) {
  if (checkpoint.tensors.empty()) return {};
  POME_ASSIGN_OR_RETURN(const GgufFile file, read_gguf(checkpoint.tensors[0].source));
  std::vector<std::pair<std::string, GgufValue>> kept;
  for (const auto& entry : file.metadata)
    if (entry.first.rfind("tokenizer.", 0) == 0 || entry.first == "general.architecture" ||
        entry.first == "general.name")
      kept.push_back(entry);
  POME_ASSIGN_OR_RETURN(const std::unique_ptr<GgufWriter> writer,
                        GgufWriter::create(folder + "/tokenizer.gguf", kept, {}));
  return writer->finish();
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

}  // namespace

Result<ConvertReport> convert(const ConvertOptions& options, const WorkContext& work) {
  if (options.target != "coreml")
    return usage_error("--to " + options.target + " is not a target of this version")
        .hint("known: coreml");
  if (options.output.size() > 5 && options.output.substr(options.output.size() - 5) == ".gguf")
    return usage_error(
               "an output that ends in .gguf is a GGUF file, which is not a target of this "
               "version")
        .in(options.output)
        .hint("name a folder");
  if (!is_semver(options.version))
    return usage_error("--artefact-version '" + options.version +
                       "' must be three numbers, such as 1.0.0");
  std::optional<std::string_view> embedding;
  if (options.embedding) embedding = *options.embedding;
  POME_ASSIGN_OR_RETURN(const QuantRecipe recipe, parse_recipe(options.weights, embedding));

  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(options.model));
  POME_ASSIGN_OR_RETURN(const ModelInfo info, read_model_info(checkpoint, {options.context}));
  CoremlOptions coreml;
  POME_RETURN_IF_ERROR(settle_context(info, options, &coreml.context, &coreml.chunk));
  POME_ASSIGN_OR_RETURN(const Graph graph, build_graph(checkpoint, {coreml.context}));
  ConvertReport report;
  report.output = options.output;
  report.warnings = checkpoint.warnings;
  coreml.one_function = options.one_function;
  coreml.scheme = options.weights + (options.embedding ? "+embedding:" + *options.embedding : "");
  coreml.model_name = graph.info.name;
  if (checkpoint.tokenizer.model != TokenizerSource::Model::kNone) {
    POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer,
                          Tokenizer::create(checkpoint.tokenizer));
    coreml.tokenizer_digest = tokenizer->digest();
  } else {
    report.warnings.push_back(
        "the checkpoint has no tokenizer: the artefact can be run on token ids only");
  }
  POME_ASSIGN_OR_RETURN(Quantized quantized, quantize(graph, recipe));
  report.tensors = std::move(quantized.tensors);

  POME_RETURN_IF_ERROR(check_replaceable(options));
  POME_ASSIGN_OR_RETURN(
      const std::unique_ptr<io::Staged> staged,
      io::Staged::create(options.output, io::Staged::Kind::kFolder, options.force));
  POME_RETURN_IF_ERROR(check_disk(quantized.graph, parent_of(options.output)));
  POME_ASSIGN_OR_RETURN(report.exported, export_coreml(quantized.graph, coreml,
                                                       staged->path() + "/" + kPackageName, work));
  POME_RETURN_IF_ERROR(write_tokenizer_files(checkpoint, staged->path()));

  Manifest manifest;
  manifest.name = graph.info.name;
  manifest.version = options.version;
  manifest.target = options.target;
  manifest.scheme = coreml.scheme;
  manifest.model = kPackageName;
  manifest.created = build_time();
  manifest.pome_version = manifest.minimum_runtime = kPomeVersion;
  manifest.license_id = options.license_id;
  manifest.license_source = options.license_source;
  manifest.graph_hash = report.exported.hashes.graph_hash;
  manifest.source_hash = report.exported.hashes.source_hash;
  manifest.tokenizer_digest = coreml.tokenizer_digest;
  manifest.context = report.context = coreml.context;
  manifest.chunk = report.chunk = coreml.chunk;
  manifest.parameters = report.exported.parameters;
  manifest.bits_per_weight = report.exported.bits_per_weight;
  POME_ASSIGN_OR_RETURN(manifest.tensors, list_tensors(staged->path() + "/" + kPackageName));
  POME_RETURN_IF_ERROR(fill_digests(staged->path(), &manifest, work));
  const std::string text = to_json(manifest);
  POME_RETURN_IF_ERROR(io::write_file(staged->path() + "/" + kManifestName, text));
  for (const ManifestFile& file : manifest.files) report.bytes += file.size;
  report.bytes += text.size();
  report.tree_hash = manifest.tree_hash;
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  return report;
}

}  // namespace pome
