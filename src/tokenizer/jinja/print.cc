#include "tokenizer/jinja/print.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "tokenizer/jinja/native.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  for (int digits = 0; digits <= 16; ++digits) {
    std::snprintf(buffer, sizeof buffer, "%.*e", digits, value);
    if (std::strtod(buffer, nullptr) == value) break;
  }
  // Plain where the exponent lies in [-4, 16), with ".0" where it looks whole.
  const std::string text = buffer;
  const size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  if (exponent < -4 || exponent >= 16) return text;
  const bool negative = text[0] == '-';
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < 0) digits.insert(0, static_cast<size_t>(-exponent), '0');
  const size_t whole = exponent < 0 ? 1 : static_cast<size_t>(exponent) + 1;
  while (digits.size() <= whole) digits += '0';
  return (negative ? "-" : "") + digits.substr(0, whole) + "." + digits.substr(whole);
}

namespace {

std::string hex_escape(const char* mark, char32_t point, int digits) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, "\\%s%0*x", mark, digits, static_cast<unsigned>(point));
  return buffer;
}

// What stands for a character inside quotes; empty when it stands for itself.
std::string repr_escape(char32_t point, char quote) {
  if (point == '\n') return "\\n";
  if (point == '\r') return "\\r";
  if (point == '\t') return "\\t";
  if (point == '\\' || point == static_cast<char32_t>(quote)) {
    return std::string("\\") + static_cast<char>(point);
  }
  if (is_printable(point)) return {};
  if (point < 0x100) return hex_escape("x", point, 2);
  return point < 0x10000 ? hex_escape("u", point, 4) : hex_escape("U", point, 8);
}

std::string json_escape(char32_t point, bool ascii) {
  switch (point) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      break;
  }
  if (point >= 0x20 && (point < 0x7F || !ascii)) return {};
  if (point < 0x10000) return hex_escape("u", point, 4);
  return hex_escape("u", 0xD800 + ((point - 0x10000) >> 10), 4) +
         hex_escape("u", 0xDC00 + ((point - 0x10000) & 0x3FF), 4);
}

// `text` between quotes, with `escape(point)` for what needs one.
template <typename Escape>
Text escaped(const Text& text, char quote, const Escape& escape) {
  Text out(std::string(1, quote));
  size_t at = 0;
  for (const Text::Run& run : text.runs()) {
    std::string part;
    while (at < run.end) {
      const Rune rune = decode_rune(text.bytes(), at);
      const std::string instead = rune.valid ? escape(rune.point) : std::string();
      if (instead.empty()) {
        part.append(text.bytes(), at, rune.size);
      } else {
        part += instead;
      }
      at += rune.size;
    }
    out.append(part, run.from_user);
  }
  out.append(std::string_view(&quote, 1), false);
  return out;
}

// Writes one value; what it writes is charged for as it grows, since a small value may hold the
// same list many times.
class Printer {
 public:
  Printer(Context& context, Place place) : context_(context), place_(place) {}

  Status write(const Value& value, bool is_repr, int depth) {
    using Kind = Value::Kind;
    POME_RETURN_IF_ERROR(context_.spend(place_, 2));
    if (out_.size() > context_.limits().text) return too_large();
    if (depth > kMaxDepth + 1) return template_error(place_, "a value is nested too deeply");
    switch (value.kind()) {
      case Kind::kUndefined:
        return put(is_repr ? "Undefined" : "");
      case Kind::kNone:
        return put("None");
      case Kind::kBool:
        return put(value.as_bool() ? "True" : "False");
      case Kind::kInt:
        return put(std::to_string(value.to_int()));
      case Kind::kFloat:
        return put(float_text(value.to_double()));
      case Kind::kString:
        if (!is_repr) return put(value.text());
        if (value.is_markup()) POME_RETURN_IF_ERROR(put("Markup("));
        POME_RETURN_IF_ERROR(put(quoted(value.text())));
        return put(value.is_markup() ? ")" : "");
      case Kind::kSequence:
        return sequence(value.sequence(), depth);
      case Kind::kDict:
        return dict(value.dict(), depth);
      case Kind::kObject:
        return object(value.object(), depth);
      case Kind::kFunction:
        return put("<function " + std::string(value.function().name) + ">");
      case Kind::kMethod:
        return put("<built-in method " + std::string(value.method().function->name) + ">");
    }
    return {};
  }
  Text take() { return std::move(out_); }

