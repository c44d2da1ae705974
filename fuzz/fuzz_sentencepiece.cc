// tokenizer.model: what builds a tokenizer encodes any text, and the bytes come back through
// decode.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "formats/sentencepiece_model.h"
#include "tokenizer_checks.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  auto source = pome::read_sentencepiece_model(pome::memory_source(std::move(bytes), "fuzz"));
  if (!source.ok()) return 0;
  pome::check_tokenizer(*std::move(source), pome::sample_of(std::string_view(
                                                reinterpret_cast<const char*>(data), size)));
  return 0;
}
