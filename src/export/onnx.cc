#include "export/onnx.h"

#include <algorithm>
#include <set>

#include "base/io.h"
#include "export/cache_names.h"
#include "export/onnx_lower.h"
#include "formats/manifest.h"

namespace pome {
namespace {

using onnx_export::Lowering;
using onnx_export::OnnxBuilder;
using onnx_export::WeightStore;

constexpr int64_t kBasicOpset = 17, kBlockOpset = 21;

// Blocks of integers and integers of 4 bits came with operator set 21.
int64_t opset_for(const Graph& graph, const OnnxOptions& options) {
  if (options.profile == OnnxOptions::Profile::kOrt) return kBlockOpset;
  for (const Constant& constant : graph.constants) {
    const Encoding& encoding = constant.data->encoding();
    if (encoding.kind == EncodingKind::kInt &&
        (encoding.bits == 4 || encoding.block != constant.data->columns()))
      return kBlockOpset;
  }
  return kBasicOpset;
}

Status check_graph(const Graph& graph, const OnnxOptions& options) {
  POME_RETURN_IF_ERROR(validate(graph));
  if (options.context < 1)
    return usage_error("context " + std::to_string(options.context) + " must be positive");
  if (options.explicit_kv && options.logits_only)
    return usage_error("a graph without caches has no decode step");
  if (options.explicit_kv && graph.caches.empty())
    return unsupported("the model has no caches that a decode step could take");
  const SymShape& shape = graph.type(graph.output).shape;
  if (shape.size() != 3 || !shape[2].is_static())
    return unsupported("the graph's output is " + to_string(shape) +
                       ", expected logits [B, T, vocab]");
  for (const Constant& constant : graph.constants)
    if (constant.data->encoding().kind >= EncodingKind::kLut)
      return unsupported("palettes and masks (" + to_string(constant.data->encoding()) +
                         ") have no form in ONNX")
          .at(constant.name)
          .hint("use --weights f32, f16, int8 or int4");
  return {};
}

std::set<std::string> interface_names(const Graph& graph) {
  std::set<std::string> out = {"", "input_ids", "attention_mask", "position_ids", "logits"};
  for (const CachePair& pair : graph.caches)
    for (const CacheNames& names : {cache_names(graph, pair), layer_cache_names(pair)})
      out.insert({names.past, names.present});
  return out;
}

// The first release of ONNX Runtime in which every kernel that the model uses gave right results
// (docs/onnx.md has the table).
std::string minimum_runtime(const onnx::Graph& graph, int64_t opset) {
  int64_t least = opset >= 21 ? 120 : 118;
  const auto need = [&](int64_t version) { least = std::max(least, version); };
  for (const onnx::Node& node : graph.nodes) {
    const auto number = [&](const char* name) -> int64_t {
      for (const onnx::Attribute& attribute : node.attributes)
        if (attribute.name == name)
          if (const auto* value = std::get_if<int64_t>(&attribute.value)) return *value;
      return 0;
    };
    if (node.op_type == "MatMulNBits") need(number("bits") == 8 ? 123 : 120);
    if (node.op_type == "GatherBlockQuantized") need(123);
    if (node.op_type == "GroupQueryAttention")
      need(number("local_window_size") > 0 ? 124 : node.inputs.size() > 11 ? 123 : 120);
    if (node.op_type == "QMoE") need(126);
  }
  return "1." + std::to_string(least - 100);
}

onnx::Model assemble(const Graph& graph, const OnnxOptions& options, onnx::Graph body,
                     int64_t opset, const ExportReport& report) {
  onnx::Model model;
  model.ir_version = opset >= kBlockOpset ? 10 : 8;
  model.producer_name = "pome";
  model.producer_version = kPomeVersion;
  model.doc_string = options.model_name.empty() ? graph.info.name : options.model_name;
  model.opsets[""] = opset;
  if (std::any_of(body.nodes.begin(), body.nodes.end(),
                  [](const onnx::Node& node) { return node.domain == onnx::kMicrosoft; }))
    model.opsets[std::string(onnx::kMicrosoft)] = 1;
  const bool plain = options.profile == OnnxOptions::Profile::kPlain;
  model.metadata = {
      {"pome.graph_hash", report.hashes.graph_hash},
      {"pome.source_hash", report.hashes.source_hash},
      {"pome.scheme", options.scheme},
      {"pome.profile", plain ? "plain" : "ort"},
      {"pome.tokenizer_digest", options.tokenizer_digest},
      {"pome.version", kPomeVersion},
      {"pome.context", std::to_string(options.context)},
      {"pome.config", model_info_json(graph.info)},
  };
  if (options.explicit_kv) model.metadata["pome.kv"] = "explicit";
  model.graph = std::move(body);
  return model;
}

}  // namespace

Result<OnnxReport> export_onnx(const Graph& graph, const OnnxOptions& options,
                               const std::string& folder, const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_graph(graph, options));
  OnnxReport report;
  report.opset = opset_for(graph, options);
  OnnxBuilder builder(interface_names(graph));
  WeightStore weights(graph, &builder);
  Lowering lowering(graph, options, report.opset, &builder, &weights);
  // What cannot be lowered is found before anything is on disk.
  POME_ASSIGN_OR_RETURN(onnx::Graph body, lowering.run());
  report.minimum_runtime = minimum_runtime(body, report.opset);
  for (const onnx::ValueInfo& input : body.inputs)
    report.position_ids = report.position_ids || input.name == "position_ids";
  if (!graph.caches.empty()) {
    const SymShape& cache = graph.type(graph.caches[0].input).shape;
    report.kv_heads = cache[1].size;
    report.head_size = cache[3].size;
  }

  POME_RETURN_IF_ERROR(io::make_folder(folder));
  POME_RETURN_IF_ERROR(
      weights.write(folder + "/" + kOnnxData, &body, work, &report.exported, &report.errors));
  const onnx::Model model =
      assemble(graph, options, std::move(body), report.opset, report.exported);
  POME_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, onnx::serialize(model));
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  POME_RETURN_IF_ERROR(io::write_file(folder + "/" + kOnnxModel,
                                      {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  report.exported.bytes = report.exported.weight_bytes + bytes.size();
  return report;
}

}  // namespace pome
