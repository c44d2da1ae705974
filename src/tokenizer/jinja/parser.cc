#include "tokenizer/jinja/parser.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "tokenizer/jinja/expression_parser.h"
#include "tokenizer/jinja/lexer.h"

namespace pome::jinja {
namespace {

constexpr size_t kMaxSource = size_t{1} << 20;

using Kind = Token::Kind;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : cursor_(std::move(tokens)) {}

  Result<Body> run() {
    POME_ASSIGN_OR_RETURN(Body body, parse_body({}, 0));
    if (cursor_.peek().kind != Kind::kEnd) return unexpected();
    return body;
  }

 private:
  // Statements up to a block whose tag is one of `ends` (which stays unread) or the end.
  Result<Body> parse_body(const std::vector<std::string_view>& ends, int depth) {
    if (depth > kMaxDepth) {
      return template_error(cursor_.peek().place, "blocks are nested deeper than 200");
    }
    Body body;
    while (true) {
      const Token& token = cursor_.peek();
      if (token.kind == Kind::kEnd) return body;
      Stmt stmt;
      stmt.place = token.place;
      if (token.kind == Kind::kText) {
        stmt.kind = Stmt::Kind::kText;
        stmt.text = cursor_.take().text;
      } else if (token.kind == Kind::kPrintBegin) {
        cursor_.take();
        stmt.kind = Stmt::Kind::kPrint;
        POME_ASSIGN_OR_RETURN(stmt.expr, parse_expression_or_tuple(cursor_));
        POME_RETURN_IF_ERROR(cursor_.expect(Kind::kPrintEnd, "}}"));
      } else if (token.kind == Kind::kBlockBegin) {
        const std::string_view name = cursor_.peek(1).text;
        if (std::find(ends.begin(), ends.end(), name) != ends.end()) return body;
        POME_ASSIGN_OR_RETURN(stmt, parse_block(depth));
      } else {
        return unexpected();
      }
      body.push_back(std::move(stmt));
    }
  }

  Result<Stmt> parse_block(int depth) {
    cursor_.take();
    const Token name = cursor_.take();
    if (name.is(Kind::kName, "if")) return parse_if(name.place, depth);
    if (name.is(Kind::kName, "for")) return parse_for(name.place, depth);
    if (name.is(Kind::kName, "set")) return parse_set(name.place, depth);
    // transformers marks what the model is trained on with this block; it prints its body.
    if (name.is(Kind::kName, "generation")) {
      Stmt stmt;
      stmt.kind = Stmt::Kind::kBody;
      stmt.place = name.place;
      POME_RETURN_IF_ERROR(end_tag());
      POME_ASSIGN_OR_RETURN(stmt.body, parse_body({"endgeneration"}, depth + 1));
      POME_RETURN_IF_ERROR(close(name.place, "endgeneration"));
      return stmt;
    }
    return template_error(name.place, "unknown tag \"" + escape_for_terminal(name.text, 60) + "\"");
  }

  Status end_tag() { return cursor_.expect(Kind::kBlockEnd, "%}"); }

  // Reads "{% name %}".
  Status close(Place opened, std::string_view name) {
    if (cursor_.peek().kind != Kind::kBlockBegin || cursor_.peek(1).text != name) {
      return template_error(opened, "block without " + std::string(name));
    }
    cursor_.take();
    cursor_.take();
    return end_tag();
  }

  Result<Stmt> parse_if(Place place, int depth) {
    Stmt stmt;
    stmt.kind = Stmt::Kind::kIf;
    stmt.place = place;
    bool last = false;
    while (!last) {
      Stmt::Branch branch;
      if (!stmt.branches.empty()) {
        if (cursor_.peek().kind != Kind::kBlockBegin) {
          return template_error(place, "block without endif");
        }
        cursor_.take();
        const Token name = cursor_.take();
        if (name.text == "endif") break;
        last = name.text == "else";
      }
      if (!last) {
        POME_ASSIGN_OR_RETURN(branch.condition, parse_expression_or_tuple(cursor_));
      }
      POME_RETURN_IF_ERROR(end_tag());
      POME_ASSIGN_OR_RETURN(
          branch.body, parse_body(last ? std::vector<std::string_view>{"endif"}
                                       : std::vector<std::string_view>{"elif", "else", "endif"},
                                  depth + 1));
      stmt.branches.push_back(std::move(branch));
    }
    if (last) {
      POME_RETURN_IF_ERROR(close(place, "endif"));
    } else {
      POME_RETURN_IF_ERROR(end_tag());
    }
    return stmt;
  }

