// Filters that give text or numbers, and the table of all filters.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/print.h"
#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

// A filter that maps one text to another.
template <Text (*map)(const Text&)>
Result<Value> mapped(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  POME_RETURN_IF_ERROR(call.context.spend(call.place, text.size() / 4));
  return call.context.made(call.place, map(text), call.self().is_markup());
}

Result<Value> center_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  POME_ASSIGN_OR_RETURN(const int64_t width, call.integer(1, 80));
  POME_RETURN_IF_ERROR(
      call.context.room(call.place, static_cast<uint64_t>(std::max<int64_t>(width, 0))));
  return call.context.made(call.place, centered(text, width, " "), call.self().is_markup());
}

Result<Value> escape_filter(Call& call) {
  if (call.self().is_markup()) return call.self();
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  return call.context.made(call.place, html_escaped(text), true);
}
Result<Value> force_escape_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  return call.context.made(call.place, html_escaped(text), true);
}
Result<Value> safe_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(Text text, call.text_of(call.self()));
  return call.context.made(call.place, std::move(text), true);
}
Result<Value> string_filter(Call& call) {
  if (call.self().is(Kind::kString)) return call.self();
  POME_ASSIGN_OR_RETURN(Text text, call.text_of(call.self()));
  return call.context.made(call.place, std::move(text));
}

Result<Value> format_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text pattern, call.text_of(call.self()));
  if (!call.rest.empty() && !call.named.empty()) {
    return call.fail("takes values by position or by name, not both");
  }
  const Value values = call.named.empty() ? Value::tuple(std::move(call.rest)) : Value(call.named);
  POME_ASSIGN_OR_RETURN(Text out, percent_format(call.context, call.place, pattern, values));
  return call.context.made(call.place, std::move(out), call.self().is_markup());
}

Result<Value> indent_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(Text text, call.string(call.self()));
  Text indent;
  if (const Value* width = call.find(1); width != nullptr && width->is(Kind::kString)) {
    indent = width->text();
  } else {
    POME_ASSIGN_OR_RETURN(const int64_t spaces, call.integer(1, 4));
    POME_RETURN_IF_ERROR(
        call.context.room(call.place, static_cast<uint64_t>(std::max<int64_t>(spaces, 0))));
    indent = Text(std::string(static_cast<size_t>(std::max<int64_t>(spaces, 0)), ' '));
  }
  const bool first = call.flag(2), blank = call.flag(3);
  text.append("\n", false);
  const std::vector<Text> lines = split_lines(text, false);
  POME_RETURN_IF_ERROR(call.context.room(
      call.place, text.size() + lines.size() * (sizeof(Text) + indent.size() + 1)));
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n", false);
    if (i == 0 ? first : blank || !lines[i].empty()) out.append(indent);
    out.append(lines[i]);
  }
  return call.context.made(call.place, std::move(out), call.self().is_markup());
}

Result<Value> replace_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  POME_ASSIGN_OR_RETURN(const Text old, call.text_of(*call.find(1)));
  POME_ASSIGN_OR_RETURN(const Text fresh, call.text_of(*call.find(2)));
  int64_t count = -1;
  if (const Value* given = call.find(3); given != nullptr && !given->is(Kind::kNone)) {
    POME_ASSIGN_OR_RETURN(count, call.integer(3, -1));
  }
  return replaced(call, text, old, fresh, count);
}

Result<Value> trim_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  POME_ASSIGN_OR_RETURN(const auto characters, call.text(1));
  return call.context.made(
      call.place,
      strip(text, true, true,
            characters ? std::optional<std::string>(characters->bytes()) : std::nullopt),
      call.self().is_markup());
}

Result<Value> truncate_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const int64_t length, call.integer(1, 255));
  Text end("...");
  if (call.find(3) != nullptr) {
    POME_ASSIGN_OR_RETURN(end, call.string(*call.find(3)));
  }
  int64_t leeway = 5;
  if (const Value* given = call.find(4); given != nullptr && !given->is(Kind::kNone)) {
    POME_ASSIGN_OR_RETURN(leeway, call.integer(4, 5));
  }
  const int64_t kept = std::max<int64_t>(length, -1) - count_characters(end.bytes());
  if (kept < 0 || leeway < 0) return call.fail("the length or the leeway is too small");
  const int64_t size = length_of(call.self());
  if (size >= 0 && size - length <= leeway) return call.self();
  POME_ASSIGN_OR_RETURN(const Text text, call.string(call.self()));
  Text out = text.slice(0, byte_of_character(text.bytes(), kept));
  if (!call.flag(2)) out = split(out, " ", 1, true).front();
  out.append(end);
  return call.context.made(call.place, std::move(out), call.self().is_markup());
}

