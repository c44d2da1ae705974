#include "tokenizer/jinja/compiler.h"

#include <algorithm>
#include <initializer_list>

#include "tokenizer/jinja/expression_compiler.h"

namespace pome::jinja {
namespace {

constexpr size_t kMaxSource = size_t{1} << 20;

using Kind = Token::Kind;

class Compiler : public ExpressionCompiler {
 public:
  using ExpressionCompiler::ExpressionCompiler;

  Result<Program> run() {
    POME_RETURN_IF_ERROR(body({}));
    if (peek().kind != Kind::kEnd) return unexpected();
    resolve_names();
    return std::move(program_);
  }

 private:
  using Ends = std::initializer_list<std::string_view>;

  // What "break" and "continue" must undo and where they go.
  struct LoopFrame {
    size_t scopes = 0, captures = 0;
    std::vector<size_t> breaks, continues;
  };

  // A body in a frame of its own: unknown filters are errors again.
  class Frame {
   public:
    explicit Frame(Compiler& owner) : owner_(owner), soft_(std::exchange(owner.soft_, 0)) {}
    ~Frame() { owner_.soft_ = soft_; }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Compiler& owner_;
    int soft_;
  };

  // The code of a macro or the like: no loop, scope or capture around it is in reach.
  class Function {
   public:
    explicit Function(Compiler& owner)
        : owner_(owner),
          loop_(std::exchange(owner.loop_, nullptr)),
          scopes_(std::exchange(owner.scopes_, 0)),
          captures_(std::exchange(owner.captures_, 0)) {}
    ~Function() {
      owner_.loop_ = loop_;
      owner_.scopes_ = scopes_;
      owner_.captures_ = captures_;
    }
    Function(const Function&) = delete;
    Function& operator=(const Function&) = delete;

   private:
    Compiler& owner_;
    LoopFrame* loop_;
    size_t scopes_, captures_;
  };

  // Statements up to a block whose tag is one of `ends` (which stays unread) or the end.
  Status body(Ends ends) {
    const Level level(*this);
    POME_RETURN_IF_ERROR(level.check());
    while (true) {
      const Token& token = peek();
      const Place place = token.place;
      if (token.kind == Kind::kEnd) return {};
      if (token.kind == Kind::kText) {
        emit(Op::kText, place, constant(Value(std::string_view(take().text))));
      } else if (token.kind == Kind::kPrintBegin) {
        take();
        POME_RETURN_IF_ERROR(tuple());
        emit(Op::kPrint, place);
        POME_RETURN_IF_ERROR(expect(Kind::kPrintEnd, "}}"));
      } else if (token.kind == Kind::kBlockBegin) {
        if (std::find(ends.begin(), ends.end(), peek(1).text) != ends.end()) return {};
        take();
        POME_RETURN_IF_ERROR(statement());
        POME_RETURN_IF_ERROR(expect(Kind::kBlockEnd, "%}"));
      } else {
        return unexpected();
      }
      if (!unknown_.empty()) return unknown_.front();
    }
  }

  // Reads " %}", statements, and "{% end"; the tag that ended them is the result.
  Result<Token> block(Place opened, Ends ends) {
    take_operator(":");
    POME_RETURN_IF_ERROR(expect(Kind::kBlockEnd, "%}"));
    if (!unknown_.empty()) return unknown_.front();
    POME_RETURN_IF_ERROR(body(ends));
    if (peek().kind != Kind::kBlockBegin) {
      return template_error(opened, "block without " + std::string(*(ends.end() - 1)));
    }
    take();
    return take();
  }

