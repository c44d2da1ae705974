// The part of the compiler that reads expressions, with the state that statements share.
//
// Source of the grammar: jinja.palletsprojects.com, "Template Designer Documentation".
#pragma once

#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/lexer.h"
#include "tokenizer/jinja/program.h"

namespace pome::jinja {

using Code = std::vector<Instruction>;

class ExpressionCompiler {
 public:
  explicit ExpressionCompiler(std::vector<Token> tokens);

 protected:
  // --- tokens ---
  const Token& peek(size_t ahead = 0) const;
  const Token& take();
  bool at_operator(std::string_view text) const { return peek().is(Token::Kind::kOperator, text); }
  bool at_name(std::string_view text) const { return peek().is(Token::Kind::kName, text); }
  bool take_operator(std::string_view text);
  bool take_name(std::string_view text);
  Status expect(Token::Kind kind, std::string_view text);
  Result<Token> expect_name();
  Status unexpected() const;

  // --- code ---
  size_t emit(Op op, Place place, int32_t a = 0, int32_t b = 0);
  void land(size_t jump);  // the jump at that place goes to the end of the code
  int32_t name_id(std::string_view name);
  int32_t constant(Value value);
  // Code from `begin` on, taken out.
  Code cut(size_t begin);
  void paste(const Code& code);

  // --- expressions; each leaves one value on the stack ---
  Status expression(bool with_condition = true);
  // An expression, or a tuple without parentheses.
  Status tuple(bool with_condition = true, std::string_view end_name = {});
  Status primary();
  // Arguments behind "(" (which is read) up to ")".
  Result<CallShape> arguments();
  // "| name(...)" as long as there is one; with `inline_first` the first has no "|".
  Status filters(bool inline_first);
  int32_t add_call(CallShape shape);

  // Counts a level of recursion for as long as it lives.
  class Level {
   public:
    explicit Level(ExpressionCompiler& owner) : owner_(owner) { ++owner_.depth_; }
    ~Level() { --owner_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Status check() const;

   private:
    ExpressionCompiler& owner_;
  };

  Program program_;
  int depth_ = 0;
  // Unknown filters and tests are errors of the template, but where they stand in a branch: there
  // only running them is.
  int soft_ = 0;
  std::vector<Status> unknown_;
  bool ends_with_call_ = false;  // the last expression is a call
  // Names as Jinja's compiler sees them: a name that a scope sets, and that neither it has read
  // before nor a scope around it knows, is undefined until it is set.
  struct StaticScope {
    size_t parent = 0;
    std::set<int32_t> known;
    std::vector<int32_t> set_first;
    int branches = 0;  // "if"s around the present place: what is set there may not be
  };
  // A scope from here on; the index of its unset names is for the instruction that opens it.
  class Names {
   public:
    Names(ExpressionCompiler& owner, bool outermost = false);
    ~Names() { owner_.names_now_ = before_; }
    Names(const Names&) = delete;
    Names& operator=(const Names&) = delete;
    int32_t unset() const { return static_cast<int32_t>(owner_.names_now_); }

   private:
    ExpressionCompiler& owner_;
    size_t before_;
  };
  void note_name(int32_t id, bool set);
  void note_targets(const Code& store);  // of an assignment
  void know_targets(const Code& store);  // of a loop, or parameters
  void resolve_names();                  // fills program_.unset
  std::vector<StaticScope> static_scopes_;
  size_t names_now_ = 0;

  // Which of caller, kwargs, varargs and loop the code read so far loads.
  struct Uses {
    bool caller = false, kwargs = false, varargs = false, loop = false;
  };
  Uses uses_;

 private:
  Status binary(int level);
  Status comparison(int level);
  Status concat(Place place);
  Status unary(bool with_filters);
  Status postfix();
  Status filter_expression();
  Status filter(Place place);
  Status test(Place place);
  Status subscript(Place place);
  Status subscribed(bool& is_slice);
  Status name(const Token& token);
  Status list(Place place);
  Status dict(Place place);
  Result<std::string> dotted_name();
  void use_name(std::string_view name, int32_t id);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  std::map<std::string, int32_t, std::less<>> ids_;
};

}  // namespace pome::jinja