Result<Value> url_filter(Call& call) {
  const Value& value = call.self();
  if (value.is(Kind::kString) || !is_iterable(value)) {
    POME_ASSIGN_OR_RETURN(const Text text, call.text_of(value));
    return call.context.made(call.place, url_quoted(text, false));
  }
  List pairs;
  if (value.is(Kind::kDict)) {
    for (const auto& [key, item] : value.dict()) pairs.push_back(Value::tuple({key, item}));
  } else {
    POME_ASSIGN_OR_RETURN(pairs, items_of(call.context, call.place, value));
  }
  Text out;
  for (const Value& pair : pairs) {
    POME_ASSIGN_OR_RETURN(const List parts, items_of(call.context, call.place, pair));
    if (parts.size() != 2) return call.fail("pairs are needed");
    if (!out.empty()) out.append("&", false);
    for (size_t i = 0; i < 2; ++i) {
      POME_ASSIGN_OR_RETURN(const Text part, call.text_of(parts[i]));
      if (i == 1) out.append("=", false);
      out.append(url_quoted(part, true));
    }
    POME_RETURN_IF_ERROR(call.context.room(call.place, out.size() / 64));
  }
  return call.context.made(call.place, std::move(out));
}

Result<Value> xml_attributes_filter(Call& call) {
  if (!call.self().is(Kind::kDict)) return call.fail("a dictionary is needed");
  Text out;
  for (const auto& [key, value] : call.self().dict()) {
    if (value.is(Kind::kNone) || value.is(Kind::kUndefined)) continue;
    POME_ASSIGN_OR_RETURN(const Text name, call.string(key));
    if (name.bytes().find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      return call.fail("a key cannot be the name of an attribute");
    }
    POME_ASSIGN_OR_RETURN(const Text text, call.text_of(value));
    if (!out.empty() || call.flag(1, true)) out.append(" ", false);
    out.append(key.is_markup() ? name : html_escaped(name));
    out.append("=\"", false);
    out.append(value.is_markup() ? text : html_escaped(text));
    out.append("\"", false);
  }
  return call.context.made(call.place, std::move(out));
}

Result<Value> word_count_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  return Value(count_words(text.bytes()));
}

Result<Value> json_filter(Call& call) {
  JsonStyle style;
  style.ascii = call.flag(1);
  if (const Value* indent = call.find(2); indent != nullptr && !indent->is(Kind::kNone)) {
    if (indent->is(Kind::kString)) {
      style.indent = indent->text().bytes();
    } else {
      POME_ASSIGN_OR_RETURN(const int64_t spaces, call.integer(2, 0));
      if (spaces > 1000) return call.fail("the indent is larger than 1000");
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(spaces, 0)), ' ');
    }
    style.item_separator = Text(",");
  }
  if (const Value* given = call.find(3); given != nullptr && !given->is(Kind::kNone)) {
    POME_ASSIGN_OR_RETURN(const List both, items_of(call.context, call.place, *given));
    if (both.size() != 2) return call.fail("two separators are needed");
    POME_ASSIGN_OR_RETURN(style.item_separator, call.string(both[0]));
    POME_ASSIGN_OR_RETURN(style.key_separator, call.string(both[1]));
  }
  style.sort_keys = call.flag(4);
  POME_ASSIGN_OR_RETURN(Text out, to_json(call.context, call.place, call.self(), style));
  return call.context.made(call.place, std::move(out));
}

// --- numbers ---

Result<Value> abs_filter(Call& call) {
  const Value& value = call.self();
  if (value.is(Kind::kUndefined)) return template_error(call.place, value.undefined_message());
  if (!value.is_number()) return call.fail("a number is needed");
  if (value.is(Kind::kFloat)) return Value(std::fabs(value.to_double()));
  return value.to_int() < 0 ? negative(call.place, value) : Value(value.to_int());
}

// Text as Python's int() reads it; nullopt when it is no such number.
Result<std::optional<int64_t>> parse_int(const Call& call, std::string text, int64_t base) {
  size_t at = 0;
  bool minus = false;
  if (at < text.size() && (text[at] == '-' || text[at] == '+')) minus = text[at++] == '-';
  if (text.size() - at > 2 && text[at] == '0') {
    const char mark = static_cast<char>(text[at + 1] | 0x20);
    const int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) {
      base = marked;
      at += text[at + 2] == '_' ? 3 : 2;
    }
  }
  if (base == 0) base = 10;
  int64_t value = 0;
  bool any = false, overflow = false, last_digit = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '_' && last_digit && at + 1 < text.size()) {
      last_digit = false;
      continue;
    }
    const char lower = static_cast<char>(c | 0x20);
    const int digit = c >= '0' && c <= '9'           ? c - '0'
                      : lower >= 'a' && lower <= 'z' ? lower - 'a' + 10
                                                     : 99;
    if (digit >= base) return std::optional<int64_t>();
    any = last_digit = true;
    overflow = overflow || __builtin_mul_overflow(value, base, &value) ||
               __builtin_sub_overflow(value, int64_t{digit}, &value);
  }
  if (!any || !last_digit) return std::optional<int64_t>();
  if (!minus) overflow = overflow || __builtin_sub_overflow(int64_t{0}, value, &value);
  if (overflow) return call.fail("the number does not fit 64 bits");
  return std::optional(value);
}

