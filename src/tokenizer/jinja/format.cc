#include "tokenizer/jinja/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <optional>

#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/print.h"
#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

constexpr int64_t kMaxWidth = 100000;

std::string digits_of(uint64_t value, unsigned base, bool upper) {
  std::string out;
  do {
    const char* const symbols = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    out.insert(out.begin(), symbols[value % base]);
    value /= base;
  } while (value != 0);
  return out;
}

// How one value is laid out, of either kind of pattern.
struct Spec {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', '=' (behind the sign)
  char sign = '-';
  bool alternate = false, comma = false, underscore = false;
  int64_t width = 0, precision = -1;
  char type = 0;
};

uint64_t magnitude(int64_t value) {
  return value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
}

std::string sign_of(bool negative, char sign) {
  if (negative) return "-";
  return sign == '-' ? "" : std::string(1, sign);
}

std::string grouped(std::string digits, char mark, size_t size) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  for (size_t at = whole; at > size;) {
    at -= size;
    digits.insert(at, 1, mark);
  }
  return digits;
}

// Sign and body of a number, padded between them where the alignment asks for that.
Text padded_number(const Spec& spec, const std::string& sign, std::string body) {
  const char align = spec.align ? spec.align : '>';
  const auto missing = static_cast<int64_t>(
      std::max<int64_t>(spec.width - static_cast<int64_t>(sign.size() + body.size()), 0));
  if (align == '=') {
    std::string fill;
    for (int64_t i = 0; i < missing; ++i) fill += spec.fill;
    return Text(sign + fill + body);
  }
  const int64_t before = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  return padded(Text(sign + body), before, missing - before, spec.fill);
}

std::string float_digits(const Spec& spec, double value, char type, int64_t precision) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return "inf";
  const char pattern[] = {'%',
                          spec.alternate ? '#' : '.',
                          spec.alternate ? '.' : '*',
                          spec.alternate ? '*' : type,
                          spec.alternate ? type : '\0',
                          '\0'};
  const int count = static_cast<int>(precision);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  const int size = std::snprintf(nullptr, 0, pattern, count, value);
  std::string out(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(out.data(), out.size(), pattern, count, value);
#pragma GCC diagnostic pop
  out.pop_back();
  return out;
}

Text format_float(const Spec& spec, double value) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double positive = std::fabs(value);
  const bool upper = spec.type == 'E' || spec.type == 'F' || spec.type == 'G';
  const char lower = static_cast<char>(spec.type | 0x20);
  std::string body;
  if (spec.type == '%') {
    body = float_digits(spec, positive * 100, 'f', spec.precision < 0 ? 6 : spec.precision) + "%";
  } else if (spec.type == 0 && spec.precision < 0) {
    body = float_text(positive);
  } else {
    const int64_t precision = spec.precision < 0 ? 6 : spec.precision;
    body = float_digits(spec, positive, spec.type == 0 ? 'g' : lower, precision);
    if (spec.type == 0 && std::isfinite(value) && body.find_first_of(".e") == std::string::npos) {
      body += ".0";
    }
  }
  if (upper) {
    for (char& c : body) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  }
  if (spec.comma) body = grouped(std::move(body), ',', 3);
  if (spec.underscore) body = grouped(std::move(body), '_', 3);
  return padded_number(spec, sign_of(negative, spec.sign), std::move(body));
}

