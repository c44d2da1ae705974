#include <algorithm>
#include <set>

#include "export/coreml.h"
#include "formats/mil.h"
#include "pipeline/target.h"

namespace pome {

namespace {

constexpr const char* kPackageName = "model.mlpackage";

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

class CoremlWriter final : public TargetWriter {
 public:
  Result<Written> write(const Source& source, const ConvertOptions& options,
                        const std::string& path, const WorkContext& work,
                        ConvertReport* report) override {
    CoremlOptions coreml;
    using Caches = CoremlOptions::Caches;
    if (options.kv == "explicit")
      coreml.caches = options.cache == "dynamic" ? Caches::kDynamic : Caches::kFixed;
    if (coreml.caches == Caches::kDynamic)
      report->notes.push_back(
          "caches that grow from length 0 have not been proven on a device; --cache fixed is what "
          "the Neural Engine takes");
    coreml.places = source.places;
    coreml.context = source.context;
    coreml.chunk = source.chunk;
    coreml.one_function = options.one_function;
    coreml.scheme = source.scheme;
    coreml.tokenizer_digest = source.tokenizer_digest;
    coreml.model_name = source.graph.info.name;
    coreml.activations = source.activations;
    Written out;
    out.model = kPackageName;
    POME_ASSIGN_OR_RETURN(out.exported,
                          export_coreml(source.graph, coreml, path + "/" + out.model, work));
    POME_ASSIGN_OR_RETURN(out.tensors, list_tensors(path + "/" + out.model));
    return out;
  }
};

}  // namespace

std::unique_ptr<TargetWriter> coreml_writer() { return std::make_unique<CoremlWriter>(); }

}  // namespace pome