std::optional<double> parse_float(std::string text) {
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_digit = [&](size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '9';
    };
    if (text[i] != '_') {
      digits += static_cast<char>(text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
    } else if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) {
      return std::nullopt;
    }
  }
  const size_t sign = !digits.empty() && (digits[0] == '-' || digits[0] == '+') ? 1 : 0;
  const std::string body = digits.substr(sign);
  const double direction = sign == 1 && digits[0] == '-' ? -1 : 1;
  if (body == "inf" || body == "infinity") return direction * HUGE_VAL;
  if (body == "nan") return std::nan("");
  if (body.empty() || body.find_first_not_of("0123456789.e+-") != std::string::npos) {
    return std::nullopt;
  }
  if (body[0] == '+' || body[0] == '-') return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size() ? std::optional(value) : std::nullopt;
}

// Without white space around it, and with the digits of all scripts as ASCII ones.
std::string stripped(const Value& text) {
  const std::string bytes = strip(text.text(), true, true).bytes();
  std::string out;
  for (size_t at = 0; at < bytes.size();) {
    const Rune rune = decode_rune(bytes, at);
    if (rune.point >= 0x80 && is_decimal(rune.point)) {
      out += static_cast<char>('0' + decimal_value(rune.point));
    } else {
      out.append(bytes, at, rune.size);
    }
    at += rune.size;
  }
  return out;
}

std::optional<double> to_float(const Value& value) {
  if (value.is_number()) return value.to_double();
  if (value.is(Kind::kString)) return parse_float(stripped(value));
  return std::nullopt;
}

Result<Value> int_filter(Call& call) {
  const Value& value = call.self();
  POME_ASSIGN_OR_RETURN(const int64_t base, call.integer(2, 10));
  if (value.is(Kind::kUndefined)) return template_error(call.place, value.undefined_message());
  if (value.is_integral()) return Value(value.to_int());
  const Value otherwise = call.find(1) != nullptr ? *call.find(1) : Value(int64_t{0});
  if (value.is(Kind::kString) && ((base >= 2 && base <= 36) || base == 0)) {
    POME_ASSIGN_OR_RETURN(const auto whole, parse_int(call, stripped(value), base));
    if (whole) return Value(*whole);
  }
  const std::optional<double> number = to_float(value);
  if (!number || std::isnan(*number)) return otherwise;
  if (std::isinf(*number)) {
    if (value.is(Kind::kFloat)) return call.fail("infinity is no whole number");
    return otherwise;
  }
  if (!(*number >= -9223372036854775808.0 && *number < 9223372036854775808.0)) {
    return call.fail("the number does not fit 64 bits");
  }
  return Value(static_cast<int64_t>(*number));
}

Result<Value> float_filter(Call& call) {
  const Value& value = call.self();
  if (value.is(Kind::kUndefined)) return template_error(call.place, value.undefined_message());
  if (const std::optional<double> number = to_float(value)) return Value(*number);
  return call.find(1) != nullptr ? *call.find(1) : Value(0.0);
}

// To even where it lies in the middle, seen in decimal, as Python's round() does.
double round_decimal(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 323 || value == 0) return value;
  if (digits < -308) return std::copysign(0.0, value);
  if (digits >= 0) {
    char buffer[700];
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(digits), value);
    return std::strtod(buffer, nullptr);
  }
  const double power = std::pow(10.0, static_cast<double>(-digits));
  const double scaled = value / power;
  double rounded = std::round(scaled);
  if (std::fabs(scaled - rounded) == 0.5) rounded = 2 * std::round(scaled / 2);
  return rounded * power;
}