Result<Text> format_int(Place place, const Spec& spec, int64_t value) {
  const char type = spec.type ? spec.type : 'd';
  if (type == 'e' || type == 'E' || type == 'f' || type == 'F' || type == 'g' || type == 'G' ||
      type == '%') {
    return format_float(spec, static_cast<double>(value));
  }
  if (type == 'c') {
    if (value < 0 || value > 0x10FFFF) return template_error(place, "a number is no character");
    std::string out;
    append_utf8(out, static_cast<char32_t>(value));
    return padded_number(spec, "", out);
  }
  const unsigned base = type == 'd' || type == 'n'   ? 10
                        : type == 'b'                ? 2
                        : type == 'o'                ? 8
                        : type == 'x' || type == 'X' ? 16
                                                     : 0;
  if (base == 0) return template_error(place, "unknown format of a number");
  std::string body = digits_of(magnitude(value), base, type == 'X');
  if (spec.precision > static_cast<int64_t>(body.size())) {
    body.insert(0, static_cast<size_t>(spec.precision) - body.size(), '0');
  }
  if (spec.comma) body = grouped(std::move(body), ',', 3);
  if (spec.underscore) body = grouped(std::move(body), '_', base == 10 ? 3 : 4);
  std::string sign = sign_of(value < 0, spec.sign);
  if (spec.alternate && base != 10) sign += std::string("0") + type;
  return padded_number(spec, sign, std::move(body));
}

Text format_text(const Spec& spec, const Text& text) {
  const Text cut =
      spec.precision < 0 ? text : text.slice(0, byte_of_character(text.bytes(), spec.precision));
  const char align = spec.align ? spec.align : '<';
  const int64_t missing = std::max<int64_t>(spec.width - count_characters(cut.bytes()), 0);
  const int64_t before = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  return padded(cut, before, missing - before, spec.fill);
}

// A pattern of which parts are copied with their origin.
class Pattern {
 public:
  explicit Pattern(const Text& text) : text_(text) {}
  bool done() const { return at_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_.bytes()[at_]; }
  char take() { return text_.bytes()[at_++]; }
  size_t at() const { return at_; }
  void copy_to(Text& out, size_t begin, size_t end) const { out.append(text_, begin, end); }
  size_t find_any(std::string_view marks) const {
    return std::min(text_.bytes().find_first_of(marks, at_), text_.size());
  }
  void go(size_t at) { at_ = at; }
  const std::string& bytes() const { return text_.bytes(); }
  Result<int64_t> number(Place place) {
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (take() - '0');
      if (value > kMaxWidth) return template_error(place, "a width is larger than 100000");
    }
    return value;
  }

 private:
  const Text& text_;
  size_t at_ = 0;
};

// The values that a "%" pattern takes, one after the other or by name.
class PercentValues {
 public:
  explicit PercentValues(const Value& all) : all_(all) {
    several_ = all.is(Kind::kSequence) && all.sequence().is_tuple();
  }
  Result<Value> next(Place place) {
    const size_t count = several_ ? all_.items().size() : 1;
    if (next_ >= count) return template_error(place, "the format wants more values");
    ++next_;
    return several_ ? all_.items()[next_ - 1] : all_;
  }
  Result<Value> named(Place place, const Text& name) {
    if (!all_.is(Kind::kDict)) return template_error(place, "the format needs a dictionary");
    by_name_ = true;
    if (const Value* value = all_.dict().find(Value(name))) return *value;
    return template_error(
        place, "the format has no value \"" + escape_for_terminal(name.bytes(), 60) + "\"");
  }
  // What is left over is an error, but for a dictionary or another value that has items.
  Status finish(Place place) const {
    const bool has_items =
        all_.is(Kind::kDict) || all_.is(Kind::kUndefined) || by_name_ ||
        (all_.is(Kind::kSequence) && !all_.sequence().is_tuple() && !all_.sequence().is_view());
    if (next_ >= (several_ ? all_.items().size() : 1) || has_items) return {};
    return template_error(place, "the format does not take all values");
  }

 private:
  const Value& all_;
  bool several_ = false, by_name_ = false;
  size_t next_ = 0;
};

