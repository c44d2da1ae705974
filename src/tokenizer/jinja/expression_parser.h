// Expressions of the template language, by recursive descent with a bound on the depth. Private to
// the parser.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/lexer.h"

namespace pome::jinja {

// Where the parser stands. Behind the end there is always another kEnd.
class Cursor {
 public:
  explicit Cursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  const Token& peek(size_t ahead = 0) const {
    return tokens_[at_ + ahead < tokens_.size() ? at_ + ahead : tokens_.size() - 1];
  }
  const Token& take() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool take_if(Token::Kind kind, std::string_view text) {
    if (!peek().is(kind, text)) return false;
    take();
    return true;
  }
  Status expect(Token::Kind kind, std::string_view text);
  Status unexpected() const;

  int depth = 0;  // of expressions that are being parsed

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

Result<ExprPtr> parse_expression(Cursor& cursor);           // with "a if b else c"
Result<ExprPtr> parse_expression_or_tuple(Cursor& cursor);  // "a, b" is a list
Result<ExprPtr> parse_or(Cursor& cursor);                   // without the condition

}  // namespace pome::jinja
