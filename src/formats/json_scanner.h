// A strict pull scanner over JSON text of a fixed form: the safetensors header. Nothing is built,
// so a header of 100 MB costs its own size; the stack does not grow with the input.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace pome {

// `text` must be valid UTF-8 and outlive the scanner. Errors carry `file` and the offset of the
// fault: `base` + position in the text.
class JsonScanner {
 public:
  JsonScanner(std::string_view text, const std::string& file, uint64_t base)
      : text_(text), file_(file), base_(base) {}

  void skip_space();
  bool at_end() const { return position_ == text_.size(); }
  uint64_t offset() const { return base_ + position_; }
  std::string_view rest() const { return text_.substr(position_); }

  // Consumes `c` after white space; false (and nothing consumed) when something else is there.
  bool accept(char c);
  Status expect(char c);
  // After a member of an object or array: true when ',' follows, false when `close` does.
  Result<bool> more(char close);
  // A string with its escapes decoded. kType when another value is there, kUtf8 for a lone
  // surrogate or a NUL.
  Result<std::string> string(std::string_view what);
  // A number without sign, fraction or exponent. kRange when negative or above 2^64-1, kType else.
  Result<uint64_t> unsigned_integer(std::string_view what);
  // The error for a value of the wrong type at this place; kDepth when it nests deeper than 128.
  Status wrong_type(std::string_view what);
  Status fail(Refusal refusal, std::string message) const;

 private:
  Status skip_value();
  Status escape(std::string& out);
  Result<uint32_t> hex4();
  char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

  std::string_view text_;
  const std::string& file_;
  uint64_t base_;
  size_t position_ = 0;
};

}  // namespace pome
