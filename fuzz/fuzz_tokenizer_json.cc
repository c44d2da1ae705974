// tokenizer.json: what builds a tokenizer encodes any text, and the bytes come back through decode.
// The input is the file; the text to encode is its last 64 bytes.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/byte_source.h"
#include "base/json.h"
#include "formats/tokenizer_json.h"
#include "tokenizer/tokenizer.h"

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
  const auto tokenizer = pome::Tokenizer::create(*std::move(source));
  if (!tokenizer.ok()) return 0;
  const std::string_view sample = text.substr(size - (size < 64 ? size : 64));
  for (const bool parse_special : {false, true}) {
    const auto ids =
        (*tokenizer)->encode(sample, {.add_special = true, .parse_special = parse_special});
    for (const bool skip_special : {false, true}) {
      const auto decoded = (*tokenizer)->decode(ids, skip_special);
      POME_CHECK(decoded.ok() && pome::is_valid_utf8(*decoded));
      pome::StreamDecoder decoder(*tokenizer, skip_special);
      std::string streamed;
      for (const int32_t id : ids) {
        const std::string piece = decoder.push(id);
        POME_CHECK(pome::is_valid_utf8(piece));
        streamed += piece;
      }
      streamed += decoder.flush();
      POME_CHECK(streamed == *decoded);
    }
  }
  return 0;
}
