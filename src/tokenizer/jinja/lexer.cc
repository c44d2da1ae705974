#include "tokenizer/jinja/lexer.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<uint8_t>(c) >= 0x80;
}

std::string unify_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
    } else {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(unify_newlines(source)) {}

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) {
      const size_t open = find_open(at_);
      text(open);
      if (open == source_.size()) break;
      const char kind = source_[open + 1];
      at_ = open + 2;
      if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
      if (kind == '#') {
        POME_RETURN_IF_ERROR(comment(open));
      } else if (kind == '{') {
        POME_RETURN_IF_ERROR(tag(open, Token::Kind::kPrintBegin, Token::Kind::kPrintEnd, "}}"));
      } else {
        const size_t end = raw_begin();
        if (end != 0) {
          POME_RETURN_IF_ERROR(raw(open, end));
        } else {
          POME_RETURN_IF_ERROR(tag(open, Token::Kind::kBlockBegin, Token::Kind::kBlockEnd, "%}"));
        }
      }
    }
    Token& end = push(Token::Kind::kEnd, source_.size());
    end.text = "end of template";
    return std::move(tokens_);
  }

 private:
  size_t find_open(size_t from) const {
    for (size_t i = source_.find('{', from); i != std::string::npos; i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() &&
          (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) {
        return i;
      }
    }
    return source_.size();
  }

  // Text in [at_, open), cut by what stands on both sides of it.
  void text(size_t open) {
    size_t begin = at_, end = open;
    if (strip_after_) {
      while (begin < end && is_space(source_[begin])) ++begin;
    } else if (trim_newline_ && begin < end && source_[begin] == '\n') {
      ++begin;
    }
    if (open < source_.size()) {
      const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
      if (sign == '-') {
        while (end > begin && is_space(source_[end - 1])) --end;
      } else if (sign != '+' && source_[open + 1] != '{') {
        // lstrip_blocks: a block that stands first in its line takes the indentation with it.
        size_t line = end;
        while (line > begin && source_[line - 1] != '\n' && is_space(source_[line - 1])) --line;
        const bool starts_line = line == 0 || source_[line - 1] == '\n';
        if (starts_line) end = line;
      }
    }
    strip_after_ = trim_newline_ = false;
    if (begin < end) push(Token::Kind::kText, begin).text = source_.substr(begin, end - begin);
    at_ = open;
  }

  Status comment(size_t open) {
    const size_t close = source_.find("#}", at_);
    if (close == std::string::npos) return template_error(place(open), "comment without #}");
    const char sign = close > open + 2 ? source_[close - 1] : '\0';
    strip_after_ = sign == '-';
    trim_newline_ = sign != '+';
    at_ = close + 2;
    return {};
  }

  // Behind "{%": the position behind "raw %}" when that is what stands here, else 0.
  size_t raw_begin() const {
    size_t i = at_;
    while (i < source_.size() && is_space(source_[i])) ++i;
    if (source_.compare(i, 3, "raw") != 0) return 0;
    i += 3;
    while (i < source_.size() && is_space(source_[i])) ++i;
    if (i < source_.size() && source_[i] == '-') ++i;
    return source_.compare(i, 2, "%}") == 0 ? i + 2 : 0;
  }

  Status raw(size_t open, size_t begin) {
    if (source_[begin - 3] == '-') {
      while (begin < source_.size() && is_space(source_[begin])) ++begin;
    } else if (begin < source_.size() && source_[begin] == '\n') {
      ++begin;
    }
    for (size_t i = source_.find("{%", begin); i != std::string::npos;
         i = source_.find("{%", i + 2)) {
      size_t j = i + 2;
      const bool strip_before = j < source_.size() && source_[j] == '-';
      if (strip_before) ++j;
      while (j < source_.size() && is_space(source_[j])) ++j;
      if (source_.compare(j, 6, "endraw") != 0) continue;
      j += 6;
      while (j < source_.size() && is_space(source_[j])) ++j;
      strip_after_ = j < source_.size() && source_[j] == '-';
      if (strip_after_) ++j;
      if (source_.compare(j, 2, "%}") != 0) continue;
      size_t end = i;
      while (strip_before && end > begin && is_space(source_[end - 1])) --end;
      if (begin < end) push(Token::Kind::kText, begin).text = source_.substr(begin, end - begin);
      trim_newline_ = true;
      at_ = j + 2;
      return {};
    }
    return template_error(place(open), "raw without endraw");
  }

  Status tag(size_t open, Token::Kind begin, Token::Kind end, std::string_view close) {
    push(begin, open).text = source_.substr(open, 2);
    int brackets = 0;
    while (true) {
      while (at_ < source_.size() && is_space(source_[at_])) ++at_;
      if (at_ == source_.size()) {
        return template_error(place(open), "tag without " + std::string(close));
      }
      const char c = source_[at_];
      const bool sign = (c == '-' || c == '+') && source_.compare(at_ + 1, 2, close) == 0;
      if (brackets == 0 && (sign || source_.compare(at_, 2, close) == 0)) {
        push(end, at_).text = close;
        strip_after_ = sign && c == '-';
        trim_newline_ = end == Token::Kind::kBlockEnd && !(sign && c == '+');
        at_ += sign ? 3 : 2;
        return {};
      }
      if (c == '(' || c == '[' || c == '{') ++brackets;
      if ((c == ')' || c == ']' || c == '}') && brackets > 0) --brackets;
      if (is_name_start(c)) {
        name();
      } else if (is_digit(c)) {
        POME_RETURN_IF_ERROR(number());
      } else if (c == '\'' || c == '"') {
        POME_RETURN_IF_ERROR(string());
      } else {
        POME_RETURN_IF_ERROR(operation());
      }
    }
  }

  void name() {
    const size_t begin = at_;
    while (at_ < source_.size() && (is_name_start(source_[at_]) || is_digit(source_[at_]))) ++at_;
    push(Token::Kind::kName, begin).text = source_.substr(begin, at_ - begin);
  }

  Status number() {
    const size_t begin = at_;
    std::string digits;
    bool is_float = false;
    const auto take = [&] {
      while (at_ < source_.size() && (is_digit(source_[at_]) || source_[at_] == '_')) {
        if (source_[at_] != '_') digits.push_back(source_[at_]);
        ++at_;
      }
    };
    take();
    if (at_ + 1 < source_.size() && source_[at_] == '.' && is_digit(source_[at_ + 1])) {
      is_float = true;
      digits.push_back(source_[at_++]);
      take();
    }
    if (at_ < source_.size() && (source_[at_] == 'e' || source_[at_] == 'E')) {
      size_t exponent = at_ + 1;
      if (exponent < source_.size() && (source_[exponent] == '-' || source_[exponent] == '+')) {
        ++exponent;
      }
      if (exponent < source_.size() && is_digit(source_[exponent])) {
        is_float = true;
        digits += source_.substr(at_, exponent - at_);
        at_ = exponent;
        take();
      }
    }
    if (is_float) {
      push(Token::Kind::kFloat, begin).number = std::strtod(digits.c_str(), nullptr);
      return {};
    }
    int64_t value = 0;
    for (const char c : digits) {
      if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
          __builtin_add_overflow(value, int64_t{c - '0'}, &value)) {
        return template_error(place(begin), "number does not fit 64 bits");
      }
    }
    push(Token::Kind::kInt, begin).integer = value;
    return {};
  }

  Status string() {
    const size_t begin = at_;
    const char quote = source_[at_++];
    std::string value;
    while (at_ < source_.size() && source_[at_] != quote) {
      if (source_[at_] != '\\' || at_ + 1 == source_.size()) {
        value.push_back(source_[at_++]);
        continue;
      }
      POME_RETURN_IF_ERROR(escape(value));
    }
    if (at_ == source_.size()) return template_error(place(begin), "string without closing quote");
    ++at_;
    push(Token::Kind::kString, begin).text = std::move(value);
    return {};
  }

  Status escape(std::string& value) {
    constexpr std::string_view kNames = "nrtbfav0\\'\"";
    constexpr std::string_view kBytes("\n\r\t\b\f\a\v\0\\'\"", 11);
    const char c = source_[at_ + 1];
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits != 0) {
      char32_t point = 0;
      for (size_t i = 0; i < digits; ++i) {
        const char hex = at_ + 2 + i < source_.size() ? source_[at_ + 2 + i] : ' ';
        const char lower = static_cast<char>(hex | 0x20);
        if (!is_digit(hex) && (lower < 'a' || lower > 'f')) {
          return template_error(place(at_), "escape needs hexadecimal digits");
        }
        point = point * 16 + static_cast<char32_t>(is_digit(hex) ? hex - '0' : lower - 'a' + 10);
      }
      if (point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) {
        return template_error(place(at_), "escape is no character");
      }
      append_utf8(value, point);
      at_ += 2 + digits;
      return {};
    }
    at_ += 2;
    if (c == '\n') return {};
    if (const size_t i = kNames.find(c); i != std::string_view::npos) {
      value.push_back(kBytes[i]);
    } else {
      value.push_back('\\');  // Python keeps the backslash of an unknown escape
      value.push_back(c);
    }
    return {};
  }

  Status operation() {
    static constexpr std::string_view kTwo[] = {"==", "!=", "<=", ">=", "//", "**"};
    for (const std::string_view two : kTwo) {
      if (source_.compare(at_, 2, two) == 0) {
        push(Token::Kind::kOperator, at_).text = two;
        at_ += 2;
        return {};
      }
    }
    const char c = source_[at_];
    if (std::string_view("+-*/%~<>=()[]{},.:|;").find(c) == std::string_view::npos) {
      return template_error(
          place(at_), "unexpected character \"" + escape_for_terminal(std::string(1, c)) + "\"");
    }
    push(Token::Kind::kOperator, at_).text = std::string(1, c);
    ++at_;
    return {};
  }

  Token& push(Token::Kind kind, size_t at) {
    Token token;
    token.kind = kind;
    token.place = place(at);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  // Asked for in rising order but for errors, so that counting goes on where it was.
  Place place(size_t at) {
    if (at < counted_) {
      counted_ = line_begin_ = 0;
      line_ = 1;
    }
    for (; counted_ < at; ++counted_) {
      if (source_[counted_] == '\n') {
        ++line_;
        line_begin_ = counted_ + 1;
      }
    }
    return {line_, static_cast<int>(at - line_begin_) + 1};
  }

  std::string source_;
  size_t at_ = 0, counted_ = 0, line_begin_ = 0;
  int line_ = 1;
  bool strip_after_ = false, trim_newline_ = false;
  std::vector<Token> tokens_;
};

}  // namespace

Status template_error(Place place, std::string message) {
  return bad_input(Refusal::kTemplate, std::move(message))
      .at("line " + std::to_string(place.line) + " column " + std::to_string(place.column));
}

Result<std::vector<Token>> tokenize_template(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace pome::jinja
