// Runs a parsed template. Every step, and every byte or item that is copied, costs fuel, so that no
// template can run for long or fill memory.
//
// Thread safety: a Context belongs to one render.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/value.h"

namespace pome::jinja {

struct Limits {
  uint64_t fuel = 10'000'000;
  size_t output = size_t{16} << 20;  // bytes, of the output and of any one string
};

// What running code may spend, and the errors that say where.
class Context {
 public:
  explicit Context(const Limits& limits) : limits_(limits) {}
  // kTemplate when the fuel is used up.
  Status spend(Place place, uint64_t amount = 1);
  // A text that was just made: charges for it and holds it to the limit on size.
  Result<Value> made(Place place, Text text);
  Result<Value> made(Place place, List list);
  Result<Value> made(Place place, Dict dict);
  const Limits& limits() const { return limits_; }

 private:
  Limits limits_;
  uint64_t spent_ = 0;
};

// Arguments of a call, a filter or a test. Of a filter or test the first is what it is applied to.
struct Arguments {
  std::vector<Value> positional;
  Dict named;
  // By position or by name; nullptr when it was not given.
  const Value* find(size_t position, std::string_view name) const;
};

// Each gives kTemplate with the place and the name for what it does not know.
Result<Value> call_filter(Context& context, Place place, const std::string& name,
                          const Arguments& arguments);
Result<Value> call_test(Context& context, Place place, const std::string& name,
                        const Arguments& arguments);
Result<Value> call_function(Context& context, Place place, const std::string& name,
                            const Arguments& arguments);
Result<Value> call_method(Context& context, Place place, const Method& method,
                          const Arguments& arguments);
bool is_function(std::string_view name);
bool is_method(const Value& object, std::string_view name);

// What a for loop walks over: the items of a list, the keys of a dictionary, the characters of a
// string.
Result<List> items_of(Context& context, Place place, const Value& value);
Result<Value> binary_operation(Context& context, Place place, const std::string& name,
                               const Value& left, const Value& right);

// `globals` are the variables that the template sees.
Result<Text> render(const Body& body, Dict globals, const Limits& limits = {});

}  // namespace pome::jinja