Result<Text> percent_value(Context& context, Place place, Spec spec, const Value& value) {
  if (spec.type == 's' || spec.type == 'r' || spec.type == 'a') {
    POME_ASSIGN_OR_RETURN(const Text text, spec.type == 's' ? to_text(context, place, value)
                                                            : repr(context, place, value));
    if (spec.align == 0 || spec.align == '=') spec.align = '>';
    spec.fill = " ";
    return format_text(spec, text);
  }
  if (spec.type == 'c' && value.is(Kind::kString)) {
    if (count_characters(value.text().bytes()) != 1) {
      return template_error(place, "%c needs one character");
    }
    if (spec.align == 0) spec.align = '>';
    return format_text(spec, value.text());
  }
  if (value.is(Kind::kUndefined)) return template_error(place, value.undefined_message());
  if (!value.is_number()) {
    return template_error(place,
                          "the format needs a number, not a " + std::string(value.type_name()));
  }
  if (spec.type == 'd' || spec.type == 'i' || spec.type == 'u') {
    spec.type = 'd';
    const double number = value.to_double();
    if (value.is(Kind::kFloat)) {
      if (!(number >= -9.2e18 && number <= 9.2e18)) {
        return template_error(place, "the number does not fit 64 bits");
      }
      return format_int(place, spec, static_cast<int64_t>(number));
    }
    return format_int(place, spec, value.to_int());
  }
  const bool integral =
      spec.type == 'x' || spec.type == 'X' || spec.type == 'o' || spec.type == 'c';
  if (integral) {
    if (value.is(Kind::kFloat)) return template_error(place, "the format needs a whole number");
    return format_int(place, spec, value.to_int());
  }
  if (std::string_view("eEfFgG").find(spec.type) == std::string_view::npos) {
    return template_error(place, "unknown format character");
  }
  return format_float(spec, value.to_double());
}

}  // namespace

Result<Text> percent_format(Context& context, Place place, const Text& pattern,
                            const Value& arguments) {
  POME_RETURN_IF_ERROR(context.spend(place, pattern.size()));
  Pattern in(pattern);
  PercentValues values(arguments);
  Text out;
  while (!in.done()) {
    const size_t mark = in.find_any("%");
    in.copy_to(out, in.at(), mark);
    in.go(mark);
    if (in.done()) break;
    in.take();
    std::optional<Value> named;
    if (in.peek() == '(') {
      const size_t begin = in.at() + 1;
      int open = 0;
      do {
        if (in.done()) return template_error(place, "the format has an open parenthesis");
        const char c = in.take();
        open += c == '(' ? 1 : c == ')' ? -1 : 0;
      } while (open > 0);
      POME_ASSIGN_OR_RETURN(Value value, values.named(place, pattern.slice(begin, in.at() - 1)));
      named = std::move(value);
    }
    Spec spec;
    bool left = false;
    for (; std::string_view("-+ #0").find(in.peek()) != std::string_view::npos && !in.done();) {
      const char flag = in.take();
      if (flag == '-') left = true;
      if (flag == '+' || (flag == ' ' && spec.sign != '+')) spec.sign = flag;
      if (flag == '#') spec.alternate = true;
      if (flag == '0') {
        spec.fill = "0";
        spec.align = '=';
      }
    }
    const auto size = [&]() -> Result<int64_t> {
      if (in.peek() != '*') return in.number(place);
      in.take();
      POME_ASSIGN_OR_RETURN(const Value value, values.next(place));
      if (!value.is_integral() || value.to_int() > kMaxWidth || value.to_int() < -kMaxWidth) {
        return template_error(place, "* needs a whole number");
      }
      return value.to_int();
    };
    POME_ASSIGN_OR_RETURN(spec.width, size());
    if (spec.width < 0) {
      left = true;
      spec.width = -spec.width;
    }
    if (in.peek() == '.') {
      in.take();
      POME_ASSIGN_OR_RETURN(spec.precision, size());
      spec.precision = std::max<int64_t>(spec.precision, 0);
    }
    if (left) {
      spec.align = '<';
      spec.fill = " ";
    }
    while (in.peek() == 'l' || in.peek() == 'h' || in.peek() == 'L') in.take();
    if (in.done()) return template_error(place, "the format ends in the middle");
    spec.type = in.take();
    if (spec.type == '%') {
      out.append("%", false);
      continue;
    }
    if (!named) {
      POME_ASSIGN_OR_RETURN(Value value, values.next(place));
      named = std::move(value);
    }
    POME_ASSIGN_OR_RETURN(const Text text, percent_value(context, place, spec, *named));
    POME_RETURN_IF_ERROR(context.room(place, text.size()));
    out.append(text);
  }
  POME_RETURN_IF_ERROR(values.finish(place));
  return out;
}

