// Methods of dictionaries, lists, numbers, loops and cyclers.
#include <algorithm>
#include <cmath>
#include <span>

#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/print.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;
using Shape = Sequence::Shape;

Result<Value> get_method(Call& call) {
  const Value& key = *call.find(1);
  if (!Dict::can_be_sought(key)) {
    return call.fail("a " + std::string(key.type_name()) + " cannot be a key");
  }
  if (const Value* field = call.self().dict().find(key)) return *field;
  return call.find(2) != nullptr ? *call.find(2) : Value(None{});
}

template <Shape shape>
Result<Value> view_method(Call& call) {
  Sequence out{.shape = shape, .items = {}};
  POME_RETURN_IF_ERROR(call.context.room(call.place, call.self().dict().size() * sizeof(Value)));
  for (const auto& [key, value] : call.self().dict()) {
    if (shape == Shape::kKeys) out.items.push_back(key);
    if (shape == Shape::kValues) out.items.push_back(value);
    if (shape == Shape::kItems) {
      POME_ASSIGN_OR_RETURN(Value pair, call.context.tuple(call.place, {key, value}));
      out.items.push_back(std::move(pair));
    }
  }
  return call.context.made(call.place, std::move(out));
}

Result<Value> copy_method(Call& call) { return call.self(); }

Result<Value> count_method(Call& call) {
  int64_t count = 0;
  for (const Value& item : call.self().items()) {
    POME_ASSIGN_OR_RETURN(const bool same, equal(call.context, call.place, item, *call.find(1)));
    count += same ? 1 : 0;
  }
  return Value(count);
}

Result<Value> index_method(Call& call) {
  const List& items = call.self().items();
  const auto size = static_cast<int64_t>(items.size());
  POME_ASSIGN_OR_RETURN(int64_t begin, call.integer(2, 0));
  POME_ASSIGN_OR_RETURN(int64_t end, call.integer(3, size));
  if (begin < 0) begin = std::max<int64_t>(begin + size, 0);
  if (end < 0) end += size;
  for (int64_t i = begin; i < std::min(end, size); ++i) {
    POME_ASSIGN_OR_RETURN(const bool same, equal(call.context, call.place,
                                                 items[static_cast<size_t>(i)], *call.find(1)));
    if (same) return Value(i);
  }
  return call.fail("there is no such item");
}

Result<Value> is_integer_method(Call& call) {
  const double value = call.self().to_double();
  return Value(std::isfinite(value) && value == std::floor(value));
}
Result<Value> bit_length_method(Call& call) {
  const int64_t value = call.self().to_int();
  uint64_t left = value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
  int64_t bits = 0;
  for (; left != 0; left >>= 1) ++bits;
  return Value(bits);
}

Loop& loop_of(const Call& call) { return static_cast<Loop&>(call.self().object()); }
Cycler& cycler_of(const Call& call) { return static_cast<Cycler&>(call.self().object()); }

Result<Value> cycle_method(Call& call) {
  if (call.rest.empty()) return call.fail("at least one item is needed");
  return call.rest[(loop_of(call).next - 1) % call.rest.size()];
}
Result<Value> changed_method(Call& call) {
  Loop& loop = loop_of(call);
  POME_ASSIGN_OR_RETURN(const Value now, call.context.tuple(call.place, std::move(call.rest)));
  if (loop.has_changed) {
    POME_ASSIGN_OR_RETURN(const bool same, equal(call.context, call.place, loop.last_changed, now));
    if (same) return Value(false);
  }
  loop.has_changed = true;
  loop.last_changed = now;
  return Value(true);
}
Result<Value> next_method(Call& call) {
  Cycler& cycler = cycler_of(call);
  const size_t at = cycler.at;
  cycler.at = (at + 1) % cycler.items.size();
  return cycler.items[at];
}
Result<Value> reset_method(Call& call) {
  cycler_of(call).at = 0;
  return Value(None{});
}

constexpr Builtin kDictMethods[] = {
    {"copy", "self", copy_method},
    {"get", "self .key .default=", get_method},
    {"items", "self", view_method<Shape::kItems>},
    {"keys", "self", view_method<Shape::kKeys>},
    {"values", "self", view_method<Shape::kValues>},
};
constexpr Builtin kListMethods[] = {
    {"copy", "self", copy_method},
    {"count", "self .value", count_method},
    {"index", "self .value .start= .stop=", index_method},
};
constexpr Builtin kIntMethods[] = {{"bit_length", "self", bit_length_method}};
constexpr Builtin kFloatMethods[] = {{"is_integer", "self", is_integer_method}};
constexpr Builtin kLoopMethods[] = {
    {"changed", "self *", changed_method},
    {"cycle", "self *", cycle_method},
};
constexpr Builtin kCyclerMethods[] = {
    {"next", "self", next_method},
    {"reset", "self", reset_method},
};

}  // namespace

const Builtin* find_method(const Value& object, std::string_view name) {
  std::span<const Builtin> methods;
  switch (object.kind()) {
    case Kind::kString:
      return find_string_method(name);
    case Kind::kDict:
      methods = kDictMethods;
      break;
    case Kind::kSequence:
      if (object.sequence().is_view()) return nullptr;
      if (name == "copy" && object.sequence().shape != Shape::kList) return nullptr;
      methods = kListMethods;
      break;
    case Kind::kBool:
    case Kind::kInt:
      methods = kIntMethods;
      break;
    case Kind::kFloat:
      methods = kFloatMethods;
      break;
    case Kind::kObject:
      if (object.object().type == Object::Type::kLoop) methods = kLoopMethods;
      if (object.object().type == Object::Type::kCycler) methods = kCyclerMethods;
      break;
    default:
      break;
  }
  for (const Builtin& method : methods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

}  // namespace pome::jinja