  Status statement() {
    if (peek().kind != Kind::kName) return unexpected();
    const Token name = take();
    const Place place = name.place;
    const std::string& tag = name.text;
    if (tag == "if") return if_statement(place);
    if (tag == "for") return for_statement(place);
    if (tag == "set") return set_statement(place);
    if (tag == "macro") return macro_statement(place);
    if (tag == "call") return call_statement(place);
    if (tag == "filter") return filter_statement(place);
    if (tag == "with") return with_statement(place);
    if (tag == "block") return block_statement(place);
    if (tag == "print") return print_statement();
    if (tag == "break" || tag == "continue") return jump_statement(place, tag == "break");
    // transformers marks what a model is trained on with this block; it prints its body.
    if (tag == "generation") {
      const Frame frame(*this);
      const Function function(*this);
      return scoped(place, "endgeneration", 0);
    }
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") {
      return template_error(place, "\"" + tag + "\": a chat template stands alone");
    }
    if (tag == "autoescape") return template_error(place, "\"autoescape\" is not supported");
    return template_error(place, "unknown tag \"" + escape_for_terminal(tag, 60) + "\"");
  }

  void open_scope(Place place, const Names& names, int32_t outermost = 0) {
    emit(Op::kScope, place, outermost, names.unset());
    ++scopes_;
  }
  void close_scope(Place place) {
    emit(Op::kEndScope, place);
    --scopes_;
  }

  Status scoped(Place place, std::string_view end, int32_t outermost) {
    const Names names(*this, outermost != 0);
    open_scope(place, names, outermost);
    POME_RETURN_IF_ERROR(block(place, {end}).status());
    close_scope(place);
    return {};
  }

  Status if_statement(Place place) {
    std::vector<size_t> ends;
    ++soft_;
    const size_t here = names_now_;
    while (true) {
      POME_RETURN_IF_ERROR(tuple(false));
      const size_t skip = emit(Op::kJumpIfFalse, place);
      ++static_scopes_[here].branches;
      POME_ASSIGN_OR_RETURN(const Token tag, block(place, {"elif", "else", "endif"}));
      --static_scopes_[here].branches;
      if (tag.text != "endif") ends.push_back(emit(Op::kJump, place));
      land(skip);
      ++static_scopes_[here].branches;
      if (tag.text == "else") POME_RETURN_IF_ERROR(block(place, {"endif"}).status());
      --static_scopes_[here].branches;
      if (tag.text != "elif") break;
    }
    --soft_;
    for (const size_t jump : ends) land(jump);
    return {};
  }

  // --- targets of assignments ---

  Status one_target(bool fields) {
    const Place place = peek().place;
    if (take_operator("(")) {
      const Level level(*this);
      POME_RETURN_IF_ERROR(level.check());
      POME_RETURN_IF_ERROR(targets(false, {}, true));
      return expect(Kind::kOperator, ")");
    }
    POME_ASSIGN_OR_RETURN(const Token name, expect_name());
    for (const std::string_view word : {"true", "false", "none", "True", "False", "None"}) {
      if (name.text == word) return template_error(place, "\"" + name.text + "\" cannot be set");
    }
    if (fields && take_operator(".")) {
      POME_ASSIGN_OR_RETURN(const Token field, expect_name());
      emit(Op::kStoreField, place, name_id(name.text), name_id(field.text));
    } else {
      emit(Op::kStore, place, name_id(name.text));
    }
    return {};
  }

  // Writes what stores the value on the stack.
  Status targets(bool fields, std::string_view end_name, bool may_be_empty) {
    const Place place = peek().place;
    const size_t begin = emit(Op::kUnpack, place);
    int32_t count = 0;
    bool several = false;
    while (true) {
      const bool at_end = at_operator(")") || (!end_name.empty() && at_name(end_name)) ||
                          peek().kind == Kind::kBlockEnd;
      if ((count > 0 || may_be_empty) && at_end) {
        several = several || count == 0;
        break;
      }
      POME_RETURN_IF_ERROR(one_target(fields));
      ++count;
      if (!take_operator(",")) break;
      several = true;
    }
    program_.code[begin].a = count;
    if (!several) program_.code.erase(program_.code.begin() + static_cast<std::ptrdiff_t>(begin));
    return {};
  }

  Result<Code> read_targets(bool fields, std::string_view end_name = {}) {
    const size_t begin = program_.code.size();
    POME_RETURN_IF_ERROR(targets(fields, end_name, false));
    return cut(begin);
  }

