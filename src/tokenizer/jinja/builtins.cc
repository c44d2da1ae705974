// Filters, tests and functions.
#include <algorithm>
#include <cmath>
#include <utility>

#include "tokenizer/jinja/eval.h"
#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

struct Call {
  Context& context;
  Place place;
  const Arguments& arguments;
  const Value& self() const { return arguments.positional[0]; }
  Status fail(std::string message) const { return template_error(place, std::move(message)); }
  // The text of an argument, whatever it is.
  Result<Text> text_of(const Value& value) const {
    POME_RETURN_IF_ERROR(context.spend(place, value.weight()));
    return to_text(value);
  }
};
using Builtin = Result<Value> (*)(const Call&);
struct Named {
  std::string_view name;
  Builtin function;
};

template <size_t N>
Builtin lookup(const Named (&table)[N], std::string_view name) {
  for (const Named& entry : table) {
    if (entry.name == name) return entry.function;
  }
  return nullptr;
}

// --- filters ---

Result<Value> trim_filter(const Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  const Value* characters = call.arguments.find(1, "chars");
  const bool given = characters != nullptr && characters->is(Kind::kString);
  return call.context.made(
      call.place,
      strip(text, true, true,
            given ? std::optional<std::string>(characters->text().bytes()) : std::nullopt));
}
Result<Value> lower_filter(const Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  return call.context.made(call.place, lower(text));
}
Result<Value> upper_filter(const Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  return call.context.made(call.place, upper(text));
}
Result<Value> capitalize_filter(const Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  return call.context.made(call.place, capitalize(text));
}
Result<Value> string_filter(const Call& call) {
  POME_ASSIGN_OR_RETURN(Text text, call.text_of(call.self()));
  return call.context.made(call.place, std::move(text));
}
Result<Value> list_filter(const Call& call) {
  POME_ASSIGN_OR_RETURN(List items, items_of(call.context, call.place, call.self()));
  return call.context.made(call.place, std::move(items));
}

Result<Value> length_filter(const Call& call) {
  const Value& value = call.self();
  switch (value.kind()) {
    case Kind::kUndefined:
      return Value(int64_t{0});
    case Kind::kString: {
      POME_RETURN_IF_ERROR(call.context.spend(call.place, value.weight()));
      const std::string& bytes = value.text().bytes();
      int64_t count = 0;
      for (size_t at = 0; at < bytes.size(); at += decode_rune(bytes, at).size) ++count;
      return Value(count);
    }
    case Kind::kList:
      return Value(static_cast<int64_t>(value.list().size()));
    case Kind::kDict:
      return Value(static_cast<int64_t>(value.dict().size()));
    default:
      return call.fail("a " + std::string(value.type_name()) + " has no length");
  }
}

Result<Value> default_filter(const Call& call) {
  const Value* otherwise = call.arguments.find(1, "default_value");
  const Value* also_false = call.arguments.find(2, "boolean");
  const bool replace = call.self().is(Kind::kUndefined) ||
                       (also_false != nullptr && also_false->truthy() && !call.self().truthy());
  if (!replace) return call.self();
  return otherwise != nullptr ? *otherwise : Value(Text());
}

Result<Value> join_filter(const Call& call) {
  Text separator;
  if (const Value* given = call.arguments.find(1, "d")) {
    POME_ASSIGN_OR_RETURN(separator, call.text_of(*given));
  }
  POME_ASSIGN_OR_RETURN(const List items, items_of(call.context, call.place, call.self()));
  Text out;
  for (size_t i = 0; i < items.size(); ++i) {
    POME_ASSIGN_OR_RETURN(const Text item, call.text_of(items[i]));
    POME_RETURN_IF_ERROR(call.context.spend(call.place, 1 + (item.size() + separator.size()) / 64));
    if (i > 0) out.append(separator);
    out.append(item);
    if (out.size() > call.context.limits().output) break;
  }
  return call.context.made(call.place, std::move(out));
}

Result<Value> first_filter(const Call& call) {
  POME_ASSIGN_OR_RETURN(const List items, items_of(call.context, call.place, call.self()));
  return items.empty() ? Value(Undefined{"first"}) : items.front();
}
Result<Value> last_filter(const Call& call) {
  POME_ASSIGN_OR_RETURN(const List items, items_of(call.context, call.place, call.self()));
  return items.empty() ? Value(Undefined{"last"}) : items.back();
}

constexpr Named kFilters[] = {
    {"trim", trim_filter},       {"lower", lower_filter},
    {"upper", upper_filter},     {"capitalize", capitalize_filter},
    {"string", string_filter},   {"list", list_filter},
    {"length", length_filter},   {"count", length_filter},
    {"default", default_filter}, {"d", default_filter},
    {"join", join_filter},       {"first", first_filter},
    {"last", last_filter},
};

// --- tests ---

template <Kind... kinds>
Result<Value> kind_test(const Call& call) {
  return Value((call.self().is(kinds) || ...));
}
Result<Value> defined_test(const Call& call) { return Value(!call.self().is(Kind::kUndefined)); }
Result<Value> true_test(const Call& call) {
  return Value(call.self().is(Kind::kBool) && call.self().as_bool());
}
Result<Value> false_test(const Call& call) {
  return Value(call.self().is(Kind::kBool) && !call.self().as_bool());
}

