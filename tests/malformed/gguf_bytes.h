// Builds GGUF files byte by byte, so that every field can be made wrong. Shares nothing with the
// writer in src/formats.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pome::malformed {

template <typename T>
std::string le(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}
inline std::string gguf_string(std::string_view text) {
  return le<uint64_t>(text.size()) + std::string(text);
}
// Value types of the format.
enum : uint32_t {
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

inline std::string pair_of(std::string_view key, uint32_t type, std::string_view payload) {
  return gguf_string(key) + le(type) + std::string(payload);
}
inline std::string array_of(uint32_t element, uint64_t count, std::string_view payload) {
  return le(element) + le(count) + std::string(payload);
}

struct GgufTensorBytes {
  std::string name;
  std::vector<uint64_t> dims;      // as in the file: fastest first
  uint32_t type = 0;               // ggml id
  uint64_t bytes = 0;              // of its data
  std::optional<uint64_t> offset;  // default: the running offset
  std::optional<uint32_t> rank;
  std::optional<std::string> raw_name;  // length and bytes
};

struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> tensor_count, pair_count;
  std::vector<std::string> pairs;
  std::vector<GgufTensorBytes> tensors;
  uint64_t alignment = 32;  // of the layout; general.alignment is a pair of its own
  bool pad_end = true;
  uint64_t cut = 0;      // bytes removed from the end
  std::string trailing;  // bytes added to the end

  static uint64_t align(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

  std::string build() const {
    std::string out = magic + le(version) + le(tensor_count.value_or(tensors.size())) +
                      le(pair_count.value_or(pairs.size()));
    for (const std::string& pair : pairs) out += pair;
    uint64_t running = 0;
    for (const GgufTensorBytes& tensor : tensors) {
      out += tensor.raw_name.value_or(gguf_string(tensor.name));
      out += le(tensor.rank.value_or(static_cast<uint32_t>(tensor.dims.size())));
      for (const uint64_t dim : tensor.dims) out += le(dim);
      out += le(tensor.type) + le(tensor.offset.value_or(running));
      running = align(running + tensor.bytes, alignment);
    }
    if (!tensors.empty()) {
      out.resize(align(out.size(), alignment), '\0');
      uint64_t data = 0;
      for (const GgufTensorBytes& tensor : tensors) {
        const size_t start = out.size();
        out.resize(start + tensor.bytes);
        for (uint64_t i = 0; i < tensor.bytes; ++i, ++data) {
          out[start + i] = static_cast<char>(0x30 + data % 64);
        }
        if (pad_end || &tensor != &tensors.back()) out.resize(align(out.size(), alignment), '\0');
      }
    }
    out.resize(out.size() - cut);
    return out + trailing;
  }
};

// Every value type once and four tensors: F32 [3, 4], Q8_0 [2, 64], F16 [5], I32 [2].
inline GgufBytes valid_gguf() {
  GgufBytes file;
  file.pairs = {
      pair_of("general.architecture", kString, gguf_string("llama")),
      pair_of("t.u8", kU8, le<uint8_t>(200)),
      pair_of("t.i8", kI8, le<int8_t>(-3)),
      pair_of("t.u16", kU16, le<uint16_t>(60000)),
      pair_of("t.i16", kI16, le<int16_t>(-300)),
      pair_of("t.u32", kU32, le<uint32_t>(4000000000u)),
      pair_of("t.i32", kI32, le<int32_t>(-70000)),
      pair_of("t.f32", kF32, le(1.5f)),
      pair_of("t.bool", kBool, le<uint8_t>(1)),
      pair_of("t.u64", kU64, le<uint64_t>(1ull << 63)),
      pair_of("t.i64", kI64, le<int64_t>(-5)),
      pair_of("t.f64", kF64, le(-2.25)),
      pair_of("a.i32", kArray, array_of(kI32, 3, le(1) + le(-2) + le(3))),
      pair_of("a.f32", kArray, array_of(kF32, 2, le(0.5f) + le(-1.0f))),
      pair_of("a.bool", kArray, array_of(kBool, 3, std::string("\1\0\1", 3))),
      pair_of("a.string", kArray, array_of(kString, 2, gguf_string("x") + gguf_string(""))),
      pair_of("a.empty", kArray, array_of(kU64, 0, "")),
  };
  file.tensors = {{"a.weight", {4, 3}, 0, 48, {}, {}, {}},
                  {"b.weight", {64, 2}, 8, 136, {}, {}, {}},
                  {"c.bias", {5}, 1, 10, {}, {}, {}},
                  {"d.ids", {2}, 26, 8, {}, {}, {}}};
  return file;
}

}  // namespace pome::malformed
