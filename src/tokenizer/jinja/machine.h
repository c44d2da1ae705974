// Runs a Program. There is no recursion: macros and recursive loops are frames of the machine, and
// every step and every byte is charged to the Context.
//
// Thread safety: a call keeps all state to itself.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "tokenizer/jinja/program.h"
#include "tokenizer/jinja/value.h"

namespace pome::jinja {

// `globals` are the names the template sees; `now` is what strftime_now formats (seconds since
// 1970, as the clock on the wall shows them).
Result<Text> run(const Program& program, const Dict& globals, int64_t now,
                 const Limits& limits = {});

}  // namespace pome::jinja