Result<Value> equal_test(const Call& call) {
  if (call.arguments.positional.size() != 2) return call.fail("the test needs one argument");
  return binary_operation(call.context, call.place, "==", call.self(),
                          call.arguments.positional[1]);
}
Result<Value> in_test(const Call& call) {
  if (call.arguments.positional.size() != 2) return call.fail("the test needs one argument");
  return binary_operation(call.context, call.place, "in", call.self(),
                          call.arguments.positional[1]);
}
Result<Value> parity(const Call& call, int64_t wanted) {
  if (!call.self().is(Kind::kInt)) return call.fail("the test needs a whole number");
  return Value((call.self().as_int() & 1) == wanted);
}
Result<Value> even_test(const Call& call) { return parity(call, 0); }
Result<Value> odd_test(const Call& call) { return parity(call, 1); }

constexpr Named kTests[] = {
    {"defined", defined_test},
    {"undefined", kind_test<Kind::kUndefined>},
    {"none", kind_test<Kind::kNone>},
    {"string", kind_test<Kind::kString>},
    {"mapping", kind_test<Kind::kDict>},
    {"sequence", kind_test<Kind::kList, Kind::kString, Kind::kDict>},
    {"iterable", kind_test<Kind::kList, Kind::kString, Kind::kDict>},
    {"number", kind_test<Kind::kInt, Kind::kFloat, Kind::kBool>},
    {"integer", kind_test<Kind::kInt>},
    {"float", kind_test<Kind::kFloat>},
    {"boolean", kind_test<Kind::kBool>},
    {"true", true_test},
    {"false", false_test},
    {"equalto", equal_test},
    {"eq", equal_test},
    {"in", in_test},
    {"even", even_test},
    {"odd", odd_test},
};

// --- functions ---

Result<Value> raise_function(const Call& call) {
  if (call.arguments.positional.empty()) return call.fail("the template refuses the conversation");
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  return call.fail("the template says: " + escape_for_terminal(text.bytes()));
}

Result<Value> namespace_function(const Call& call) {
  for (const auto& [name, value] : call.arguments.named) {
    if (value.is(Kind::kNamespace) || value.is(Kind::kMethod)) {
      return call.fail("a " + std::string(value.type_name()) + " cannot be stored in a namespace");
    }
  }
  return Value::make_namespace(call.arguments.named);
}

