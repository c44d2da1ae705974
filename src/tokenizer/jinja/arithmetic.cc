// Arithmetic and comparison.
#include <algorithm>
#include <cmath>

#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_functions.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

constexpr std::string_view kSpelling[] = {
    "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
std::string spelling(Operator op) { return std::string(kSpelling[static_cast<size_t>(op)]); }

Status bad_operands(Place place, Operator op, const Value& left, const Value& right) {
  for (const Value* value : {&left, &right}) {
    if (value->is(Kind::kUndefined)) return template_error(place, value->undefined_message());
  }
  return template_error(place, "\"" + spelling(op) + "\" between " + std::string(left.type_name()) +
                                   " and " + std::string(right.type_name()));
}

Status too_large(Place place) { return template_error(place, "the result does not fit 64 bits"); }

// Python's floor division: the quotient rounds down, the remainder has the sign of the divisor.
void floor_divide(double a, double b, double& quotient, double& remainder) {
  remainder = std::fmod(a, b);
  double whole = (a - remainder) / b;
  if (remainder != 0) {
    if ((b < 0) != (remainder < 0)) {
      remainder += b;
      whole -= 1;
    }
  } else {
    remainder = std::copysign(0.0, b);
  }
  if (whole != 0) {
    quotient = std::floor(whole);
    if (whole - quotient > 0.5) quotient += 1;
  } else {
    quotient = std::copysign(0.0, a / b);
  }
}

Result<Value> float_power(Place place, double a, double b) {
  if (a == 0 && b < 0) return template_error(place, "division by zero");
  if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b)) {
    return template_error(place, "the result is a complex number");
  }
  const double out = std::pow(a, b);
  if (std::isinf(out) && std::isfinite(a) && std::isfinite(b)) {
    return template_error(place, "the result is too large for a float");
  }
  return Value(out);
}

Result<Value> float_arithmetic(Place place, Operator op, double a, double b) {
  if (op == Operator::kAdd) return Value(a + b);
  if (op == Operator::kSubtract) return Value(a - b);
  if (op == Operator::kMultiply) return Value(a * b);
  if (op == Operator::kPower) return float_power(place, a, b);
  if (b == 0) return template_error(place, "division by zero");
  if (op == Operator::kDivide) return Value(a / b);
  double quotient = 0, remainder = 0;
  floor_divide(a, b, quotient, remainder);
  return Value(op == Operator::kFloorDivide ? quotient : remainder);
}

Result<Value> int_power(Place place, int64_t base, int64_t exponent) {
  if (exponent < 0) {
    return float_power(place, static_cast<double>(base), static_cast<double>(exponent));
  }
  int64_t out = 1;
  if (base == 0 || base == 1 || base == -1) {
    return Value(exponent == 0 ? int64_t{1} : base == -1 && exponent % 2 == 0 ? int64_t{1} : base);
  }
  for (int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(out, base, &out)) return too_large(place);
  }
  return Value(out);
}

Result<Value> int_arithmetic(Place place, Operator op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  switch (op) {
    case Operator::kAdd:
      overflow = __builtin_add_overflow(a, b, &out);
      break;
    case Operator::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &out);
      break;
    case Operator::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &out);
      break;
    case Operator::kPower:
      return int_power(place, a, b);
    default:
      if (b == 0) return template_error(place, "division by zero");
      if (b == -1) {
        if (op == Operator::kFloorDivide) overflow = __builtin_sub_overflow(int64_t{0}, a, &out);
      } else {
        const int64_t quotient = a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
        out = op == Operator::kFloorDivide ? quotient : a - quotient * b;
      }
  }
  if (overflow) return too_large(place);
  return Value(out);
}

Result<Value> repeated(Context& context, Place place, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  if (value.is(Kind::kString)) {
    const Text& text = value.text();
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(text.size(), static_cast<uint64_t>(count), &bytes) ||
        bytes > context.limits().text) {
      return template_error(place, "a string would be larger than " +
                                       std::to_string(context.limits().text) + " bytes");
    }
    POME_RETURN_IF_ERROR(context.spend(place, bytes / 16));
    Text out;
    for (int64_t i = 0; i < count && !text.empty(); ++i) out.append(text);
    return context.made(place, std::move(out), value.is_markup());
  }
  const List& items = value.items();
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(items.size() * sizeof(Value), static_cast<uint64_t>(count), &bytes)) {
    bytes = UINT64_MAX / 2;
  }
  POME_RETURN_IF_ERROR(context.room(place, bytes));
  List out;
  for (int64_t i = 0; i < count && !items.empty(); ++i) {
    out.insert(out.end(), items.begin(), items.end());
  }
  return context.made(place, Sequence{.shape = value.sequence().is_tuple() ? Sequence::Shape::kTuple
                                                                           : Sequence::Shape::kList,
                                      .items = std::move(out)});
}

