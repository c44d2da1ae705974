// Reads SentencePiece models (tokenizer.model, spiece.model): a protobuf message of pieces with
// scores and types, how the model was trained, and how it prepares text.
//
// Format: sentencepiece_model.proto of github.com/google/sentencepiece. Models of the types BPE and
// unigram; word and character models are refused by name. What is read gives the ids of the
// sentencepiece library; docs/tokenizer-files.md has the fields.
#pragma once

#include "base/byte_source.h"
#include "base/status.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// The protobuf refusals (protobuf.h), kRange and kDup for pieces, kLimit for files of more than
// 256 MiB, those of CharsMap::parse, and kUnsupported.
Result<TokenizerSource> read_sentencepiece_model(const ByteSourcePtr& source);

// Whether the first byte is that of such a file (the tag of its first piece).
bool looks_like_sentencepiece(const ByteSource& source);

}  // namespace pome
