// The files around a model: external data, contained and checked.
#include <filesystem>

#include "base/checked.h"
#include "formats/inside_folder.h"
#include "formats/onnx.h"

namespace pome::onnx {
namespace {

namespace fs = std::filesystem;

Status check_external(Package* package, const TensorData& tensor, const fs::path& root) {
  const External& external = *tensor.external;
  auto file = package->files.find(external.location);
  if (file == package->files.end()) {
    POME_RETURN_IF_ERROR(check_relative_path(external.location));
    POME_ASSIGN_OR_RETURN(const fs::path real, path_inside(root / external.location, root));
    POME_ASSIGN_OR_RETURN(ByteSourcePtr source, open_mapped(real.string()));
    file = package->files.emplace(external.location, std::move(source)).first;
  }
  if (!span_fits(external.offset, external.length, file->second->size()))
    return bad_input(Refusal::kBounds, std::to_string(external.length) + " bytes at " +
                                           std::to_string(external.offset) + " of '" +
                                           external.location + "', which has " +
                                           std::to_string(file->second->size()));
  return {};
}

}  // namespace

Result<Package> read_package(const std::string& path) {
  Package package;
  package.path = path;
  POME_ASSIGN_OR_RETURN(ByteSourcePtr file, open_mapped(path));
  POME_ASSIGN_OR_RETURN(package.model, parse_model(std::move(file)));
  std::error_code error;
  const fs::path parent = fs::path(path).parent_path();
  const fs::path root = fs::canonical(parent.empty() ? "." : parent, error);
  if (error) return missing("the folder of the model cannot be read").in(path);
  for (const TensorData& tensor : package.model.graph.initializers) {
    if (!tensor.external) continue;
    Status status = check_external(&package, tensor, root);
    if (!status.ok()) return std::move(status).at("tensor " + tensor.name).in(path);
  }
  return package;
}

Result<Tensor> read_tensor(const Package& package, const TensorData& tensor) {
  if (!tensor.external) {
    auto copy = std::make_shared<std::vector<std::byte>>(tensor.raw);
    const std::span<const std::byte> bytes(*copy);
    return Tensor::view(tensor.dtype, tensor.dims, bytes, std::move(copy));
  }
  const External& external = *tensor.external;
  const auto found = package.files.find(external.location);
  if (found == package.files.end())
    return missing("'" + external.location + "' is not part of the model").in(package.path);
  if (const auto view = found->second->view(external.offset, external.length))
    return Tensor::view(tensor.dtype, tensor.dims, *view, found->second);
  auto copy = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(external.length));
  POME_RETURN_IF_ERROR(found->second->read(external.offset, *copy));
  const std::span<const std::byte> bytes(*copy);
  return Tensor::view(tensor.dtype, tensor.dims, bytes, std::move(copy));
}

}  // namespace pome::onnx
