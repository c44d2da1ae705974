#include "tokenizer/word_rule.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tokenizer/char_scan.h"

namespace pome {
namespace {

using scan::Char;
using scan::char_at;
using scan::kLetter;
using scan::kMark;
using scan::kNumber;
using scan::kPunctuation;
using scan::kSpace;
using scan::kSymbol;
using scan::skip;
using Contractions = WordRule::Contractions;
using Words = WordRule::Words;
using Other = WordRule::Other;
using Tail = WordRule::Tail;
using Newlines = WordRule::Newlines;

// Length of 's 't 're 've 'm 'll 'd at `at`, 0 when there is none. In any case also means U+017F,
// which folds to s.
size_t contraction(std::string_view text, size_t at, bool any_case) {
  if (at >= text.size() || text[at] != '\'') return 0;
  const auto letter = [&](size_t i) -> std::pair<char, size_t> {
    if (i >= text.size()) return {'\0', 0};
    if (any_case && text.substr(i, 2) == "\xC5\xBF") return {'s', 2};
    const char c = text[i];
    return {any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c, 1};
  };
  const auto [first, size] = letter(at + 1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 1 + size;
  const auto [second, second_size] = letter(at + 1 + size);
  const bool two = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                   (first == 'l' && second == 'l');
  return two ? 1 + size + second_size : 0;
}

// Upper case, then lower case, where Lm, Lo and M are both: U*L+ or else U+L*. 0: no match.
size_t cased_word(std::string_view text, size_t at) {
  constexpr uint8_t kBoth = scan::kOtherLetter | kMark;
  size_t end = at, behind_both = 0;
  while (true) {
    const Char c = char_at(text, end);
    if (!c.is(scan::kUpper | kBoth)) break;
    end += c.size;
    if (c.is(kBoth)) behind_both = end;
  }
  const size_t lower = skip(text, end, scan::kLower | kBoth);
  if (lower > end) return lower;
  // L+ has to be given back what U* took: up to the last character that is both.
  if (behind_both != 0) return behind_both;
  return end > at ? end : 0;
}

// U*L+ alone, which is tried with and without the character in front before U+L* is.
bool has_lower_part(std::string_view text, size_t at, size_t end) {
  while (at < end) {
    const Char c = char_at(text, at);
    if (c.is(scan::kLower | scan::kOtherLetter | kMark)) return true;
    at += c.size;
  }
  return false;
}

[[gnu::always_inline]] inline size_t word(const WordRule& rule, std::string_view text, size_t at,
                                          const Char& c) {
  if (rule.words == Words::kCased) {
    const bool may_lead = !c.is_newline() && !c.is(kLetter | kNumber);
    size_t end = may_lead ? cased_word(text, at + c.size) : cased_word(text, at);
    if (may_lead && c.is(kMark) && !(end != 0 && has_lower_part(text, at + c.size, end))) {
      end = cased_word(text, at);
    }
    if (end == 0) return 0;
    return rule.contractions == Contractions::kBehind ? end + contraction(text, end, true) : end;
  }
  const uint8_t letters = rule.words == Words::kAfterAny ? kLetter : kLetter | kMark;
  if (c.is(letters)) return skip(text, at, letters);
  const uint8_t closed =
      rule.words == Words::kMarksStrict ? kLetter | kPunctuation | kSymbol : kLetter | kNumber;
  if (c.is_newline() || c.is(closed)) return 0;
  const size_t start = at + c.size;
  if (!char_at(text, start).is(letters)) return 0;
  return skip(text, start, letters);
}

[[gnu::always_inline]] inline size_t number(const WordRule& rule, std::string_view text,
                                            size_t at) {
  if (rule.digits == 0) return skip(text, at, kNumber);
  size_t end = at;
  for (int i = 0; i < rule.digits; ++i) {
    const Char digit = char_at(text, end);
    if (!digit.is(kNumber)) break;
    end += digit.size;
  }
  return end;
}

[[gnu::always_inline]] inline size_t other(const WordRule& rule, std::string_view text, size_t at,
                                           const Char& c) {
  const size_t start = c.point == ' ' ? at + 1 : at;
  const Char first = char_at(text, start);
  if (first.size == 0) return 0;
  size_t end = 0;
  if (rule.other == Other::kPunctuation) {
    if (!first.is(kPunctuation | kSymbol)) return 0;
    end = skip(text, start, kPunctuation | kSymbol);
  } else {
    const uint8_t closed =
        rule.other == Other::kAll ? kSpace | kLetter | kNumber : kSpace | kLetter | kNumber | kMark;
    if (first.is(closed)) return 0;
    end = skip<false>(text, start, closed);
  }
  if (rule.tail == Tail::kNone) return end;
  while (end < text.size() && (text[end] == '\n' || text[end] == '\r' ||
                               (rule.tail == Tail::kSlash && text[end] == '/'))) {
    ++end;
  }
  return end;
}

// The white space from `at`, where there is one: \s*[\r\n]+ or \s+$ where the rule has them, then
// \s+(?!\S)|\s+: the run without its last character when something follows it, unless that leaves
// nothing.
[[gnu::always_inline]] inline size_t white_space(const WordRule& rule, std::string_view text,
                                                 size_t at) {
  size_t end = at, last = at, behind_newline = 0;
  while (true) {
    const Char c = char_at(text, end);
    if (!c.is(kSpace)) break;
    last = end;
    end += c.size;
    if (c.is_newline()) behind_newline = end;
  }
  if (rule.newlines == Newlines::kUnlessAtEnd && end == text.size()) return end;
  if (rule.newlines != Newlines::kNone && behind_newline != 0) return behind_newline;
  return end == text.size() || last == at ? end : last;
}

[[gnu::always_inline]] inline size_t match_at(const WordRule& rule, std::string_view text,
                                              size_t at, const Char& c) {
  if (c.point == '\'' &&
      (rule.contractions == Contractions::kExact || rule.contractions == Contractions::kAnyCase)) {
    const size_t size = contraction(text, at, rule.contractions == Contractions::kAnyCase);
    if (size != 0) return at + size;
  }
  if (rule.ascii_words && c.point > ' ' && c.point < 127 && c.is(kPunctuation | kSymbol)) {
    size_t end = at + 1;
    while (end < text.size() &&
           ((text[end] >= 'a' && text[end] <= 'z') || (text[end] >= 'A' && text[end] <= 'Z'))) {
      ++end;
    }
    if (end > at + 1) return end;
  }
  if (rule.words == Words::kAfterSpace) {
    const size_t start = c.point == ' ' ? at + 1 : at;
    const Char first = c.point == ' ' ? char_at(text, start) : c;
    if (first.is(kLetter)) return skip(text, start, kLetter);
    if (first.is(kNumber)) return skip(text, start, kNumber);
  } else {
    if (const size_t end = word(rule, text, at, c); end != 0) return end;
    if (c.is(kNumber) && rule.digits != WordRule::kNoDigits) return number(rule, text, at);
  }
  if (const size_t end = other(rule, text, at, c); end != 0) return end;
  return c.is(kSpace) ? white_space(rule, text, at) : 0;
}

[[gnu::always_inline]] inline TextSpan next_match(const WordRule& rule, std::string_view text,
                                                  size_t at) {
  while (at < text.size()) {
    const Char c = char_at(text, at);
    if (const size_t end = match_at(rule, text, at, c); end != 0) return {at, end};
    at += c.size;
  }
  return {text.size(), text.size()};
}

template <WordRule kRule>
TextSpan scan_fixed(const WordRule& /*rule*/, std::string_view text, size_t at) {
  return next_match(kRule, text, at);
}
TextSpan scan_any(const WordRule& rule, std::string_view text, size_t at) {
  return next_match(rule, text, at);
}

constexpr WordRule kGpt2 = {};
constexpr WordRule kLlama3 = {
    Contractions::kAnyCase, false,         Words::kAfterAny, 3, Other::kAll,
    Tail::kNewlines,        Newlines::kRun};
constexpr WordRule kQwen2 = {
    Contractions::kAnyCase, false,         Words::kAfterAny, 1, Other::kAll,
    Tail::kNewlines,        Newlines::kRun};
constexpr WordRule kCl100k = {
    Contractions::kAnyCase, false, Words::kAfterAny, 3, Other::kAll, Tail::kNewlines,
    Newlines::kUnlessAtEnd};
constexpr WordRule kO200k = {Contractions::kBehind, false,        Words::kCased, 3,
                             Other::kAll,           Tail::kSlash, Newlines::kRun};
constexpr WordRule kTekken = {Contractions::kNone, false,        Words::kCased, 1,
                              Other::kAll,         Tail::kSlash, Newlines::kRun};
constexpr WordRule kQwen35 = {Contractions::kAnyCase, false,           Words::kMarks, 1,
                              Other::kNoMarks,        Tail::kNewlines, Newlines::kRun};
constexpr WordRule kDeepSeek3 = {Contractions::kNone, true,
                                 Words::kMarksStrict, WordRule::kNoDigits,
                                 Other::kPunctuation, Tail::kNewlines,
                                 Newlines::kRun};

// ---- Patterns ----

// The alternatives of a pattern, which are cut where no bracket is open.
std::vector<std::string> alternatives(std::string_view pattern) {
  std::vector<std::string> out(1);
  int depth = 0;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      out.back().append(pattern.substr(i, 2));
      ++i;
      continue;
    }
    if (in_class) {
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
    } else if (c == '(') {
      ++depth;
    } else if (c == ')') {
      --depth;
    } else if (c == '|' && depth == 0) {
      out.emplace_back();
      continue;
    }
    // A newline may be written as such or escaped.
    if (c == '\n') {
      out.back() += "\\n";
    } else if (c == '\r') {
      out.back() += "\\r";
    } else {
      out.back() += c;
    }
  }
  return out;
}

// Reads the alternatives from front to back.
class RuleParser {
 public:
  explicit RuleParser(std::string_view pattern) : parts_(alternatives(pattern)) {}

