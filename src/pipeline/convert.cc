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
#include "pipeline/genai_config.h"
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

// What a target wrote into the staged folder.
struct Written {
  ExportReport exported;
  std::string model;  // inside the folder
  std::vector<ManifestTensor> tensors;
  std::vector<std::string> notes;
};

// What every target is told about the model.
struct Source {
  const Graph& graph;  // quantised
  const Checkpoint& checkpoint;
  std::string scheme, tokenizer_digest;
  int64_t context = 0, chunk = 0;
};

Result<Written> write_coreml(const Source& source, const ConvertOptions& options,
                             const std::string& folder, const WorkContext& work) {
  CoremlOptions coreml;
  coreml.context = source.context;
  coreml.chunk = source.chunk;
  coreml.one_function = options.one_function;
  coreml.scheme = source.scheme;
  coreml.tokenizer_digest = source.tokenizer_digest;
  coreml.model_name = source.graph.info.name;
  Written out;
  out.model = kPackageName;
  POME_ASSIGN_OR_RETURN(out.exported,
                        export_coreml(source.graph, coreml, folder + "/" + out.model, work));
  POME_ASSIGN_OR_RETURN(out.tensors, list_tensors(folder + "/" + out.model));
  return out;
}

Result<Written> write_onnx(const Source& source, const ConvertOptions& options,
                           const std::string& folder, const WorkContext& work) {
  OnnxOptions onnx;
  onnx.profile =
      options.profile == "plain" ? OnnxOptions::Profile::kPlain : OnnxOptions::Profile::kOrt;
  onnx.logits_only = options.graph == "logits-only";
  onnx.context = source.context;
  onnx.scheme = source.scheme;
  onnx.tokenizer_digest = source.tokenizer_digest;
  onnx.model_name = source.graph.info.name;
  POME_ASSIGN_OR_RETURN(const OnnxReport report, export_onnx(source.graph, onnx, folder, work));
  Written out;
  out.exported = report.exported;
  out.model = kOnnxModel;
  for (const PlacedTensor& tensor : report.exported.tensors)
    out.tensors.push_back({tensor.name, kOnnxData, tensor.offset, tensor.size, {}});
  out.notes.push_back("needs ONNX Runtime " + report.minimum_runtime + " or newer (operator set " +
                      std::to_string(report.opset) + ")");
  if (onnx.logits_only) return out;
  if (source.checkpoint.tokenizer.model != TokenizerSource::Model::kNone) {
    const Json config = genai_config(source.graph.info, report, source.checkpoint.tokenizer,
                                     source.checkpoint.generation_config, source.context);
    POME_RETURN_IF_ERROR(
        io::write_file(folder + "/genai_config.json", dump_json(config, 4) + "\n"));
  }
  if (source.checkpoint.sidecars.count("tokenizer.json") == 0)
    out.notes.push_back(
        "onnxruntime-genai needs a tokenizer.json, which this checkpoint does not have: put one "
        "beside the model, or feed token ids");
  return out;
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

Status check_target(const ConvertOptions& options) {
  const bool onnx = options.target == "onnx";
  if (!onnx && options.target != "coreml")
    return usage_error("--to " + options.target + " is not a target of this version")
        .hint("known: coreml onnx");
  if (!options.profile.empty() &&
      !(onnx && (options.profile == "ort" || options.profile == "plain")))
    return usage_error("--profile " + options.profile + ": the target " + options.target +
                       " has no such variant in this version")
        .hint(onnx ? "known: ort plain" : "");
  if (!options.graph.empty() && !(onnx && options.graph == "logits-only"))
    return usage_error("--graph " + options.graph + ": the target " + options.target +
                       " has no such form")
        .hint(onnx ? "known: logits-only" : "");
  const int64_t block = options.block;
  if (block != 0 && (!onnx || block < 16 || block > 256 || (block & (block - 1)) != 0))
    return usage_error("--block " + std::to_string(block) +
                       ": blocks of 16, 32, 64, 128 or 256 columns, of the target onnx");
  if (options.output.size() > 5 && options.output.substr(options.output.size() - 5) == ".gguf")
    return usage_error(
               "an output that ends in .gguf is a GGUF file, which is not a target of this "
               "version")
        .in(options.output)
        .hint("name a folder");
  if (!is_semver(options.version))
    return usage_error("--artefact-version '" + options.version +
                       "' must be three numbers, such as 1.0.0");
  return {};
}

// The operators for integers in ONNX Runtime take blocks; so does int8 there.
Result<QuantRecipe> recipe_for(const ConvertOptions& options) {
  std::optional<std::string_view> embedding;
  if (options.embedding) embedding = *options.embedding;
  POME_ASSIGN_OR_RETURN(QuantRecipe recipe, parse_recipe(options.weights, embedding));
  if (options.target != "onnx") return recipe;
  for (Encoding* encoding : {&recipe.matrices, &recipe.embedding, &recipe.head}) {
    if (encoding->kind == EncodingKind::kLut)
      return usage_error("palettes (" + to_string(*encoding) + ") have no form in ONNX")
          .hint("use --weights f32, f16, int8 or int4");
    if (encoding->kind != EncodingKind::kInt) continue;
    if (options.block != 0)
      encoding->block = options.block;
    else if (options.profile != "plain")
      encoding->block = 32;
  }
  return recipe;
}

}  // namespace

Result<ConvertReport> convert(const ConvertOptions& options, const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_target(options));
  POME_ASSIGN_OR_RETURN(const QuantRecipe recipe, recipe_for(options));
  POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(options.model));
  POME_ASSIGN_OR_RETURN(const ModelInfo info, read_model_info(checkpoint, {options.context}));
  ConvertReport report;
  POME_RETURN_IF_ERROR(settle_context(info, options, &report.context, &report.chunk));
  POME_ASSIGN_OR_RETURN(const Graph graph, build_graph(checkpoint, {report.context}));
  report.output = options.output;
  report.warnings = checkpoint.warnings;
  std::string tokenizer_digest;
  if (checkpoint.tokenizer.model != TokenizerSource::Model::kNone) {
    POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer,
                          Tokenizer::create(checkpoint.tokenizer));
    tokenizer_digest = tokenizer->digest();
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
  const Source source{
      quantized.graph,
      checkpoint,
      options.weights + (options.embedding ? "+embedding:" + *options.embedding : ""),
      tokenizer_digest,
      report.context,
      report.chunk};
  POME_ASSIGN_OR_RETURN(const Written written,
                        options.target == "onnx"
                            ? write_onnx(source, options, staged->path(), work)
                            : write_coreml(source, options, staged->path(), work));
  report.exported = written.exported;
  report.notes = written.notes;
  POME_RETURN_IF_ERROR(write_tokenizer_files(checkpoint, staged->path()));
  Manifest manifest = manifest_of(written, source, options);
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