  // --- statements ---

  Status set_statement(Place place) {
    POME_ASSIGN_OR_RETURN(const Code store, read_targets(true));
    if (take_operator("=")) {
      POME_RETURN_IF_ERROR(tuple());
      note_targets(store);
      paste(store);
      return {};
    }
    const size_t begin = program_.code.size();
    POME_RETURN_IF_ERROR(filters(false));
    const Code filter = cut(begin);
    note_targets(store);
    POME_RETURN_IF_ERROR(captured(place, "endset"));
    paste(filter);
    paste(store);
    return {};
  }

  // A body whose text is left on the stack.
  Status captured(Place place, std::string_view end) {
    const Frame frame(*this);
    emit(Op::kCapture, place);
    ++captures_;
    POME_RETURN_IF_ERROR(scoped(place, end, 0));
    --captures_;
    emit(Op::kEndCapture, place);
    return {};
  }

  Status filter_statement(Place place) {
    const size_t begin = program_.code.size();
    POME_RETURN_IF_ERROR(filters(true));
    const Code filter = cut(begin);
    POME_RETURN_IF_ERROR(captured(place, "endfilter"));
    paste(filter);
    emit(Op::kPrint, place, 1);
    return {};
  }

  Status with_statement(Place place) {
    std::vector<Code> stores;
    while (peek().kind != Kind::kBlockEnd) {
      if (!stores.empty()) POME_RETURN_IF_ERROR(expect(Kind::kOperator, ","));
      const size_t begin = program_.code.size();
      POME_RETURN_IF_ERROR(one_target(false));
      stores.push_back(cut(begin));
      POME_RETURN_IF_ERROR(expect(Kind::kOperator, "="));
      POME_RETURN_IF_ERROR(expression());
    }
    const Frame frame(*this);
    const Names names(*this);
    open_scope(place, names);
    for (size_t i = stores.size(); i-- > 0;) {
      know_targets(stores[i]);
      paste(stores[i]);
    }
    POME_RETURN_IF_ERROR(block(place, {"endwith"}).status());
    close_scope(place);
    return {};
  }

  Status block_statement(Place place) {
    POME_ASSIGN_OR_RETURN(const Token name, expect_name());
    const bool sees_all = take_name("scoped");
    if (std::find(blocks_.begin(), blocks_.end(), name.text) != blocks_.end()) {
      return template_error(
          place, "block \"" + escape_for_terminal(name.text, 60) + "\" is defined twice");
    }
    blocks_.push_back(name.text);
    const Frame frame(*this);
    const Function function(*this);
    // What a block reads does not tell a macro or loop around it what to provide.
    const Uses uses = uses_;
    POME_RETURN_IF_ERROR(scoped(place, "endblock", sees_all ? 0 : 1));
    uses_ = uses;
    uses_.loop |= sees_all;
    take_name(name.text);
    return {};
  }

  Status print_statement() {
    bool first = true;
    while (peek().kind != Kind::kBlockEnd) {
      if (!first) POME_RETURN_IF_ERROR(expect(Kind::kOperator, ","));
      first = false;
      const Place place = peek().place;
      POME_RETURN_IF_ERROR(expression());
      emit(Op::kPrint, place);
    }
    return {};
  }

  Status jump_statement(Place place, bool out) {
    if (loop_ == nullptr) return template_error(place, "there is no loop around it");
    for (size_t i = loop_->captures; i < captures_; ++i) emit(Op::kDropCapture, place);
    for (size_t i = loop_->scopes; i < scopes_; ++i) emit(Op::kEndScope, place);
    (out ? loop_->breaks : loop_->continues).push_back(emit(Op::kJump, place));
    return {};
  }

  void jump_back(size_t to, Place place) {
    emit(Op::kJump, place,
         static_cast<int32_t>(to) - static_cast<int32_t>(program_.code.size()) - 1);
  }

