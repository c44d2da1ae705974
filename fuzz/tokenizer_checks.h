// What every tokenizer that can be built must keep, for the fuzz targets of tokenizer files.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/byte_source.h"
#include "tokenizer/tokenizer.h"

namespace pome {

// Encodes and decodes `sample` where the source builds a tokenizer at all.
inline void check_tokenizer(TokenizerSource source, std::string_view sample) {
  const auto tokenizer = Tokenizer::create(std::move(source));
  if (!tokenizer.ok()) return;
  for (const bool parse_special : {false, true}) {
    const auto ids =
        (*tokenizer)->encode(sample, {.add_special = true, .parse_special = parse_special});
    for (const bool skip_special : {false, true}) {
      const auto decoded = (*tokenizer)->decode(ids, skip_special);
      POME_CHECK(decoded.ok() && is_valid_utf8(*decoded));
      StreamDecoder decoder(*tokenizer, skip_special);
      std::string streamed;
      for (const int32_t id : ids) {
        const std::string piece = decoder.push(id);
        POME_CHECK(is_valid_utf8(piece));
        streamed += piece;
      }
      streamed += decoder.flush();
      // Runs of byte tokens that are no text are where the two differ.
      const bool broken = decoded->find("\xEF\xBF\xBD") != std::string::npos;
      POME_CHECK(broken || streamed == *decoded);
    }
  }
}

// The last bytes of an input serve as text too.
inline std::string_view sample_of(std::string_view input) {
  constexpr size_t kSample = 64;
  return input.substr(input.size() - (input.size() < kSample ? input.size() : kSample));
}

}  // namespace pome
