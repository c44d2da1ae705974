// The folder around a model: Manifest.json, containment of its paths, and the weight files.
#include <cstdio>
#include <filesystem>
#include <set>

#include "base/json.h"
#include "base/sha256.h"
#include "formats/inside_folder.h"
#include "formats/mil_internal.h"

namespace pome::mil {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxManifestBytes = 1u << 20;
constexpr std::string_view kModelPath = "@model_path/";

// "1.0.0" as three small numbers; nullopt for anything else.
std::optional<std::array<int, 3>> parse_version(const std::string& text) {
  std::array<int, 3> out{};
  size_t at = 0;
  for (int part = 0; part < 3; ++part) {
    const size_t begin = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9' && at - begin < 6) {
      out[static_cast<size_t>(part)] = out[static_cast<size_t>(part)] * 10 + (text[at] - '0');
      ++at;
    }
    if (at == begin) return std::nullopt;
    if (part < 2 && (at >= text.size() || text[at++] != '.')) return std::nullopt;
  }
  if (at != text.size()) return std::nullopt;
  return out;
}

Result<std::string> item_text(const Json& item, const char* key) {
  if (!item.is_object()) return bad_input(Refusal::kType, "an item of the manifest is no object");
  POME_ASSIGN_OR_RETURN(const auto text, json_string(item, key));
  if (!text) {
    return bad_input(Refusal::kRange, std::string("an item of the manifest has no '") + key + "'");
  }
  return *text;
}

// The path of the model, relative to Data.
Result<std::string> read_manifest(const Json& manifest, const fs::path& data,
                                  const fs::path& root) {
  if (!manifest.is_object()) return bad_input(Refusal::kType, "the manifest is no object");
  POME_ASSIGN_OR_RETURN(const auto version, json_string(manifest, "fileFormatVersion"));
  const auto triple = version ? parse_version(*version) : std::nullopt;
  if (!triple || *triple > std::array<int, 3>{1, 0, 0}) {
    return bad_input(Refusal::kVersion,
                     "fileFormatVersion '" + version.value_or("") + "', expected at most 1.0.0");
  }
  POME_ASSIGN_OR_RETURN(const auto root_id, json_string(manifest, "rootModelIdentifier"));
  const auto items = manifest.find("itemInfoEntries");
  if (!root_id || items == manifest.end() || !items->is_object()) {
    return bad_input(Refusal::kRange, "the manifest lacks rootModelIdentifier or itemInfoEntries");
  }
  std::set<std::string> paths;
  std::string model;
  for (const auto& [id, item] : items->items()) {
    for (const char* key : {"author", "name", "description"}) {
      POME_RETURN_IF_ERROR(item_text(item, key).status());
    }
    POME_ASSIGN_OR_RETURN(const std::string path, item_text(item, "path"));
    POME_RETURN_IF_ERROR(check_relative_path(path));
    if (!paths.insert(path).second) {
      return bad_input(Refusal::kRange, "two items have the path '" + path + "'");
    }
    POME_RETURN_IF_ERROR(path_inside(data / path, root).status());
    if (id == *root_id) model = path;
  }
  if (model.empty()) {
    return bad_input(Refusal::kRange, "rootModelIdentifier names no item of the manifest");
  }
  return model;
}

class WeightFiles {
 public:
  WeightFiles(Package* package, fs::path model_folder, fs::path root)
      : package_(package), model_folder_(std::move(model_folder)), root_(std::move(root)) {}

