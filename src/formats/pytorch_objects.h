// What the names in the pickle of a checkpoint mean. Private to the PyTorch reader.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/pickle.h"
#include "formats/zip.h"
#include "tensor/tensor.h"

namespace pome::pytorch {

// An entry of the archive that tensors look into.
struct Storage {
  const ZipEntry* entry = nullptr;
  std::optional<DType> dtype;  // nullopt: bytes without a type, the tensor states it
};
// As the pickle states it: nothing of the geometry has been checked.
struct StatedTensor {
  size_t storage = 0;
  DType dtype = DType::kF32;
  int64_t offset = 0;  // in elements
  Shape sizes, strides;
};

class Objects final : public PickleHost {
 public:
  // `root` is the folder of the archive, without slash.
  Objects(const ZipFile& archive, std::string root) : archive_(archive), root_(std::move(root)) {}

  std::optional<int64_t> find_global(std::string_view module, std::string_view name) override;
  Result<PickleRef> call(int64_t global, PickleRef arguments, PickleValues& values) override;
  Result<PickleRef> persistent(PickleRef id, PickleValues& values) override;

  // The tensor that a value is; null for every other value.
  const StatedTensor* tensor(const PickleValues& values, PickleRef ref) const;
  const Storage& storage(const StatedTensor& tensor) const { return storages_[tensor.storage]; }

 private:
  Result<PickleRef> rebuild_tensor(std::span<const PickleRef> arguments, bool typed,
                                   PickleValues& values);
  Result<PickleRef> rebuild_from_type(std::span<const PickleRef> arguments, PickleValues& values);
  Result<size_t> storage_argument(const PickleValues& values, PickleRef ref) const;
  Result<const ZipEntry*> find_entry(std::string_view key) const;

  const ZipFile& archive_;
  std::string root_;
  std::vector<Storage> storages_;
  std::vector<StatedTensor> tensors_;
};

}  // namespace pome::pytorch