bool is_plain_sequence(const Value& value) {
  return value.is(Kind::kSequence) && value.sequence().shape <= Sequence::Shape::kGroup;
}

// "+" of what is no number.
Result<Value> joined(Context& context, Place place, const Value& left, const Value& right) {
  if (left.is(Kind::kString) && right.is(Kind::kString)) {
    const uint64_t bytes = left.text().size() + right.text().size();
    POME_RETURN_IF_ERROR(context.spend(place, bytes / 16));
    const bool markup = left.is_markup() || right.is_markup();
    Text out = markup && !left.is_markup() ? html_escaped(left.text()) : left.text();
    out.append(markup && !right.is_markup() ? html_escaped(right.text()) : right.text());
    return context.made(place, std::move(out), markup);
  }
  if (is_plain_sequence(left) && is_plain_sequence(right) &&
      left.sequence().is_tuple() == right.sequence().is_tuple()) {
    POME_RETURN_IF_ERROR(
        context.room(place, (left.items().size() + right.items().size()) * sizeof(Value)));
    List out = left.items();
    out.insert(out.end(), right.items().begin(), right.items().end());
    return left.sequence().is_tuple() ? context.tuple(place, std::move(out))
                                      : context.list(place, std::move(out));
  }
  return bad_operands(place, Operator::kAdd, left, right);
}

Result<Value> arithmetic(Context& context, Place place, Operator op, const Value& left,
                         const Value& right) {
  if (left.is(Kind::kUndefined) || right.is(Kind::kUndefined)) {
    // A format takes an undefined value as any other; all else fails.
    if (!(op == Operator::kModulo && left.is(Kind::kString))) {
      return bad_operands(place, op, left, right);
    }
  }
  if (left.is_number() && right.is_number()) {
    if (op == Operator::kDivide || left.is(Kind::kFloat) || right.is(Kind::kFloat)) {
      return float_arithmetic(place, op, left.to_double(), right.to_double());
    }
    return int_arithmetic(place, op, left.to_int(), right.to_int());
  }
  if (op == Operator::kAdd) return joined(context, place, left, right);
  if (op == Operator::kMultiply) {
    const auto repeats = [](const Value& v) { return v.is(Kind::kString) || is_plain_sequence(v); };
    if (repeats(left) && right.is_integral()) {
      return repeated(context, place, left, right.to_int());
    }
    if (repeats(right) && left.is_integral()) return repeated(context, place, right, left.to_int());
  }
  if (op == Operator::kModulo && left.is(Kind::kString)) {
    POME_ASSIGN_OR_RETURN(Text out, percent_format(context, place, left.text(), right));
    return context.made(place, std::move(out), left.is_markup());
  }
  return bad_operands(place, op, left, right);
}

Result<bool> contains(Context& context, Place place, const Value& item, const Value& container) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is(Kind::kString)) break;
      POME_RETURN_IF_ERROR(context.spend(place, container.text().size() / 16));
      return container.text().bytes().find(item.text().bytes()) != std::string::npos;
    case Kind::kDict:
      if (!Dict::can_be_sought(item)) break;
      return container.dict().find(item) != nullptr;
    case Kind::kSequence:
    case Kind::kObject: {
      if (!is_iterable(container)) break;
      if (container.is(Kind::kSequence) && container.sequence().shape == Sequence::Shape::kKeys &&
          !Dict::can_be_sought(item)) {
        break;
      }
      POME_ASSIGN_OR_RETURN(const List items, items_of(context, place, container));
      for (const Value& other : items) {
        if (item.address() != nullptr && item.address() == other.address()) return true;
        POME_ASSIGN_OR_RETURN(const bool same, equal(context, place, item, other));
        if (same) return true;
      }
      return false;
    }
    case Kind::kUndefined:
      return false;
    default:
      break;
  }
  return bad_operands(place, Operator::kIn, item, container);
}

