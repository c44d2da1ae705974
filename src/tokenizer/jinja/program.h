// A template as instructions for a machine with a stack of values, a chain of scopes, open loops
// and open captures. The compiler writes it in one pass over the tokens; the machine runs it
// without recursion.
//
// Jumps are relative to the instruction behind them, so that code can be moved as a whole.
// Thread safety: immutable once compiled.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/jinja/context.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/value.h"

namespace pome::jinja {

enum class Op : uint8_t {
  kConst,         // → constants[a]
  kLoad,          // → the value of names[a]
  kStore,         // value → names[a] of the innermost scope
  kStoreField,    // value → attribute names[b] of the namespace names[a]
  kUnpack,        // value → its `a` items, the first on top
  kPop,           // value →
  kList,          // a values → list
  kTuple,         // a values → tuple
  kDict,          // a pairs → dictionary
  kAttribute,     // object → object.names[a]
  kItem,          // object key → object[key]
  kSlice,         // object begin end step → object[begin:end:step]
  kCall,          // callee, arguments as calls[a] says → result
  kFilter,        // value, arguments as calls[a] says → names[b] of it
  kTest,          // the same for a test
  kNot,           // value → not value
  kNegative,      // value → -value
  kPositive,      // value → +value
  kBinary,        // left right → left Operator(a) right
  kCompareChain,  // left right → right where left Operator(a) right, else false and jump by b
  kConcat,        // a values → their texts as one
  kJump,          // by a
  kJumpIfFalse,   // value → ; by a
  kFalseOrPop,    // value → value and jump by a when false, else dropped
  kTrueOrPop,     // the same when true
  kText,          // prints constants[a]
  kPrint,         // value → printed; with a = 1 it must be a string
  kScope,         // opens a scope; a = 1: in the outermost one; b: index of unset names
  kEndScope,      // closes it
  kLoop,          // iterable → an open loop; a = 1 + routine when it is recursive
  kNext,  // → next item, in a new scope (b: index of unset names), or jump by a at the end
  kNextWithLoop,   // the same, and the name `loop` stands for the loop
  kTurnDone,       // the turn of the loop came to its end
  kEndLoop,        // closes the loop; jump by a when a turn came to its end
  kKeep,           // condition → the item of the turn is kept or not
  kKept,           // closes the loop → the items kept
  kCapture,        // output goes to a new text
  kEndCapture,     // → that text
  kDropCapture,    // the text is forgotten
  kMacro,          // → the macro macros[a], bound to the scope
  kDefault,        // jump by a unless parameter names[b] is missing
  kReturn,         // ends a macro or recursive loop → its text
  kEnterLoop,      // iterable → text of the recursive loop routines[a]
  kUnknownFilter,  // fails: names[a]
  kUnknownTest,
};

struct Instruction {
  Op op;
  int32_t a = 0, b = 0;
  Place place;
};

// The order on the stack: positional, named, then what "*", "**" and a call block give.
struct CallShape {
  int32_t positional = 0;
  std::vector<int32_t> named;
  bool star = false, star_star = false, caller = false;
};

struct MacroInfo {
  std::string name;
  std::vector<int32_t> parameters;
  size_t required = 0;  // parameters without a default come first
  size_t begin = 0;     // of its code
  int32_t unset = 0;    // index of unset names
  bool catches_named = false, catches_rest = false, uses_caller = false;
};

struct Program {
  std::vector<Instruction> code;
  std::vector<Value> constants;
  std::vector<std::string> names;
  std::vector<const Builtin*> functions;  // by name; null where there is none
  std::vector<const Builtin*> filters, tests;
  std::vector<CallShape> calls;
  std::vector<MacroInfo> macros;
  std::vector<size_t> routines;  // beginnings of recursive loops
  // Names that a scope sets somewhere, and that are undefined in it until then, whatever the
  // template was given under that name. The first entry is empty, the second the outermost scope's.
  std::vector<std::vector<int32_t>> unset;
  int32_t loop_name = 0, caller_name = 0, kwargs_name = 0, varargs_name = 0;
};

}  // namespace pome::jinja
