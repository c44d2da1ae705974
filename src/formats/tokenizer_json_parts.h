// Helpers that the readers of Hugging Face tokenizer files share. Private to them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/tokenizer_source.h"

namespace pome::hf {

inline Status type_error(std::string where, std::string_view wanted) {
  return bad_input(Refusal::kType, "expected " + std::string(wanted)).at(where);
}
// A whole number 0..4194303; kType, kRange.
Result<int32_t> token_id(const Json& value, const std::string& where);
// A member that is a token: its text, or an object with "content"; empty when absent.
Result<std::string> token_text(const Json& object, const char* key);
// An entry of added_tokens or added_tokens_decoder, without its id.
Result<AddedToken> added_token(const Json& item, const std::string& where);
std::optional<int32_t> find_token(const TokenizerSource& source, const std::string& text);
// Gives `text` its id; kDup when the id belongs to another text.
Status place_token(TokenizerSource& source, std::vector<bool>& taken, int32_t id,
                   const std::string& text, const std::string& where);
// Kinds of the tokens: holes are unused, "<0x0A>" with byte_fallback are bytes, added tokens are
// control or user-defined ones.
void set_kinds(TokenizerSource& source, const std::vector<bool>& taken);
// "a b" -> its two tokens.
Result<std::pair<std::string, std::string>> merge_of_line(std::string_view line,
                                                          const std::string& where);

}  // namespace pome::hf