// How a and b stand to each other; an error for what has no order.
Result<Order> compare(Context& context, Place place, Operator op, const Value& a, const Value& b) {
  POME_RETURN_IF_ERROR(context.spend(place));
  if (a.is_number() && b.is_number()) return compare_numbers(a, b);
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    // Bytes of UTF-8 have the order of the characters.
    POME_RETURN_IF_ERROR(context.spend(place, std::min(a.text().size(), b.text().size()) / 16));
    const int order = a.text().bytes().compare(b.text().bytes());
    return order < 0 ? Order::kLess : order > 0 ? Order::kGreater : Order::kEqual;
  }
  if (is_plain_sequence(a) && is_plain_sequence(b) &&
      a.sequence().is_tuple() == b.sequence().is_tuple()) {
    for (size_t i = 0; i < a.items().size() && i < b.items().size(); ++i) {
      const Value& x = a.items()[i];
      const Value& y = b.items()[i];
      POME_ASSIGN_OR_RETURN(const bool same, equal(context, place, x, y));
      if (!same) return compare(context, place, op, x, y);
    }
    return compare_numbers(Value(static_cast<int64_t>(a.items().size())),
                           Value(static_cast<int64_t>(b.items().size())));
  }
  return bad_operands(place, op, a, b);
}

}  // namespace

Result<bool> equal(Context& context, Place place, const Value& a, const Value& b) {
  POME_RETURN_IF_ERROR(context.spend(place));
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == Order::kEqual;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      POME_RETURN_IF_ERROR(context.spend(place, a.text().size() / 16));
      return a.text().bytes() == b.text().bytes();
    case Kind::kSequence: {
      const Sequence& x = a.sequence();
      const Sequence& y = b.sequence();
      if (x.shape != y.shape && !(x.is_tuple() && y.is_tuple())) return false;
      if (x.shape == Sequence::Shape::kValues) return &x == &y;
      if (x.items.size() != y.items.size()) return false;
      for (size_t i = 0; i < x.items.size(); ++i) {
        POME_ASSIGN_OR_RETURN(const bool same, equal(context, place, x.items[i], y.items[i]));
        if (!same) return false;
      }
      return true;
    }
    case Kind::kDict: {
      if (a.dict().size() != b.dict().size()) return false;
      for (const auto& [key, value] : a.dict()) {
        const Value* other = b.dict().find(key);
        if (other == nullptr) return false;
        POME_ASSIGN_OR_RETURN(const bool same, equal(context, place, value, *other));
        if (!same) return false;
      }
      return true;
    }
    default:
      return a.address() != nullptr && a.address() == b.address();
  }
}

Result<bool> less(Context& context, Place place, const Value& a, const Value& b) {
  POME_ASSIGN_OR_RETURN(const Order order, compare(context, place, Operator::kLess, a, b));
  return order == Order::kLess;
}

Result<Value> negative(Place place, const Value& value) {
  if (value.is(Kind::kFloat)) return Value(-value.to_double());
  if (value.is(Kind::kUndefined)) return template_error(place, value.undefined_message());
  if (!value.is_integral()) {
    return template_error(place, "a " + std::string(value.type_name()) + " has no sign");
  }
  return int_arithmetic(place, Operator::kSubtract, 0, value.to_int());
}

Result<Value> positive(Place place, const Value& value) {
  if (value.is(Kind::kFloat)) return value;
  return value.is_integral() ? Value(value.to_int()) : negative(place, value);
}

Result<Value> binary(Context& context, Place place, Operator op, const Value& left,
                     const Value& right) {
  switch (op) {
    case Operator::kEqual:
    case Operator::kNotEqual: {
      POME_ASSIGN_OR_RETURN(const bool same, equal(context, place, left, right));
      return Value(same == (op == Operator::kEqual));
    }
    case Operator::kIn:
    case Operator::kNotIn: {
      POME_ASSIGN_OR_RETURN(const bool found, contains(context, place, left, right));
      return Value(found == (op == Operator::kIn));
    }
    case Operator::kLess:
    case Operator::kLessEqual:
    case Operator::kGreater:
    case Operator::kGreaterEqual: {
      POME_ASSIGN_OR_RETURN(const Order order, compare(context, place, op, left, right));
      const bool wants_less = op == Operator::kLess || op == Operator::kLessEqual;
      const bool or_equal = op == Operator::kLessEqual || op == Operator::kGreaterEqual;
      return Value(order == (wants_less ? Order::kLess : Order::kGreater) ||
                   (or_equal && order == Order::kEqual));
    }
    default:
      return arithmetic(context, place, op, left, right);
  }
}

}  // namespace pome::jinja
