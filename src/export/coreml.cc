#include "export/coreml.h"

#include <algorithm>
#include <memory>

#include "base/io.h"
#include "export/coreml_lower.h"
#include "formats/manifest.h"

namespace pome {
namespace {

using coreml::CacheLayout;

struct Entry {
  std::string name;
  int64_t tokens;
};

std::vector<Entry> entries(const CoremlOptions& options) {
  if (options.caches != CoremlOptions::Caches::kState) return {{"main", 1}};
  if (options.one_function) return {{"main", options.chunk}};
  return {{"decode", 1}, {"prefill", options.chunk}};
}

Status check_options(const Graph& graph, const CoremlOptions& options) {
  constexpr int64_t kMost = 1 << 24;
  if (options.context < 1 || options.context > kMost || options.chunk < 1 ||
      options.chunk > options.context) {
    return usage_error("context " + std::to_string(options.context) + " and chunk " +
                       std::to_string(options.chunk) +
                       " must be positive, and the chunk no longer than the context");
  }
  if (options.context % options.chunk != 0) {
    return usage_error("context " + std::to_string(options.context) +
                       " is no multiple of the chunk " + std::to_string(options.chunk))
        .hint("choose --chunk so that it divides --context");
  }
  if (options.caches == CoremlOptions::Caches::kFixed &&
      (options.places < 2 || options.places > options.context))
    return usage_error("caches of " + std::to_string(options.places) +
                       " places must have at least 2 and no more than the context of " +
                       std::to_string(options.context));
  POME_RETURN_IF_ERROR(validate(graph));
  const SymShape& shape = graph.type(graph.output).shape;
  if (shape.size() != 3 || !shape[2].is_static()) {
    return unsupported("the graph's output is " + to_string(shape) +
                       ", expected logits [B, T, vocab]");
  }
  return {};
}

coreml::Form form_of(const CoremlOptions& options, int64_t tokens) {
  using Caches = CoremlOptions::Caches;
  const int64_t places = options.caches == Caches::kState   ? options.context
                         : options.caches == Caches::kFixed ? options.places
                                                            : coreml::kAny;
  return {options.caches, places, options.context, tokens};
}

Result<std::vector<mil::Function>> lower(const Graph& graph, const CacheLayout& caches,
                                         const CoremlOptions& options,
                                         coreml::WeightStore* weights) {
  std::vector<mil::Function> out;
  for (const Entry& entry : entries(options)) {
    coreml::Lowering lowering(graph, caches, form_of(options, entry.tokens), weights,
                              options.activations, entry.name);
    POME_ASSIGN_OR_RETURN(mil::Function function, lowering.run());
    out.push_back(std::move(function));
  }
  return out;
}

// Caches that grow: from none to one less than the context, one token by default.
void open_ranges(int64_t context, mil::Feature* feature) {
  if (std::find(feature->shape.begin(), feature->shape.end(), coreml::kAny) == feature->shape.end())
    return;
  for (int64_t& dim : feature->shape) {
    if (dim == coreml::kAny) {
      feature->ranges.emplace_back(0, context - 1);
      dim = 1;
    } else {
      feature->ranges.emplace_back(dim, dim);
    }
  }
}

mil::FunctionDescription describe(const mil::Function& function, int64_t context) {
  mil::FunctionDescription out;
  out.name = function.name;
  for (const mil::NamedType& input : function.inputs) {
    const bool state = input.type.kind == mil::Type::Kind::kState;
    mil::Feature feature;
    feature.name = input.name;
    feature.kind = state ? mil::Feature::Kind::kState : mil::Feature::Kind::kArray;
    feature.dtype = input.type.dtype;
    feature.shape = input.type.dims;
    open_ranges(context, &feature);
    (state ? out.states : out.inputs).push_back(feature);
  }
  for (const std::string& name : function.outputs)
    for (const mil::Operation& op : function.operations)
      for (const mil::NamedType& output : op.outputs)
        if (output.name == name) {
          const std::vector<int64_t>& dims = output.type.dims;
          const bool open = std::find(dims.begin(), dims.end(), coreml::kAny) != dims.end();
          out.outputs.push_back({name,
                                 mil::Feature::Kind::kArray,
                                 output.type.dtype,
                                 open ? std::vector<int64_t>() : dims,
                                 {}});
        }
  return out;
}

mil::Model assemble(const Graph& graph, const CoremlOptions& options,
                    std::vector<mil::Function> functions, const ExportReport& report) {
  mil::Model model;
  model.short_description = options.model_name.empty() ? graph.info.name : options.model_name;
  model.author = "pome";
  model.version = "1.0.0";
  if (functions.size() > 1) model.default_function = "decode";
  for (const mil::Function& function : functions)
    model.descriptions.push_back(describe(function, options.context));
  model.functions = std::move(functions);
  model.user_metadata = {
      {"pome.graph_hash", report.hashes.graph_hash},
      {"pome.source_hash", report.hashes.source_hash},
      {"pome.scheme", options.scheme},
      {"pome.tokenizer_digest", options.tokenizer_digest},
      {"pome.version", kPomeVersion},
      {"pome.context", std::to_string(options.context)},
      {"pome.chunk", std::to_string(options.chunk)},
      {"pome.config", model_info_json(graph.info)},
  };
  if (options.caches != CoremlOptions::Caches::kState) model.user_metadata["pome.kv"] = "explicit";
  return model;
}

}  // namespace

Result<ExportReport> export_coreml(const Graph& graph, const CoremlOptions& options,
                                   const std::string& package_path, const WorkContext& work) {
  POME_RETURN_IF_ERROR(check_options(graph, options));
  CacheLayout caches;
  if (options.caches == CoremlOptions::Caches::kState) {
    POME_ASSIGN_OR_RETURN(caches, coreml::cache_layout(graph));
  }
  coreml::WeightStore weights(graph);
  // The first lowering finds what cannot be lowered and what must be written; nothing is on disk
  // yet.
  POME_RETURN_IF_ERROR(lower(graph, caches, options, &weights).status());

  const std::string data = package_path + "/Data", core = data + "/com.apple.CoreML";
  for (const std::string& folder : {package_path, data, core, core + "/weights"}) {
    POME_RETURN_IF_ERROR(io::make_folder(folder));
  }
  ExportReport report;
  POME_RETURN_IF_ERROR(weights.write(core + "/weights/weight.bin", work, &report));
  POME_ASSIGN_OR_RETURN(std::vector<mil::Function> functions,
                        lower(graph, caches, options, &weights));
  POME_ASSIGN_OR_RETURN(const std::vector<std::byte> model,
                        mil::serialize(assemble(graph, options, std::move(functions), report)));
  POME_RETURN_IF_ERROR(check_cancelled(work.cancel));
  const std::string_view model_text(reinterpret_cast<const char*>(model.data()), model.size());
  POME_RETURN_IF_ERROR(io::write_file(core + "/model.mlmodel", model_text));
  const std::string manifest = mil::package_manifest(report.hashes.graph_hash);
  POME_RETURN_IF_ERROR(io::write_file(package_path + "/Manifest.json", manifest));
  report.bytes = report.weight_bytes + model.size() + manifest.size();
  return report;
}

}  // namespace pome
