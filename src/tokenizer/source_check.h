// What must hold of a TokenizerSource before a tokenizer is built from it.
#pragma once

#include "base/status.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

// kRange, kDup, kLimit and kUnsupported name the field.
Status check_source(const TokenizerSource& source);

}  // namespace pome
