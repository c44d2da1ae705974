// GGUF versions 2 and 3, little-endian. Layout: "GGUF", u32 version, u64 tensor count, u64 metadata
// count, metadata, tensor infos, padding to general.alignment, data.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
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
  // Integers widened to 64 bits; arrays of one kind: unsigned types in vector<uint64_t>, signed
  // ones in vector<int64_t>, f32 and f64 in vector<double>, bool in vector<uint8_t> (0 or 1).
  std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>,
               std::vector<int64_t>, std::vector<double>, std::vector<uint8_t>,
               std::vector<std::string>>
      data;

  static GgufValue u32(uint32_t value);
  static GgufValue i32(int32_t value);
  static GgufValue u64(uint64_t value);
  static GgufValue f32(float value);
  static GgufValue boolean(bool value);
  static GgufValue string(std::string value);
  static GgufValue strings(std::vector<std::string> values);
  static GgufValue i32s(std::vector<int64_t> values);
  static GgufValue f32s(std::vector<double> values);
  static GgufValue u32s(std::vector<uint64_t> values);

  // A scalar of any integer type that is not negative and fits; nullopt for every other value.
  std::optional<uint64_t> as_unsigned() const;
};
// "u32", "string", "array" ...
std::string_view to_string(GgufType type);

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
  // Memory that all metadata together may take; more is kLimit.
  uint64_t metadata_bytes = uint64_t{512} << 20;
};
// Every count, length, offset and product is checked before anything is allocated or read; values
// are not interpreted beyond general.alignment. Refusals: kTrunc, kMagic, kVersion, kLimit,
// kBounds, kOverflow, kRange, kUtf8, kDup, kType, kOverlap, and kHole when strict.
Result<GgufFile> read_gguf(ByteSourcePtr source, const GgufReadOptions& options = {});

// Header, metadata and tensor infos first, then the data of each tensor in order through write().
// The alignment is that of general.alignment in `metadata`, else 32. `path` is written in place:
// stage it with io::Staged where readers must not see a half-written file.
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
  uint64_t position() const { return file_->size(); }  // where the next bytes go
  // Lets the kernel write out and drop what was written.
  Status flush_behind() { return file_->flush_behind(); }
  // Another text of the same length for a string of the metadata that was not known before the
  // data.
  Status replace_string(const std::string& key, std::string_view value);
  Status write(std::span<const std::byte> bytes);
  Status finish();  // checks that all declared bytes were written, pads, syncs and closes

 private:
  GgufWriter() = default;

  std::unique_ptr<io::OutputFile> file_;
  uint64_t alignment_ = 32;
  std::vector<uint64_t> bytes_;
  std::map<std::string, std::pair<uint64_t, uint64_t>> strings_;  // key -> offset, length
  size_t next_ = 0;
  uint64_t left_ = 0;
};

}  // namespace pome
