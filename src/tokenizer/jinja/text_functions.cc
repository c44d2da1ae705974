#include "tokenizer/jinja/text_functions.h"

#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

// Python's str.isspace() holds for the four separators of ASCII too.
bool is_python_space(char32_t point) {
  return is_white_space(point) || (point >= 0x1C && point <= 0x1F);
}

bool holds(const std::string& characters, char32_t point) {
  for (size_t at = 0; at < characters.size();) {
    const Rune rune = decode_rune(characters, at);
    if (rune.point == point) return true;
    at += rune.size;
  }
  return false;
}

// `map(point)` for each character; broken bytes stay.
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
        append_utf8(part, map(rune.point));
      } else {
        part.append(text.bytes(), at, rune.size);
      }
      at += rune.size;
    }
    out.append(part, run.from_user);
  }
  return out;
}

}  // namespace

Text strip(const Text& text, bool left, bool right, const std::optional<std::string>& characters) {
  const auto goes = [&](const Rune& rune) {
    if (!rune.valid) return false;
    return characters ? holds(*characters, rune.point) : is_python_space(rune.point);
  };
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const Rune rune = decode_rune(text.bytes(), begin);
    if (!goes(rune)) break;
    begin += rune.size;
  }
  while (right && end > begin) {
    const Rune rune = decode_rune_before(text.bytes(), end);
    if (!goes(rune)) break;
    end -= rune.size;
  }
  return text.slice(begin, end);
}

Text lower(const Text& text) { return map_characters(text, to_lower); }
Text upper(const Text& text) { return map_characters(text, to_upper); }

Text capitalize(const Text& text) {
  bool first = true;
  return map_characters(text, [&](char32_t point) {
    const char32_t out = first ? to_upper(point) : to_lower(point);
    first = false;
    return out;
  });
}

Text title(const Text& text) {
  bool in_word = false;
  return map_characters(text, [&](char32_t point) {
    const char32_t out = in_word ? to_lower(point) : to_upper(point);
    in_word = is_letter(category_of(point));
    return out;
  });
}

std::vector<Text> split(const Text& text, std::string_view separator, int64_t limit) {
  std::vector<Text> out;
  size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t found = text.bytes().find(separator, begin);
    if (found == std::string::npos) break;
    out.push_back(text.slice(begin, found));
    begin = found + separator.size();
  }
  out.push_back(text.slice(begin, text.size()));
  return out;
}

std::vector<Text> split_at_space(const Text& text) {
  std::vector<Text> out;
  size_t begin = 0;
  bool in_part = false;
  for (size_t at = 0; at < text.size();) {
    const Rune rune = decode_rune(text.bytes(), at);
    const bool space = rune.valid && is_python_space(rune.point);
    if (space && in_part) out.push_back(text.slice(begin, at));
    if (!space && !in_part) begin = at;
    in_part = !space;
    at += rune.size;
  }
  if (in_part) out.push_back(text.slice(begin, text.size()));
  return out;
}

Text replace(const Text& text, std::string_view old, const Text& fresh, int64_t count) {
  Text out;
  const std::vector<Text> parts = split(text, old, count);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out.append(fresh);
    out.append(parts[i]);
  }
  return out;
}

}  // namespace pome::jinja
