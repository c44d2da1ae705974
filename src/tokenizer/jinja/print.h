// Values as text: as Python's str() and repr() print them, and as json.dumps() writes them. Strings
// keep the origin of their bytes.
#pragma once

#include <optional>
#include <string>

#include "base/status.h"
#include "tokenizer/jinja/context.h"
#include "tokenizer/jinja/value.h"

namespace pome::jinja {

// The fewest digits that read back as the same number, laid out as Python prints floats.
std::string float_text(double value);
Text quoted(const Text& text);  // a string as repr() writes it

Result<Text> to_text(Context& context, Place place, const Value& value);
Result<Text> repr(Context& context, Place place, const Value& value);

struct JsonStyle {
  bool ascii = false, sort_keys = false;
  std::optional<std::string> indent;  // what one level is indented by
  Text item_separator{", "}, key_separator{": "};
};
Result<Text> to_json(Context& context, Place place, const Value& value, const JsonStyle& style);

}  // namespace pome::jinja
