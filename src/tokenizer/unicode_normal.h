// Unicode normal forms (Unicode Standard Annex 15) and the other rewritings of text that tokenizer
// files name: lower case, accents, and what the tokenizer of BERT does to its text.
//
// All of it gives what Hugging Face's `tokenizers` library gives, because ids depend on it, down to
// the versions of Unicode that the library has: characters that came after Unicode 9.0 have no
// decomposition and no combining class here, and characters that came after Unicode 8.0 are neither
// punctuation, accents nor format characters to BERT. Lower case is that of Unicode 15.0.
//
// Linear time and constant stack for any text. Bytes that are not UTF-8 stay as they are and stand
// for a character that interacts with nothing.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pome {

enum class NormalForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

std::string normalize_unicode(std::string_view text, NormalForm form);
// Canonical_Combining_Class: 0 for characters that begin a sequence.
uint8_t combining_class(char32_t point);

// Full lower case of each character by itself: U+0130 becomes two characters, and sigma has one
// lower case wherever it stands.
std::string lowercase(std::string_view text);
// Without marks (categories Mn, Mc, Me). Text in NFD loses its accents by it, other text keeps
// those that are part of a character.
std::string remove_marks(std::string_view text);

// The steps of BERT's normalizer, in its order.
// Without NUL, U+FFFD, broken bytes and control characters (categories Cc, Cf, Co but for tab and
// line ends); white space becomes ' '.
std::string bert_clean(std::string_view text);
std::string bert_space_ideographs(std::string_view text);  // a space on either side of each
std::string bert_strip_accents(std::string_view text);     // NFD without category Mn
// Punctuation that is a piece of its own: category P, and what is in ASCII neither letter, digit,
// space nor control character.
bool is_bert_punctuation(char32_t point);

}  // namespace pome
