// GGUF: the container, its tokenizer, and the blocks of its tensors.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"

namespace {

void decode(const pome::GgufFile& file, const pome::GgufTensor& tensor) {
  constexpr int64_t kMaxElements = 1 << 16;
  const pome::EncodingTraits& layout = pome::traits(tensor.encoding);
  const auto elements = pome::element_count(tensor.shape);
  POME_CHECK(elements.has_value());
  if (*elements > kMaxElements) return;
  const int64_t blocks = *elements / layout.block_elements;
  POME_CHECK(static_cast<uint64_t>(blocks * layout.block_bytes) == tensor.bytes);
  std::vector<std::byte> bytes(tensor.bytes);
  POME_CHECK(file.source->read(tensor.offset, bytes).ok());
  std::vector<float> values(static_cast<size_t>(*elements));
  layout.decode(bytes.data(), blocks, values.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto source = pome::memory_source({bytes.begin(), bytes.end()}, "fuzz");
  pome::GgufReadOptions strict;
  strict.strict = true;
  const auto strictly = pome::read_gguf(source, strict);
  const auto file = pome::read_gguf(source);
  if (!file.ok()) {
    POME_CHECK(!strictly.ok() && file.status().refusal() != pome::Refusal::kNone);
    POME_CHECK(file.status().offset().has_value() && !file.status().hint().empty());
    return 0;
  }
  size_t decoded = 0;
  for (const pome::GgufTensor& tensor : file->tensors) {
    if (decoded++ < 8) decode(*file, tensor);
  }
  const auto tokenizer = pome::read_gguf_tokenizer(*file);
  (void)tokenizer.ok();
  return 0;
}
