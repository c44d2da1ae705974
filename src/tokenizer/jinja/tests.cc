// Tests: what stands behind "is".
#include "tokenizer/jinja/native.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/print.h"
#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

template <Kind... kinds>
Result<Value> kind_test(Call& call) {
  return Value((call.self().is(kinds) || ...));
}
Result<Value> defined_test(Call& call) { return Value(!call.self().is(Kind::kUndefined)); }
template <bool wanted>
Result<Value> bool_test(Call& call) {
  return Value(call.self().is(Kind::kBool) && call.self().as_bool() == wanted);
}
template <Operator op>
Result<Value> compare_test(Call& call) {
  return binary(call.context, call.place, op, call.self(), *call.find(1));
}
// Whether value % divisor is the rest.
Result<Value> rest_test(Call& call, const Value& divisor, int64_t rest) {
  POME_ASSIGN_OR_RETURN(const Value found,
                        binary(call.context, call.place, Operator::kModulo, call.self(), divisor));
  return binary(call.context, call.place, Operator::kEqual, found, Value(rest));
}
Result<Value> even_test(Call& call) { return rest_test(call, Value(int64_t{2}), 0); }
Result<Value> odd_test(Call& call) { return rest_test(call, Value(int64_t{2}), 1); }
Result<Value> divisible_test(Call& call) { return rest_test(call, *call.find(1), 0); }

Result<Value> same_test(Call& call) {
  const Value& a = call.self();
  const Value& b = *call.find(1);
  if (a.kind() != b.kind()) return Value(false);
  if (a.address() != nullptr) return Value(a.address() == b.address());
  if (a.is(Kind::kNone)) return Value(true);
  if (a.is_integral()) return Value(a.to_int() == b.to_int());
  return Value(false);
}

Result<Value> sequence_test(Call& call) {
  const Value& value = call.self();
  if (value.is(Kind::kSequence)) return Value(!value.sequence().is_view());
  return Value(value.is(Kind::kString) || value.is(Kind::kDict) || value.is(Kind::kUndefined));
}
Result<Value> iterable_test(Call& call) { return Value(is_iterable(call.self())); }
Result<Value> escaped_test(Call& call) { return Value(call.self().is_markup()); }
Result<Value> callable_test(Call& call) {
  const Value& value = call.self();
  if (value.is(Kind::kObject)) {
    const auto type = value.object().type;
    return Value(type == Object::Type::kMacro || type == Object::Type::kJoiner ||
                 type == Object::Type::kLoop);
  }
  return Value(value.is(Kind::kFunction) || value.is(Kind::kMethod) || value.is(Kind::kUndefined));
}

Result<Value> filter_test(Call& call) {
  return Value(call.self().is(Kind::kString) && find_filter(call.self().text().bytes()) != nullptr);
}
Result<Value> test_test(Call& call) {
  return Value(call.self().is(Kind::kString) && find_test(call.self().text().bytes()) != nullptr);
}

// Whether the cased characters are all of one case, and there are any.
Result<Value> case_test(Call& call, bool lower_wanted) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const Rune rune = decode_rune(text.bytes(), at);
    at += rune.size;
    if (is_title(rune.point) || (lower_wanted ? is_upper(rune.point) : is_lower(rune.point))) {
      return Value(false);
    }
    any = any || (lower_wanted ? is_lower(rune.point) : is_upper(rune.point));
  }
  return Value(any);
}
Result<Value> lower_test(Call& call) { return case_test(call, true); }
Result<Value> upper_test(Call& call) { return case_test(call, false); }

constexpr Builtin kTests[] = {
    {"!=", ".a .b", compare_test<Operator::kNotEqual>},
    {"<", ".a .b", compare_test<Operator::kLess>},
    {"<=", ".a .b", compare_test<Operator::kLessEqual>},
    {"==", ".a .b", compare_test<Operator::kEqual>},
    {">", ".a .b", compare_test<Operator::kGreater>},
    {">=", ".a .b", compare_test<Operator::kGreaterEqual>},
    {"boolean", "value", kind_test<Kind::kBool>},
    {"callable", ".obj", callable_test},
    {"defined", "value", defined_test},
    {"divisibleby", "value num", divisible_test},
    {"eq", ".a .b", compare_test<Operator::kEqual>},
    {"equalto", ".a .b", compare_test<Operator::kEqual>},
    {"escaped", "value", escaped_test},
    {"even", "value", even_test},
    {"false", "value", bool_test<false>},
    {"filter", "value", filter_test},
    {"float", "value", kind_test<Kind::kFloat>},
    {"ge", ".a .b", compare_test<Operator::kGreaterEqual>},
    {"greaterthan", ".a .b", compare_test<Operator::kGreater>},
    {"gt", ".a .b", compare_test<Operator::kGreater>},
    {"in", "value seq", compare_test<Operator::kIn>},
    {"integer", "value", kind_test<Kind::kInt>},
    {"iterable", "value", iterable_test},
    {"le", ".a .b", compare_test<Operator::kLessEqual>},
    {"lessthan", ".a .b", compare_test<Operator::kLess>},
    {"lower", "value", lower_test},
    {"lt", ".a .b", compare_test<Operator::kLess>},
    {"mapping", "value", kind_test<Kind::kDict>},
    {"ne", ".a .b", compare_test<Operator::kNotEqual>},
    {"none", "value", kind_test<Kind::kNone>},
    {"number", "value", kind_test<Kind::kInt, Kind::kFloat, Kind::kBool>},
    {"odd", "value", odd_test},
    {"sameas", "value other", same_test},
    {"sequence", "value", sequence_test},
    {"string", "value", kind_test<Kind::kString>},
    {"test", "value", test_test},
    {"true", "value", bool_test<true>},
    {"undefined", "value", kind_test<Kind::kUndefined>},
    {"upper", "value", upper_test},
};

}  // namespace

const Builtin* find_test(std::string_view name) {
  for (const Builtin& test : kTests) {
    if (test.name == name) return &test;
  }
  return nullptr;
}

}  // namespace pome::jinja
