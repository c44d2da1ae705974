// Source → Program. Nesting of statements and expressions is at most kMaxDepth, which bounds the
// recursion of this parser; the source has at most 1 MiB.
#pragma once

#include <string_view>

#include "base/status.h"
#include "tokenizer/jinja/program.h"

namespace pome::jinja {

// kTemplate with line and column: wrong syntax, an unknown tag, filter or test, too deep, too
// large.
Result<Program> compile(std::string_view source);

}  // namespace pome::jinja
