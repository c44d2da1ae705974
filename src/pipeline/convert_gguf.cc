#include "pipeline/convert_gguf.h"

#include <algorithm>

#include "base/io.h"
#include "export/gguf.h"
#include "formats/imatrix.h"
#include "models/models.h"
#include "pipeline/frame.h"
#include "quantize/gguf_types.h"
#include "tokenizer/tokenizer.h"

namespace pome {

namespace {

constexpr const char* kModelName = "model.gguf";

// A tokenizer that came from a GGUF file goes on as it is.
Result<GgufMetadata> tokenizer_keys(const Checkpoint& checkpoint, int64_t vocab_size,
                                    std::vector<std::string>* warnings) {
  if (checkpoint.format != "gguf" || checkpoint.tensors.empty())
    return gguf_tokenizer(checkpoint.tokenizer, vocab_size, warnings);
  POME_ASSIGN_OR_RETURN(const GgufFile file, read_gguf(checkpoint.tensors[0].source));
  GgufMetadata kept;
  for (const auto& entry : file.metadata)
    if (entry.first.rfind("tokenizer.", 0) == 0) kept.push_back(entry);
  return kept;
}

Result<ColumnWeights> read_weights(const std::string& path, std::vector<std::string>* warnings) {
  ColumnWeights out;
  if (path.empty()) return out;
  POME_ASSIGN_OR_RETURN(const ImportanceMatrix matrix, read_imatrix(path));
  for (const auto& [name, entry] : matrix.entries) out[name] = entry.mean_squares;
  warnings->insert(warnings->end(), matrix.warnings.begin(), matrix.warnings.end());
  return out;
}

struct Prepared {
  Checkpoint checkpoint;
  Graph graph;
  std::string tokenizer_digest;
  GgufMetadata tokenizer;
};

Result<Prepared> prepare(const ConvertOptions& options, ConvertReport* report) {
  Prepared out;
  POME_ASSIGN_OR_RETURN(out.checkpoint, open_checkpoint(options.model));
  POME_ASSIGN_OR_RETURN(out.graph, build_graph(out.checkpoint, {options.context}));
  POME_RETURN_IF_ERROR(check_gguf_support(out.graph));
  GgufInfo& gguf = out.graph.info.gguf;
  int64_t positions = out.graph.info.max_position_embeddings;
  if (options.context > positions)
    return usage_error("--context " + std::to_string(options.context) + " is more than the " +
                       std::to_string(positions) + " positions this model was made for");
  report->warnings = out.checkpoint.warnings;
  if (gguf.positions > 0 && gguf.positions < positions) {
    positions = gguf.positions;
    report->warnings.push_back(gguf.positions_reason + ": the file is limited to the " +
                               std::to_string(positions) +
                               " tokens up to which that makes no difference");
  }
  if (options.context > 0) positions = gguf.positions = std::min(positions, options.context);
  report->context = positions;
  report->chunk = std::min<int64_t>(options.chunk, positions);
  if (out.checkpoint.tokenizer.model != TokenizerSource::Model::kNone) {
    POME_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer,
                          Tokenizer::create(out.checkpoint.tokenizer));
    out.tokenizer_digest = tokenizer->digest();
  } else {
    report->warnings.push_back(
        "the checkpoint has no tokenizer: the file can be run on token ids only");
  }
  POME_ASSIGN_OR_RETURN(
      out.tokenizer, tokenizer_keys(out.checkpoint, out.graph.info.vocab_size, &report->warnings));
  return out;
}

}  // namespace

Result<ConvertReport> convert_to_gguf(const ConvertOptions& options, const WorkContext& work) {
  ConvertReport report;
  report.output = options.output;
  std::optional<std::string_view> embedding;
  if (options.embedding) embedding = *options.embedding;
  POME_ASSIGN_OR_RETURN(const ColumnWeights weights, read_weights(options.imatrix, &report.notes));
  POME_ASSIGN_OR_RETURN(const Prepared prepared, prepare(options, &report));
  POME_ASSIGN_OR_RETURN(GgufQuantized chosen,
                        quantize_for_gguf(prepared.graph, options.weights, embedding, weights));
  const Graph& graph = chosen.quantized.graph;
  report.tensors = std::move(chosen.quantized.tensors);
  report.warnings.insert(report.warnings.end(), chosen.warnings.begin(), chosen.warnings.end());

  const bool alone = options.output.ends_with(".gguf");
  POME_RETURN_IF_ERROR(check_replaceable(options));
  POME_ASSIGN_OR_RETURN(
      const std::unique_ptr<io::Staged> staged,
      io::Staged::create(options.output,
                         alone ? io::Staged::Kind::kFile : io::Staged::Kind::kFolder,
                         options.force));
  POME_RETURN_IF_ERROR(check_disk(graph, parent_of(options.output)));
  GgufOptions gguf;
  gguf.scheme = options.weights + (options.embedding ? "+embedding:" + *options.embedding : "") +
                (options.imatrix.empty() ? "" : "+imatrix");
  gguf.name = gguf_model_name(graph.info.name, prepared.checkpoint.tokenizer);
  gguf.file_type = chosen.file_type;
  gguf.tokenizer = prepared.tokenizer;
  gguf.tokenizer_digest = prepared.tokenizer_digest;
  gguf.reopen = [](const std::string& path) -> Result<Graph> {
    POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(path));
    return build_graph(checkpoint, {});
  };
  POME_ASSIGN_OR_RETURN(
      GgufReport written,
      export_gguf(graph, gguf, alone ? staged->path() : staged->path() + "/" + kModelName, work));
  report.exported = written.exported;
  report.errors = std::move(written.errors);
  report.bytes = written.exported.bytes;
  if (!alone) {
    Written parts{written.exported, kModelName, {}, {}};
    for (const PlacedTensor& tensor : written.exported.tensors)
      parts.tensors.push_back({tensor.name, kModelName, tensor.offset, tensor.size, {}});
    const Source source{graph,          prepared.checkpoint, gguf.scheme, prepared.tokenizer_digest,
                        report.context, report.chunk};
    POME_RETURN_IF_ERROR(finish_folder(parts, source, options, staged->path(), work, &report));
  }
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(staged->commit());
  return report;
}

}  // namespace pome
