#include "pipeline/convert.h"

#include <algorithm>
#include <set>

#include "base/io.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/manifest.h"
#include "formats/mil.h"
#include "models/models.h"
#include "pipeline/convert_gguf.h"
#include "pipeline/convert_mlc.h"
#include "pipeline/frame.h"
#include "pipeline/genai_config.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

constexpr const char* kPackageName = "model.mlpackage";

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

Status check_target(const ConvertOptions& options) {
  const bool onnx = options.target == "onnx", gguf = options.target == "gguf";
  if (!parse_target(options.target))
    return usage_error("--to " + options.target + " is not a target of this version")
        .hint("known: " + target_names());
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
  if (!gguf && options.output.ends_with(".gguf"))
    return usage_error("an output that ends in .gguf is a GGUF file")
        .in(options.output)
        .hint("name a folder, or use --to gguf");
  if (!gguf && !options.imatrix.empty())
    return usage_error("--imatrix is for --to gguf").in(options.imatrix);
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
  if (options.target == "gguf") return convert_to_gguf(options, work);
  if (options.target == "mlc") return convert_to_mlc(options, work);
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
  POME_RETURN_IF_ERROR(finish_folder(written, source, options, staged->path(), work, &report));
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  return report;
}

}  // namespace pome
