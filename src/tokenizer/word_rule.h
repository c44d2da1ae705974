// Scanners for the patterns with which byte-level BPE models cut text into words: those of GPT-2,
// cl100k (Llama 3, Qwen), o200k (GPT-OSS, Mistral), DeepSeek and their variants. They differ in a
// few points, which a WordRule states; one scanner, specialised for the common rules, runs them.
//
// A scanner matches exactly what the pattern matches and looks at each character a bounded number
// of times, also on broken UTF-8 (whose bytes count as symbols).
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pome {

struct WordRule {
  enum class Contractions : uint8_t {
    kNone,
    kExact,    // 's|'t|'re|'ve|'m|'ll|'d begin a piece
    kAnyCase,  // the same in any case
    kBehind    // the same in any case, behind a word and part of it
  };
  enum class Words : uint8_t {
    kAfterSpace,   //  ?\p{L}+, and numbers likewise
    kAfterAny,     // [^\r\n\p{L}\p{N}]?\p{L}+
    kMarks,        // [^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+
    kMarksStrict,  // [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
    kCased         // [^\r\n\p{L}\p{N}]? and upper case, then lower case; Lm, Lo and M are both
  };
  enum class Other : uint8_t {
    kAll,         //  ?[^\s\p{L}\p{N}]+
    kNoMarks,     //  ?[^\s\p{L}\p{M}\p{N}]+
    kPunctuation  //  ?[\p{P}\p{S}]+
  };
  enum class Tail : uint8_t { kNone, kNewlines /* [\r\n]* */, kSlash /* [\r\n/]* */ };
  enum class Newlines : uint8_t {
    kNone,
    kRun,         // \s*[\r\n]+ (or \s*[\r\n], which matches the same)
    kUnlessAtEnd  // behind \s+$
  };
  Contractions contractions = Contractions::kExact;
  bool ascii_words = false;  // [!-/:-@\[-`{-~][A-Za-z]+ before all else
  Words words = Words::kAfterSpace;
  static constexpr uint8_t kNoDigits = 255;
  uint8_t digits = 0;  // longest run of \p{N} in a piece; 0: any; kNoDigits: they are not matched
  Other other = Other::kAll;
  Tail tail = Tail::kNone;
  Newlines newlines = Newlines::kNone;
  bool operator==(const WordRule&) const = default;
};

// The rule that a pattern of tokenizer.json or of a tiktoken encoding stands for.
std::optional<WordRule> parse_word_rule(std::string_view pattern);

struct TextSpan {
  size_t begin = 0, end = 0;
};
// The first match at or behind `at` (<= text.size()); what lies between is not matched. At the end
// of the text: an empty span there.
using WordScanner = TextSpan (*)(const WordRule& rule, std::string_view text, size_t at);
// The scanner for a rule: one made for it, or a general one.
WordScanner scanner_of(const WordRule& rule);

}  // namespace pome
