// How the arguments of a call become the names of a macro.
#pragma once

#include "base/status.h"
#include "tokenizer/jinja/native.h"
#include "tokenizer/jinja/program.h"

namespace pome::jinja {

// By position, then by name; `caller`, `kwargs` and `varargs` where the macro reads them.
// Parameters with a default that are not given stay out of the scope. kTemplate for arguments that
// do not fit.
Status bind_macro(Context& context, Place place, const Program& program, const MacroInfo& info,
                  Arguments arguments, Scope& scope);

}  // namespace pome::jinja
