#include "tokenizer/unicode_scripts.h"

#include "tokenizer/unicode_ranges.h"

namespace pome {
namespace {

struct ScriptRange {
  uint32_t first, last;
  uint8_t script;
};

#include "tokenizer/script_tables.inc"

}  // namespace

Script script_of(char32_t point) {
  const ScriptRange* range = find_range(kScripts, point);
  return range == nullptr ? Script::kAny : static_cast<Script>(range->script);
}

}  // namespace pome
