#include "formats/json_scanner.h"

#include "base/checked.h"

namespace pome {
namespace {

constexpr int kMaxDepth = 128;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

}  // namespace

Status JsonScanner::fail(Refusal refusal, std::string message) const {
  return bad_input(refusal, std::move(message)).in(file_).at_offset(offset());
}

void JsonScanner::skip_space() {
  while (position_ < text_.size() && is_space(text_[position_])) ++position_;
}

bool JsonScanner::accept(char c) {
  skip_space();
  if (at_end() || text_[position_] != c) return false;
  ++position_;
  return true;
}

Status JsonScanner::expect(char c) {
  if (accept(c)) return {};
  const std::string found =
      at_end() ? "the end" : "\"" + escape_for_terminal(rest().substr(0, 1)) + "\"";
  return fail(Refusal::kType,
              std::string("expected \"") + c + "\" in the JSON header, found " + found);
}

Result<bool> JsonScanner::more(char close) {
  if (accept(close)) return false;
  POME_RETURN_IF_ERROR(expect(','));
  return true;
}

Result<uint32_t> JsonScanner::hex4() {
  uint32_t code = 0;
  for (int i = 0; i < 4; ++i, ++position_) {
    const char c = peek();
    uint32_t digit;
    if (is_digit(c))
      digit = static_cast<uint32_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      digit = static_cast<uint32_t>(c - 'a' + 10);
    else if (c >= 'A' && c <= 'F')
      digit = static_cast<uint32_t>(c - 'A' + 10);
    else
      return fail(Refusal::kType, "a \\u escape needs four hexadecimal digits");
    code = code << 4 | digit;
  }
  return code;
}

// The character after a backslash.
Status JsonScanner::escape(std::string& out) {
  static constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
  const char c = peek();
  const size_t simple = at_end() ? std::string_view::npos : kFrom.find(c);
  if (simple != std::string_view::npos) {
    out.push_back(kTo[simple]);
    ++position_;
    return {};
  }
  if (c != 'u') return fail(Refusal::kType, "unknown escape in a JSON string");
  ++position_;
  POME_ASSIGN_OR_RETURN(uint32_t code, hex4());
  if (code >= 0xd800 && code < 0xdc00 && rest().starts_with("\\u")) {
    position_ += 2;
    POME_ASSIGN_OR_RETURN(const uint32_t low, hex4());
    if (low < 0xdc00 || low > 0xdfff)
      return fail(Refusal::kUtf8, "a lone surrogate in a JSON string");
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  } else if (code >= 0xd800 && code < 0xe000) {
    return fail(Refusal::kUtf8, "a lone surrogate in a JSON string");
  } else if (code == 0) {
    return fail(Refusal::kUtf8, "a NUL in a JSON string");
  }
  append_utf8(out, code);
  return {};
}

Result<std::string> JsonScanner::string(std::string_view what) {
  skip_space();
  if (peek() != '"') return wrong_type(what);
  ++position_;
  std::string out;
  while (true) {
    const size_t start = position_;
    while (!at_end() && text_[position_] != '"' && text_[position_] != '\\' &&
           static_cast<unsigned char>(text_[position_]) >= 0x20) {
      ++position_;
    }
    out.append(text_.substr(start, position_ - start));
    if (at_end()) return fail(Refusal::kType, "a JSON string does not end");
    const char c = text_[position_];
    if (c != '"' && c != '\\') return fail(Refusal::kType, "a control byte in a JSON string");
    ++position_;
    if (c == '"') return out;
    POME_RETURN_IF_ERROR(escape(out));
  }
}

Result<uint64_t> JsonScanner::unsigned_integer(std::string_view what) {
  skip_space();
  if (peek() == '-' && position_ + 1 < text_.size() && is_digit(text_[position_ + 1])) {
    return fail(Refusal::kRange, std::string(what) + " is negative");
  }
  if (!is_digit(peek())) return wrong_type(what);
  const size_t start = position_;
  uint64_t value = 0;
  bool fits = true;
  for (; is_digit(peek()); ++position_) {
    const auto scaled = checked_mul<uint64_t>(value, 10);
    const auto next =
        scaled ? checked_add<uint64_t>(*scaled, static_cast<uint64_t>(peek() - '0')) : std::nullopt;
    fits = fits && next.has_value();
    value = next.value_or(0);
  }
  const char next = peek();
  const bool leading_zero = text_[start] == '0' && position_ - start > 1;
  if (leading_zero || next == '.' || next == 'e' || next == 'E') {
    position_ = start;
    return fail(Refusal::kType, std::string(what) + " must be a plain whole number");
  }
  if (!fits) {
    position_ = start;
    return fail(Refusal::kRange, std::string(what) + " is above 2^64-1");
  }
  return value;
}

Status JsonScanner::wrong_type(std::string_view what) {
  const size_t start = position_;
  Status status = skip_value();
  if (!status.ok()) return status;
  position_ = start;
  return fail(Refusal::kType, std::string(what) + " has the wrong JSON type");
}

// Walks over one value of any kind, only to find out whether it nests too deeply: brackets are
// counted, not matched.
Status JsonScanner::skip_value() {
  int depth = 0;
  do {
    skip_space();
    const char c = peek();
    if (at_end()) return fail(Refusal::kType, "the JSON header ends inside a value");
    if (c == '[' || c == '{') {
      if (++depth > kMaxDepth)
        return fail(Refusal::kDepth, "the JSON header nests deeper than 128");
      ++position_;
    } else if (c == ']' || c == '}') {
      if (depth == 0) return fail(Refusal::kType, "a value is missing in the JSON header");
      --depth;
      ++position_;
    } else if (c == '"') {
      POME_ASSIGN_OR_RETURN(const std::string ignored, string({}));
    } else {
      ++position_;
    }
  } while (depth > 0);
  return {};
}

}  // namespace pome