namespace {

Result<Spec> parse_spec(Place place, const std::string& text, bool number) {
  Spec spec;
  const Text owned(text);
  Pattern in(owned);
  if (text.empty()) return spec;
  const size_t first = decode_rune(text, 0).size;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (first < text.size() && is_align(text[first])) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    in.go(first + 1);
  } else if (is_align(text[0])) {
    spec.align = in.take();
  }
  if (in.peek() == '+' || in.peek() == '-' || in.peek() == ' ') spec.sign = in.take();
  if (in.peek() == '#') {
    spec.alternate = true;
    in.take();
  }
  if (in.peek() == '0') {
    in.take();
    if (spec.align == 0) {
      spec.fill = "0";
      if (number) spec.align = '=';
    }
  }
  POME_ASSIGN_OR_RETURN(spec.width, in.number(place));
  if (in.peek() == ',' || in.peek() == '_')
    (in.take() == ',' ? spec.comma : spec.underscore) = true;
  if (in.peek() == '.') {
    in.take();
    if (in.peek() < '0' || in.peek() > '9') return template_error(place, "precision is missing");
    POME_ASSIGN_OR_RETURN(spec.precision, in.number(place));
  }
  if (!in.done()) spec.type = in.take();
  if (!in.done()) return template_error(place, "the format specifier is wrong");
  return spec;
}

Result<Text> format_value(Context& context, Place place, const Value& value,
                          const std::string& text) {
  if (text.empty()) return to_text(context, place, value);
  if (!value.is(Kind::kString) && !value.is_number()) {
    return template_error(place, "a " + std::string(value.type_name()) + " takes no format");
  }
  POME_ASSIGN_OR_RETURN(const Spec spec, parse_spec(place, text, value.is_number()));
  if (value.is(Kind::kString)) {
    if ((spec.type != 0 && spec.type != 's') || spec.sign != '-' || spec.comma || spec.underscore ||
        spec.alternate || spec.align == '=') {
      return template_error(place, "the format does not fit a string");
    }
    return format_text(spec, value.text());
  }
  if (value.is(Kind::kFloat)) {
    if (spec.type != 0 && std::string_view("eEfFgGn%").find(spec.type) == std::string_view::npos) {
      return template_error(place, "the format does not fit a float");
    }
    return format_float(spec, value.to_double());
  }
  const bool as_float = std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  if (spec.precision >= 0 && (spec.type == 0 || !as_float)) {
    return template_error(place, "a whole number has no precision");
  }
  return format_int(place, spec, value.to_int());
}

// Fields of a str.format() pattern.
class BraceFormat {
 public:
  BraceFormat(Context& context, Place place, const List& positional, const Dict& named)
      : context_(context), place_(place), positional_(positional), named_(named) {}

  Result<Text> run(const Text& pattern, int nested) {
    POME_RETURN_IF_ERROR(context_.spend(place_, pattern.size()));
    Pattern in(pattern);
    Text out;
    while (!in.done()) {
      const size_t mark = in.find_any("{}");
      in.copy_to(out, in.at(), mark);
      in.go(mark);
      if (in.done()) break;
      const char c = in.take();
      if (in.peek() == c) {
        in.copy_to(out, mark, mark + 1);
        in.take();
        continue;
      }
      if (c == '}') return template_error(place_, "the format has a \"}\" without \"{\"");
      if (nested > 1) return template_error(place_, "the format is nested too deeply");
      POME_ASSIGN_OR_RETURN(const Text text, field(pattern, in, nested));
      POME_RETURN_IF_ERROR(context_.room(place_, text.size()));
      out.append(text);
    }
    return out;
  }

