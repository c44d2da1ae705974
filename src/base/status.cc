#include "base/status.h"

#include <cstdio>
#include <cstdlib>

#include "base/utf8.h"

namespace pome {

int exit_code(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return 0;
    case StatusCode::kGateFailed:
      return 1;
    case StatusCode::kUsage:
    case StatusCode::kExists:
      return 2;
    case StatusCode::kBadInput:
    case StatusCode::kMissing:
      return 3;
    case StatusCode::kDoesNotFit:
      return 4;
    case StatusCode::kUnsupported:
      return 5;
    case StatusCode::kUnavailable:
      return 6;
    case StatusCode::kInterrupted:
      return 130;
  }
  return 3;
}

std::string_view to_string(Refusal refusal) {
  static constexpr std::string_view kNames[] = {
      "none", "trunc",  "magic",  "version",  "limit", "overflow",  "bounds", "overlap",
      "hole", "dup",    "type",   "utf8",     "depth", "range",     "path",   "link",
      "bomb", "opcode", "global", "template", "regex", "integrity", "net",    "store"};
  return kNames[static_cast<size_t>(refusal)];
}

Status::Status(StatusCode code, std::string message, Refusal refusal)
    : detail_(code == StatusCode::kOk ? nullptr
                                      : std::make_shared<Detail>(Detail{
                                            code, refusal, std::move(message), {}, {}, {}, {}})) {}

std::string_view Status::message() const {
  return detail_ ? std::string_view(detail_->message) : "";
}
std::string_view Status::file() const { return detail_ ? std::string_view(detail_->file) : ""; }
std::string_view Status::where() const { return detail_ ? std::string_view(detail_->where) : ""; }
std::string_view Status::hint() const { return detail_ ? std::string_view(detail_->hint) : ""; }
std::optional<uint64_t> Status::offset() const { return detail_ ? detail_->offset : std::nullopt; }

Status&& Status::in(std::string_view file) && {
  if (detail_ && detail_->file.empty()) detail_->file = file;
  return std::move(*this);
}
Status&& Status::at(std::string_view where) && {
  if (detail_ && detail_->where.empty()) detail_->where = where;
  return std::move(*this);
}
Status&& Status::at_offset(uint64_t offset) && {
  if (detail_ && !detail_->offset) {
    detail_->offset = offset;
    if (detail_->where.empty()) detail_->where = "offset " + std::to_string(offset);
  }
  return std::move(*this);
}
Status&& Status::hint(std::string_view next_step) && {
  if (detail_ && detail_->hint.empty()) detail_->hint = next_step;
  return std::move(*this);
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  const auto line = [](const std::string& part, size_t max_bytes) {
    std::string out;
    for (const char c : escape_for_terminal(part, max_bytes))
      out += c == '\n' ? std::string("\\n") : std::string(1, c);
    return out;
  };
  std::string text;
  if (!detail_->file.empty()) text += line(detail_->file, 4096) + ": ";
  if (!detail_->where.empty()) text += line(detail_->where, 512) + ": ";
  text += line(detail_->message, 1 << 16);
  if (!detail_->hint.empty()) text += "; " + line(detail_->hint, 4096);
  return text;
}

Status bad_input(Refusal refusal, std::string message) {
  return Status(StatusCode::kBadInput, std::move(message), refusal);
}
Status missing(std::string message) { return Status(StatusCode::kMissing, std::move(message)); }
Status unsupported(std::string message) {
  return Status(StatusCode::kUnsupported, std::move(message));
}
Status usage_error(std::string message) { return Status(StatusCode::kUsage, std::move(message)); }
Status does_not_fit(std::string message) {
  return Status(StatusCode::kDoesNotFit, std::move(message));
}
Status gate_failed(std::string message) {
  return Status(StatusCode::kGateFailed, std::move(message));
}

std::string escape_for_terminal(std::string_view text, size_t max_bytes) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const size_t length = utf8_sequence_length(text, i);
    std::string piece;
    // C0, DEL and C1 (U+0080..U+009F) can steer a terminal; lines may pass.
    const bool control =
        (c < 0x20 && c != '\n') || c == 0x7F ||
        (length == 2 && c == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0);
    if (length == 0 || control) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", c);
      piece = hex;
      ++i;
    } else {
      piece = text.substr(i, length);
      i += length;
    }
    if (out.size() + piece.size() > max_bytes) {
      out += "...";
      break;
    }
    out += piece;
  }
  return out;
}

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "pome: internal error: %s at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace pome
