// Reads tiktoken files: one token a line, its bytes in base64, and its rank. The file says nothing
// else: how text is cut and which special tokens there are is known for each published encoding,
// which is told from the number of tokens (docs/tokenizer-files.md has the list).
//
// Format: github.com/openai/tiktoken. What is read gives tiktoken's ids.
#pragma once

#include "base/byte_source.h"
#include "base/json.h"
#include "base/status.h"
#include "formats/tiktoken_encodings.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// `config` is the config.json beside the file, or null: it tells o200k_harmony from o200k_base.
// kUtf8 and kRange for lines that are no token and rank, kDup for a token or rank that is there
// twice, kLimit, and kUnsupported for an encoding that is not known.
Result<TokenizerSource> read_tiktoken(const ByteSourcePtr& source, const Json& config);
// The same for a file whose encoding is known otherwise, for tests and fuzzing.
Result<TokenizerSource> read_tiktoken_as(const ByteSourcePtr& source,
                                         const TiktokenEncoding& encoding);

// Whether the file begins with such a line.
bool looks_like_tiktoken(const ByteSource& source);

}  // namespace pome