 private:
  Result<Text> field(const Text& pattern, Pattern& in, int nested) {
    const size_t begin = in.at();
    int open = 1;
    size_t colon = 0;
    while (open > 0) {
      if (in.done()) return template_error(place_, "the format has an open \"{\"");
      const char c = in.take();
      open += c == '{' ? 1 : c == '}' ? -1 : 0;
      if (c == ':' && open == 1 && colon == 0) colon = in.at() - 1;
    }
    const size_t end = in.at() - 1;
    std::string name = in.bytes().substr(begin, (colon ? colon : end) - begin);
    char conversion = 0;
    if (const size_t mark = name.find('!'); mark != std::string::npos) {
      if (mark + 2 != name.size()) return template_error(place_, "the conversion is wrong");
      conversion = name.back();
      name.resize(mark);
    }
    POME_ASSIGN_OR_RETURN(Value value, look_up(name));
    if (conversion != 0) {
      if (conversion != 's' && conversion != 'r') {
        return template_error(place_, "the conversion is wrong");
      }
      POME_ASSIGN_OR_RETURN(Text text, conversion == 's' ? to_text(context_, place_, value)
                                                         : repr(context_, place_, value));
      value = Value(std::move(text));
    }
    std::string spec;
    if (colon != 0) {
      POME_ASSIGN_OR_RETURN(const Text filled, run(pattern.slice(colon + 1, end), nested + 1));
      spec = filled.bytes();
    }
    return format_value(context_, place_, value, spec);
  }

  Result<Value> look_up(const std::string& name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    const std::string first = name.substr(0, end);
    POME_ASSIGN_OR_RETURN(Value value, argument(first));
    size_t at = end;
    while (at < name.size()) {
      const bool attribute = name[at] == '.';
      const size_t begin = at + 1;
      at = std::min(name.find_first_of(attribute ? ".[" : "]", begin), name.size());
      const std::string part = name.substr(begin, at - begin);
      if (part.empty() || (!attribute && at == name.size())) {
        return template_error(place_, "the format names an empty attribute");
      }
      if (attribute) {
        POME_ASSIGN_OR_RETURN(value, get_attribute(context_, place_, value, part));
        continue;
      }
      ++at;
      const bool number = part.find_first_not_of("0123456789") == std::string::npos;
      const Value key = number && part.size() < 10 ? Value(int64_t{std::stoi(part)})
                                                   : Value(std::string_view(part));
      POME_ASSIGN_OR_RETURN(value, get_item(context_, place_, value, key));
    }
    return value;
  }

  Result<Value> argument(const std::string& name) {
    const bool number = name.find_first_not_of("0123456789") == std::string::npos;
    if (!number) {
      if (const Value* value = named_.find(name)) return *value;
      return template_error(place_,
                            "the format has no value \"" + escape_for_terminal(name, 60) + "\"");
    }
    if (name.empty() ? counted_ == Counted::kManual : counted_ == Counted::kAutomatic) {
      return template_error(place_, "the format mixes numbered and automatic fields");
    }
    counted_ = name.empty() ? Counted::kAutomatic : Counted::kManual;
    const size_t index = name.empty()       ? next_++
                         : name.size() < 10 ? static_cast<size_t>(std::stoi(name))
                                            : positional_.size();
    if (index >= positional_.size()) return template_error(place_, "the format wants more values");
    return positional_[index];
  }

  enum class Counted : uint8_t { kUnknown, kManual, kAutomatic };
  Context& context_;
  Place place_;
  const List& positional_;
  const Dict& named_;
  Counted counted_ = Counted::kUnknown;
  size_t next_ = 0;
};

}  // namespace

Result<Text> brace_format(Context& context, Place place, const Text& pattern,
                          const List& positional, const Dict& named) {
  return BraceFormat(context, place, positional, named).run(pattern, 0);
}

}  // namespace pome::jinja
