// Cuts a template into tokens, with Jinja's whitespace rules as transformers sets them: trim_blocks
// and lstrip_blocks on, the last newline of the source dropped, all newlines read as \n.
//
// Source of the rules: jinja.palletsprojects.com, "Whitespace Control".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/context.h"

namespace pome::jinja {

struct Token {
  enum class Kind : uint8_t {
    kText,
    kPrintBegin,
    kPrintEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kInt,
    kFloat,
    kString,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int64_t integer = 0;
  double number = 0;
  Place place;
  bool is(Kind wanted, std::string_view spelling) const {
    return kind == wanted && text == spelling;
  }
};

// The last token is kEnd. Errors are kTemplate with the place; columns count bytes.
Result<std::vector<Token>> tokenize_template(std::string_view source);

}  // namespace pome::jinja
