// tokenizer.json: what builds a tokenizer encodes any text, and the bytes come back through decode.
// The input is the file; the text to encode is its last 64 bytes.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "formats/tokenizer_json.h"
#include "tokenizer_checks.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = pome::parse_json(text, "fuzz");
  if (!json.ok()) return 0;
  auto source = pome::parse_tokenizer_json(*json, "fuzz");
  if (!source.ok()) {
    POME_CHECK(source.status().code() != pome::StatusCode::kOk);
    return 0;
  }
  const pome::Status config = pome::apply_tokenizer_config(*json, pome::Json(), *source);
  if (!config.ok()) return 0;
  pome::check_tokenizer(*std::move(source), pome::sample_of(text));
  return 0;
}
