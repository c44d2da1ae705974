#include "tokenizer/jinja/expression_compiler.h"

#include <algorithm>
#include <optional>

#include "tokenizer/jinja/native.h"

namespace pome::jinja {
namespace {

using Kind = Token::Kind;

// Binding strength of operators; "not" stands between "and" and comparisons.
enum Strength : int {
  kOr = 1,
  kAnd,
  kNotLevel,
  kCompare,
  kSum,
  kConcatLevel,
  kProduct,
  kPowerLevel
};

struct Infix {
  std::string_view text;
  int strength;
  Operator op;
};
constexpr Infix kInfix[] = {
    {"==", kCompare, Operator::kEqual},
    {"!=", kCompare, Operator::kNotEqual},
    {"<", kCompare, Operator::kLess},
    {"<=", kCompare, Operator::kLessEqual},
    {">", kCompare, Operator::kGreater},
    {">=", kCompare, Operator::kGreaterEqual},
    {"+", kSum, Operator::kAdd},
    {"-", kSum, Operator::kSubtract},
    {"*", kProduct, Operator::kMultiply},
    {"/", kProduct, Operator::kDivide},
    {"//", kProduct, Operator::kFloorDivide},
    {"%", kProduct, Operator::kModulo},
    {"**", kPowerLevel, Operator::kPower},
};

const Infix* infix_of(const Token& token) {
  if (token.kind != Kind::kOperator) return nullptr;
  for (const Infix& infix : kInfix) {
    if (infix.text == token.text) return &infix;
  }
  return nullptr;
}

constexpr int kMaxConditions =
    200;  // of "a if b if c ..." without else: each moves the code before

}  // namespace

Status ExpressionCompiler::expression(bool with_condition) {
  const Level level(*this);
  POME_RETURN_IF_ERROR(level.check());
  const size_t begin = program_.code.size();
  const size_t unknown = unknown_.size();
  POME_RETURN_IF_ERROR(binary(kOr));
  int conditions = 0;
  while (with_condition && at_name("if")) {
    const Place place = take().place;
    if (++conditions > kMaxConditions) {
      return template_error(place, "more than 200 conditions follow one another");
    }
    const Code then = cut(begin);
    ++soft_;
    POME_RETURN_IF_ERROR(binary(kOr));
    const size_t skip = emit(Op::kJumpIfFalse, place);
    paste(then);
    const size_t end = emit(Op::kJump, place);
    land(skip);
    if (take_name("else")) {
      POME_RETURN_IF_ERROR(expression());
    } else {
      emit(Op::kConst, place,
           constant(Undefined::because("the condition is false and there is no else")));
    }
    --soft_;
    land(end);
    unknown_.resize(unknown);  // what was read before the "if" stands in a branch after all
    ends_with_call_ = false;
  }
  return {};
}

Status ExpressionCompiler::binary(int level) {
  if (level <= kNotLevel && at_name("not")) {
    const Level depth(*this);
    POME_RETURN_IF_ERROR(depth.check());
    const Place place = take().place;
    POME_RETURN_IF_ERROR(binary(kNotLevel));
    emit(Op::kNot, place);
    ends_with_call_ = false;
  } else {
    POME_RETURN_IF_ERROR(unary(true));
  }
  while (true) {
    const Place place = peek().place;
    const bool is_or = at_name("or"), is_and = at_name("and");
    if (is_or || is_and) {
      const int strength = is_or ? kOr : kAnd;
      if (strength < level) return {};
      take();
      const size_t skip = emit(is_or ? Op::kTrueOrPop : Op::kFalseOrPop, place);
      POME_RETURN_IF_ERROR(binary(strength + 1));
      land(skip);
    } else if (at_operator("~")) {
      if (kConcatLevel < level) return {};
      POME_RETURN_IF_ERROR(concat(place));
    } else {
      const Infix* infix = infix_of(peek());
      const bool in = at_name("in") || (at_name("not") && peek(1).is(Kind::kName, "in"));
      const int strength = in ? static_cast<int>(kCompare) : infix ? infix->strength : 0;
      if (strength == 0 || strength < level) return {};
      if (strength == kCompare) {
        POME_RETURN_IF_ERROR(comparison(level));
      } else {
        take();
        POME_RETURN_IF_ERROR(binary(strength + 1));
        emit(Op::kBinary, place, static_cast<int32_t>(infix->op));
      }
    }
    ends_with_call_ = false;
  }
}

Status ExpressionCompiler::concat(Place place) {
  int32_t count = 1;
  while (take_operator("~")) {
    POME_RETURN_IF_ERROR(binary(kProduct));
    ++count;
  }
  emit(Op::kConcat, place, count);
  return {};
}

// "a < b < c" means "a < b and b < c".
Status ExpressionCompiler::comparison(int) {
  std::vector<size_t> chain;
  while (true) {
    const Place place = peek().place;
    Operator op = Operator::kIn;
    if (at_name("not")) {
      take();
      op = Operator::kNotIn;
    } else if (const Infix* infix = infix_of(peek())) {
      op = infix->op;
    }
    take();
    POME_RETURN_IF_ERROR(binary(kSum));
    const Infix* next = infix_of(peek());
    const bool more = (next != nullptr && next->strength == kCompare) || at_name("in") ||
                      (at_name("not") && peek(1).is(Kind::kName, "in"));
    if (!more) {
      emit(Op::kBinary, place, static_cast<int32_t>(op));
      for (const size_t jump : chain) land(jump);
      return {};
    }
    chain.push_back(emit(Op::kCompareChain, place, static_cast<int32_t>(op)));
  }
}

Status ExpressionCompiler::unary(bool with_filters) {
  if (at_operator("-") || at_operator("+")) {
    const Level level(*this);
    POME_RETURN_IF_ERROR(level.check());
    const Token& sign = take();
    const Place place = sign.place;
    const Op op = sign.text == "-" ? Op::kNegative : Op::kPositive;
    POME_RETURN_IF_ERROR(unary(false));
    emit(op, place);
    ends_with_call_ = false;
  } else {
    POME_RETURN_IF_ERROR(primary());
  }
  POME_RETURN_IF_ERROR(postfix());
  return with_filters ? filter_expression() : Status();
}

void ExpressionCompiler::use_name(std::string_view name, int32_t id) {
  note_name(id, false);
  uses_.caller |= name == "caller";
  uses_.kwargs |= name == "kwargs";
  uses_.varargs |= name == "varargs";
  uses_.loop |= name == "loop";
}

Status ExpressionCompiler::name(const Token& token) {
  const std::string& text = token.text;
  std::optional<Value> literal;
  if (text == "true" || text == "True") literal = Value(true);
  if (text == "false" || text == "False") literal = Value(false);
  if (text == "none" || text == "None") literal = Value(None{});
  if (literal) {
    emit(Op::kConst, token.place, constant(*literal));
    return {};
  }
  const int32_t id = name_id(text);
  use_name(text, id);
  emit(Op::kLoad, token.place, id);
  return {};
}

Status ExpressionCompiler::primary() {
  ends_with_call_ = false;
  const Token& token = peek();
  const Place place = token.place;
  switch (token.kind) {
    case Kind::kName:
      return name(take());
    case Kind::kInt:
      emit(Op::kConst, place, constant(Value(take().integer)));
      return {};
    case Kind::kFloat:
      emit(Op::kConst, place, constant(Value(take().number)));
      return {};
    case Kind::kString: {
      std::string text;
      while (peek().kind == Kind::kString) text += take().text;  // 'a' 'b' is 'ab'
      emit(Op::kConst, place, constant(Value(std::string_view(text))));
      return {};
    }
    default:
      break;
  }
  if (take_operator("(")) {
    if (take_operator(")")) {
      emit(Op::kTuple, place);
      return {};
    }
    POME_RETURN_IF_ERROR(tuple());
    ends_with_call_ = false;
    return expect(Kind::kOperator, ")");
  }
  if (take_operator("[")) return list(place);
  if (take_operator("{")) return dict(place);
  return unexpected();
}

Status ExpressionCompiler::list(Place place) {
  int32_t count = 0;
  while (!at_operator("]")) {
    if (count > 0) POME_RETURN_IF_ERROR(expect(Kind::kOperator, ","));
    if (at_operator("]")) break;
    POME_RETURN_IF_ERROR(expression());
    ++count;
  }
  take();
  emit(Op::kList, place, count);
  return {};
}

Status ExpressionCompiler::dict(Place place) {
  int32_t count = 0;
  while (!at_operator("}")) {
    if (count > 0) POME_RETURN_IF_ERROR(expect(Kind::kOperator, ","));
    if (at_operator("}")) break;
    POME_RETURN_IF_ERROR(expression());
    POME_RETURN_IF_ERROR(expect(Kind::kOperator, ":"));
    POME_RETURN_IF_ERROR(expression());
    ++count;
  }
  take();
  emit(Op::kDict, place, count);
  return {};
}

Status ExpressionCompiler::tuple(bool with_condition, std::string_view end_name) {
  const Place place = peek().place;
  int32_t count = 0;
  bool is_tuple = false;
  const auto at_end = [&] {
    return peek().kind == Kind::kPrintEnd || peek().kind == Kind::kBlockEnd || at_operator(")") ||
           (!end_name.empty() && at_name(end_name));
  };
  while (true) {
    if (count > 0 && at_end()) break;
    POME_RETURN_IF_ERROR(expression(with_condition));
    ++count;
    if (!take_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) return {};
  emit(Op::kTuple, place, count);
  ends_with_call_ = false;
  return {};
}

Status ExpressionCompiler::postfix() {
  while (true) {
    const Place place = peek().place;
    if (at_operator(".") || at_operator("[")) {
      POME_RETURN_IF_ERROR(subscript(place));
      ends_with_call_ = false;
    } else if (take_operator("(")) {
      POME_ASSIGN_OR_RETURN(CallShape shape, arguments());
      emit(Op::kCall, place, add_call(std::move(shape)));
      ends_with_call_ = true;
    } else {
      return {};
    }
  }
}

Status ExpressionCompiler::subscript(Place place) {
  if (take_operator(".")) {
    if (peek().kind == Kind::kInt) {
      emit(Op::kConst, peek().place, constant(Value(peek().integer)));
      take();
      emit(Op::kItem, place);
      return {};
    }
    POME_ASSIGN_OR_RETURN(const Token attribute, expect_name());
    emit(Op::kAttribute, place, name_id(attribute.text));
    return {};
  }
  take();
  int32_t count = 0;
  bool slice = false;
  while (!at_operator("]")) {
    if (count > 0) POME_RETURN_IF_ERROR(expect(Kind::kOperator, ","));
    bool is_slice = false;
    POME_RETURN_IF_ERROR(subscribed(is_slice));
    slice = slice || is_slice;
    ++count;
    if (slice && (count > 1 || !at_operator("]"))) {
      return template_error(place, "slices of several dimensions are not supported");
    }
  }
  take();
  if (slice) {
    emit(Op::kSlice, place);
    return {};
  }
  if (count != 1) emit(Op::kTuple, place, count);
  emit(Op::kItem, place);
  return {};
}

// An index, or the three parts of a slice with None for what is left out.
Status ExpressionCompiler::subscribed(bool& is_slice) {
  const auto none = [&] { emit(Op::kConst, peek().place, constant(Value(None{}))); };
  if (at_operator(":")) {
    none();
  } else {
    POME_RETURN_IF_ERROR(expression());
    if (!at_operator(":")) return {};
  }
  is_slice = true;
  take();
  for (int part = 0; part < 2; ++part) {
    if (part == 1 && !take_operator(":")) {
      none();
    } else if (at_operator(":") || at_operator("]") || at_operator(",")) {
      none();
    } else {
      POME_RETURN_IF_ERROR(expression());
    }
  }
  return {};
}

Result<CallShape> ExpressionCompiler::arguments() {
  CallShape shape;
  const auto wrong = [&] { return template_error(peek().place, "arguments in a wrong order"); };
  bool first = true;
  while (!at_operator(")")) {
    if (!first) POME_RETURN_IF_ERROR(expect(Kind::kOperator, ","));
    if (!first && at_operator(")")) break;
    first = false;
    if (at_operator("*")) {
      if (shape.star || shape.star_star) return wrong();
      take();
      shape.star = true;
      POME_RETURN_IF_ERROR(expression());
    } else if (at_operator("**")) {
      if (shape.star_star) return wrong();
      take();
      shape.star_star = true;
      POME_RETURN_IF_ERROR(expression());
    } else if (peek().kind == Kind::kName && peek(1).is(Kind::kOperator, "=")) {
      // Named arguments behind "*" would be in the wrong order on the stack; nobody writes them.
      if (shape.star || shape.star_star) return wrong();
      shape.named.push_back(name_id(take().text));
      take();
      POME_RETURN_IF_ERROR(expression());
    } else {
      if (shape.star || shape.star_star || !shape.named.empty()) return wrong();
      ++shape.positional;
      POME_RETURN_IF_ERROR(expression());
    }
  }
  take();
  return shape;
}

Result<std::string> ExpressionCompiler::dotted_name() {
  POME_ASSIGN_OR_RETURN(const Token first, expect_name());
  std::string out = first.text;
  while (take_operator(".")) {
    POME_ASSIGN_OR_RETURN(const Token next, expect_name());
    out += "." + next.text;
  }
  return out;
}

Status ExpressionCompiler::filter_expression() {
  while (true) {
    const Place place = peek().place;
    if (take_operator("|")) {
      POME_RETURN_IF_ERROR(filter(peek().place));
    } else if (take_name("is")) {
      POME_RETURN_IF_ERROR(test(peek().place));
    } else if (take_operator("(")) {
      POME_ASSIGN_OR_RETURN(CallShape shape, arguments());
      emit(Op::kCall, place, add_call(std::move(shape)));
      ends_with_call_ = true;
      continue;
    } else {
      return {};
    }
    ends_with_call_ = false;
  }
}

Status ExpressionCompiler::filters(bool inline_first) {
  while (inline_first || take_operator("|")) {
    inline_first = false;
    POME_RETURN_IF_ERROR(filter(peek().place));
  }
  return {};
}

Status ExpressionCompiler::filter(Place place) {
  POME_ASSIGN_OR_RETURN(const std::string name, dotted_name());
  CallShape shape;
  if (take_operator("(")) {
    POME_ASSIGN_OR_RETURN(shape, arguments());
  }
  const int32_t id = name_id(name);
  if (program_.filters[static_cast<size_t>(id)] == nullptr) {
    if (soft_ == 0) unknown_.push_back(unknown_filter(place, name));
    emit(Op::kUnknownFilter, place, id);
    return {};
  }
  emit(Op::kFilter, place, add_call(std::move(shape)), id);
  return {};
}

Status ExpressionCompiler::test(Place place) {
  const bool negated = take_name("not");
  if (negated) place = peek().place;
  POME_ASSIGN_OR_RETURN(const std::string name, dotted_name());
  CallShape shape;
  const Token& next = peek();
  const bool begins_argument = next.kind == Kind::kInt || next.kind == Kind::kFloat ||
                               next.kind == Kind::kString ||
                               (next.kind == Kind::kName && next.text != "else" &&
                                next.text != "or" && next.text != "and") ||
                               at_operator("[") || at_operator("{");
  if (take_operator("(")) {
    POME_ASSIGN_OR_RETURN(shape, arguments());
  } else if (begins_argument) {
    if (at_name("is")) return template_error(next.place, "tests cannot follow one another");
    const Level level(*this);
    POME_RETURN_IF_ERROR(level.check());
    POME_RETURN_IF_ERROR(primary());
    POME_RETURN_IF_ERROR(postfix());
    shape.positional = 1;
  }
  const int32_t id = name_id(name);
  if (program_.tests[static_cast<size_t>(id)] == nullptr) {
    if (soft_ == 0) unknown_.push_back(unknown_test(place, name));
    emit(Op::kUnknownTest, place, id);
    return {};
  }
  emit(Op::kTest, place, add_call(std::move(shape)), id);
  if (negated) emit(Op::kNot, place);
  return {};
}

}  // namespace pome::jinja
