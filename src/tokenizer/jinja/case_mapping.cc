// Case, and classes of characters, as Python's strings have them.
#include <algorithm>
#include <iterator>

#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

struct Mapping {
  char32_t point;
  const char* text;
};
struct Range {
  char32_t first, last;
};

#include "tokenizer/jinja/case_tables.inc"

template <size_t N>
const char* find(const Mapping (&table)[N], char32_t point) {
  const auto* found = std::lower_bound(std::begin(table), std::end(table), point,
                                       [](const Mapping& m, char32_t p) { return m.point < p; });
  return found != std::end(table) && found->point == point ? found->text : nullptr;
}

template <size_t N>
bool holds(const Range (&ranges)[N], char32_t point) {
  const auto* found = std::lower_bound(std::begin(ranges), std::end(ranges), point,
                                       [](const Range& r, char32_t p) { return r.last < p; });
  return found != std::end(ranges) && found->first <= point;
}

void append_upper(std::string& out, char32_t point) {
  if (const char* text = point < 0x80 ? nullptr : find(kUpper, point)) {
    out += text;
  } else {
    append_utf8(out, to_upper(point));
  }
}
void append_title(std::string& out, char32_t point) {
  if (const char* text = point < 0x80 ? nullptr : find(kTitle, point)) {
    out += text;
  } else {
    append_upper(out, point);
  }
}
void append_lower(std::string& out, char32_t point) {
  if (point == 0x130) {
    out += "i\xCC\x87";  // the one character whose lower case is two
  } else {
    append_utf8(out, to_lower(point));
  }
}

bool is_cased(char32_t point) { return is_lower(point) || is_upper(point) || is_title(point); }
bool is_case_ignorable(char32_t point) {
  const Category c = category_of(point);
  return c == Category::kMn || c == Category::kMe || c == Category::kCf || c == Category::kLm ||
         c == Category::kSk || point == '\'' || point == '.' || point == ':' || point == 0xB7 ||
         point == 0x2019;
}

// A sigma that ends a word has a form of its own.
bool is_final_sigma(std::string_view bytes, size_t at, size_t size) {
  bool cased_before = false;
  for (size_t i = at; i > 0;) {
    const Rune rune = decode_rune_before(bytes.substr(0, i), i);
    i -= rune.size;
    if (is_case_ignorable(rune.point)) continue;
    cased_before = is_cased(rune.point);
    break;
  }
  if (!cased_before) return false;
  for (size_t i = at + size; i < bytes.size();) {
    const Rune rune = decode_rune(bytes, i);
    i += rune.size;
    if (!is_case_ignorable(rune.point)) return !is_cased(rune.point);
  }
  return true;
}

// `map(part, point, at, size)` for each character; broken bytes stay.
template <typename Map>
Text map_characters(const Text& text, const Map& map) {
  Text out;
  size_t at = 0;
  std::string part;
  for (const Text::Run& run : text.runs()) {
    part.clear();
    while (at < run.end) {
      const Rune rune = decode_rune(text.bytes(), at);
      if (rune.valid) {
        map(part, rune.point, at, rune.size);
      } else {
        part.append(text.bytes(), at, rune.size);
      }
      at += rune.size;
    }
    out.append(part, run.from_user);
  }
  return out;
}

void append_lower_at(std::string& out, const std::string& bytes, char32_t point, size_t at,
                     size_t size) {
  if (point == 0x3A3 && is_final_sigma(bytes, at, size)) {
    append_utf8(out, 0x3C2);
  } else {
    append_lower(out, point);
  }
}

}  // namespace

bool is_python_space(char32_t point) {
  return is_white_space(point) || (point >= 0x1C && point <= 0x1F);
}
bool is_alpha(char32_t point) { return is_letter(category_of(point)); }
bool is_decimal(char32_t point) { return category_of(point) == Category::kNd; }
int decimal_value(char32_t point) {
  // Digits stand in runs that begin with a zero; the longest has five times ten.
  char32_t first = point;
  while (first > 0 && point - first < 50 && is_decimal(first - 1)) --first;
  return static_cast<int>((point - first) % 10);
}
bool is_digit(char32_t point) { return is_decimal(point) || holds(kDigits, point); }
bool is_numeric(char32_t point) { return is_number(category_of(point)) || holds(kNumerals, point); }
bool is_lower(char32_t point) {
  return category_of(point) == Category::kLl || holds(kOtherLower, point);
}
bool is_upper(char32_t point) {
  return category_of(point) == Category::kLu || holds(kOtherUpper, point);
}
bool is_title(char32_t point) { return category_of(point) == Category::kLt; }
bool is_printable(char32_t point) {
  const Category c = category_of(point);
  return point == ' ' || (c != Category::kCn && c < Category::kZs);
}

Text lower(const Text& text) {
  return map_characters(text, [&](std::string& out, char32_t point, size_t at, size_t size) {
    append_lower_at(out, text.bytes(), point, at, size);
  });
}
Text upper(const Text& text) {
  return map_characters(
      text, [](std::string& out, char32_t point, size_t, size_t) { append_upper(out, point); });
}
Text fold(const Text& text) {
  return map_characters(text, [](std::string& out, char32_t point, size_t, size_t) {
    if (const char* folded = find(kFold, point)) {
      out += folded;
    } else {
      append_lower(out, point);
    }
  });
}
Text swap_case(const Text& text) {
  return map_characters(text, [&](std::string& out, char32_t point, size_t at, size_t size) {
    if (is_upper(point)) {
      append_lower_at(out, text.bytes(), point, at, size);
    } else if (is_lower(point)) {
      append_upper(out, point);
    } else {
      append_utf8(out, point);
    }
  });
}
Text capitalize(const Text& text) {
  return map_characters(text, [&](std::string& out, char32_t point, size_t at, size_t size) {
    if (at == 0) {
      append_title(out, point);
    } else {
      append_lower_at(out, text.bytes(), point, at, size);
    }
  });
}
Text title(const Text& text) {
  bool in_word = false;
  return map_characters(text, [&](std::string& out, char32_t point, size_t at, size_t size) {
    if (in_word) {
      append_lower_at(out, text.bytes(), point, at, size);
    } else {
      append_title(out, point);
    }
    in_word = is_cased(point);
  });
}
Text title_filter(const Text& text) {
  const auto between = [](char32_t point) {
    return is_python_space(point) || point == '-' || point == '(' || point == '{' || point == '[' ||
           point == '<';
  };
  Text out;
  const std::string& bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const Rune first = decode_rune(bytes, at);
    size_t end = at + first.size;
    if (!between(first.point)) {
      while (end < bytes.size() && !between(decode_rune(bytes, end).point)) {
        end += decode_rune(bytes, end).size;
      }
      // The rest is lowered for itself: what stands before it does not count.
      out.append(upper(text.slice(at, at + first.size)));
      out.append(lower(text.slice(at + first.size, end)));
    } else {
      out.append(text, at, end);
    }
    at = end;
  }
  return out;
}

}  // namespace pome::jinja
