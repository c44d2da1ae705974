// What operators, subscripts and attributes do, with Python's rules. Integers have 64 bits: where
// Python would go on, the result is an error.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/status.h"
#include "tokenizer/jinja/context.h"
#include "tokenizer/jinja/value.h"

namespace pome::jinja {

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

Result<Value> binary(Context& context, Place place, Operator op, const Value& left,
                     const Value& right);
Result<Value> negative(Place place, const Value& value);
Result<Value> positive(Place place, const Value& value);
Result<bool> equal(Context& context, Place place, const Value& a, const Value& b);
// Whether a < b; an error for what has no order.
Result<bool> less(Context& context, Place place, const Value& a, const Value& b);

// Items as a loop walks over them; generators are used up. An error for what cannot be walked over.
Result<List> items_of(Context& context, Place place, const Value& value);
bool is_iterable(const Value& value);
// -1 for what has no length.
int64_t length_of(const Value& value);

// object[key], falling back to an attribute; object.name, falling back to an item; object[a:b:c]
// with None for what is left out.
Result<Value> get_item(Context& context, Place place, const Value& object, const Value& key);
Result<Value> get_attribute(Context& context, Place place, const Value& object,
                            std::string_view name);
Result<Value> get_slice(Context& context, Place place, const Value& object, const Value& begin,
                        const Value& end, const Value& step);
// The attribute alone; nullopt where there is none. Sets `unsafe` for what the sandbox hides.
Result<std::optional<Value>> find_attribute(Context& context, Place place, const Value& object,
                                            std::string_view name);

// Stable, by a key of each item.
Result<List> sorted(Context& context, Place place, List items, bool reverse,
                    const std::function<Value(const Value&)>& key);
Result<List> sorted(Context& context, Place place, List items, const List& keys, bool reverse);

}  // namespace pome::jinja
