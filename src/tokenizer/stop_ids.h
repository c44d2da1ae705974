// Which ids end a generation.
#pragma once

#include <cstdint>
#include <vector>

#include "tokenizer/tokenizer_source.h"

namespace pome {

// The ids of the source (configs, EOS, end of turn, end of message) and the special tokens that the
// chat template writes directly behind what an assistant said and behind a call of a tool, without
// those that it writes inside of a reply with more to come; sorted, each once. A template that
// cannot be rendered adds nothing. `special` by id.
std::vector<int32_t> find_stop_ids(const TokenizerSource& source, const std::vector<bool>& special);

}  // namespace pome
