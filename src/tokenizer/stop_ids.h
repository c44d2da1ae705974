// What ends a generation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// The ids of the source (configs, EOS, end of turn, end of message) and the special tokens that the
// chat template writes directly behind what an assistant said and behind a call of a tool, without
// those that it writes inside of a reply with more to come; sorted, each once. A template that
// cannot be rendered adds nothing. `special` by id.
std::vector<int32_t> find_stop_ids(const TokenizerSource& source, const std::vector<bool>& special);

// The text that ends an answer under this template where no stop id does: the first line of what
// it writes behind an answer, in front of the next message. Empty when that begins with a special
// token of the tokenizer or is white space.
std::string find_stop_text(const Tokenizer& tokenizer, const ChatTemplate& chat_template);

}  // namespace pome
