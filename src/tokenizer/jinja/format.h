// Formatting of values by patterns: "%" of strings, str.format(), and strftime.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "tokenizer/jinja/context.h"
#include "tokenizer/jinja/value.h"

namespace pome::jinja {

// `pattern % arguments`: a tuple gives several values, a dictionary named ones.
Result<Text> percent_format(Context& context, Place place, const Text& pattern,
                            const Value& arguments);
// pattern.format(*positional, **named).
Result<Text> brace_format(Context& context, Place place, const Text& pattern,
                          const List& positional, const Dict& named);
// The time (seconds since 1970, as the clock on the wall shows it) as strftime writes it in
// English.
std::string time_format(std::string_view pattern, int64_t seconds);

}  // namespace pome::jinja
