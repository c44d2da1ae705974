// The text pipeline of a tokenizer.json (normalizer, pre_tokenizer, decoder, post_processor) as
// the steps of a TokenizerSource. Private to the reader.
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// Puts the path of the object in front of the path of its member that an error names.
template <typename T>
Result<T> under(const std::string& path, Result<T> result) {
  if (result.ok()) return result;
  const Status& status = result.status();
  return Status(status.code(), std::string(status.message()), status.refusal())
      .at(path + std::string(status.where()));
}

// Each reads one member of the root object (null is fine). kUnsupported names the JSON path.
Status read_normalizer(const Json& root, TokenizerSource& source);
Status read_pre_tokenizer(const Json& root, TokenizerSource& source);
Status read_decoder(const Json& root, TokenizerSource& source);
Status read_post_processor(const Json& root, TokenizerSource& source);

}  // namespace pome
