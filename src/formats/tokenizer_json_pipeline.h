// The text pipeline of a tokenizer.json (normalizer, pre_tokenizer, decoder, post_processor) as
// flags of a TokenizerSource. Private to the reader.
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// Each reads one member of the root object (null is fine). kUnsupported names the JSON path.
// `byte_level` is set when the alphabet is that of GPT-2.
Status read_normalizer(const Json& root, TokenizerSource& source);
Status read_pre_tokenizer(const Json& root, TokenizerSource& source, bool& byte_level);
Status read_decoder(const Json& root, TokenizerSource& source);
Status read_post_processor(const Json& root, TokenizerSource& source);

}  // namespace pome
