#include "tokenizer/unicode.h"

#include <algorithm>
#include <vector>

#include "tokenizer/unicode_ranges.h"

namespace pome {
namespace {

struct CategoryRange {
  uint32_t first, last;
  Category category;
};
#include "tokenizer/unicode_tables.inc"

// Planes 0 and 1 hold nearly all text; the others are looked up in the ranges.
constexpr char32_t kTableEnd = 0x20000;

uint8_t find_kind(char32_t point) {
  const CategoryRange* range = find_range(kCategoryRanges, point);
  const Category category = range ? range->category : Category::kCn;
  const bool space = find_range(kWhiteSpace, point) != nullptr;
  return static_cast<uint8_t>(static_cast<uint8_t>(category) | (space ? kWhiteSpaceBit : 0));
}

const uint8_t* kind_table() {
  static const std::vector<uint8_t> kTable = [] {
    std::vector<uint8_t> table(kTableEnd, static_cast<uint8_t>(Category::kCn));
    for (const CategoryRange& range : kCategoryRanges) {
      const uint32_t end = std::min<uint32_t>(range.last + 1, kTableEnd);
      for (uint32_t i = range.first; i < end; ++i) table[i] = static_cast<uint8_t>(range.category);
    }
    for (const PointRange& range : kWhiteSpace) {
      const uint32_t end = std::min<uint32_t>(range.last + 1, kTableEnd);
      for (uint32_t i = range.first; i < end; ++i) table[i] |= kWhiteSpaceBit;
    }
    return table;
  }();
  return kTable.data();
}

// Lengths of what stands at `text[at]`: `size` bytes belong together (at least one); `valid` when
// they are a character; `open` when the text ends before the sequence does.
struct Sequence {
  char32_t point = kReplacement;
  uint8_t size = 1;
  bool valid = false, open = false;
};

Sequence read_sequence(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(at);
  if (lead < 0x80) return {lead, 1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {};
  const uint8_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // Table 3-7 of the Unicode standard: only the second byte has a narrower range than 80..BF.
  uint8_t low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  char32_t point = lead & (0x7F >> length);
  for (uint8_t i = 1; i < length; ++i) {
    if (at + i == text.size()) return {kReplacement, i, false, true};
    const uint8_t next = byte(at + i);
    if (next < low || next > high) return {kReplacement, i, false, false};
    low = 0x80;
    high = 0xBF;
    point = point << 6 | (next & 0x3F);
  }
  return {point, length, true, false};
}

}  // namespace

uint8_t char_kind(char32_t point) {
  return point < kTableEnd ? kind_table()[point] : find_kind(point);
}

bool is_word_character(char32_t point) {
  const Category c = category_of(point);
  if (c == Category::kSo) {
    // Circled and squared letters have the property Other_Alphabetic.
    return (point >= 0x24B6 && point <= 0x24E9) || (point >= 0x1F130 && point <= 0x1F149) ||
           (point >= 0x1F150 && point <= 0x1F169) || (point >= 0x1F170 && point <= 0x1F189);
  }
  return is_letter(c) || is_mark(c) || c == Category::kNd || c == Category::kNl ||
         c == Category::kPc || point == 0x200C || point == 0x200D;
}

char32_t to_lower(char32_t point) {
  if (point < 0x80) return point >= 'A' && point <= 'Z' ? point + 32 : point;
  return map_case(kToLower, point);
}

char32_t to_upper(char32_t point) {
  if (point < 0x80) return point >= 'a' && point <= 'z' ? point - 32 : point;
  return map_case(kToUpper, point);
}

Rune decode_rune(std::string_view text, size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  if (lead < 0x80) return {lead, 1, true};
  const Sequence sequence = read_sequence(text, at);
  if (!sequence.valid) return {};
  return {sequence.point, sequence.size, true};
}

Rune decode_rune_before(std::string_view text, size_t end) {
  for (size_t back = 1; back <= std::min<size_t>(4, end); ++back) {
    const Rune rune = decode_rune(text.substr(0, end), end - back);
    if (rune.valid && rune.size == back) return rune;
  }
  return {};
}

void append_utf8(std::string& out, char32_t point) {
  const auto push = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (point < 0x80) {
    push(point);
  } else if (point < 0x800) {
    push(0xC0 | point >> 6);
    push(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    push(0xE0 | point >> 12);
    push(0x80 | (point >> 6 & 0x3F));
    push(0x80 | (point & 0x3F));
  } else {
    push(0xF0 | point >> 18);
    push(0x80 | (point >> 12 & 0x3F));
    push(0x80 | (point >> 6 & 0x3F));
    push(0x80 | (point & 0x3F));
  }
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    const Sequence sequence = read_sequence(bytes, i);
    if (sequence.valid) {
      out.append(bytes.substr(i, sequence.size));
    } else {
      append_utf8(out, kReplacement);
    }
    i += sequence.size;
  }
  return out;
}

size_t complete_prefix(std::string_view bytes) {
  // An open sequence has at most three bytes, so only its lead byte has to be looked for.
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const size_t at = bytes.size() - back;
    const auto byte = static_cast<uint8_t>(bytes[at]);
    if ((byte & 0xC0) == 0x80) continue;
    const Sequence sequence = read_sequence(bytes, at);
    return sequence.open && sequence.size == back ? at : bytes.size();
  }
  return bytes.size();
}

}  // namespace pome
