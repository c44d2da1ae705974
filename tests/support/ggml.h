// ggml's own quantisers and decoders, from the library that ggml_oracle in scripts/lib.sh builds:
// GGML_ORACLE names it, else it is looked for where that puts it. Types are ggml's numbers
// (EncodingTraits::gguf_type).
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "encoding/encoding.h"

namespace pome::test {

class Ggml {
 public:
  // Null where the library is missing or lacks a function: the caller skips, and says kMissing.
  static const Ggml* load() {
    static const Ggml kLoaded;
    return kLoaded.complete() ? &kLoaded : nullptr;
  }
  static constexpr const char* kMissing =
      "no library of ggml: scripts/test builds it as build/oracles/lib/libggml-base.so";

  // Bytes of a row; 0 for a type that the library does not have.
  size_t row_bytes(int type, int64_t columns) const {
    const Traits* known = traits_(type);
    return known->name == nullptr || known->block_bytes == 0 ? 0 : row_size_(type, columns);
  }
  // Whole rows. `importance`: one for each column, or none.
  std::vector<std::byte> quantize(int type, std::span<const float> values, int64_t columns,
                                  std::span<const float> importance = {}) const {
    const int64_t rows = static_cast<int64_t>(values.size()) / columns;
    std::vector<std::byte> out(row_size_(type, columns) * static_cast<size_t>(rows));
    const size_t written = quantize_chunk_(type, values.data(), out.data(), 0, rows, columns,
                                           importance.empty() ? nullptr : importance.data());
    if (written != out.size()) out.clear();
    return out;
  }
  // False where the library cannot decode the type.
  bool decode(int type, std::span<const std::byte> blocks, std::span<float> out) const {
    if (row_bytes(type, static_cast<int64_t>(out.size())) != blocks.size()) return false;
    const auto to_float = traits_(type)->to_float;
    if (to_float == nullptr) return false;
    to_float(blocks.data(), out.data(), static_cast<int64_t>(out.size()));
    return true;
  }

 private:
  // The beginning of struct ggml_type_traits.
  struct Traits {
    const char* name;
    int64_t block_elements, interleaved;
    size_t block_bytes;
    bool quantized;
    void (*to_float)(const void* in, float* out, int64_t count);
  };

  Ggml() {
    const char* named = std::getenv("GGML_ORACLE");
    const std::string path =
        named != nullptr ? named : POME_SOURCE_DIR "/build/oracles/lib/libggml-base.so";
    void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // stays open
    if (library == nullptr) return;
    find(library, "ggml_row_size", &row_size_);
    find(library, "ggml_get_type_traits", &traits_);
    find(library, "ggml_quantize_chunk", &quantize_chunk_);
  }
  template <typename Function>
  static void find(void* library, const char* name, Function** out) {
    *out = reinterpret_cast<Function*>(::dlsym(library, name));
  }
  bool complete() const { return row_size_ && traits_ && quantize_chunk_; }

  size_t (*row_size_)(int type, int64_t columns) = nullptr;
  const Traits* (*traits_)(int type) = nullptr;
  size_t (*quantize_chunk_)(int type, const float* from, void* to, int64_t start, int64_t rows,
                            int64_t columns, const float* importance) = nullptr;
};

}  // namespace pome::test