 private:
  Status too_large() const {
    return template_error(
        place_, "a string is larger than " + std::to_string(context_.limits().text) + " bytes");
  }
  Status put(const Text& text) {
    POME_RETURN_IF_ERROR(context_.spend(place_, text.size() / 16 + text.runs().size()));
    out_.append(text);
    return {};
  }
  Status put(std::string_view text) {
    out_.append(text, false);
    return {};
  }

  Status sequence(const Sequence& sequence, int depth) {
    using Shape = Sequence::Shape;
    if (sequence.shape == Shape::kRange) {
      std::string text =
          "range(" + std::to_string(sequence.start) + ", " + std::to_string(sequence.stop);
      if (sequence.step != 1) text += ", " + std::to_string(sequence.step);
      return put(text + ")");
    }
    const bool tuple = sequence.is_tuple();
    if (sequence.shape == Shape::kKeys) POME_RETURN_IF_ERROR(put("dict_keys("));
    if (sequence.shape == Shape::kValues) POME_RETURN_IF_ERROR(put("dict_values("));
    if (sequence.shape == Shape::kItems) POME_RETURN_IF_ERROR(put("dict_items("));
    POME_RETURN_IF_ERROR(put(tuple ? "(" : "["));
    for (size_t i = 0; i < sequence.items.size(); ++i) {
      if (i > 0) POME_RETURN_IF_ERROR(put(", "));
      POME_RETURN_IF_ERROR(write(sequence.items[i], true, depth + 1));
    }
    if (tuple && sequence.items.size() == 1) POME_RETURN_IF_ERROR(put(","));
    POME_RETURN_IF_ERROR(put(tuple ? ")" : "]"));
    return put(sequence.is_view() ? ")" : "");
  }

  Status dict(const Dict& dict, int depth) {
    POME_RETURN_IF_ERROR(put("{"));
    bool first = true;
    for (const auto& [key, value] : dict) {
      if (!first) POME_RETURN_IF_ERROR(put(", "));
      first = false;
      POME_RETURN_IF_ERROR(write(key, true, depth + 1));
      POME_RETURN_IF_ERROR(put(": "));
      POME_RETURN_IF_ERROR(write(value, true, depth + 1));
    }
    return put("}");
  }

  Status object(const Object& object, int depth) {
    switch (object.type) {
      case Object::Type::kNamespace:
        POME_RETURN_IF_ERROR(put("<Namespace "));
        POME_RETURN_IF_ERROR(dict(static_cast<const Namespace&>(object).fields, depth + 1));
        return put(">");
      case Object::Type::kLoop: {
        const auto& loop = static_cast<const Loop&>(object);
        return put("<LoopContext " + std::to_string(loop.next) + "/" +
                   std::to_string(loop.items().size()) + ">");
      }
      case Object::Type::kMacro: {
        const auto& macro = static_cast<const Macro&>(object);
        if (macro.name.empty()) return put("<Macro anonymous>");
        return put("<Macro '" + std::string(macro.name) + "'>");
      }
      default:
        return put("<" + std::string(object.type_name()) + " object>");
    }
  }

  Context& context_;
  Place place_;
  Text out_;
};

class JsonWriter {
 public:
  JsonWriter(Context& context, Place place, const JsonStyle& style)
      : context_(context), place_(place), style_(style) {}

  // Values are nested at most kMaxDepth deep.
  Status write(const Value& value, int level) {
    using Kind = Value::Kind;
    POME_RETURN_IF_ERROR(context_.spend(place_, 2));
    if (out_.size() > context_.limits().text) {
      return template_error(place_, "the JSON text is larger than " +
                                        std::to_string(context_.limits().text) + " bytes");
    }
    switch (value.kind()) {
      case Kind::kNone:
      case Kind::kBool:
      case Kind::kInt:
      case Kind::kFloat:
        out_.append(scalar(value), false);
        return {};
      case Kind::kString:
        POME_RETURN_IF_ERROR(context_.spend(place_, value.text().size() / 16));
        out_.append(string(value.text()));
        return {};
      case Kind::kSequence:
        if (value.sequence().is_view() || value.sequence().shape == Sequence::Shape::kRange) break;
        return list(value.items(), level);
      case Kind::kDict:
        return dict(value.dict(), level);
      default:
        break;
    }
    return template_error(place_, "a " + std::string(value.type_name()) + " cannot become JSON");
  }
  Text take() { return std::move(out_); }

