// What the files of filters and methods share.
#pragma once

#include "tokenizer/jinja/native.h"

namespace pome::jinja {

const Builtin* find_list_filter(std::string_view name);
const Builtin* find_string_method(std::string_view name);

// Text with `old` replaced; charged for before it is made.
Result<Value> replaced(Call& call, const Text& text, const Text& old, const Text& fresh,
                       int64_t count);

}  // namespace pome::jinja