  Status for_statement(Place place) {
    POME_ASSIGN_OR_RETURN(const Code store, read_targets(false, "in"));
    for (const Instruction& instruction : store) {
      if (instruction.op == Op::kStore && instruction.a == program_.loop_name) {
        return template_error(place, "\"loop\" cannot be set");
      }
    }
    POME_RETURN_IF_ERROR(expect(Kind::kName, "in"));
    POME_RETURN_IF_ERROR(tuple(false, "recursive"));
    Code condition;
    const bool filtered = take_name("if");
    if (filtered) {
      const Frame frame(*this);
      const Names names(*this);
      know_targets(store);
      const size_t begin = program_.code.size();
      POME_RETURN_IF_ERROR(expression());
      condition = cut(begin);
    }
    int32_t routine = 0;
    if (take_name("recursive")) {
      program_.routines.push_back(0);
      routine = static_cast<int32_t>(program_.routines.size());
      emit(Op::kEnterLoop, place, routine - 1);
      emit(Op::kPrint, place);
    }
    size_t over = 0;
    if (routine != 0) {
      over = emit(Op::kJump, place);
      program_.routines[static_cast<size_t>(routine) - 1] = program_.code.size();
    }
    if (filtered) {
      emit(Op::kLoop, place);
      const size_t next = emit(Op::kNext, place);
      paste(store);
      paste(condition);
      emit(Op::kKeep, place);
      emit(Op::kEndScope, place);
      jump_back(next, place);
      land(next);
      emit(Op::kKept, place);
    }
    if (routine == 0) {
      POME_RETURN_IF_ERROR(loop(place, store, 0));
      return {};
    }
    {
      const Function function(*this);
      POME_RETURN_IF_ERROR(loop(place, store, routine));
    }
    emit(Op::kReturn, place);
    land(over);
    return {};
  }

  Result<Token> turn(Place place, const Code& store, size_t next) {
    const Names names(*this);
    know_targets(store);
    static_scopes_[names_now_].known.insert(program_.loop_name);
    program_.code[next].b = names.unset();
    return block(place, {"else", "endfor"});
  }

  // The loop over the items on the stack, up to "endfor".
  Status loop(Place place, const Code& store, int32_t routine) {
    const Frame frame(*this);
    emit(Op::kLoop, place, routine);
    LoopFrame current{scopes_, captures_, {}, {}};
    LoopFrame* const outer = std::exchange(loop_, &current);
    const bool outer_uses = std::exchange(uses_.loop, false);
    const size_t next = emit(Op::kNext, place);
    ++scopes_;
    paste(store);
    auto tag = turn(place, store, next);
    loop_ = outer;
    if (!tag.ok()) return std::move(tag).status();
    if (uses_.loop || routine != 0) program_.code[next].op = Op::kNextWithLoop;
    uses_.loop = uses_.loop || outer_uses;
    emit(Op::kTurnDone, place);
    close_scope(place);
    for (const size_t jump : current.continues) land(jump);
    jump_back(next, place);
    land(next);
    for (const size_t jump : current.breaks) land(jump);
    const size_t end = emit(Op::kEndLoop, place);
    if (tag->text == "else") {
      const Frame else_frame(*this);
      POME_RETURN_IF_ERROR(scoped(place, "endfor", 0));
    }
    land(end);
    return {};
  }

  // --- macros ---

  // Parameters up to ")"; writes the code of the defaults.
  Status signature(MacroInfo& info) {
    const Names names(*this);
    POME_RETURN_IF_ERROR(expect(Kind::kOperator, "("));
    bool defaults = false;
    while (!at_operator(")")) {
      if (!info.parameters.empty()) POME_RETURN_IF_ERROR(expect(Kind::kOperator, ","));
      POME_ASSIGN_OR_RETURN(const Token name, expect_name());
      const int32_t id = name_id(name.text);
      if (std::find(info.parameters.begin(), info.parameters.end(), id) != info.parameters.end()) {
        return template_error(name.place, "two parameters have the same name");
      }
      info.parameters.push_back(id);
      if (take_operator("=")) {
        defaults = true;
        const size_t skip = emit(Op::kDefault, name.place, 0, id);
        POME_RETURN_IF_ERROR(expression());
        emit(Op::kStore, name.place, id);
        land(skip);
      } else if (defaults) {
        return template_error(name.place, "a parameter without default behind one with a default");
      } else {
        info.required = info.parameters.size();
      }
    }
    take();
    return {};
  }

