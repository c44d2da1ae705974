// The chat template of a model in MLC's form: fixed texts around the messages. Found by rendering
// the template with known messages; MLC's rules then give the same texts again, or a note says
// where they do not.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "tokenizer/tokenizer.h"

namespace pome {

// conv_template of mlc-chat-config.json.
Json mlc_conversation(const Tokenizer& tokenizer, std::vector<std::string>* notes);
// tokenizer_info of mlc-chat-config.json.
Json mlc_tokenizer_info(const TokenizerSource& source);
// What MLC sends to the model for these messages (role, content), without the prefix ids; the
// answer's beginning behind them. For tests, and to compare with the template.
std::string mlc_prompt(const Json& conversation,
                       const std::vector<std::pair<std::string, std::string>>& messages);

}  // namespace pome
