// Reads the tokenizer that the metadata of a GGUF file describes (keys tokenizer.ggml.* and
// tokenizer.chat_template), as llama.cpp does.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "formats/gguf.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// model == kNone when the file has no tokenizer. kUnsupported names a tokenizer.ggml.model that
// pome does not have; kType, kRange for values of the wrong type or length, with the key.
Result<TokenizerSource> read_gguf_tokenizer(const GgufFile& file);

// The keys of the metadata that describe it.
std::vector<std::pair<std::string, GgufValue>> tokenizer_keys(const GgufFile& file);

}  // namespace pome