Result<Value> round_filter(Call& call) {
  const Value& value = call.self();
  POME_ASSIGN_OR_RETURN(const int64_t digits, call.integer(1, 0));
  std::string method = "common";
  if (call.find(2) != nullptr) {
    POME_ASSIGN_OR_RETURN(const Text given, call.text_of(*call.find(2)));
    method = given.bytes();
  }
  if (method != "common" && method != "ceil" && method != "floor") {
    return call.fail("the method is common, ceil or floor");
  }
  if (value.is(Kind::kUndefined)) return template_error(call.place, value.undefined_message());
  if (!value.is_number()) return call.fail("a number is needed");
  if (method == "common") {
    if (value.is(Kind::kFloat)) return Value(round_decimal(value.to_double(), digits));
    if (digits >= 0) return Value(value.to_int());
    if (digits < -18) return Value(int64_t{0});
    int64_t power = 1;
    for (int64_t i = 0; i < -digits; ++i) power *= 10;
    int64_t quotient = value.to_int() / power;
    const int64_t rest = std::abs(value.to_int() % power);
    const bool up = rest > power / 2 || (rest == power / 2 && quotient % 2 != 0);
    quotient += up ? (value.to_int() < 0 ? -1 : 1) : 0;
    return binary(call.context, call.place, Operator::kMultiply, Value(quotient), Value(power));
  }
  const double power = std::pow(10.0, static_cast<double>(digits));
  const double scaled = value.to_double() * power;
  if (!std::isfinite(scaled)) return call.fail("the number is too large");
  // In between it is an integer in Python, which knows no negative zero.
  return Value(((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) + 0.0) / power);
}

Result<Value> file_size_filter(Call& call) {
  const std::optional<double> size = to_float(call.self());
  if (!size || !(*size > -1e18)) return call.fail("a number is needed");
  const bool two = call.flag(1);
  const double base = two ? 1024 : 1000;
  char buffer[400];
  if (*size == 1) return call.context.made(call.place, std::string("1 Byte"));
  if (*size < base) {
    return call.context.made(call.place, std::to_string(static_cast<int64_t>(*size)) + " Bytes");
  }
  const char* const prefixes = two ? "KMGTPEZY" : "kMGTPEZY";
  double unit = base * base;
  size_t i = 0;
  for (; i < 7 && *size >= unit; ++i) unit *= base;
  std::snprintf(buffer, sizeof buffer, "%.1f %c%s", base * *size / unit, prefixes[i],
                two ? "iB" : "B");
  return call.context.made(call.place, std::string(buffer));
}

Result<Value> refused(Call& call) { return call.fail("this filter is not supported"); }

constexpr Builtin kTextFilters[] = {
    {"abs", "x", abs_filter},
    {"capitalize", "s", mapped<capitalize>},
    {"center", "value width=", center_filter},
    {"e", "s", escape_filter},
    {"escape", "s", escape_filter},
    {"filesizeformat", "value binary=", file_size_filter},
    {"float", "value default=", float_filter},
    {"forceescape", "value", force_escape_filter},
    {"format", "value * **", format_filter},
    {"indent", "s width= first= blank=", indent_filter},
    {"int", "value default= base=", int_filter},
    {"lower", "s", mapped<lower>},
    {"pprint", "value", refused},
    {"random", "seq", refused},
    {"replace", "s old new count=", replace_filter},
    {"round", "value precision= method=", round_filter},
    {"safe", "value", safe_filter},
    {"string", "s", string_filter},
    {"striptags", "value", refused},
    {"title", "s", mapped<title_filter>},
    {"tojson", "x ensure_ascii= indent= separators= sort_keys=", json_filter},
    {"trim", "value chars=", trim_filter},
    {"truncate", "s length= killwords= end= leeway=", truncate_filter},
    {"upper", "s", mapped<upper>},
    {"urlencode", "value", url_filter},
    {"urlize", "value * **", refused},
    {"wordcount", "s", word_count_filter},
    {"wordwrap", "value * **", refused},
    {"xmlattr", "d autospace=", xml_attributes_filter},
};

}  // namespace

Result<Value> replaced(Call& call, const Text& text, const Text& old, const Text& fresh,
                       int64_t count) {
  uint64_t times = old.empty() ? text.size() + 1 : text.size() / old.size();
  if (count >= 0) times = std::min(times, static_cast<uint64_t>(count));
  // What it may grow to at worst decides only where that is absurd; the result is checked exactly.
  uint64_t grown = 0;
  if (__builtin_mul_overflow(times, fresh.size(), &grown) ||
      grown > 64 * call.context.limits().text) {
    return call.fail("the result may be too large");
  }
  if (!old.empty()) {
    times = 0;
    for (size_t at = text.bytes().find(old.bytes()); at != std::string::npos;
         at = text.bytes().find(old.bytes(), at + old.size())) {
      ++times;
    }
    if (count >= 0) times = std::min(times, static_cast<uint64_t>(count));
  }
  POME_RETURN_IF_ERROR(call.context.room(
      call.place, text.size() + times * (fresh.size() + (old.empty() ? 0 : sizeof(Text)) +
                                         fresh.runs().size() * sizeof(Text::Run))));
  return call.context.made(call.place, replace(text, old.bytes(), fresh, count));
}

const Builtin* find_filter(std::string_view name) {
  for (const Builtin& filter : kTextFilters) {
    if (filter.name == name) return &filter;
  }
  return find_list_filter(name);
}

}  // namespace pome::jinja
