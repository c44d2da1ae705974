// Methods of strings and dictionaries.
#include <utility>

#include "tokenizer/jinja/eval.h"
#include "tokenizer/jinja/text_functions.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

struct Call {
  Context& context;
  Place place;
  const Value& self;
  const std::string& name;
  const Arguments& arguments;

  Status fail(std::string message) const {
    return template_error(place, name + ": " + std::move(message));
  }
  // The string argument at `position`; nullopt when it is absent or none.
  Result<std::optional<Text>> text_argument(size_t position, std::string_view keyword) const {
    const Value* value = arguments.find(position, keyword);
    if (value == nullptr || value->is(Kind::kNone)) return std::optional<Text>();
    if (!value->is(Kind::kString)) return fail("a string is needed");
    return std::optional<Text>(value->text());
  }
  Result<int64_t> int_argument(size_t position, std::string_view keyword) const {
    const Value* value = arguments.find(position, keyword);
    if (value == nullptr) return int64_t{-1};
    if (!value->is(Kind::kInt)) return fail("a whole number is needed");
    return value->as_int();
  }
};
using MethodFunction = Result<Value> (*)(const Call&);

Result<Value> strip_method(const Call& call) {
  POME_ASSIGN_OR_RETURN(const auto characters, call.text_argument(0, "chars"));
  return call.context.made(
      call.place,
      strip(call.self.text(), call.name != "rstrip", call.name != "lstrip",
            characters ? std::optional<std::string>(characters->bytes()) : std::nullopt));
}
Result<Value> lower_method(const Call& call) {
  return call.context.made(call.place, lower(call.self.text()));
}
Result<Value> upper_method(const Call& call) {
  return call.context.made(call.place, upper(call.self.text()));
}
Result<Value> capitalize_method(const Call& call) {
  return call.context.made(call.place, capitalize(call.self.text()));
}
Result<Value> title_method(const Call& call) {
  return call.context.made(call.place, title(call.self.text()));
}

// startswith and endswith, with one string or a list of them.
Result<Value> affix_method(const Call& call) {
  const Value* given = call.arguments.find(0, "prefix");
  if (given == nullptr) return call.fail("a string is needed");
  const List options = given->is(Kind::kList) ? given->list() : List{*given};
  const std::string& text = call.self.text().bytes();
  for (const Value& option : options) {
    if (!option.is(Kind::kString)) return call.fail("a string is needed");
    const std::string& part = option.text().bytes();
    POME_RETURN_IF_ERROR(call.context.spend(call.place, 1 + part.size() / 64));
    if (part.size() > text.size()) continue;
    const size_t at = call.name == "startswith" ? 0 : text.size() - part.size();
    if (text.compare(at, part.size(), part) == 0) return Value(true);
  }
  return Value(false);
}

Result<Value> split_method(const Call& call) {
  POME_ASSIGN_OR_RETURN(const auto separator, call.text_argument(0, "sep"));
  POME_ASSIGN_OR_RETURN(const int64_t limit, call.int_argument(1, "maxsplit"));
  if (separator && separator->empty()) return call.fail("the separator is empty");
  if (!separator && limit >= 0) return call.fail("a separator is needed with maxsplit");
  const Text& text = call.self.text();
  // A part for each byte at worst, each looking at all runs.
  POME_RETURN_IF_ERROR(
      call.context.spend(call.place, text.size() / 4 + text.size() / 64 * text.runs().size()));
  List out;
  for (Text& part : separator ? split(text, separator->bytes(), limit) : split_at_space(text)) {
    out.push_back(Value(std::move(part)));
  }
  return call.context.made(call.place, std::move(out));
}

Result<Value> replace_method(const Call& call) {
  POME_ASSIGN_OR_RETURN(const auto old, call.text_argument(0, "old"));
  POME_ASSIGN_OR_RETURN(const auto fresh, call.text_argument(1, "new"));
  POME_ASSIGN_OR_RETURN(const int64_t count, call.int_argument(2, "count"));
  if (!old || !fresh || old->empty()) return call.fail("two strings are needed");
  const Text& text = call.self.text();
  const uint64_t times = text.size() / old->size();
  const uint64_t grown = text.size() + times * fresh->size();
  if (grown > 4 * call.context.limits().output) return call.fail("the result may be too large");
  POME_RETURN_IF_ERROR(call.context.spend(
      call.place, grown / 4 + text.size() / 64 * (text.runs().size() + fresh->runs().size())));
  return call.context.made(call.place, replace(text, old->bytes(), *fresh, count));
}

Result<Value> get_method(const Call& call) {
  const Value* key = call.arguments.find(0, "key");
  const Value* otherwise = call.arguments.find(1, "default");
  if (key == nullptr) return call.fail("a key is needed");
  const Value* field =
      key->is(Kind::kString) ? find_field(call.self.dict(), key->text().bytes()) : nullptr;
  if (field != nullptr) return *field;
  return otherwise != nullptr ? *otherwise : Value(None{});
}

Result<Value> fields_method(const Call& call) {
  List out;
  for (const auto& [key, value] : call.self.dict()) {
    Value name{std::string_view(key)};
    if (call.name == "keys") {
      out.push_back(std::move(name));
    } else if (call.name == "values") {
      out.push_back(value);
    } else {
      POME_ASSIGN_OR_RETURN(Value pair,
                            call.context.made(call.place, List{std::move(name), value}));
      out.push_back(std::move(pair));
    }
  }
  return call.context.made(call.place, std::move(out));
}

struct Entry {
  Kind kind;
  std::string_view name;
  MethodFunction function;
};
constexpr Entry kMethods[] = {
    {Kind::kString, "strip", strip_method},     {Kind::kString, "lstrip", strip_method},
    {Kind::kString, "rstrip", strip_method},    {Kind::kString, "lower", lower_method},
    {Kind::kString, "upper", upper_method},     {Kind::kString, "capitalize", capitalize_method},
    {Kind::kString, "title", title_method},     {Kind::kString, "startswith", affix_method},
    {Kind::kString, "endswith", affix_method},  {Kind::kString, "split", split_method},
    {Kind::kString, "replace", replace_method}, {Kind::kDict, "get", get_method},
    {Kind::kDict, "keys", fields_method},       {Kind::kDict, "values", fields_method},
    {Kind::kDict, "items", fields_method},
};

const Entry* find_method(const Value& object, std::string_view name) {
  for (const Entry& entry : kMethods) {
    if (object.is(entry.kind) && entry.name == name) return &entry;
  }
  return nullptr;
}

}  // namespace

bool is_method(const Value& object, std::string_view name) {
  return find_method(object, name) != nullptr;
}

Result<Value> call_method(Context& context, Place place, const Method& method,
                          const Arguments& arguments) {
  const Entry* entry = find_method(method.object, method.name);
  POME_CHECK(entry != nullptr);
  return entry->function({context, place, method.object, method.name, arguments});
}

}  // namespace pome::jinja
