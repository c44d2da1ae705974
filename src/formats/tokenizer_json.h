// Reads the tokenizer of a Hugging Face folder: tokenizer.json (else tokenizer.model, a tiktoken
// file, or vocab.json and merges.txt), tokenizer_config.json and, where they are there,
// special_tokens_map.json and chat_template.jinja.
//
// Format: github.com/huggingface/tokenizers (the serialised pipeline of normalizer, pre-tokenizer,
// model, post-processor and decoder).
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// `config` and `generation_config` (null when absent) supply EOS ids. kMissing without
// tokenizer.json; kUnsupported names the JSON path of a component that pome does not have; kType,
// kRange, kDup, kLimit for what is wrong.
Result<TokenizerSource> read_hf_tokenizer(const std::string& folder, const Json& config,
                                          const Json& generation_config);

// The parts, for tests and fuzzing. `name` is the file in messages.
Result<TokenizerSource> parse_tokenizer_json(const Json& json, const std::string& name);
// Names of special tokens, chat template and the flags of tokenizer_config.json; `special_map` may
// be null.
Status apply_tokenizer_config(const Json& tokenizer_config, const Json& special_map,
                              TokenizerSource& source);
// Byte-level BPE as vocab.json and merges.txt, which say nothing of how text is cut: known for the
// classes of GPT-2 and Qwen 2, refused (kUnsupported) for others.
Result<TokenizerSource> read_vocab_and_merges(const std::string& folder, const Json& config,
                                              const Json& tokenizer_config);

}  // namespace pome
