#include "tokenizer/jinja/lexer.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex_digit(char c) {
  const char lower = static_cast<char>(c | 0x20);
  return is_digit(c) || (lower >= 'a' && lower <= 'f');
}
int digit_value(char c) { return is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10; }

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

  size_t skip_space(size_t at) const {
    while (at < source_.size()) {
      const Rune rune = decode_rune(source_, at);
      if (!is_python_space(rune.point)) break;
      at += rune.size;
    }
    return at;
  }
  // Back over white space in [begin, end), not over a newline where the line is wanted.
  size_t skip_space_before(size_t begin, size_t end, bool in_line) const {
    while (end > begin) {
      const Rune rune = decode_rune_before(std::string_view(source_).substr(0, end), end);
      if (!is_python_space(rune.point) || (in_line && rune.point == '\n')) break;
      end -= rune.size;
    }
    return end;
  }

  // The end of the text in [begin, end) before a tag with this sign.
  size_t text_end(size_t begin, size_t end, char sign) const {
    if (sign == '-') return skip_space_before(begin, end, false);
    if (sign == '+') return end;
    // lstrip_blocks: a block that stands first in its line takes the indentation with it.
    const size_t line = skip_space_before(begin, end, true);
    return line == 0 || source_[line - 1] == '\n' ? line : end;
  }

  void push_text(size_t begin, size_t end) {
    if (begin < end) push(Token::Kind::kText, begin).text = source_.substr(begin, end - begin);
  }

  // Text in [at_, open), cut by what stands on both sides of it. What the tag before it took with
  // it is skipped already.
  void text(size_t open) {
    size_t end = open;
    if (open < source_.size()) {
      const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
      if (source_[open + 1] != '{' || sign == '-') end = text_end(at_, open, sign);
    }
    push_text(at_, end);
    at_ = open;
  }

  // Behind a tag: white space after "-", one newline after a block.
  size_t behind(size_t at, bool strip, bool trim) const {
    if (strip) return skip_space(at);
    return trim && at < source_.size() && source_[at] == '\n' ? at + 1 : at;
  }

  Status comment(size_t open) {
    const size_t close = source_.find("#}", at_);
    if (close == std::string::npos) return template_error(place(open), "comment without #}");
    const char sign = close > at_ ? source_[close - 1] : '\0';
    at_ = behind(close + 2, sign == '-', sign != '+');
    return {};
  }

  // Behind "{%": the position behind "raw %}" when that is what stands here, else 0.
  size_t raw_begin() const {
    size_t i = skip_space(at_);
    if (source_.compare(i, 3, "raw") != 0) return 0;
    i = skip_space(i + 3);
    const bool strip = i < source_.size() && source_[i] == '-';
    if (strip) ++i;
    return source_.compare(i, 2, "%}") == 0 ? behind(i + 2, strip, false) : 0;
  }

  Status raw(size_t open, size_t begin) {
    for (size_t i = source_.find("{%", begin); i != std::string::npos;
         i = source_.find("{%", i + 2)) {
      size_t j = i + 2;
      const char before = j < source_.size() ? source_[j] : '\0';
      if (before == '-' || before == '+') ++j;
      j = skip_space(j);
      if (source_.compare(j, 6, "endraw") != 0) continue;
      j = skip_space(j + 6);
      const char after = j < source_.size() ? source_[j] : '\0';
      if (after == '-' || after == '+') ++j;
      if (source_.compare(j, 2, "%}") != 0) continue;
      push_text(begin, text_end(begin, i, before));
      at_ = behind(j + 2, after == '-', after != '+');
      return {};
    }
    return template_error(place(open), "raw without endraw");
  }

  Status tag(size_t open, Token::Kind begin, Token::Kind end, std::string_view close) {
    push(begin, open).text = source_.substr(open, 2);
    const bool block = end == Token::Kind::kBlockEnd;
    std::string brackets;  // that are open, as what closes them
    while (true) {
      at_ = skip_space(at_);
      if (at_ == source_.size()) {
        return template_error(place(open), "tag without " + std::string(close));
      }
      const char c = source_[at_];
      const bool sign =
          (c == '-' || (block && c == '+')) && source_.compare(at_ + 1, 2, close) == 0;
      if (brackets.empty() && (sign || source_.compare(at_, 2, close) == 0)) {
        push(end, at_).text = close;
        at_ = behind(at_ + (sign ? 3 : 2), sign && c == '-', block && !sign);
        return {};
      }
      if (c == '(') brackets.push_back(')');
      if (c == '[') brackets.push_back(']');
      if (c == '{') brackets.push_back('}');
      if (c == ')' || c == ']' || c == '}') {
        if (brackets.empty() || brackets.back() != c) {
          return template_error(place(at_), std::string("unexpected \"") + c + "\"");
        }
        brackets.pop_back();
      }
      if (is_digit(c)) {
        POME_RETURN_IF_ERROR(number());
      } else if (c == '\'' || c == '"') {
        POME_RETURN_IF_ERROR(string());
      } else if (!name()) {
        POME_RETURN_IF_ERROR(operation());
      }
    }
  }

  bool name() {
    size_t end = at_;
    while (end < source_.size()) {
      const Rune rune = decode_rune(source_, end);
      if (!rune.valid || !is_word_character(rune.point)) break;
      end += rune.size;
    }
    if (end == at_) return false;
    push(Token::Kind::kName, at_).text = source_.substr(at_, end - at_);
    at_ = end;
    return true;
  }

  // The end of digits with single underscores between them.
  size_t digits_end(size_t at) const {
    while (at < source_.size()) {
      if (is_digit(source_[at])) {
        ++at;
      } else if (source_[at] == '_' && at + 1 < source_.size() && is_digit(source_[at + 1])) {
        ++at;
      } else {
        break;
      }
    }
    return at;
  }

  Status number() {
    const size_t begin = at_;
    const auto digit_at = [&](size_t at) { return at < source_.size() && is_digit(source_[at]); };
    size_t end = digits_end(begin);
    const size_t whole = end;
    if (begin == 0 || source_[begin - 1] != '.') {
      if (source_.compare(end, 1, ".") == 0 && digit_at(end + 1)) end = digits_end(end + 1);
      if (end < source_.size() && (source_[end] | 0x20) == 'e') {
        size_t exponent = end + 1;
        if (exponent < source_.size() && (source_[exponent] == '-' || source_[exponent] == '+')) {
          ++exponent;
        }
        if (digit_at(exponent)) end = digits_end(exponent);
      }
    }
    if (end == whole) return integer(whole);
    std::string digits = source_.substr(begin, end - begin);
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    push(Token::Kind::kFloat, begin).number = std::strtod(digits.c_str(), nullptr);
    at_ = end;
    return {};
  }

  Status integer(size_t end) {
    const size_t begin = at_;
    int base = 10;
    size_t digits = begin;
    if (source_[begin] == '0') {
      const char mark =
          begin + 1 < source_.size() ? static_cast<char>(source_[begin + 1] | 0x20) : ' ';
      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      if (base != 10) {
        digits = end = begin + 2;
        while (end < source_.size() && (source_[end] == '_' || is_hex_digit(source_[end]))) ++end;
      }
    }
    int64_t value = 0;
    for (size_t i = digits; i < end; ++i) {
      if (source_[i] == '_') continue;
      const int digit = digit_value(source_[i]);
      const bool leading_zero = base == 10 && source_[begin] == '0' && digit != 0;
      if (digit >= base || leading_zero) return template_error(place(i), "unexpected digit");
      if (__builtin_mul_overflow(value, int64_t{base}, &value) ||
          __builtin_add_overflow(value, int64_t{digit}, &value)) {
        return template_error(place(begin), "number does not fit 64 bits");
      }
    }
    if (digits == end) return template_error(place(begin), "number without digits");
    push(Token::Kind::kInt, begin).integer = value;
    at_ = end;
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
    constexpr std::string_view kNames = "nrtbfav\\'\"";
    constexpr std::string_view kBytes = "\n\r\t\b\f\a\v\\'\"";
    const char c = source_[at_ + 1];
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    char32_t point = 0;
    if (digits != 0) {
      for (size_t i = 0; i < digits; ++i) {
        const char hex = at_ + 2 + i < source_.size() ? source_[at_ + 2 + i] : ' ';
        if (!is_hex_digit(hex)) {
          return template_error(place(at_), "escape needs hexadecimal digits");
        }
        point = point * 16 + static_cast<char32_t>(digit_value(hex));
      }
      if (point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) {
        return template_error(place(at_), "escape is no character");
      }
      append_utf8(value, point);
      at_ += 2 + digits;
      return {};
    }
    if (c >= '0' && c <= '7') {
      size_t end = at_ + 1;
      for (; end < at_ + 4 && end < source_.size() && source_[end] >= '0' && source_[end] <= '7';
           ++end) {
        point = point * 8 + static_cast<char32_t>(source_[end] - '0');
      }
      append_utf8(value, point);
      at_ = end;
      return {};
    }
    if (c == 'N') return template_error(place(at_), "characters by name are not supported");
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
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokenize_template(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace pome::jinja
