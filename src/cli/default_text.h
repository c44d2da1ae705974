// The held-out text that verify uses when no other is given (data/held-out.txt, embedded by the
// build).
#pragma once

#include <string_view>

namespace pome::cli {

std::string_view default_text();

}  // namespace pome::cli