  Result<std::vector<std::string>> parse_targets() {
    std::vector<std::string> names;
    do {
      if (cursor_.peek().kind != Kind::kName) return unexpected();
      names.push_back(cursor_.take().text);
    } while (cursor_.take_if(Kind::kOperator, ","));
    return names;
  }

  Result<Stmt> parse_for(Place place, int depth) {
    Stmt stmt;
    stmt.kind = Stmt::Kind::kFor;
    stmt.place = place;
    const bool parens = cursor_.take_if(Kind::kOperator, "(");
    POME_ASSIGN_OR_RETURN(stmt.targets, parse_targets());
    if (parens) POME_RETURN_IF_ERROR(cursor_.expect(Kind::kOperator, ")"));
    POME_RETURN_IF_ERROR(cursor_.expect(Kind::kName, "in"));
    POME_ASSIGN_OR_RETURN(stmt.expr, parse_or(cursor_));  // an "if" behind it is the loop's filter
    if (cursor_.take_if(Kind::kName, "if")) {
      POME_ASSIGN_OR_RETURN(stmt.condition, parse_expression(cursor_));
    }
    if (cursor_.peek().is(Kind::kName, "recursive")) {
      return template_error(cursor_.peek().place, "recursive loops are not supported");
    }
    POME_RETURN_IF_ERROR(end_tag());
    POME_ASSIGN_OR_RETURN(stmt.body, parse_body({"else", "endfor"}, depth + 1));
    if (cursor_.peek(1).text == "else") {
      cursor_.take();
      cursor_.take();
      POME_RETURN_IF_ERROR(end_tag());
      POME_ASSIGN_OR_RETURN(stmt.otherwise, parse_body({"endfor"}, depth + 1));
    }
    POME_RETURN_IF_ERROR(close(place, "endfor"));
    return stmt;
  }

  Result<Stmt> parse_set(Place place, int depth) {
    Stmt stmt;
    stmt.kind = Stmt::Kind::kSet;
    stmt.place = place;
    POME_ASSIGN_OR_RETURN(stmt.targets, parse_targets());
    if (stmt.targets.size() == 1 && cursor_.take_if(Kind::kOperator, ".")) {
      if (cursor_.peek().kind != Kind::kName) return unexpected();
      stmt.attribute = true;
      stmt.targets.push_back(cursor_.take().text);
    }
    if (cursor_.take_if(Kind::kOperator, "=")) {
      POME_ASSIGN_OR_RETURN(stmt.expr, parse_expression_or_tuple(cursor_));
      POME_RETURN_IF_ERROR(end_tag());
      return stmt;
    }
    if (stmt.attribute || stmt.targets.size() != 1) return unexpected();
    stmt.kind = Stmt::Kind::kSetBlock;
    POME_RETURN_IF_ERROR(end_tag());
    POME_ASSIGN_OR_RETURN(stmt.body, parse_body({"endset"}, depth + 1));
    POME_RETURN_IF_ERROR(close(place, "endset"));
    return stmt;
  }

  Status unexpected() const { return cursor_.unexpected(); }

  Cursor cursor_;
};

}  // namespace

Result<Body> parse_template(std::string_view source) {
  if (source.size() > kMaxSource) {
    return template_error({}, "the template has " + std::to_string(source.size()) +
                                  " bytes; at most 1048576 are allowed");
  }
  POME_ASSIGN_OR_RETURN(auto tokens, tokenize_template(source));
  return Parser(std::move(tokens)).run();
}

}  // namespace pome::jinja
