// The steps between a text and the subword model, and back: normalizers, pre-tokenizers and
// decoders, as plain values. Formats fill lists of them; the tokenizer runs the lists in order.
//
// Names and meaning are those of the Hugging Face library `tokenizers` (the components of
// tokenizer.json); what other formats ask for is written with the same steps.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace pome {

struct TextPattern {
  std::string text;
  bool regex = false;  // else the text itself
};

// What becomes of the parts of a text that a pattern matches.
enum class SplitBehavior : uint8_t {
  kRemoved,
  kIsolated,            // every match is a piece
  kMergedWithPrevious,  // a match ends the piece before it
  kMergedWithNext,      // a match begins the piece behind it
  kContiguous           // matches that touch are one piece
};

// When Metaspace puts its mark in front of a text that does not begin with one.
enum class PrependScheme : uint8_t {
  kAlways,
  kNever,
  kFirst /* only where the whole text begins */
};

namespace normalizer {
enum class Form : uint8_t { kNfc, kNfd, kNfkc, kNfkd };
struct UnicodeForm {
  Form form = Form::kNfc;
};
struct Lowercase {};  // full mapping, character by character
struct Strip {        // white space at the ends
  bool left = true, right = true;
};
struct StripAccents {};  // drops nonspacing marks
struct Nmt {};           // drops control characters, turns odd spaces into ' '
struct Prepend {         // in front of every text that is not empty
  std::string text;
};
struct Replace {
  TextPattern pattern;
  std::string content;
};
struct Precompiled {  // SentencePiece's compiled map of characters, as its bytes; by graphemes
  std::string charsmap;
};
struct Bert {
  bool clean_text = true, handle_chinese_chars = true, strip_accents = true, lowercase = true;
};
struct ByteLevel {};     // every byte as its character of the byte-level alphabet
struct SentencePiece {   // all that the sentencepiece library does to a text, as one step
  std::string charsmap;  // as in Precompiled; the longest match at each place
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;           // ' ' becomes U+2581
  bool treat_whitespace_as_suffix = false;  // the dummy stands at the end
  std::vector<std::string> user_defined;    // kept from the map
};
}  // namespace normalizer
using NormalizerStep =
    std::variant<normalizer::UnicodeForm, normalizer::Lowercase, normalizer::Strip,
                 normalizer::StripAccents, normalizer::Nmt, normalizer::Prepend,
                 normalizer::Replace, normalizer::Precompiled, normalizer::Bert,
                 normalizer::ByteLevel, normalizer::SentencePiece>;

namespace pretokenizer {
struct ByteLevel {
  bool add_prefix_space = true;
  bool use_regex = true;  // cuts as GPT-2 does
};
struct Metaspace {                           // ' ' becomes the replacement
  std::string replacement = "\xE2\x96\x81";  // one character
  PrependScheme prepend = PrependScheme::kAlways;
  bool split = true;  // every replacement begins a piece
};
struct Whitespace {};       // \w+|[^\w\s]+
struct WhitespaceSplit {};  // at white space, which is dropped
struct Bert {};             // at white space, and around every punctuation character
struct Punctuation {
  SplitBehavior behavior = SplitBehavior::kIsolated;
};
struct Digits {  // any \p{N}
  bool individual = false;
};
struct Split {
  TextPattern pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what does not match counts as match
};
struct CharDelimiter {
  std::string delimiter;  // one character, dropped
};
struct UnicodeScripts {};
struct FixedLength {
  uint32_t length = 5;  // characters
};
}  // namespace pretokenizer
using PreTokenizerStep =
    std::variant<pretokenizer::ByteLevel, pretokenizer::Metaspace, pretokenizer::Whitespace,
                 pretokenizer::WhitespaceSplit, pretokenizer::Bert, pretokenizer::Punctuation,
                 pretokenizer::Digits, pretokenizer::Split, pretokenizer::CharDelimiter,
                 pretokenizer::UnicodeScripts, pretokenizer::FixedLength>;

namespace decoder {
struct ByteLevel {};
struct WordPiece {
  std::string prefix = "##";  // other tokens get a space in front
  bool cleanup = true;        // no space before punctuation and English contractions
};
struct Metaspace {
  std::string replacement = "\xE2\x96\x81";
  bool drop_in_first = true;  // in the first token replacements vanish, elsewhere they are spaces
};
struct Bpe {
  std::string suffix = "</w>";  // becomes a space, and nothing in the last token
};
struct ByteFallback {};  // "<0x0A>" is that byte
struct Fuse {};          // what follows sees one token
struct Strip {           // of every token
  std::string content;   // one character
  uint32_t start = 0, stop = 0;
};
struct Replace {
  TextPattern pattern;
  std::string content;
};
struct Ctc {
  std::string pad_token = "<pad>", word_delimiter_token = "|";
  bool cleanup = true;
};
struct JoinWithSpaces {};  // what a tokenizer.json without a decoder asks for
}  // namespace decoder
using DecoderStep = std::variant<decoder::ByteLevel, decoder::WordPiece, decoder::Metaspace,
                                 decoder::Bpe, decoder::ByteFallback, decoder::Fuse, decoder::Strip,
                                 decoder::Replace, decoder::Ctc, decoder::JoinWithSpaces>;

}  // namespace pome
