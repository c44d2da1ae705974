// Parses a template into its tree. Nesting of statements and expressions is at most kMaxDepth,
// which bounds the recursion of this parser and of all that walks the tree.
#pragma once

#include <string_view>

#include "base/status.h"
#include "tokenizer/jinja/ast.h"

namespace pome::jinja {

// kTemplate with line and column: wrong syntax, an unknown tag, too deep, larger than 1 MiB.
Result<Body> parse_template(std::string_view source);

}  // namespace pome::jinja
