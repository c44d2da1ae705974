#include "base/io.h"
#include "export/onnx.h"
#include "pipeline/genai_config.h"
#include "pipeline/target.h"

namespace pome {

namespace {

class OnnxWriter final : public TargetWriter {
 public:
  // The operators for integers in ONNX Runtime take blocks; so does int8 there.
  Status prepare(const ConvertOptions& options, ConvertReport* report) override {
    POME_RETURN_IF_ERROR(TargetWriter::prepare(options, report));
    plain_ = options.profile == "plain";
    recipe_.keeps_minima = !plain_;
    for (Encoding* encoding : {&recipe_.matrices, &recipe_.embedding, &recipe_.head}) {
      if (encoding->kind >= EncodingKind::kLut)
        return usage_error("palettes (" + to_string(*encoding) + ") have no form in ONNX")
            .hint("use --weights f32, f16, int8 or int4");
      if (encoding->kind != EncodingKind::kInt) continue;
      if (options.block != 0)
        encoding->block = options.block;
      else if (options.profile != "plain")
        encoding->block = 32;
    }
    return {};
  }

  // Parts of a page and more begin on a page, and scales are f32. Without the operators of ONNX
  // Runtime, integers that are looked up and multiplied with are stored by rows and by columns.
  uint64_t file_bytes(const Graph& quantized, size_t constant, bool padded) const override {
    constexpr uint64_t kPage = 4096, kAlignment = 64;
    const ConstantData& data = *quantized.constants[constant].data;
    const auto layout = encoded_layout(data.encoding(), data.rows(), data.columns());
    if (!layout.ok()) return 0;
    const bool integers = data.encoding().kind == EncodingKind::kInt;
    uint64_t out = 0;
    for (size_t part = 0; part < layout->part_bytes.size(); ++part) {
      const uint64_t bytes = layout->part_bytes[part] * (integers && part == 1 ? 2 : 1);
      const uint64_t alignment = !padded ? 1 : bytes >= kPage ? kPage : kAlignment;
      out += (bytes + alignment - 1) / alignment * alignment;
    }
    return integers && plain_ && has_two_readers(quantized, constant) ? 2 * out : out;
  }

  Result<Written> write(const Source& source, const ConvertOptions& options,
                        const std::string& path, const WorkContext& work,
                        ConvertReport* report) override {
    OnnxOptions onnx;
    onnx.profile =
        options.profile == "plain" ? OnnxOptions::Profile::kPlain : OnnxOptions::Profile::kOrt;
    onnx.logits_only = options.graph == "logits-only";
    onnx.explicit_kv = options.kv == "explicit";
    onnx.context = source.context;
    onnx.scheme = source.scheme;
    onnx.tokenizer_digest = source.tokenizer_digest;
    onnx.model_name = source.graph.info.name;
    POME_ASSIGN_OR_RETURN(OnnxReport made, export_onnx(source.graph, onnx, path, work));
    Written out{made.exported, kOnnxModel, {}};
    for (const PlacedTensor& tensor : made.exported.tensors)
      out.tensors.push_back({tensor.name, kOnnxData, tensor.offset, tensor.size, {}});
    report->errors = std::move(made.errors);
    report->notes.push_back("needs ONNX Runtime " + made.minimum_runtime +
                            " or newer (operator set " + std::to_string(made.opset) + ")");
    report->notes.push_back(
        "mobile builds of it read .ort files: python -m "
        "onnxruntime.tools.convert_onnx_models_to_ort "
        "turns this folder into them");
    // genai has another interface than a decode step.
    if (!onnx.logits_only && !onnx.explicit_kv)
      POME_RETURN_IF_ERROR(write_genai(source, made, path, report));
    return out;
  }

 private:
  static bool has_two_readers(const Graph& graph, size_t constant) {
    bool looked_up = false, multiplied = false;
    for (const Node& node : graph.nodes) {
      const auto* op = std::get_if<ConstantOp>(&node.op);
      if (!op || static_cast<size_t>(op->constant) != constant) continue;
      for (const Node& reader : graph.nodes)
        for (const ValueId operand : reader.operands)
          if (operand == node.result)
            (std::holds_alternative<EmbeddingOp>(reader.op) ? looked_up : multiplied) = true;
    }
    return looked_up && multiplied;
  }

  static Status write_genai(const Source& source, const OnnxReport& made, const std::string& path,
                            ConvertReport* report) {
    if (source.checkpoint.tokenizer.model != TokenizerSource::Model::kNone) {
      const Json config = genai_config(source.graph.info, made, source.checkpoint.tokenizer,
                                       source.checkpoint.generation_config, source.context);
      POME_RETURN_IF_ERROR(
          io::write_file(path + "/genai_config.json", dump_json(config, 4) + "\n"));
    }
    if (source.checkpoint.sidecars.count("tokenizer.json") == 0)
      report->notes.push_back(
          "onnxruntime-genai needs a tokenizer.json, which this checkpoint does not have: put one "
          "beside the model, or feed token ids");
    return {};
  }

  bool plain_ = false;
};

}  // namespace

std::unique_ptr<TargetWriter> onnx_writer() { return std::make_unique<OnnxWriter>(); }

}  // namespace pome
