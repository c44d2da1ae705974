#include "tokenizer/jinja/expression_parser.h"

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>

namespace pome::jinja {
namespace {

using Kind = Token::Kind;

Result<ExprPtr> parse_unary(Cursor& cursor, bool with_filters);

ExprPtr make(Expr::Kind kind, Place place, std::string name = {}) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->place = place;
  expr->name = std::move(name);
  return expr;
}

// Takes the parts in; kTemplate when the tree gets too deep.
Status add(Expr& expr, ExprPtr part) {
  if (part) expr.depth = std::max(expr.depth, part->depth + 1);
  expr.args.push_back(std::move(part));
  if (expr.depth > kMaxDepth) {
    return template_error(expr.place, "the expression is nested deeper than 200");
  }
  return {};
}

// Counts a level of recursion for as long as it lives.
class Level {
 public:
  explicit Level(Cursor& cursor) : cursor_(cursor) { ++cursor_.depth; }
  ~Level() { --cursor_.depth; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;
  Status check() const {
    if (cursor_.depth <= kMaxDepth) return {};
    return template_error(cursor_.peek().place, "the expression is nested deeper than 200");
  }

 private:
  Cursor& cursor_;
};

using Parse = Result<ExprPtr> (*)(Cursor&);

Result<ExprPtr> binary(Place place, std::string name, ExprPtr left, ExprPtr right) {
  ExprPtr expr = make(Expr::Kind::kBinary, place, std::move(name));
  POME_RETURN_IF_ERROR(add(*expr, std::move(left)));
  POME_RETURN_IF_ERROR(add(*expr, std::move(right)));
  return expr;
}

// Operators of one precedence, from left to right.
Result<ExprPtr> parse_chain(Cursor& cursor, Kind kind,
                            std::initializer_list<std::string_view> operators, Parse next) {
  POME_ASSIGN_OR_RETURN(ExprPtr left, next(cursor));
  while (cursor.peek().kind == kind &&
         std::find(operators.begin(), operators.end(), cursor.peek().text) != operators.end()) {
    const Token token = cursor.take();
    POME_ASSIGN_OR_RETURN(ExprPtr right, next(cursor));
    POME_ASSIGN_OR_RETURN(left, binary(token.place, token.text, std::move(left), std::move(right)));
  }
  return left;
}

Result<ExprPtr> parse_with_filters(Cursor& cursor) { return parse_unary(cursor, true); }
Result<ExprPtr> parse_power(Cursor& cursor) {
  return parse_chain(cursor, Kind::kOperator, {"**"}, parse_with_filters);
}
Result<ExprPtr> parse_product(Cursor& cursor) {
  return parse_chain(cursor, Kind::kOperator, {"*", "/", "//", "%"}, parse_power);
}
Result<ExprPtr> parse_concat(Cursor& cursor) {
  return parse_chain(cursor, Kind::kOperator, {"~"}, parse_product);
}
Result<ExprPtr> parse_sum(Cursor& cursor) {
  return parse_chain(cursor, Kind::kOperator, {"+", "-"}, parse_concat);
}

// "a < b == c" means "a < b and b == c" in Jinja; one comparison is what templates write.
Result<ExprPtr> parse_comparison(Cursor& cursor) {
  POME_ASSIGN_OR_RETURN(ExprPtr left, parse_sum(cursor));
  bool compared = false;
  while (true) {
    const Token token = cursor.peek();
    std::string name = token.text;
    const bool symbol =
        token.kind == Kind::kOperator && (name == "==" || name == "!=" || name == "<" ||
                                          name == ">" || name == "<=" || name == ">=");
    const bool in = token.is(Kind::kName, "in");
    const bool not_in = token.is(Kind::kName, "not") && cursor.peek(1).is(Kind::kName, "in");
    if (!symbol && !in && !not_in) return left;
    if (compared) return template_error(token.place, "chained comparisons are not supported");
    compared = true;
    cursor.take();
    if (not_in) {
      cursor.take();
      name = "not in";
    }
    POME_ASSIGN_OR_RETURN(ExprPtr right, parse_sum(cursor));
    POME_ASSIGN_OR_RETURN(left, binary(token.place, name, std::move(left), std::move(right)));
  }
}

Result<ExprPtr> parse_not(Cursor& cursor) {
  if (!cursor.peek().is(Kind::kName, "not")) return parse_comparison(cursor);
  const Level level(cursor);
  POME_RETURN_IF_ERROR(level.check());
  ExprPtr expr = make(Expr::Kind::kUnary, cursor.take().place, "not");
  POME_ASSIGN_OR_RETURN(ExprPtr operand, parse_not(cursor));
  POME_RETURN_IF_ERROR(add(*expr, std::move(operand)));
  return expr;
}
Result<ExprPtr> parse_and(Cursor& cursor) {
  return parse_chain(cursor, Kind::kName, {"and"}, parse_not);
}

// Arguments up to the closing parenthesis, which is read too.
Status parse_arguments(Cursor& cursor, Expr& call) {
  bool first = true;
  while (!cursor.take_if(Kind::kOperator, ")")) {
    if (!first) {
      POME_RETURN_IF_ERROR(cursor.expect(Kind::kOperator, ","));
      if (cursor.take_if(Kind::kOperator, ")")) return {};
    }
    first = false;
    if (cursor.peek().kind == Kind::kName && cursor.peek(1).is(Kind::kOperator, "=")) {
      std::string name = cursor.take().text;
      cursor.take();
      POME_ASSIGN_OR_RETURN(ExprPtr value, parse_expression(cursor));
      call.depth = std::max(call.depth, value->depth + 1);
      call.named.emplace_back(std::move(name), std::move(value));
    } else {
      POME_ASSIGN_OR_RETURN(ExprPtr value, parse_expression(cursor));
      POME_RETURN_IF_ERROR(add(call, std::move(value)));
    }
  }
  return {};
}

// Items up to the closing bracket, which is read too.
Status parse_items(Cursor& cursor, std::string_view close, Expr& list) {
  bool first = true;
  while (!cursor.take_if(Kind::kOperator, close)) {
    if (!first) {
      POME_RETURN_IF_ERROR(cursor.expect(Kind::kOperator, ","));
      if (cursor.take_if(Kind::kOperator, close)) return {};
    }
    first = false;
    POME_ASSIGN_OR_RETURN(ExprPtr item, parse_expression(cursor));
    POME_RETURN_IF_ERROR(add(list, std::move(item)));
    if (list.kind == Expr::Kind::kDict) {
      POME_RETURN_IF_ERROR(cursor.expect(Kind::kOperator, ":"));
      POME_ASSIGN_OR_RETURN(ExprPtr value, parse_expression(cursor));
      POME_RETURN_IF_ERROR(add(list, std::move(value)));
    }
  }
  return {};
}

ExprPtr literal(const Token& token, Value value) {
  ExprPtr expr = make(Expr::Kind::kLiteral, token.place);
  expr->literal = std::move(value);
  return expr;
}

Result<ExprPtr> parse_name(const Token& token) {
  const std::string& name = token.text;
  if (name == "true" || name == "True") return literal(token, Value(true));
  if (name == "false" || name == "False") return literal(token, Value(false));
  if (name == "none" || name == "None") return literal(token, Value(None{}));
  for (const std::string_view word : {"if", "else", "in", "is", "and", "or", "not"}) {
    if (name == word) return template_error(token.place, "unexpected \"" + name + "\"");
  }
  return make(Expr::Kind::kName, token.place, name);
}

Result<ExprPtr> parse_parentheses(Cursor& cursor, Place place) {
  if (cursor.take_if(Kind::kOperator, ")")) return make(Expr::Kind::kList, place);
  POME_ASSIGN_OR_RETURN(ExprPtr expr, parse_expression(cursor));
  if (!cursor.peek().is(Kind::kOperator, ",")) {
    POME_RETURN_IF_ERROR(cursor.expect(Kind::kOperator, ")"));
    return expr;
  }
  cursor.take();
  ExprPtr list = make(Expr::Kind::kList, place);
  POME_RETURN_IF_ERROR(add(*list, std::move(expr)));
  POME_RETURN_IF_ERROR(parse_items(cursor, ")", *list));
  return list;
}

Result<ExprPtr> parse_primary(Cursor& cursor) {
  const Token token = cursor.peek();
  switch (token.kind) {
    case Kind::kName:
      cursor.take();
      return parse_name(token);
    case Kind::kInt:
      return literal(cursor.take(), Value(token.integer));
    case Kind::kFloat:
      return literal(cursor.take(), Value(token.number));
    case Kind::kString: {
      std::string text;
      while (cursor.peek().kind == Kind::kString) text += cursor.take().text;  // 'a' 'b' is 'ab'
      return literal(token, Value(text));
    }
    case Kind::kOperator:
      break;
    default:
      return cursor.unexpected();
  }
  if (token.text != "(" && token.text != "[" && token.text != "{") return cursor.unexpected();
  cursor.take();
  if (token.text == "(") return parse_parentheses(cursor, token.place);
  ExprPtr list = make(token.text == "[" ? Expr::Kind::kList : Expr::Kind::kDict, token.place);
  POME_RETURN_IF_ERROR(parse_items(cursor, token.text == "[" ? "]" : "}", *list));
  return list;
}

// Behind "[": an index or a slice.
Result<ExprPtr> parse_subscript(Cursor& cursor, ExprPtr object, Place place) {
  ExprPtr parts[3];
  int count = 0;
  bool slice = false;
  while (true) {
    if (!cursor.peek().is(Kind::kOperator, ":") && !cursor.peek().is(Kind::kOperator, "]")) {
      POME_ASSIGN_OR_RETURN(parts[count], parse_expression(cursor));
    }
    if (count == 2 || !cursor.take_if(Kind::kOperator, ":")) break;
    slice = true;
    ++count;
  }
  if (!slice && !parts[0]) return cursor.unexpected();
  POME_RETURN_IF_ERROR(cursor.expect(Kind::kOperator, "]"));
  ExprPtr expr = make(slice ? Expr::Kind::kSlice : Expr::Kind::kSubscript, place);
  POME_RETURN_IF_ERROR(add(*expr, std::move(object)));
  for (int i = 0; i < (slice ? 3 : 1); ++i) {
    POME_RETURN_IF_ERROR(add(*expr, std::move(parts[i])));
  }
  return expr;
}

// Attributes, subscripts and calls behind `expr`.
Result<ExprPtr> parse_postfix(Cursor& cursor, ExprPtr expr) {
  while (true) {
    const Place place = cursor.peek().place;
    if (cursor.take_if(Kind::kOperator, ".")) {
      if (cursor.peek().kind == Kind::kInt) {
        ExprPtr index = literal(cursor.peek(), Value(cursor.peek().integer));
        cursor.take();
        ExprPtr subscript = make(Expr::Kind::kSubscript, place);
        POME_RETURN_IF_ERROR(add(*subscript, std::move(expr)));
        POME_RETURN_IF_ERROR(add(*subscript, std::move(index)));
        expr = std::move(subscript);
        continue;
      }
      if (cursor.peek().kind != Kind::kName) return cursor.unexpected();
      ExprPtr attribute = make(Expr::Kind::kAttribute, place, cursor.take().text);
      POME_RETURN_IF_ERROR(add(*attribute, std::move(expr)));
      expr = std::move(attribute);
    } else if (cursor.take_if(Kind::kOperator, "[")) {
      POME_ASSIGN_OR_RETURN(expr, parse_subscript(cursor, std::move(expr), place));
    } else if (cursor.take_if(Kind::kOperator, "(")) {
      ExprPtr call = make(Expr::Kind::kCall, place);
      POME_RETURN_IF_ERROR(add(*call, std::move(expr)));
      POME_RETURN_IF_ERROR(parse_arguments(cursor, *call));
      expr = std::move(call);
    } else {
      return expr;
    }
  }
}

// The argument of a test without parentheses: "is divisibleby 3".
bool begins_argument(const Cursor& cursor) {
  const Token& token = cursor.peek();
  if (token.kind == Kind::kInt || token.kind == Kind::kFloat || token.kind == Kind::kString) {
    return true;
  }
  if (token.kind == Kind::kOperator) return token.text == "[" || token.text == "{";
  if (token.kind != Kind::kName) return false;
  for (const std::string_view word : {"else", "and", "or", "is", "if", "in", "not", "recursive"}) {
    if (token.text == word) return false;
  }
  return true;
}

Result<ExprPtr> parse_test(Cursor& cursor, ExprPtr expr) {
  const bool negated = cursor.take_if(Kind::kName, "not");
  const Token name = cursor.peek();
  if (name.kind != Kind::kName) return cursor.unexpected();
  cursor.take();
  ExprPtr test = make(Expr::Kind::kTest, name.place, name.text);
  POME_RETURN_IF_ERROR(add(*test, std::move(expr)));
  if (cursor.take_if(Kind::kOperator, "(")) {
    POME_RETURN_IF_ERROR(parse_arguments(cursor, *test));
  } else if (begins_argument(cursor)) {
    POME_ASSIGN_OR_RETURN(ExprPtr argument, parse_primary(cursor));
    POME_ASSIGN_OR_RETURN(argument, parse_postfix(cursor, std::move(argument)));
    POME_RETURN_IF_ERROR(add(*test, std::move(argument)));
  }
  if (!negated) return test;
  ExprPtr expr_not = make(Expr::Kind::kUnary, name.place, "not");
  POME_RETURN_IF_ERROR(add(*expr_not, std::move(test)));
  return expr_not;
}

// Filters, tests and calls of their results.
Result<ExprPtr> parse_filters(Cursor& cursor, ExprPtr expr) {
  while (true) {
    if (cursor.take_if(Kind::kOperator, "|")) {
      const Token name = cursor.peek();
      if (name.kind != Kind::kName) return cursor.unexpected();
      cursor.take();
      ExprPtr filter = make(Expr::Kind::kFilter, name.place, name.text);
      POME_RETURN_IF_ERROR(add(*filter, std::move(expr)));
      if (cursor.take_if(Kind::kOperator, "(")) {
        POME_RETURN_IF_ERROR(parse_arguments(cursor, *filter));
      }
      expr = std::move(filter);
    } else if (cursor.take_if(Kind::kName, "is")) {
      POME_ASSIGN_OR_RETURN(expr, parse_test(cursor, std::move(expr)));
    } else {
      return expr;
    }
  }
}

Result<ExprPtr> parse_unary(Cursor& cursor, bool with_filters) {
  ExprPtr expr;
  if (cursor.peek().is(Kind::kOperator, "-") || cursor.peek().is(Kind::kOperator, "+")) {
    const Level level(cursor);
    POME_RETURN_IF_ERROR(level.check());
    const Token sign = cursor.take();
    POME_ASSIGN_OR_RETURN(ExprPtr operand, parse_unary(cursor, false));
    expr = make(Expr::Kind::kUnary, sign.place, sign.text);
    POME_RETURN_IF_ERROR(add(*expr, std::move(operand)));
  } else {
    POME_ASSIGN_OR_RETURN(expr, parse_primary(cursor));
  }
  POME_ASSIGN_OR_RETURN(expr, parse_postfix(cursor, std::move(expr)));
  return with_filters ? parse_filters(cursor, std::move(expr)) : Result<ExprPtr>(std::move(expr));
}

}  // namespace

Status Cursor::expect(Token::Kind kind, std::string_view text) {
  if (take_if(kind, text)) return {};
  return template_error(peek().place, "expected \"" + std::string(text) + "\", found \"" +
                                          escape_for_terminal(peek().text, 60) + "\"");
}

Status Cursor::unexpected() const {
  return template_error(peek().place,
                        "unexpected \"" + escape_for_terminal(peek().text, 60) + "\"");
}

Result<ExprPtr> parse_or(Cursor& cursor) {
  return parse_chain(cursor, Kind::kName, {"or"}, parse_and);
}

Result<ExprPtr> parse_expression(Cursor& cursor) {
  const Level level(cursor);
  POME_RETURN_IF_ERROR(level.check());
  POME_ASSIGN_OR_RETURN(ExprPtr expr, parse_or(cursor));
  while (cursor.peek().is(Kind::kName, "if")) {
    ExprPtr condition = make(Expr::Kind::kCondition, cursor.take().place);
    POME_RETURN_IF_ERROR(add(*condition, std::move(expr)));
    POME_ASSIGN_OR_RETURN(ExprPtr test, parse_or(cursor));
    POME_RETURN_IF_ERROR(add(*condition, std::move(test)));
    ExprPtr otherwise;
    if (cursor.take_if(Kind::kName, "else")) {
      POME_ASSIGN_OR_RETURN(otherwise, parse_expression(cursor));
    }
    POME_RETURN_IF_ERROR(add(*condition, std::move(otherwise)));
    expr = std::move(condition);
  }
  return expr;
}

Result<ExprPtr> parse_expression_or_tuple(Cursor& cursor) {
  POME_ASSIGN_OR_RETURN(ExprPtr expr, parse_expression(cursor));
  if (!cursor.peek().is(Kind::kOperator, ",")) return expr;
  ExprPtr list = make(Expr::Kind::kList, expr->place);
  POME_RETURN_IF_ERROR(add(*list, std::move(expr)));
  while (cursor.take_if(Kind::kOperator, ",")) {
    if (cursor.peek().kind == Kind::kPrintEnd || cursor.peek().kind == Kind::kBlockEnd) break;
    POME_ASSIGN_OR_RETURN(ExprPtr item, parse_expression(cursor));
    POME_RETURN_IF_ERROR(add(*list, std::move(item)));
  }
  return list;
}

}  // namespace pome::jinja
