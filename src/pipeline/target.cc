#include "pipeline/target.h"

#include <algorithm>

#include "models/models.h"

namespace pome {

namespace {

Status check_variant(const char* flag, const std::string& value,
                     const std::vector<std::string>& known, const ConvertOptions& options) {
  if (value.empty() || std::find(known.begin(), known.end(), value) != known.end()) return {};
  return usage_error(std::string(flag) + " " + value + ": the target " + options.target +
                     " has no such variant in this version")
      .hint(known.empty() ? "" : "known: " + join(known));
}

// Context and chunk that the artefact will have.
Status settle_context(const ModelInfo& info, const ConvertOptions& options, int64_t* context,
                      int64_t* chunk) {
  if (options.chunk < 1 || options.chunk > 4096)
    return usage_error("--chunk must lie between 1 and 4096, is " + std::to_string(options.chunk));
  *chunk = options.chunk;
  if (options.context == 0) {
    const int64_t wanted = std::min(info.max_position_embeddings, options.default_context);
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

Status check_activations(const TargetRow& row, const ConvertOptions& options) {
  if (!parse_range_method(options.activation_range))
    return usage_error("--activation-range '" + options.activation_range +
                       "' is none of minmax percentile entropy");
  if (options.activations.empty()) return {};
  if (!row.activations) return usage_error("--activations is for --to coreml");
  if (options.activations != "int8")
    return usage_error("--activations '" + options.activations + "' must be int8");
  return {};
}

}  // namespace

std::string join(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : " ") + name;
  return out;
}

namespace {

constexpr int64_t kGroup = 16, kBlock = 32;

Encoding lut(int bits) { return Encoding::lut(bits, kGroup); }
Encoding f16() { return Encoding::plain(EncodingKind::kF16); }

std::vector<EncodingSet> coreml_sets() {
  return {{.profile = "ane",
           .encodings = {lut(4), lut(6), lut(8), f16()},
           .narrow = {lut(3), lut(2)},
           .narrow_note = "palettes of 3 and 2 bits are in use, because the limit leaves no room "
                          "for 4 bits everywhere: the Neural Engine takes them from iOS 18 on, but "
                          "they are less tried than 4, 6 and 8"},
          {.profile = "ane-narrow", .encodings = {lut(4), lut(6), lut(8), f16(), lut(3), lut(2)}},
          {.profile = "gpu",
           .encodings = {Encoding::int_blocks(4, kBlock), Encoding::int_blocks(8, 0), f16()}}};
}

// The operators of ONNX Runtime take blocks of 8 bits too, those of ONNX a scale per row.
std::vector<EncodingSet> onnx_sets() {
  const Encoding int4 = Encoding::int_blocks(4, kBlock);
  return {{.profile = "ort", .encodings = {int4, Encoding::int_blocks(8, kBlock), f16()}},
          {.profile = "plain", .encodings = {int4, Encoding::int_blocks(8, 0), f16()}}};
}

std::vector<EncodingSet> gguf_sets() {
  EncodingSet out;
  for (const EncodingKind kind :
       {EncodingKind::kQ2_K, EncodingKind::kQ3_K, EncodingKind::kIQ4_XS, EncodingKind::kQ4_K,
        EncodingKind::kQ5_K, EncodingKind::kQ6_K, EncodingKind::kQ8_0, EncodingKind::kF16})
    out.encodings.push_back(Encoding::plain(kind));
  return {out};
}

}  // namespace

std::span<const TargetRow> target_rows() {
  static const TargetRow rows[] = {
      {.target = Target::kCoreml,
       .weights = "int4",
       .profiles = {"ane", "ane-narrow", "gpu"},
       .profiles_need_limit = true,
       .caches = {"fixed", "dynamic"},
       .cache_value_bytes = 2,
       .activations = true,
       .sparse = true,
       .inserts = true,
       .sets = coreml_sets(),
       .make = coreml_writer},
      {.target = Target::kOnnx,
       .weights = "int4",
       .profiles = {"ort", "plain"},
       .graphs = {"logits-only"},
       .caches = {"dynamic"},
       .cache_value_bytes = 4,
       .blocks = true,
       .inserts = true,
       .sets = onnx_sets(),
       .make = onnx_writer},
      {.target = Target::kGguf,
       .weights = "q4_k_m",
       .importance = true,
       .sets = gguf_sets(),
       .make = gguf_writer},
      {.target = Target::kMlc, .weights = "q4f16_1", .chunk = 2048, .make = mlc_writer},
  };
  return rows;
}

Result<const TargetRow*> find_target(const ConvertOptions& options) {
  const auto target = parse_target(options.target);
  if (!target)
    return usage_error("--to " + options.target + " is not a target of this version")
        .hint("known: " + target_names());
  const std::span<const TargetRow> rows = target_rows();
  const auto row = std::find_if(rows.begin(), rows.end(),
                                [&](const TargetRow& r) { return r.target == *target; });
  POME_CHECK(row != rows.end());
  POME_RETURN_IF_ERROR(check_variant("--profile", options.profile, row->profiles, options));
  POME_RETURN_IF_ERROR(check_variant("--graph", options.graph, row->graphs, options));
  const int64_t block = options.block;
  if (block != 0 && (!row->blocks || block < 16 || block > 256 || (block & (block - 1)) != 0))
    return usage_error("--block " + std::to_string(block) +
                       ": blocks of 16, 32, 64, 128 or 256 columns, of the target onnx");
  if (!row->importance && !options.imatrix.empty())
    return usage_error("--imatrix is for --to gguf").in(options.imatrix);
  POME_RETURN_IF_ERROR(check_activations(*row, options));
  const bool prunes = !options.prune.empty() || options.prune_below > 0;
  if (!row->sparse && (prunes || options.weights.starts_with("sparse-")))
    return usage_error("--prune is for --to coreml: other targets store no masks");
  if (!options.prune.empty() && options.prune_below > 0)
    return usage_error("--prune and --prune-below exclude each other");
  if (*target != Target::kGguf && options.output.ends_with(".gguf"))
    return usage_error("an output that ends in .gguf is a GGUF file")
        .in(options.output)
        .hint("name a folder, or use --to gguf");
  return &*row;
}

Status TargetWriter::prepare(const ConvertOptions& options, ConvertReport*) {
  std::optional<std::string_view> embedding;
  if (options.embedding) embedding = *options.embedding;
  POME_ASSIGN_OR_RETURN(recipe_, parse_recipe(options.weights, embedding));
  if (!options.prune.empty()) {
    POME_ASSIGN_OR_RETURN(recipe_.prune, parse_prune(options.prune));
  }
  if (options.prune_below > 0) {
    recipe_.prune = PruneRule();
    recipe_.prune->below = options.prune_below;
  }
  return recipe_.prune ? check_prunable(recipe_) : Status();
}

Result<Graph> TargetWriter::build(const Checkpoint& checkpoint, const ConvertOptions& options,
                                  ConvertReport* report) {
  POME_ASSIGN_OR_RETURN(const ModelInfo info, read_model_info(checkpoint, {options.context}));
  POME_RETURN_IF_ERROR(settle_context(info, options, &report->context, &report->chunk));
  return build_graph(checkpoint, {report->context});
}

Result<Quantized> TargetWriter::quantize(const Graph& graph, const ConvertOptions&,
                                         ConvertReport*) {
  return pome::quantize(graph, recipe_);
}

uint64_t TargetWriter::file_bytes(const Graph& quantized, size_t constant, bool padded) const {
  constexpr uint64_t kRecord = 64, kAlignment = 64;
  const ConstantData& data = *quantized.constants[constant].data;
  if (!padded) return data.stored_bytes();
  const auto layout = encoded_layout(data.encoding(), data.rows(), data.columns());
  uint64_t out = 0;
  if (layout.ok())
    for (const uint64_t bytes : layout->part_bytes)
      out += kRecord + (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return out;
}

uint64_t TargetWriter::stored_bytes(const Graph& quantized) const {
  uint64_t out = 0;
  for (const Constant& constant : quantized.constants) out += constant.data->stored_bytes();
  return out;
}

}  // namespace pome
