// The parsed form of a template. Every node knows its place; nesting is bounded by the parser
// (kMaxDepth), so that walking and freeing the tree is safe on the stack.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/value.h"

namespace pome::jinja {

inline constexpr int kMaxDepth = 200;

struct Place {
  int line = 1, column = 1;
};
// kTemplate at "line L column C".
Status template_error(Place place, std::string message);

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind : uint8_t {
    kLiteral,
    kName,       // name
    kList,       // args
    kDict,       // args: key, value, key, value ...
    kAttribute,  // args[0].name
    kSubscript,  // args[0][args[1]]
    kSlice,      // args[0][args[1]:args[2]:args[3]], each may be null
    kCall,       // args[0](args[1...], named...)
    kFilter,     // args[0] | name(args[1...], named...)
    kTest,       // args[0] is name(args[1...])
    kUnary,      // name: "-", "+", "not"
    kBinary,     // name: the operator; "and" and "or" look at the right side only if needed
    kCondition,  // args[0] if args[1] else args[2] (may be null)
  };
  Kind kind = Kind::kLiteral;
  Place place;
  std::string name;
  Value literal;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  int depth = 1;
};

struct Stmt;
using Body = std::vector<Stmt>;

struct Stmt {
  enum class Kind : uint8_t {
    kText,      // text
    kPrint,     // expr
    kIf,        // branches in order; one without condition is the else
    kFor,       // targets, expr (what to walk over), condition (the filter), body, otherwise
    kSet,       // targets, expr; or object and attribute: targets[0].targets[1] of a namespace
    kSetBlock,  // targets[0], body
    kBody,      // body
  };
  struct Branch;
  Kind kind = Kind::kText;
  Place place;
  std::string text;
  std::vector<std::string> targets;
  bool attribute = false;
  ExprPtr expr, condition;
  Body body, otherwise;
  std::vector<Branch> branches;
};

struct Stmt::Branch {
  ExprPtr condition;
  Body body;
};

}  // namespace pome::jinja