  Status check(const ValueData& value) {
    const auto* ref = std::get_if<BlobRef>(&value.data);
    if (ref == nullptr) return {};
    auto file = package_->weight_files.find(ref->file);
    if (file == package_->weight_files.end()) {
      POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open(ref->file));
      file = package_->weight_files.emplace(ref->file, std::move(source)).first;
    }
    return check_blob(*file->second, value).status();
  }

 private:
  Result<ByteSourcePtr> open(const std::string& name) const {
    if (!name.starts_with(kModelPath)) {
      return bad_input(Refusal::kPath,
                       "weight file '" + name + "' does not start with @model_path/")
          .in(package_->path);
    }
    const std::string relative = name.substr(kModelPath.size());
    if (Status s = check_relative_path(relative); !s.ok()) return std::move(s).in(package_->path);
    auto real = path_inside(model_folder_ / relative, root_);
    if (!real.ok()) return std::move(real).status().in(package_->path);
    POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_mapped(real->string()));
    POME_RETURN_IF_ERROR(check_weight_file(*source));
    return source;
  }

  Package* package_;
  fs::path model_folder_, root_;
};

Status check_weights(Package* package, const fs::path& model_folder, const fs::path& root) {
  WeightFiles files(package, model_folder, root);
  for (const Function& function : package->model.functions) {
    for (const Operation& op : function.operations) {
      for (const auto& [key, value] : op.attributes) POME_RETURN_IF_ERROR(files.check(value));
      for (const auto& [key, bindings] : op.inputs) {
        for (const Binding& binding : bindings) {
          const auto* value = std::get_if<ValueData>(&binding);
          if (value != nullptr) POME_RETURN_IF_ERROR(files.check(*value));
        }
      }
    }
  }
  return {};
}

// Lower-case UUID form of the first 16 bytes of a digest.
std::string identifier(const std::string& text) {
  const std::string hex = to_hex(sha256(text));
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" +
         hex.substr(16, 4) + "-" + hex.substr(20, 12);
}

}  // namespace

Result<Package> read_package(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return missing("no such package").in(path);
  if (!fs::is_directory(path, error)) {
    return bad_input(Refusal::kType, "an .mlpackage is a folder").in(path);
  }
  const fs::path root = fs::canonical(path, error);
  if (error) return missing("the folder cannot be read").in(path);
  const fs::path manifest_path = root / "Manifest.json";
  auto manifest_real = path_inside(manifest_path, root);
  if (!manifest_real.ok()) return std::move(manifest_real).status().in(path);
  JsonLimits limits;
  limits.bytes = kMaxManifestBytes;
  POME_ASSIGN_OR_RETURN(const Json manifest, read_json_file(manifest_real->string(), limits));
  const fs::path data = root / "Data";
  auto model_path = read_manifest(manifest, data, root);
  if (!model_path.ok()) return std::move(model_path).status().in(manifest_path.string());
  POME_ASSIGN_OR_RETURN(const fs::path model_real, path_inside(data / *model_path, root));

  Package package;
  package.path = path;
  POME_ASSIGN_OR_RETURN(ByteSourcePtr model_file, open_mapped(model_real.string()));
  POME_ASSIGN_OR_RETURN(package.model, parse_model(std::move(model_file)));
  POME_RETURN_IF_ERROR(check_weights(&package, (data / *model_path).parent_path(), root));
  return package;
}

std::string package_manifest(const std::string& seed) {
  const std::string model_id = identifier(seed + "/model");
  const std::string weights_id = identifier(seed + "/weights");
  const auto item = [](const char* description, const char* name) {
    Json out = Json::object();
    out["author"] = "com.apple.CoreML";
    out["description"] = description;
    out["name"] = name;
    out["path"] = std::string("com.apple.CoreML/") + name;
    return out;
  };
  Json items = Json::object();
  const Json model = item("CoreML Model Specification", "model.mlmodel");
  const Json weights = item("CoreML Model Weights", "weights");
  // Keys sorted, as the usual writer does it.
  items[std::min(model_id, weights_id)] = model_id < weights_id ? model : weights;
  items[std::max(model_id, weights_id)] = model_id < weights_id ? weights : model;
  Json manifest = Json::object();
  manifest["fileFormatVersion"] = "1.0.0";
  manifest["itemInfoEntries"] = items;
  manifest["rootModelIdentifier"] = model_id;
  return dump_json(manifest, 4) + "\n";
}

}  // namespace pome::mil