  // The body of a macro whose signature is read, up to the end tag; leaves the macro on the stack.
  Status macro_body(Place place, MacroInfo info, const Code& defaults, std::string_view end) {
    const Frame frame(*this);
    const Names names(*this);
    info.unset = names.unset();
    for (const int32_t id : info.parameters) static_scopes_[names_now_].known.insert(id);
    const size_t over = emit(Op::kJump, place);
    info.begin = program_.code.size();
    paste(defaults);
    const Uses outer = std::exchange(uses_, {});
    {
      const Function function(*this);
      POME_RETURN_IF_ERROR(block(place, {end}).status());
    }
    const auto is_parameter = [&](int32_t id) {
      return std::find(info.parameters.begin(), info.parameters.end(), id) != info.parameters.end();
    };
    info.uses_caller = uses_.caller && !is_parameter(program_.caller_name);
    info.catches_named = uses_.kwargs && !is_parameter(program_.kwargs_name);
    info.catches_rest = uses_.varargs && !is_parameter(program_.varargs_name);
    auto& known = static_scopes_[names_now_].known;
    if (info.uses_caller) known.insert(program_.caller_name);
    if (info.catches_named) known.insert(program_.kwargs_name);
    if (info.catches_rest) known.insert(program_.varargs_name);
    uses_.caller |= outer.caller;
    uses_.kwargs |= outer.kwargs;
    uses_.varargs |= outer.varargs;
    uses_.loop |= outer.loop;
    emit(Op::kReturn, place);
    land(over);
    program_.macros.push_back(std::move(info));
    emit(Op::kMacro, place, static_cast<int32_t>(program_.macros.size() - 1));
    return {};
  }

  Status macro_statement(Place place) {
    POME_ASSIGN_OR_RETURN(const Token name, expect_name());
    MacroInfo info;
    info.name = name.text;
    note_name(name_id(name.text), true);
    const size_t begin = program_.code.size();
    POME_RETURN_IF_ERROR(signature(info));
    const Code defaults = cut(begin);
    POME_RETURN_IF_ERROR(macro_body(place, std::move(info), defaults, "endmacro"));
    emit(Op::kStore, place, name_id(name.text));
    return {};
  }

  Status call_statement(Place place) {
    MacroInfo info;
    const size_t begin = program_.code.size();
    if (at_operator("(")) POME_RETURN_IF_ERROR(signature(info));
    const Code defaults = cut(begin);
    ends_with_call_ = false;
    POME_RETURN_IF_ERROR(expression());
    if (!ends_with_call_) return template_error(place, "a call is expected");
    const Instruction call = program_.code.back();
    program_.code.pop_back();
    POME_RETURN_IF_ERROR(macro_body(place, std::move(info), defaults, "endcall"));
    CallShape shape = program_.calls[static_cast<size_t>(call.a)];
    shape.caller = true;
    emit(Op::kCall, call.place, add_call(std::move(shape)));
    emit(Op::kPrint, place, 1);
    return {};
  }

  LoopFrame* loop_ = nullptr;
  size_t scopes_ = 0, captures_ = 0;  // open in the code of this function
  std::vector<std::string> blocks_;
};

}  // namespace

Result<Program> compile(std::string_view source) {
  if (source.size() > kMaxSource) {
    return template_error({}, "the template has " + std::to_string(source.size()) +
                                  " bytes; at most 1048576 are allowed");
  }
  POME_ASSIGN_OR_RETURN(auto tokens, tokenize_template(source));
  return Compiler(std::move(tokens)).run();
}

}  // namespace pome::jinja
