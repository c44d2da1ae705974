// What the compiler keeps while it reads: tokens, code, and the names of scopes.
#include <algorithm>

#include "tokenizer/jinja/expression_compiler.h"
#include "tokenizer/jinja/native.h"

namespace pome::jinja {
namespace {

using Kind = Token::Kind;

}  // namespace

ExpressionCompiler::ExpressionCompiler(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  static_scopes_.resize(2);  // the first has no names and is around all others
  names_now_ = 1;
  program_.loop_name = name_id("loop");
  program_.caller_name = name_id("caller");
  program_.kwargs_name = name_id("kwargs");
  program_.varargs_name = name_id("varargs");
}

const Token& ExpressionCompiler::peek(size_t ahead) const {
  return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
}
const Token& ExpressionCompiler::take() {
  const Token& token = peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}
bool ExpressionCompiler::take_operator(std::string_view text) {
  if (!at_operator(text)) return false;
  take();
  return true;
}
bool ExpressionCompiler::take_name(std::string_view text) {
  if (!at_name(text)) return false;
  take();
  return true;
}
Status ExpressionCompiler::expect(Kind kind, std::string_view text) {
  if (peek().is(kind, text)) {
    take();
    return {};
  }
  return template_error(peek().place, "expected \"" + std::string(text) + "\", found \"" +
                                          escape_for_terminal(peek().text, 60) + "\"");
}
Result<Token> ExpressionCompiler::expect_name() {
  if (peek().kind != Kind::kName) return unexpected();
  return take();
}
Status ExpressionCompiler::unexpected() const {
  return template_error(peek().place,
                        "unexpected \"" + escape_for_terminal(peek().text, 60) + "\"");
}

Status ExpressionCompiler::Level::check() const {
  if (owner_.depth_ <= kMaxDepth) return {};
  return template_error(owner_.peek().place, "the template is nested deeper than 200");
}

size_t ExpressionCompiler::emit(Op op, Place place, int32_t a, int32_t b) {
  program_.code.push_back({op, a, b, place});
  return program_.code.size() - 1;
}
void ExpressionCompiler::land(size_t jump) {
  Instruction& instruction = program_.code[jump];
  const auto distance = static_cast<int32_t>(program_.code.size() - jump - 1);
  (instruction.op == Op::kCompareChain ? instruction.b : instruction.a) = distance;
}
int32_t ExpressionCompiler::name_id(std::string_view name) {
  if (const auto found = ids_.find(name); found != ids_.end()) return found->second;
  const auto id = static_cast<int32_t>(program_.names.size());
  ids_.emplace(name, id);
  program_.names.emplace_back(name);
  program_.functions.push_back(find_function(name));
  program_.filters.push_back(find_filter(name));
  program_.tests.push_back(find_test(name));
  return id;
}
int32_t ExpressionCompiler::constant(Value value) {
  program_.constants.push_back(std::move(value));
  return static_cast<int32_t>(program_.constants.size() - 1);
}
Code ExpressionCompiler::cut(size_t begin) {
  const auto from = program_.code.begin() + static_cast<std::ptrdiff_t>(begin);
  Code out(from, program_.code.end());
  program_.code.erase(from, program_.code.end());
  return out;
}
void ExpressionCompiler::paste(const Code& code) {
  program_.code.insert(program_.code.end(), code.begin(), code.end());
}
int32_t ExpressionCompiler::add_call(CallShape shape) {
  program_.calls.push_back(std::move(shape));
  return static_cast<int32_t>(program_.calls.size() - 1);
}

ExpressionCompiler::Names::Names(ExpressionCompiler& owner, bool outermost)
    : owner_(owner), before_(owner.names_now_) {
  owner_.static_scopes_.emplace_back();
  owner_.static_scopes_.back().parent = outermost ? 0 : before_;
  owner_.names_now_ = owner_.static_scopes_.size() - 1;
}
void ExpressionCompiler::note_name(int32_t id, bool set) {
  StaticScope& scope = static_scopes_[names_now_];
  if (scope.known.insert(id).second && set && scope.branches == 0) scope.set_first.push_back(id);
}
void ExpressionCompiler::note_targets(const Code& store) {
  for (const Instruction& in : store) {
    if (in.op == Op::kStore || in.op == Op::kStoreField) note_name(in.a, in.op == Op::kStore);
  }
}
void ExpressionCompiler::know_targets(const Code& store) {
  for (const Instruction& in : store) {
    if (in.op == Op::kStore) static_scopes_[names_now_].known.insert(in.a);
  }
}
void ExpressionCompiler::resolve_names() {
  program_.unset.resize(static_scopes_.size());
  for (size_t i = 1; i < static_scopes_.size(); ++i) {
    for (const int32_t id : static_scopes_[i].set_first) {
      size_t around = static_scopes_[i].parent;
      while (around != 0 && !static_scopes_[around].known.contains(id)) {
        around = static_scopes_[around].parent;
      }
      if (around == 0) program_.unset[i].push_back(id);
    }
  }
}

}  // namespace pome::jinja
