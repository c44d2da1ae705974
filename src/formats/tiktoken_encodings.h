// The published tiktoken encodings: what their files do not say.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace pome {

struct TiktokenEncoding {
  std::string name;     // as tiktoken calls it, or the model
  std::string pattern;  // how text is cut into words
  std::vector<std::pair<std::string, int32_t>> special;
  std::string bos, eos, end_of_turn;  // texts among `special`, empty where there is none
  bool add_bos = false;               // encoding puts it in front
  bool nfc = false;                   // text is brought to NFC first
};

// Known by its number of tokens; `config` (config.json, or null) tells encodings of one size apart.
// kUnsupported names the size and what is known.
Result<TiktokenEncoding> find_tiktoken_encoding(size_t tokens, const Json& config);

}  // namespace pome
