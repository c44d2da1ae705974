#include <algorithm>

#include "export/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "formats/imatrix.h"
#include "models/models.h"
#include "pipeline/target.h"
#include "quantize/gguf_types.h"

namespace pome {

namespace {

constexpr const char* kModelName = "model.gguf";

// A tokenizer that came from a GGUF file goes on as it is.
Result<GgufMetadata> tokenizer_of(const Checkpoint& checkpoint, int64_t vocab_size,
                                  std::vector<std::string>* warnings) {
  if (checkpoint.format != "gguf" || checkpoint.tensors.empty())
    return gguf_tokenizer(checkpoint.tokenizer, vocab_size, warnings);
  POME_ASSIGN_OR_RETURN(const GgufFile file, read_gguf(checkpoint.tensors[0].source));
  return tokenizer_keys(file);
}

Result<ColumnWeights> read_weights(const std::string& path, std::vector<std::string>* warnings) {
  ColumnWeights out;
  if (path.empty()) return out;
  POME_ASSIGN_OR_RETURN(const ImportanceMatrix matrix, read_imatrix(path));
  for (const auto& [name, entry] : matrix.entries) out[name] = entry.mean_squares;
  warnings->insert(warnings->end(), matrix.warnings.begin(), matrix.warnings.end());
  return out;
}

// One file that llama.cpp loads, alone or in an artefact folder with a manifest.
class GgufTarget final : public TargetWriter {
 public:
  Status prepare(const ConvertOptions& options, ConvertReport* report) override {
    POME_ASSIGN_OR_RETURN(importance_, read_weights(options.imatrix, &report->notes));
    return {};
  }

  Result<Graph> build(const Checkpoint& checkpoint, const ConvertOptions& options,
                      ConvertReport* report) override {
    POME_ASSIGN_OR_RETURN(Graph graph, build_graph(checkpoint, {options.context}));
    POME_RETURN_IF_ERROR(check_gguf_support(graph));
    GgufInfo& gguf = graph.info.gguf;
    int64_t positions = graph.info.max_position_embeddings;
    if (options.context > positions)
      return usage_error("--context " + std::to_string(options.context) + " is more than the " +
                         std::to_string(positions) + " positions this model was made for");
    if (gguf.positions > 0 && gguf.positions < positions) {
      positions = gguf.positions;
      report->warnings.push_back(gguf.positions_reason + ": the file is limited to the " +
                                 std::to_string(positions) +
                                 " tokens up to which that makes no difference");
    }
    if (options.context > 0) positions = gguf.positions = std::min(positions, options.context);
    report->context = positions;
    report->chunk = std::min<int64_t>(options.chunk, positions);
    POME_ASSIGN_OR_RETURN(tokenizer_,
                          tokenizer_of(checkpoint, graph.info.vocab_size, &report->warnings));
    return graph;
  }

  Result<Quantized> quantize(const Graph& graph, const ConvertOptions& options,
                             ConvertReport* report) override {
    std::optional<std::string_view> embedding;
    if (options.embedding) embedding = *options.embedding;
    POME_ASSIGN_OR_RETURN(GgufQuantized chosen,
                          quantize_for_gguf(graph, options.weights, embedding, importance_,
                                            !options.calibrate.empty(), recipe_.chosen));
    report->warnings.insert(report->warnings.end(), chosen.warnings.begin(), chosen.warnings.end());
    file_type_ = chosen.file_type;
    return std::move(chosen.quantized);
  }

  Result<Written> write(const Source& source, const ConvertOptions& options,
                        const std::string& path, const WorkContext& work,
                        ConvertReport* report) override {
    GgufOptions gguf;
    gguf.scheme = source.scheme;
    gguf.name = gguf_model_name(source.graph.info.name, source.checkpoint.tokenizer);
    gguf.file_type = file_type_;
    gguf.tokenizer = tokenizer_;
    gguf.tokenizer_digest = source.tokenizer_digest;
    gguf.reopen = [](const std::string& file) -> Result<Graph> {
      POME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(file));
      return build_graph(checkpoint, {});
    };
    POME_ASSIGN_OR_RETURN(
        GgufReport made,
        export_gguf(source.graph, gguf, one_file(options) ? path : path + "/" + kModelName, work));
    report->errors = std::move(made.errors);
    Written out{made.exported, kModelName, {}};
    for (const PlacedTensor& tensor : made.exported.tensors)
      out.tensors.push_back({tensor.name, kModelName, tensor.offset, tensor.size, {}});
    return out;
  }

  bool one_file(const ConvertOptions& options) const override {
    return options.output.ends_with(".gguf");
  }
  bool tokenizer_beside() const override { return false; }
  bool scales_weights() const override { return true; }

  // The parts of a fused tensor.
  std::string stored_with(const Constant& constant) const override {
    return constant.gguf_name.empty() ? constant.name : constant.gguf_name;
  }
  uint64_t file_bytes(const Graph& quantized, size_t constant, bool padded) const override {
    constexpr uint64_t kAlignment = 32;
    const uint64_t bytes = quantized.constants[constant].data->stored_bytes();
    return padded ? (bytes + kAlignment - 1) / kAlignment * kAlignment : bytes;
  }

 private:
  ColumnWeights importance_;
  GgufMetadata tokenizer_;
  int file_type_ = 0;
};

}  // namespace

std::unique_ptr<TargetWriter> gguf_writer() { return std::make_unique<GgufTarget>(); }

}  // namespace pome
