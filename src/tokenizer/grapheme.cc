#include "tokenizer/grapheme.h"

#include <cstdint>

#include "tokenizer/unicode.h"
#include "tokenizer/unicode_ranges.h"

namespace pome {
namespace {

enum class Break : uint8_t { kOther, kControl, kJoins, kPrepend, kLead, kVowel, kTrail, kLv, kLvt };

struct BreakRange {
  uint32_t first, last;
  Break kind;
};

#include "tokenizer/grapheme_tables.inc"

Break break_of(const Rune& rune) {
  const char32_t point = rune.point;
  if (!rune.valid) return Break::kControl;
  if (point < 0x80) return point < 0x20 || point == 0x7F ? Break::kControl : Break::kOther;
  if (point >= 0x1100) {
    if (point <= 0x115F || (point >= 0xA960 && point <= 0xA97C)) return Break::kLead;
    if (point <= 0x11A7 || (point >= 0xD7B0 && point <= 0xD7C6)) return Break::kVowel;
    if (point <= 0x11FF || (point >= 0xD7CB && point <= 0xD7FB)) return Break::kTrail;
    if (point >= 0xAC00 && point <= 0xD7A3) {
      return (point - 0xAC00) % 28 == 0 ? Break::kLv : Break::kLvt;
    }
  }
  const BreakRange* range = find_range(kBreaks, point);
  return range != nullptr ? range->kind : Break::kOther;
}

// Rules GB6 to GB9b; GB3 to GB5 are the caller's.
bool stay_together(Break before, Break after) {
  if (after == Break::kJoins || before == Break::kPrepend) return true;
  switch (before) {
    case Break::kLead:
      return after == Break::kLead || after == Break::kVowel || after == Break::kLv ||
             after == Break::kLvt;
    case Break::kLv:
    case Break::kVowel:
      return after == Break::kVowel || after == Break::kTrail;
    case Break::kLvt:
    case Break::kTrail:
      return after == Break::kTrail;
    default:
      return false;
  }
}

}  // namespace

size_t next_grapheme(std::string_view text, size_t at) {
  const Rune first = decode_rune(text, at);
  at += first.size;
  Break before = break_of(first);
  if (before == Break::kControl) {
    return first.point == '\r' && at < text.size() && text[at] == '\n' ? at + 1 : at;
  }
  while (at < text.size()) {
    const Rune rune = decode_rune(text, at);
    const Break after = break_of(rune);
    if (after == Break::kControl || !stay_together(before, after)) break;
    before = after;
    at += rune.size;
  }
  return at;
}

}  // namespace pome
