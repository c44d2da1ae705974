// safetensors: u64 header length, JSON header, data. Strict reader (spans contiguous from 0 to the
// end of the file, no duplicate keys, header at most 100 MB), streaming writer.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/byte_source.h"
#include "base/io.h"
#include "base/status.h"
#include "tensor/tensor.h"

namespace pome {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t offset = 0, bytes = 0;  // absolute in the source
};
struct SafetensorsFile {
  ByteSourcePtr source;
  std::vector<SafetensorsEntry> entries;  // by offset
  std::map<std::string, std::string> metadata;
};
// The data is not read. Refusals: kTrunc, kLimit, kBounds, kUtf8, kRange, kType, kDepth, kDup,
// kOverflow, kOverlap, kHole; a dtype that the format knows and pome does not is kUnsupported with
// kType.
Result<SafetensorsFile> read_safetensors(ByteSourcePtr source);
// One tensor as a view where the source can give one, else a copy.
Result<Tensor> load_tensor(const SafetensorsFile& file, const SafetensorsEntry& entry);

// The name of a dtype in the format ("BF16"); empty for the packed types, which it lacks.
std::string_view safetensors_dtype_name(DType dtype);

// Header first, from declared entries in order; then exactly their bytes through write().
class SafetensorsWriter {
 public:
  struct Declared {
    std::string name;
    DType dtype;
    Shape shape;
  };
  static Result<std::unique_ptr<SafetensorsWriter>> create(
      const std::string& path, std::vector<Declared> tensors,
      const std::map<std::string, std::string>& metadata = {});
  Status write(std::span<const std::byte> bytes);
  Status finish();  // checks that all declared bytes were written, syncs and closes

 private:
  SafetensorsWriter() = default;

  std::unique_ptr<io::OutputFile> file_;
  uint64_t expected_ = 0, written_ = 0;
};
Status write_safetensors(const std::string& path,
                         const std::vector<std::pair<std::string, Tensor>>& tensors);

}  // namespace pome