  std::optional<WordRule> parse() {
    rule_.contractions = Contractions::kNone;
    const bool words = (contractions(), ascii_words(), word_part());
    if (!words) return std::nullopt;
    if (rule_.words != Words::kAfterSpace) digits();
    if (!other() || !white_space() || at_ != parts_.size()) return std::nullopt;
    // Without an alternative for numbers they stay unmatched, which only the strict rule states.
    if (!has_digits_) {
      if (rule_.words != Words::kMarksStrict) return std::nullopt;
      rule_.digits = WordRule::kNoDigits;
    }
    return rule_;
  }

 private:
  bool take(std::string_view part) {
    if (at_ >= parts_.size() || parts_[at_] != part) return false;
    ++at_;
    return true;
  }
  void contractions() {
    if (take("(?i:'s|'t|'re|'ve|'m|'ll|'d)") || take("'(?i:[sdmt]|ll|ve|re)")) {
      rule_.contractions = Contractions::kAnyCase;
      return;
    }
    const size_t begin = at_;
    for (const char* part : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
      if (take(part)) continue;
      at_ = begin;
      break;
    }
    if (at_ > begin || take("'(?:[sdmt]|ll|ve|re)")) rule_.contractions = Contractions::kExact;
  }
  void ascii_words() {
    rule_.ascii_words = take(R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)");
  }
  bool cased(std::string_view behind) {
    const std::string lead = R"([^\r\n\p{L}\p{N}]?)", upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])",
                      lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])", end(behind);
    const size_t begin = at_;
    if (take(lead + upper + "*" + lower + "+" + end) &&
        take(lead + upper + "+" + lower + "*" + end)) {
      rule_.words = Words::kCased;
      return true;
    }
    at_ = begin;
    return false;
  }
  bool word_part() {
    if (take(R"([^\r\n\p{L}\p{N}]?\p{L}+)") || take(R"([^\r\n\p{L}\p{N}]?+\p{L}+)") ||
        take(R"([^\r\n\p{L}\p{N}]?+\p{L}++)")) {
      rule_.words = Words::kAfterAny;
    } else if (take(R"([^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+)")) {
      rule_.words = Words::kMarks;
    } else if (take(R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)")) {
      rule_.words = Words::kMarksStrict;
    } else if (take(R"( ?\p{L}+)") || take(R"( ?\p{L}++)")) {
      rule_.words = Words::kAfterSpace;
      has_digits_ = take(R"( ?\p{N}+)") || take(R"( ?\p{N}++)");
      return has_digits_;
    } else if (rule_.contractions == Contractions::kNone &&
               cased("(?i:'s|'t|'re|'ve|'m|'ll|'d)?")) {
      rule_.contractions = Contractions::kBehind;
    } else {
      return cased("");
    }
    return true;
  }
  void digits() {
    has_digits_ = true;
    if (take(R"(\p{N}{1,3})")) {
      rule_.digits = 3;
    } else if (take(R"(\p{N}{1,2})")) {
      rule_.digits = 2;
    } else if (take(R"(\p{N})") || take(R"(\p{N}{1})")) {
      rule_.digits = 1;
    } else {
      rule_.digits = 0;
      // Ruby reads the second as repeats of one to three, not as possessive.
      has_digits_ = take(R"(\p{N}+)") || take(R"(\p{N}{1,3}+)");
    }
  }
  bool other() {
    static const struct {
      std::string_view set;
      Other other;
    } kSets[] = {{R"([^\s\p{L}\p{N}])", Other::kAll},
                 {R"([^\s\p{L}\p{N}\r\n])", Other::kAll},
                 {R"([^\s\p{L}\p{M}\p{N}])", Other::kNoMarks},
                 {R"([\p{P}\p{S}])", Other::kPunctuation}};
    static const std::pair<std::string_view, Tail> kTails[] = {{"", Tail::kNone},
                                                               {R"([\r\n]*)", Tail::kNewlines},
                                                               {R"([\r\n]*+)", Tail::kNewlines},
                                                               {R"([\r\n/]*)", Tail::kSlash}};
    for (const auto& [set, kind] : kSets) {
      for (const auto& [tail_text, tail] : kTails) {
        for (const char* repeat : {"+", "++"}) {
          if (!take(" ?" + std::string(set) + repeat + std::string(tail_text))) continue;
          rule_.other = kind;
          rule_.tail = tail;
          return true;
        }
      }
    }
    return false;
  }
  bool white_space() {
    if (take(R"(\s++$)")) {
      // Without newlines of their own the last alternatives match the same.
      if (take(R"(\s*[\r\n]+)") || take(R"(\s*[\r\n])")) {
        rule_.newlines = Newlines::kUnlessAtEnd;
      }
    } else if (take(R"(\s*[\r\n]+)") || take(R"(\s*[\r\n])")) {
      rule_.newlines = Newlines::kRun;
    }
    if (!take(R"(\s+(?!\S))")) return false;
    return take(R"(\s+)") || take(R"(\s)");
  }

  std::vector<std::string> parts_;
  size_t at_ = 0;
  WordRule rule_;
  bool has_digits_ = false;
};

}  // namespace

std::optional<WordRule> parse_word_rule(std::string_view pattern) {
  if (pattern.size() > 1024) return std::nullopt;
  return RuleParser(pattern).parse();
}

WordScanner scanner_of(const WordRule& rule) {
  if (rule == kGpt2) return scan_fixed<kGpt2>;
  if (rule == kLlama3) return scan_fixed<kLlama3>;
  if (rule == kQwen2) return scan_fixed<kQwen2>;
  if (rule == kCl100k) return scan_fixed<kCl100k>;
  if (rule == kO200k) return scan_fixed<kO200k>;
  if (rule == kTekken) return scan_fixed<kTekken>;
  if (rule == kQwen35) return scan_fixed<kQwen35>;
  if (rule == kDeepSeek3) return scan_fixed<kDeepSeek3>;
  return scan_any;
}

}  // namespace pome