Result<Value> range_function(const Call& call) {
  int64_t numbers[3] = {0, 0, 1};
  const auto& given = call.arguments.positional;
  if (given.empty() || given.size() > 3) return call.fail("range needs one to three numbers");
  for (size_t i = 0; i < given.size(); ++i) {
    if (!given[i].is(Kind::kInt)) return call.fail("range needs whole numbers");
    numbers[given.size() == 1 ? 1 : i] = given[i].as_int();
  }
  const auto [begin, end, step] = numbers;
  if (step == 0) return call.fail("the step of range is 0");
  List out;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    POME_RETURN_IF_ERROR(call.context.spend(call.place, 16));  // each costs memory
    out.push_back(Value(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return call.context.made(call.place, std::move(out));
}

constexpr Named kFunctions[] = {
    {"raise_exception", raise_function},
    {"namespace", namespace_function},
    {"range", range_function},
};

template <size_t N>
Result<Value> call_named(const Named (&table)[N], std::string_view role, Context& context,
                         Place place, const std::string& name, const Arguments& arguments) {
  const Builtin function = lookup(table, name);
  if (function == nullptr) {
    return template_error(
        place, "unknown " + std::string(role) + " \"" + escape_for_terminal(name, 60) + "\"");
  }
  return function({context, place, arguments});
}

// --- operators ---

Result<Value> arithmetic(Place place, const std::string& name, const Value& left,
                         const Value& right) {
  const auto by_zero = [&] { return template_error(place, "division by zero"); };
  if (left.is(Kind::kFloat) || right.is(Kind::kFloat) || name == "/") {
    const double a = left.to_double(), b = right.to_double();
    if (name == "+") return Value(a + b);
    if (name == "-") return Value(a - b);
    if (name == "*") return Value(a * b);
    if (name == "**") return Value(std::pow(a, b));
    if (b == 0) return by_zero();
    if (name == "/") return Value(a / b);
    if (name == "//") return Value(std::floor(a / b));
    return Value(a - std::floor(a / b) * b);
  }
  const int64_t a = left.to_int(), b = right.to_int();
  int64_t out = 0;
  bool overflow = false;
  if (name == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (name == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (name == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else if (name == "**") {
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    out = 1;
    if (a == 0 || a == 1 || a == -1) {
      out = b == 0 ? 1 : a == -1 && b % 2 == 0 ? 1 : a;
    } else {
      for (int64_t i = 0; i < b && !overflow; ++i) overflow = __builtin_mul_overflow(out, a, &out);
    }
  } else {
    if (b == 0) return by_zero();
    if (b == -1) {
      if (name == "//") overflow = __builtin_sub_overflow(int64_t{0}, a, &out);
    } else {
      const int64_t quotient = a / b - ((a % b != 0) && ((a < 0) != (b < 0)));  // Python floors
      out = name == "//" ? quotient : a - quotient * b;
    }
  }
  if (overflow) return template_error(place, "the result does not fit 64 bits");
  return Value(out);
}

Result<bool> contains(Context& context, Place place, const Value& item, const Value& container) {
  POME_RETURN_IF_ERROR(context.spend(place, container.weight()));
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is(Kind::kString)) break;
      return container.text().bytes().find(item.text().bytes()) != std::string::npos;
    case Kind::kDict:
      return item.is(Kind::kString) && find_field(container.dict(), item.text().bytes()) != nullptr;
    case Kind::kList:
      return std::any_of(container.list().begin(), container.list().end(),
                         [&](const Value& other) { return equal(item, other); });
    case Kind::kUndefined:
      return false;
    default:
      break;
  }
  return template_error(place, "cannot look for a " + std::string(item.type_name()) + " in a " +
                                   std::string(container.type_name()));
}

Status bad_operands(Place place, const std::string& name, const Value& left, const Value& right) {
  const auto of = [](const Value& value) {
    return value.is(Kind::kUndefined)
               ? "undefined \"" + escape_for_terminal(value.undefined_name(), 60) + "\""
               : std::string(value.type_name());
  };
  return template_error(place, "\"" + name + "\" between " + of(left) + " and " + of(right));
}

}  // namespace

Result<Value> binary_operation(Context& context, Place place, const std::string& name,
                               const Value& left, const Value& right) {
  if (name == "==" || name == "!=") {
    POME_RETURN_IF_ERROR(context.spend(place, std::min(left.weight(), right.weight())));
    return Value(equal(left, right) == (name == "=="));
  }
  if (name == "in" || name == "not in") {
    POME_ASSIGN_OR_RETURN(const bool found, contains(context, place, left, right));
    return Value(found == (name == "in"));
  }
  if (name == "<" || name == ">" || name == "<=" || name == ">=") {
    const bool texts = left.is(Kind::kString) && right.is(Kind::kString);
    if (!texts && !(left.is_number() && right.is_number())) {
      return bad_operands(place, name, left, right);
    }
    const auto compare = [&](const auto& a, const auto& b) {
      return Value(name == "<" ? a < b : name == ">" ? a > b : name == "<=" ? a <= b : a >= b);
    };
    if (texts) return compare(left.text().bytes(), right.text().bytes());
    return compare(left.to_double(), right.to_double());
  }
  if (name == "~" || (name == "+" && left.is(Kind::kString) && right.is(Kind::kString))) {
    POME_RETURN_IF_ERROR(context.spend(place, left.weight()));
    POME_RETURN_IF_ERROR(context.spend(place, right.weight()));
    Text out = to_text(left);
    out.append(to_text(right));
    return context.made(place, std::move(out));
  }
  if (name == "+" && left.is(Kind::kList) && right.is(Kind::kList)) {
    POME_RETURN_IF_ERROR(context.spend(place, left.list().size() + right.list().size()));
    List out = left.list();
    out.insert(out.end(), right.list().begin(), right.list().end());
    return context.made(place, std::move(out));
  }
  if (left.is_number() && right.is_number()) return arithmetic(place, name, left, right);
  return bad_operands(place, name, left, right);
}

Result<List> items_of(Context& context, Place place, const Value& value) {
  List out;
  switch (value.kind()) {
    case Kind::kUndefined:
      return out;
    case Kind::kList:
      POME_RETURN_IF_ERROR(context.spend(place, value.list().size()));
      return value.list();
    case Kind::kDict:
      POME_RETURN_IF_ERROR(context.spend(place, value.dict().size()));
      for (const auto& [key, item] : value.dict()) out.push_back(Value(std::string_view(key)));
      return out;
    case Kind::kString: {
      const std::string& bytes = value.text().bytes();
      POME_RETURN_IF_ERROR(context.spend(place, 16 * bytes.size()));
      for (size_t at = 0; at < bytes.size();) {
        const size_t size = decode_rune(bytes, at).size;
        out.push_back(Value(value.text().slice(at, at + size)));
        POME_RETURN_IF_ERROR(context.spend(place, value.text().runs().size()));
        at += size;
      }
      return out;
    }
    default:
      return template_error(place, "cannot walk over a " + std::string(value.type_name()));
  }
}

Result<Value> call_filter(Context& context, Place place, const std::string& name,
                          const Arguments& arguments) {
  return call_named(kFilters, "filter", context, place, name, arguments);
}
Result<Value> call_test(Context& context, Place place, const std::string& name,
                        const Arguments& arguments) {
  return call_named(kTests, "test", context, place, name, arguments);
}
Result<Value> call_function(Context& context, Place place, const std::string& name,
                            const Arguments& arguments) {
  return call_named(kFunctions, "function", context, place, name, arguments);
}
bool is_function(std::string_view name) { return lookup(kFunctions, name) != nullptr; }

}  // namespace pome::jinja
