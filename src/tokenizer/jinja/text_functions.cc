#include "tokenizer/jinja/text_functions.h"

#include <algorithm>

#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

bool holds(const std::string& characters, char32_t point) {
  for (size_t at = 0; at < characters.size();) {
    const Rune rune = decode_rune(characters, at);
    if (rune.point == point) return true;
    at += rune.size;
  }
  return false;
}

bool is_ascii(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

}  // namespace

bool is_line_break(char32_t point) {
  return (point >= 0x0A && point <= 0x0D) || (point >= 0x1C && point <= 0x1E) || point == 0x85 ||
         point == 0x2028 || point == 0x2029;
}

int64_t count_characters(std::string_view bytes) {
  if (is_ascii(bytes)) return static_cast<int64_t>(bytes.size());
  int64_t count = 0;
  for (size_t at = 0; at < bytes.size(); at += decode_rune(bytes, at).size) ++count;
  return count;
}

size_t byte_of_character(std::string_view bytes, int64_t character) {
  if (is_ascii(bytes)) return std::min(bytes.size(), static_cast<size_t>(character));
  size_t at = 0;
  for (; character > 0 && at < bytes.size(); --character) at += decode_rune(bytes, at).size;
  return at;
}

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

std::vector<Text> split(const Text& text, std::string_view separator, int64_t limit,
                        bool from_right) {
  std::vector<Text> out;
  const std::string& bytes = text.bytes();
  const auto more = [&] { return limit < 0 || static_cast<int64_t>(out.size()) < limit; };
  if (!from_right) {
    size_t begin = 0;
    while (more()) {
      const size_t found = bytes.find(separator, begin);
      if (found == std::string::npos) break;
      out.push_back(text.slice(begin, found));
      begin = found + separator.size();
    }
    out.push_back(text.slice(begin, text.size()));
    return out;
  }
  size_t end = bytes.size();
  while (more() && end >= separator.size()) {
    const size_t found = bytes.rfind(separator, end - separator.size());
    if (found == std::string::npos) break;
    out.push_back(text.slice(found + separator.size(), end));
    end = found;
  }
  out.push_back(text.slice(0, end));
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Text> split_at_space(const Text& text, int64_t limit, bool from_right) {
  std::vector<Text> out;
  const std::string& bytes = text.bytes();
  const auto more = [&] { return limit < 0 || static_cast<int64_t>(out.size()) < limit; };
  if (!from_right) {
    for (size_t at = 0; at < bytes.size();) {
      const Rune first = decode_rune(bytes, at);
      if (is_python_space(first.point)) {
        at += first.size;
        continue;
      }
      if (!more()) {
        out.push_back(text.slice(at, text.size()));
        break;
      }
      size_t end = at;
      for (; end < bytes.size(); end += decode_rune(bytes, end).size) {
        if (is_python_space(decode_rune(bytes, end).point)) break;
      }
      out.push_back(text.slice(at, end));
      at = end;
    }
    return out;
  }
  for (size_t end = bytes.size(); end > 0;) {
    const Rune last = decode_rune_before(bytes, end);
    if (is_python_space(last.point)) {
      end -= last.size;
      continue;
    }
    if (!more()) {
      out.push_back(text.slice(0, end));
      break;
    }
    size_t begin = end;
    while (begin > 0) {
      const Rune rune = decode_rune_before(bytes, begin);
      if (is_python_space(rune.point)) break;
      begin -= rune.size;
    }
    out.push_back(text.slice(begin, end));
    end = begin;
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Text> split_lines(const Text& text, bool keep_ends) {
  std::vector<Text> out;
  const std::string& bytes = text.bytes();
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const Rune rune = decode_rune(bytes, at);
    size_t next = at + rune.size;
    if (is_line_break(rune.point)) {
      if (rune.point == '\r' && next < bytes.size() && bytes[next] == '\n') ++next;
      out.push_back(text.slice(begin, keep_ends ? next : at));
      begin = next;
    }
    at = next;
  }
  if (begin < bytes.size()) out.push_back(text.slice(begin, bytes.size()));
  return out;
}

Text replace(const Text& text, std::string_view old, const Text& fresh, int64_t count) {
  Text out;
  if (!old.empty()) {
    const std::vector<Text> parts = split(text, old, count);
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i > 0) out.append(fresh);
      out.append(parts[i]);
    }
    return out;
  }
  size_t at = 0;
  for (int64_t done = 0; count < 0 || done < count; ++done) {
    out.append(fresh);
    if (at == text.size()) return out;
    const size_t next = at + decode_rune(text.bytes(), at).size;
    out.append(text, at, next);
    at = next;
  }
  out.append(text, at, text.size());
  return out;
}

Text reversed(const Text& text) {
  Text out;
  for (size_t end = text.size(); end > 0;) {
    const size_t begin = end - decode_rune_before(text.bytes(), end).size;
    out.append(text, begin, end);
    end = begin;
  }
  return out;
}

Text padded(const Text& text, int64_t before, int64_t after, std::string_view fill) {
  const auto fills = [&](int64_t count) {
    std::string out;
    for (int64_t i = 0; i < count; ++i) out += fill;
    return out;
  };
  Text out;
  out.append(fills(before), false);
  out.append(text);
  out.append(fills(after), false);
  return out;
}

Text centered(const Text& text, int64_t width, std::string_view fill) {
  const int64_t missing =
      std::max<int64_t>(std::max<int64_t>(width, 0) - count_characters(text.bytes()), 0);
  // An odd one goes to the left where the width is odd, as Python does it.
  const int64_t before = missing / 2 + (missing & width & 1);
  return padded(text, before, missing - before, fill);
}

Text html_escaped(const Text& text) {
  Text out;
  size_t at = 0;
  for (const Text::Run& run : text.runs()) {
    std::string part;
    for (; at < run.end; ++at) {
      switch (const char c = text.bytes()[at]) {
        case '&':
          part += "&amp;";
          break;
        case '<':
          part += "&lt;";
          break;
        case '>':
          part += "&gt;";
          break;
        case '\'':
          part += "&#39;";
          break;
        case '"':
          part += "&#34;";
          break;
        default:
          part += c;
      }
    }
    out.append(part, run.from_user);
  }
  return out;
}

Text url_quoted(const Text& text, bool for_query) {
  Text out;
  size_t at = 0;
  for (const Text::Run& run : text.runs()) {
    std::string part;
    for (; at < run.end; ++at) {
      const char c = text.bytes()[at];
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-' || c == '~' ||
                         (c == '/' && !for_query);
      if (plain) {
        part += c;
      } else if (c == ' ' && for_query) {
        part += '+';
      } else {
        constexpr char kHex[] = "0123456789ABCDEF";
        part += '%';
        part += kHex[static_cast<uint8_t>(c) >> 4];
        part += kHex[static_cast<uint8_t>(c) & 15];
      }
    }
    out.append(part, run.from_user);
  }
  return out;
}

int64_t count_words(std::string_view bytes) {
  int64_t words = 0;
  bool in_word = false;
  for (size_t at = 0; at < bytes.size();) {
    const Rune rune = decode_rune(bytes, at);
    const bool word =
        rune.valid && (rune.point == '_' || is_alpha(rune.point) || is_numeric(rune.point));
    if (word && !in_word) ++words;
    in_word = word;
    at += rune.size;
  }
  return words;
}

}  // namespace pome::jinja
