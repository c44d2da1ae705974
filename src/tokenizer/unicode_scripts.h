// The property Script of characters, as of Unicode 9.0: pieces that the UnicodeScripts
// pre-tokenizer cuts depend on the version.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

namespace pome {

// Other scripts are numbers without a name here.
enum class Script : uint8_t { kAny /* none */, kHan, kHiragana, kKatakana };
Script script_of(char32_t point);

}  // namespace pome
