#include "tokenizer/pretokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tokenizer/unicode.h"

namespace pome {
namespace {

constexpr size_t kMaxStages = 8;

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::pair<std::string_view, SplitRule> kPatterns[] = {
    {kGpt2Pattern, SplitRule::kGpt2},     {kLlama3Pattern, SplitRule::kLlama3},
    {kQwen2Pattern, SplitRule::kQwen2},   {R"(\p{N})", SplitRule::kNumber},
    {R"(\p{N}+)", SplitRule::kNumberRun},
};

struct NamedRules {
  std::string_view name;
  SplitRule first;
  std::optional<SplitRule> second = std::nullopt;
};
// The values of tokenizer.ggml.pre that llama.cpp maps to these patterns.
constexpr NamedRules kNames[] = {
    {"gpt-2", SplitRule::kGpt2},
    {"phi-2", SplitRule::kGpt2},
    {"mpt", SplitRule::kGpt2},
    {"olmo", SplitRule::kGpt2},
    {"jais", SplitRule::kGpt2},
    {"roberta-bpe", SplitRule::kGpt2},
    {"llama-bpe", SplitRule::kLlama3},
    {"llama3", SplitRule::kLlama3},
    {"llama-v3", SplitRule::kLlama3},
    {"falcon3", SplitRule::kLlama3},
    {"dbrx", SplitRule::kLlama3},
    {"smaug-bpe", SplitRule::kLlama3},
    {"qwen2", SplitRule::kQwen2},
    {"stablelm2", SplitRule::kQwen2},
    {"deepseek-r1-qwen", SplitRule::kQwen2},
    {"smollm", SplitRule::kNumber, SplitRule::kGpt2},
    {"starcoder", SplitRule::kNumber, SplitRule::kGpt2},
    {"refact", SplitRule::kNumber, SplitRule::kGpt2},
    {"command-r", SplitRule::kNumber, SplitRule::kGpt2},
    {"codeshell", SplitRule::kNumber, SplitRule::kGpt2},
    {"exaone", SplitRule::kNumber, SplitRule::kGpt2},
    {"minerva-7b", SplitRule::kNumber, SplitRule::kGpt2},
};

enum class Class : uint8_t { kLetter, kNumber, kSpace, kOther };

Class classify(char32_t point) {
  const Category category = category_of(point);
  if (is_letter(category)) return Class::kLetter;
  if (is_number(category)) return Class::kNumber;
  return is_white_space(point) ? Class::kSpace : Class::kOther;
}

std::array<Class, 128> make_ascii_classes() {
  std::array<Class, 128> classes{};
  for (char32_t i = 0; i < 128; ++i) classes[i] = classify(i);
  return classes;
}

// A character of the text with its class; at the end of the text: size 0 and no class that a rule
// accepts.
struct Char {
  char32_t point = 0;
  uint8_t size = 0;
  Class kind = Class::kOther;
  bool is(Class wanted) const { return size != 0 && kind == wanted; }
  bool is_newline() const { return size != 0 && (point == '\r' || point == '\n'); }
};

Char char_at(std::string_view text, size_t at) {
  static const std::array<Class, 128> kAscii = make_ascii_classes();
  if (at >= text.size()) return {};
  const auto byte = static_cast<uint8_t>(text[at]);
  if (byte < 128) return {byte, 1, kAscii[byte]};
  const Rune rune = decode_rune(text, at);
  return {rune.point, rune.size, rune.valid ? classify(rune.point) : Class::kOther};
}

size_t skip_while(std::string_view text, size_t at, Class kind) {
  for (Char c = char_at(text, at); c.is(kind); c = char_at(text, at)) at += c.size;
  return at;
}

// Length of 's 't 're 've 'm 'll 'd at `at`, 0 when there is none. In any case also means U+017F,
// which folds to s.
size_t contraction(std::string_view text, size_t at, bool any_case) {
  if (text[at] != '\'') return 0;
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

// \s+(?!\S)|\s+ at a whitespace character: the run without its last character when something
// follows it, unless that leaves nothing.
size_t white_space_piece(std::string_view text, size_t at) {
  size_t end = at, last = at;
  for (Char c = char_at(text, end); c.is(Class::kSpace); c = char_at(text, end)) {
    last = end;
    end += c.size;
  }
  return end == text.size() || last == at ? end : last;
}

size_t next_gpt2(std::string_view text, size_t at) {
  if (const size_t size = contraction(text, at, false)) return at + size;
  const size_t start = text[at] == ' ' ? at + 1 : at;
  const Char c = char_at(text, start);
  if (c.size != 0 && c.kind != Class::kSpace) return skip_while(text, start, c.kind);
  return white_space_piece(text, at);
}

// Patterns of the Llama 3 kind. `digits`: the longest run of \p{N} in a piece.
size_t next_llama3(std::string_view text, size_t at, int digits) {
  if (const size_t size = contraction(text, at, true)) return at + size;
  const Char c = char_at(text, at);
  if (c.kind == Class::kLetter) return skip_while(text, at, Class::kLetter);
  if (c.kind == Class::kNumber) {
    size_t end = at;
    for (int i = 0; i < digits; ++i) {
      const Char digit = char_at(text, end);
      if (!digit.is(Class::kNumber)) break;
      end += digit.size;
    }
    return end;
  }
  if (!c.is_newline() && char_at(text, at + c.size).is(Class::kLetter)) {
    return skip_while(text, at + c.size, Class::kLetter);
  }
  const size_t start = c.point == ' ' ? at + 1 : at;
  if (char_at(text, start).is(Class::kOther)) {
    size_t end = skip_while(text, start, Class::kOther);
    while (char_at(text, end).is_newline()) ++end;
    return end;
  }
  // \s*[\r\n]+ takes the run up to and with its last newline.
  size_t after_newline = 0;
  for (size_t i = at;;) {
    const Char space = char_at(text, i);
    if (!space.is(Class::kSpace)) break;
    i += space.size;
    if (space.is_newline()) after_newline = i;
  }
  return after_newline != 0 ? after_newline : white_space_piece(text, at);
}

size_t next_number(std::string_view text, size_t at, bool runs) {
  const Char first = char_at(text, at);
  if (first.is(Class::kNumber)) {
    return runs ? skip_while(text, at, Class::kNumber) : at + first.size;
  }
  size_t end = at;
  for (Char c = first; c.size != 0 && c.kind != Class::kNumber; c = char_at(text, end)) {
    end += c.size;
  }
  return end;
}

}  // namespace

std::string_view pattern_of(SplitRule rule) {
  for (const auto& [pattern, known] : kPatterns) {
    if (known == rule) return pattern;
  }
  return {};
}

std::optional<SplitRule> rule_of_pattern(std::string_view pattern) {
  for (const auto& [known, rule] : kPatterns) {
    if (known == pattern) return rule;
  }
  return std::nullopt;
}

size_t next_piece(SplitRule rule, std::string_view text, size_t at) {
  switch (rule) {
    case SplitRule::kGpt2:
      return next_gpt2(text, at);
    case SplitRule::kLlama3:
      return next_llama3(text, at, 3);
    case SplitRule::kQwen2:
      return next_llama3(text, at, 1);
    case SplitRule::kNumber:
      return next_number(text, at, false);
    case SplitRule::kNumberRun:
      return next_number(text, at, true);
  }
  return text.size();
}

Result<PreTokenizer> PreTokenizer::create(std::string_view name,
                                          const std::vector<std::string>& patterns) {
  PreTokenizer out;
  if (!name.empty()) {
    const auto* found = std::find_if(std::begin(kNames), std::end(kNames),
                                     [&](const NamedRules& rules) { return rules.name == name; });
    if (found == std::end(kNames)) {
      return Status(StatusCode::kUnsupported,
                    "pre-tokenizer \"" + escape_for_terminal(name, 80) + "\" is not known",
                    Refusal::kRegex);
    }
    out.rules_.push_back(found->first);
    if (found->second) out.rules_.push_back(*found->second);
  }
  for (const std::string& pattern : patterns) {
    const std::optional<SplitRule> rule = rule_of_pattern(pattern);
    if (!rule) {
      return Status(StatusCode::kUnsupported,
                    "split pattern \"" + escape_for_terminal(pattern, 120) + "\" is not known",
                    Refusal::kRegex);
    }
    out.rules_.push_back(*rule);
  }
  if (out.rules_.size() > kMaxStages) {
    return bad_input(Refusal::kLimit, "more than 8 pre-tokenizer stages");
  }
  return out;
}

}  // namespace pome
