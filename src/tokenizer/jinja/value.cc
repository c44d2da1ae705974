#include "tokenizer/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace pome::jinja {

Text::Text(std::string bytes, bool from_user) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), from_user});
}

void Text::append(std::string_view bytes, bool from_user) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().from_user == from_user) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), from_user});
  }
}

void Text::append(const Text& other) {
  size_t begin = 0;
  for (const Run& run : other.runs_) {
    append(std::string_view(other.bytes_).substr(begin, run.end - begin), run.from_user);
    begin = run.end;
  }
}

Text Text::slice(size_t begin, size_t end) const {
  Text out;
  size_t run_begin = 0;
  for (const Run& run : runs_) {
    const size_t from = std::max(begin, run_begin);
    const size_t to = std::min(end, run.end);
    if (from < to) out.append(std::string_view(bytes_).substr(from, to - from), run.from_user);
    run_begin = run.end;
  }
  return out;
}

Value::Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
Value::Value(std::string_view text) : Value(Text(std::string(text))) {}

namespace {
uint64_t add_weight(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}
}  // namespace

Value::Value(List list) {
  ListBox box;
  for (const Value& item : list) {
    box.depth = std::max(box.depth, item.depth() + 1);
    box.weight = add_weight(box.weight, item.weight());
  }
  box.items = std::move(list);
  data_ = std::make_shared<const ListBox>(std::move(box));
}

Value::Value(Dict dict) {
  DictBox box;
  for (const auto& [key, item] : dict) {
    box.depth = std::max(box.depth, item.depth() + 1);
    box.weight = add_weight(box.weight, add_weight(item.weight(), key.size() / 16 + 1));
  }
  box.fields = std::move(dict);
  data_ = std::make_shared<const DictBox>(std::move(box));
}

Value Value::make_namespace(Dict fields) {
  Value out;
  out.data_ = std::make_shared<NamespaceBox>(NamespaceBox{std::move(fields)});
  return out;
}

Value Value::method(Value object, std::string name) {
  Value out;
  out.data_ = std::make_shared<const Method>(Method{std::move(object), std::move(name)});
  return out;
}

int64_t Value::to_int() const {
  return is(Kind::kBool) ? static_cast<int64_t>(as_bool()) : as_int();
}

double Value::to_double() const {
  return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(to_int());
}

int Value::depth() const {
  if (is(Kind::kList)) return std::get<ListPtr>(data_)->depth;
  if (is(Kind::kDict)) return std::get<DictPtr>(data_)->depth;
  if (is(Kind::kMethod)) return bound_method().object.depth() + 1;
  return 0;
}

uint64_t Value::weight() const {
  if (is(Kind::kString)) return 1 + text().size() / 16;
  if (is(Kind::kList)) return std::get<ListPtr>(data_)->weight;
  if (is(Kind::kDict)) return std::get<DictPtr>(data_)->weight;
  return 1;
}

bool Value::truthy() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return as_bool();
    case Kind::kInt:
      return as_int() != 0;
    case Kind::kFloat:
      return to_double() != 0;
    case Kind::kString:
      return !text().empty();
    case Kind::kList:
      return !list().empty();
    case Kind::kDict:
      return !dict().empty();
    case Kind::kNamespace:
    case Kind::kFunction:
    case Kind::kMethod:
      return true;
  }
  return false;
}

std::string_view Value::type_name() const {
  constexpr std::string_view kNames[] = {"undefined", "none",     "boolean", "integer",
                                         "float",     "string",   "list",    "dict",
                                         "namespace", "function", "method"};
  return kNames[static_cast<size_t>(kind())];
}

const Value* find_field(const Dict& dict, std::string_view key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

void set_field(Dict& dict, std::string_view key, Value value) {
  for (auto& [name, old] : dict) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  dict.emplace_back(std::string(key), std::move(value));
}

bool equal(const Value& a, const Value& b) {
  using Kind = Value::Kind;
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::kFloat) || b.is(Kind::kFloat)) return a.to_double() == b.to_double();
    return a.to_int() == b.to_int();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      return a.text().bytes() == b.text().bytes();
    case Kind::kList:
      return std::equal(a.list().begin(), a.list().end(), b.list().begin(), b.list().end(), equal);
    case Kind::kDict: {
      if (a.dict().size() != b.dict().size()) return false;
      return std::all_of(a.dict().begin(), a.dict().end(), [&](const auto& field) {
        const Value* other = find_field(b.dict(), field.first);
        return other != nullptr && equal(field.second, *other);
      });
    }
    default:
      return false;
  }
}

namespace {

// The fewest digits that read back as the same number, laid out as Python prints floats: plain
// where the exponent lies in [-4, 16), with ".0" where it looks whole.
std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  for (int digits = 0; digits <= 16; ++digits) {
    std::snprintf(buffer, sizeof buffer, "%.*e", digits, value);
    if (std::strtod(buffer, nullptr) == value) break;
  }
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

// A string inside of a list or dictionary, as Python's repr() writes it.
Text quoted(const Text& text) {
  const bool doubled =
      text.bytes().find('\'') != std::string::npos && text.bytes().find('"') == std::string::npos;
  const char quote = doubled ? '"' : '\'';
  Text out(std::string(1, quote));
  size_t run = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    while (text.runs()[run].end <= i) ++run;
    const char c = text.bytes()[i];
    std::string escaped(1, c);
    if (c == '\n') escaped = "\\n";
    if (c == '\r') escaped = "\\r";
    if (c == '\t') escaped = "\\t";
    if (c == '\\' || c == quote) escaped = std::string("\\") + c;
    out.append(escaped, text.runs()[run].from_user);
  }
  out.append(std::string_view(&quote, 1), false);
  return out;
}

Text repr(const Value& value) {
  return value.is(Value::Kind::kString) ? quoted(value.text()) : to_text(value);
}

}  // namespace

Text to_text(const Value& value) {
  using Kind = Value::Kind;
  switch (value.kind()) {
    case Kind::kUndefined:
      return {};
    case Kind::kNone:
      return Text("None");
    case Kind::kBool:
      return Text(value.as_bool() ? "True" : "False");
    case Kind::kInt:
      return Text(std::to_string(value.as_int()));
    case Kind::kFloat:
      return Text(float_text(value.to_double()));
    case Kind::kString:
      return value.text();
    case Kind::kList: {
      Text out("[");
      for (size_t i = 0; i < value.list().size(); ++i) {
        if (i > 0) out.append(", ", false);
        out.append(repr(value.list()[i]));
      }
      out.append("]", false);
      return out;
    }
    case Kind::kDict: {
      Text out("{");
      for (size_t i = 0; i < value.dict().size(); ++i) {
        if (i > 0) out.append(", ", false);
        out.append(quoted(Text(value.dict()[i].first)));
        out.append(": ", false);
        out.append(repr(value.dict()[i].second));
      }
      out.append("}", false);
      return out;
    }
    case Kind::kNamespace:
    case Kind::kFunction:
    case Kind::kMethod:
      return Text("<" + std::string(value.type_name()) + ">");
  }
  return {};
}

}  // namespace pome::jinja
