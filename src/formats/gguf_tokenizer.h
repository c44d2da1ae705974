// Reads the tokenizer that the metadata of a GGUF file describes (keys tokenizer.ggml.* and
// tokenizer.chat_template), as llama.cpp does.
#pragma once

#include "base/status.h"
#include "formats/gguf.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// model == kNone when the file has no tokenizer. kUnsupported names a tokenizer.ggml.model that
// pome does not have; kType, kRange for values of the wrong type or length, with the key.
Result<TokenizerSource> read_gguf_tokenizer(const GgufFile& file);

}  // namespace pome
