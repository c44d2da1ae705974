// safetensors: the header, and every small tensor that it describes.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto source = pome::memory_source({bytes.begin(), bytes.end()}, "fuzz");
  const auto file = pome::read_safetensors(source);
  if (!file.ok()) {
    POME_CHECK(file.status().refusal() != pome::Refusal::kNone);
    POME_CHECK(file.status().offset().has_value() && !file.status().hint().empty());
    return 0;
  }
  uint64_t total = 0;
  for (const pome::SafetensorsEntry& entry : file->entries) {
    total += entry.bytes;
    const auto tensor = pome::load_tensor(*file, entry);
    POME_CHECK(tensor.ok() && tensor->bytes().size() == entry.bytes);
    if (pome::bits_of(entry.dtype) >= 8) (void)tensor->to(pome::DType::kF32);
  }
  POME_CHECK(file->entries.empty() || file->entries.front().offset + total == size);
  return 0;
}
