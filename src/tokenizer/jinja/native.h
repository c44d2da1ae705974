// Functions, filters, tests and methods that are built in: how they are found and called. A table
// entry says its parameters as Python would, so that wrong calls are refused in one place.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/context.h"
#include "tokenizer/jinja/value.h"

namespace pome::jinja {

// Of a filter, test or method the first positional one is what it is applied to.
struct Arguments {
  List positional;
  Dict named;
};

// Arguments by parameter.
struct Call {
  Context& context;
  Place place;
  std::string_view name;
  std::vector<std::optional<Value>> slots;
  List rest;   // of "*"
  Dict named;  // of "**"

  const Value& self() const { return *slots[0]; }
  // Null when it was not given.
  const Value* find(size_t slot) const {
    return slot < slots.size() && slots[slot] ? &*slots[slot] : nullptr;
  }
  Status fail(const std::string& message) const;  // with the name
  // The string of a value (which must be one, else an error) or what str() makes of any value.
  Result<Text> string(const Value& value) const;
  Result<Text> text_of(const Value& value) const;
  // An argument of a kind; `otherwise` where it was not given (None counts as not given for text).
  Result<int64_t> integer(size_t slot, int64_t otherwise) const;
  Result<std::optional<Text>> text(size_t slot) const;
  bool flag(size_t slot, bool otherwise = false) const;
};

// Parameters are names with spaces between them: "x" is required, "x=" may be left out, ".x" cannot
// be given by name, "*" takes more positional ones, "**" more named ones.
struct Builtin {
  std::string_view name;
  std::string_view parameters;
  Result<Value> (*run)(Call& call);
};

// Binds and runs; kTemplate for arguments that do not fit.
Result<Value> call_builtin(Context& context, Place place, const Builtin& builtin,
                           Arguments arguments);

// Null where there is no such thing.
const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_function(std::string_view name);
const Builtin* find_method(const Value& object, std::string_view name);
Status unknown_filter(Place place, std::string_view name);
Status unknown_test(Place place, std::string_view name);

}  // namespace pome::jinja