 private:
  Text string(const Text& text) const {
    return escaped(text, '"', [&](char32_t point) { return json_escape(point, style_.ascii); });
  }
  static std::string scalar(const Value& value) {
    if (value.is(Value::Kind::kNone)) return "null";
    if (value.is(Value::Kind::kBool)) return value.as_bool() ? "true" : "false";
    if (value.is(Value::Kind::kInt)) return std::to_string(value.to_int());
    const double number = value.to_double();
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
    return float_text(number);
  }
  void line(int level) {
    if (!style_.indent) return;
    out_.append("\n", false);
    for (int i = 0; i < level; ++i) out_.append(*style_.indent, false);
  }
  Status list(const List& items, int level) {
    if (items.empty()) {
      out_.append("[]", false);
      return {};
    }
    out_.append("[", false);
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      line(level + 1);
      POME_RETURN_IF_ERROR(write(items[i], level + 1));
    }
    line(level);
    out_.append("]", false);
    return {};
  }
  Status dict(const Dict& dict, int level) {
    if (dict.empty()) {
      out_.append("{}", false);
      return {};
    }
    List order;  // pairs, sorted by key where that is wanted
    if (style_.sort_keys) {
      for (const auto& [key, value] : dict) order.push_back(Value::tuple({key, value}));
      POME_ASSIGN_OR_RETURN(order, sorted(context_, place_, std::move(order), false,
                                          [](const Value& pair) { return pair.items()[0]; }));
    }
    out_.append("{", false);
    for (size_t i = 0; i < dict.size(); ++i) {
      const Value& key = style_.sort_keys ? order[i].items()[0] : dict.fields()[i].first;
      const Value& value = style_.sort_keys ? order[i].items()[1] : dict.fields()[i].second;
      if (i > 0) out_.append(style_.item_separator);
      line(level + 1);
      if (key.is(Value::Kind::kString)) {
        POME_RETURN_IF_ERROR(context_.spend(place_, key.text().size() / 16));
        out_.append(string(key.text()));
      } else if (key.is(Value::Kind::kNone) || key.is_number()) {
        out_.append("\"" + scalar(key) + "\"", false);
      } else {
        return template_error(place_, "a key of JSON must be a string or a number");
      }
      out_.append(style_.key_separator);
      POME_RETURN_IF_ERROR(write(value, level + 1));
    }
    line(level);
    out_.append("}", false);
    return {};
  }

  Context& context_;
  Place place_;
  const JsonStyle& style_;
  Text out_;
};

}  // namespace

Text quoted(const Text& text) {
  const bool doubled =
      text.bytes().find('\'') != std::string::npos && text.bytes().find('"') == std::string::npos;
  const char quote = doubled ? '"' : '\'';
  return escaped(text, quote, [quote](char32_t point) { return repr_escape(point, quote); });
}

Result<Text> to_text(Context& context, Place place, const Value& value) {
  if (value.is(Value::Kind::kString)) {
    POME_RETURN_IF_ERROR(
        context.spend(place, 1 + value.text().size() / 16 + value.text().runs().size()));
    return value.text();
  }
  Printer printer(context, place);
  POME_RETURN_IF_ERROR(printer.write(value, false, 0));
  return printer.take();
}

Result<Text> repr(Context& context, Place place, const Value& value) {
  Printer printer(context, place);
  POME_RETURN_IF_ERROR(printer.write(value, true, 0));
  return printer.take();
}

Result<Text> to_json(Context& context, Place place, const Value& value, const JsonStyle& style) {
  JsonWriter writer(context, place, style);
  POME_RETURN_IF_ERROR(writer.write(value, 0));
  return writer.take();
}

}  // namespace pome::jinja
