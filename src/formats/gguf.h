// GGUF versions 2 and 3, little-endian. Layout: "GGUF", u32 version, u64 tensor count, u64 metadata
// count, metadata, tensor infos, padding to general.alignment, data.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/byte_source.h"
#include "base/io.h"
#include "base/status.h"
#include "encoding/encoding.h"
#include "tensor/tensor.h"

namespace pome {

enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

struct GgufValue {
  GgufType type = GgufType::kU32;
  GgufType element = GgufType::kU32;  // of an array
  // Integers widened to 64 bits; arrays of one kind.
  std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>,
               std::vector<int64_t>, std::vector<double>, std::vector<uint8_t>,
               std::vector<std::string>>
      data;
};

struct GgufTensor {
  std::string name;
  Shape shape;  // row-major: the file's dimensions reversed
  EncodingKind encoding = EncodingKind::kF32;
  uint64_t offset = 0, bytes = 0;  // absolute in the source
};

struct GgufFile {
  ByteSourcePtr source;
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<std::pair<std::string, GgufValue>> metadata;  // file order, unique keys
  std::vector<GgufTensor> tensors;                          // file order, unique names
  std::vector<std::string> warnings;
  const GgufValue* find(std::string_view key) const;
};
struct GgufReadOptions {
  bool strict = false;  // holes and trailing bytes are errors instead of warnings
};
Result<GgufFile> read_gguf(ByteSourcePtr source, const GgufReadOptions& options = {});

// Header, metadata and tensor infos first, then the data of each tensor in order through write().
class GgufWriter {
 public:
  struct Declared {
    std::string name;
    Shape shape;
    EncodingKind encoding;
  };
  static Result<std::unique_ptr<GgufWriter>> create(
      const std::string& path, const std::vector<std::pair<std::string, GgufValue>>& metadata,
      const std::vector<Declared>& tensors);
  Status begin_tensor();  // pads; call before the bytes of each tensor, in order
  Status write(std::span<const std::byte> bytes);
  Status finish();

 private:
  std::unique_ptr<io::OutputFile> file_;
  std::vector<uint64_t> bytes_;
  size_t next_ = 0;
  uint64_t left_ = 0;
};

}  // namespace pome
