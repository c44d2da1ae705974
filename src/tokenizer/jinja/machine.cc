#include "tokenizer/jinja/machine.h"

#include <algorithm>
#include <utility>

#include "tokenizer/jinja/macro_call.h"
#include "tokenizer/jinja/native.h"
#include "tokenizer/jinja/print.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

class Machine {
 public:
  Machine(const Program& program, const Limits& limits, int64_t now)
      : program_(program), context_(limits, now) {}

  Result<Text> run(const Dict& globals) {
    for (size_t id = 0; id < program_.names.size(); ++id) {
      if (const Value* value = globals.find(program_.names[id])) {
        globals_.set(static_cast<int32_t>(id), *value);
      }
    }
    root_.parent = &globals_;
    forget(root_, 1);
    scope_ = &root_;
    outputs_.emplace_back();
    while (pc_ < program_.code.size()) {
      const Instruction& instruction = program_.code[pc_++];
      POME_RETURN_IF_ERROR(context_.spend(instruction.place));
      POME_RETURN_IF_ERROR(step(instruction));
    }
    return std::move(outputs_.back());
  }

 private:
  // What a macro or a turn of a recursive loop comes back to.
  struct Frame {
    size_t pc = 0;
    Scope* scope = nullptr;
    Scope* own = nullptr;  // of a macro: its names
    int64_t depth = 0;     // of a recursive loop
  };

  Value pop() {
    Value out = std::move(stack_.back());
    stack_.pop_back();
    return out;
  }
  List pop(size_t count) {
    const auto from = stack_.end() - static_cast<std::ptrdiff_t>(count);
    List out(std::make_move_iterator(from), std::make_move_iterator(stack_.end()));
    stack_.erase(from, stack_.end());
    return out;
  }
  void push(Value value) { stack_.push_back(std::move(value)); }
  Status push(Result<Value> value) {
    if (!value.ok()) return std::move(value).status();
    stack_.push_back(*std::move(value));
    return {};
  }
  void jump(int32_t distance) { pc_ = static_cast<size_t>(static_cast<int64_t>(pc_) + distance); }
  const std::string& name(int32_t id) const { return program_.names[static_cast<size_t>(id)]; }

  Status step(const Instruction& in) {
    switch (in.op) {
      case Op::kConst:
        push(program_.constants[static_cast<size_t>(in.a)]);
        return {};
      case Op::kLoad:
        push(load(in.a));
        return {};
      case Op::kStore:
        store(in.a, pop());
        return {};
      case Op::kStoreField:
        return store_field(in);
      case Op::kUnpack:
        return unpack(in);
      case Op::kPop:
        pop();
        return {};
      case Op::kList:
        return push(context_.list(in.place, pop(static_cast<size_t>(in.a))));
      case Op::kTuple:
        return push(context_.tuple(in.place, pop(static_cast<size_t>(in.a))));
      case Op::kDict:
        return make_dict(in);
      case Op::kAttribute: {
        const Value object = pop();
        return push(get_attribute(context_, in.place, object, name(in.a)));
      }
      case Op::kItem: {
        const Value key = pop(), object = pop();
        return push(get_item(context_, in.place, object, key));
      }
      case Op::kSlice: {
        const Value stride = pop(), end = pop(), begin = pop(), object = pop();
        return push(get_slice(context_, in.place, object, begin, end, stride));
      }
      case Op::kCall:
        return call(in);
      case Op::kFilter:
      case Op::kTest:
        return filter(in);
      case Op::kUnknownFilter:
        return unknown_filter(in.place, name(in.a));
      case Op::kUnknownTest:
        return unknown_test(in.place, name(in.a));
      default:
        return step_operator(in);
    }
  }

  Status step_operator(const Instruction& in) {
    switch (in.op) {
      case Op::kNot:
        push(Value(!pop().truthy()));
        return {};
      case Op::kNegative:
        return push(negative(in.place, pop()));
      case Op::kPositive:
        return push(positive(in.place, pop()));
      case Op::kBinary: {
        const Value right = pop(), left = pop();
        return push(binary(context_, in.place, static_cast<Operator>(in.a), left, right));
      }
      case Op::kCompareChain: {
        const Value right = pop(), left = pop();
        POME_ASSIGN_OR_RETURN(Value holds,
                              binary(context_, in.place, static_cast<Operator>(in.a), left, right));
        if (!holds.truthy()) jump(in.b);
        push(holds.truthy() ? right : std::move(holds));
        return {};
      }
      case Op::kConcat:
        return concat(in);
      case Op::kJump:
        jump(in.a);
        return {};
      case Op::kJumpIfFalse:
        if (!pop().truthy()) jump(in.a);
        return {};
      case Op::kFalseOrPop:
      case Op::kTrueOrPop:
        if (stack_.back().truthy() == (in.op == Op::kTrueOrPop)) {
          jump(in.a);
        } else {
          pop();
        }
        return {};
      case Op::kText:
        return print(in.place, program_.constants[static_cast<size_t>(in.a)].text());
      case Op::kPrint: {
        const Value value = pop();
        if (in.a == 1 && !value.is(Kind::kString)) {
          return template_error(
              in.place, "the block gives a " + std::string(value.type_name()) + " and no text");
        }
        POME_ASSIGN_OR_RETURN(const Text text, to_text(context_, in.place, value));
        return print(in.place, text);
      }
      default:
        return step_block(in);
    }
  }

  Status step_block(const Instruction& in) {
    switch (in.op) {
      case Op::kScope:
        return open_scope(in, in.a == 1);
      case Op::kEndScope:
        close_scope();
        return {};
      case Op::kLoop:
        return begin_loop(in);
      case Op::kNext:
      case Op::kNextWithLoop:
        return next(in);
      case Op::kTurnDone:
        loops_.back()->completed = true;
        return {};
      case Op::kEndLoop:
        if (loops_.back()->completed) jump(in.a);
        end_loop();
        return {};
      case Op::kKeep: {
        const bool keep = pop().truthy();
        Loop& loop = *loops_.back();
        if (keep) loop.kept.push_back(loop.items()[loop.next - 1]);
        return {};
      }
      case Op::kKept: {
        List kept = std::move(loops_.back()->kept);
        end_loop();
        return push(context_.list(in.place, std::move(kept)));
      }
      case Op::kCapture:
        outputs_.emplace_back();
        return {};
      case Op::kEndCapture:
        return push(end_capture(in.place));
      case Op::kDropCapture:
        static_cast<void>(drop_capture());
        return {};
      case Op::kMacro:
        return make_macro(in);
      case Op::kDefault:
        if (scope_->find(in.b) != nullptr) jump(in.a);
        return {};
      case Op::kReturn:
        return finish_frame(in.place);
      case Op::kEnterLoop: {
        Value items = pop();
        return enter_loop(in.place, program_.routines[static_cast<size_t>(in.a)], scope_,
                          std::move(items), 0);
      }
      default:
        break;
    }
    POME_CHECK(false);
    return {};
  }

  // --- names ---

  Value load(int32_t id) {
    bool in_block = false;
    for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
      const Value* value = scope->find(id);
      if (value == nullptr) {
        in_block = in_block || scope->block;
        continue;
      }
      if (is_unset(*value)) {
        // A block sees of the outermost scope only what is set.
        if (in_block && scope == &root_) continue;
        return undefined(id);
      }
      if (value->is(Kind::kObject) && value->object().type == Object::Type::kLoop &&
          (pc_ == program_.code.size() || program_.code[pc_].op != Op::kAttribute)) {
        static_cast<Loop&>(value->object()).escaped = true;
      }
      return *value;
    }
    if (const Builtin* function = program_.functions[static_cast<size_t>(id)]) return function;
    return undefined(id);
  }
  Value undefined(int32_t id) const { return Undefined::named(escape_for_terminal(name(id), 60)); }
  static bool is_unset(const Value& value) {
    return value.is(Kind::kUndefined) && !value.has_message();
  }

  void store(int32_t id, Value value) {
    if (is_unset(value)) value = undefined(id);
    scope_->set(id, std::move(value));
  }

  Status store_field(const Instruction& in) {
    Value value = pop();
    const Value target = load(in.a);
    if (!target.is(Kind::kObject) || target.object().type != Object::Type::kNamespace) {
      return template_error(in.place, "\"" + escape_for_terminal(name(in.a), 60) +
                                          "\" is no namespace, its attributes cannot be set");
    }
    if (name(in.b)[0] == '_') {
      return template_error(
          in.place, "the sandbox does not allow names of a namespace that begin with \"_\"");
    }
    static_cast<Namespace&>(target.object()).fields.set(name(in.b), std::move(value));
    return {};
  }

  Status unpack(const Instruction& in) {
    const Value value = pop();
    POME_ASSIGN_OR_RETURN(const List items, items_of(context_, in.place, value));
    if (items.size() != static_cast<size_t>(in.a)) {
      return template_error(in.place, "there are " + std::to_string(items.size()) + " values for " +
                                          std::to_string(in.a) + " names");
    }
    for (size_t i = items.size(); i-- > 0;) push(items[i]);
    return {};
  }

  Status make_dict(const Instruction& in) {
    List items = pop(2 * static_cast<size_t>(in.a));
    Dict dict;
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (!Dict::can_be_key(items[i])) {
        return template_error(in.place,
                              "a " + std::string(items[i].type_name()) + " cannot be a key");
      }
      dict.set(std::move(items[i]), std::move(items[i + 1]));
    }
    return push(context_.made(in.place, std::move(dict)));
  }

  Status concat(const Instruction& in) {
    const List parts = pop(static_cast<size_t>(in.a));
    Text out;
    for (const Value& part : parts) {
      POME_ASSIGN_OR_RETURN(const Text text, to_text(context_, in.place, part));
      out.append(text);
      if (out.size() > context_.limits().text) break;  // refused below
    }
    return push(context_.made(in.place, std::move(out)));
  }

  // --- output ---

  Status print(Place place, const Text& text) {
    POME_RETURN_IF_ERROR(context_.spend(place, text.size() / 16 + text.runs().size()));
    if (text.size() > context_.limits().text - printed_) {
      return template_error(
          place, "the output is larger than " + std::to_string(context_.limits().text) + " bytes");
    }
    printed_ += text.size();
    outputs_.back().append(text);
    return {};
  }
  Text drop_capture() {
    Text out = std::move(outputs_.back());
    outputs_.pop_back();
    printed_ -= out.size();
    return out;
  }
  Result<Value> end_capture(Place place) { return context_.made(place, drop_capture()); }

  // --- scopes and loops ---

  // Names that are undefined until the scope sets them.
  void forget(Scope& scope, int32_t unset) {
    for (const int32_t id : program_.unset[static_cast<size_t>(unset)]) {
      scope.set(id, Undefined{});
    }
  }

  Status open_scope(const Instruction& in, bool outermost) {
    POME_ASSIGN_OR_RETURN(Scope* const scope, context_.make_scope(in.place));
    forget(*scope, in.b);
    scope->parent = outermost ? &root_ : scope_;
    scope->block = outermost;
    if (outermost) resume_.emplace_back(scope, scope_);
    scope_ = scope;
    return {};
  }
  void close_scope() {
    Scope* const scope = scope_;
    scope_ = scope->parent;
    // A block in the outermost scope goes back to where it stood.
    if (!resume_.empty() && resume_.back().first == scope) {
      scope_ = resume_.back().second;
      resume_.pop_back();
    }
    context_.recycle(scope);
  }

  Status begin_loop(const Instruction& in) {
    const Value value = pop();
    POME_ASSIGN_OR_RETURN(Loop* const loop, context_.make_loop(in.place));
    loops_.push_back(loop);
    if (value.is(Kind::kSequence)) {
      loop->sequence = value;
    } else {
      POME_ASSIGN_OR_RETURN(List items, items_of(context_, in.place, value));
      POME_ASSIGN_OR_RETURN(loop->sequence, context_.list(in.place, std::move(items)));
    }
    if (in.a > 0) {
      loop->routine = in.a - 1;
      loop->depth0 = frames_.back().depth;
      loop->scope = scope_;
      loop->escaped = true;
    }
    return {};
  }

  Status next(const Instruction& in) {
    Loop* const loop = loops_.back();
    if (loop->next >= loop->items().size()) {
      jump(in.a);
      return {};
    }
    POME_RETURN_IF_ERROR(open_scope(in, false));
    if (in.op == Op::kNextWithLoop) scope_->set(program_.loop_name, Value(loop));
    push(loop->items()[loop->next++]);
    return {};
  }

  void end_loop() {
    context_.recycle(loops_.back());
    loops_.pop_back();
  }

  // --- calls ---

  Result<Arguments> take_arguments(Place place, const CallShape& shape) {
    Arguments out;
    Value caller, star_star, star;
    if (shape.caller) caller = pop();
    if (shape.star_star) star_star = pop();
    if (shape.star) star = pop();
    List named = pop(shape.named.size());
    out.positional = pop(static_cast<size_t>(shape.positional));
    if (shape.star) {
      POME_ASSIGN_OR_RETURN(const List more, items_of(context_, place, star));
      out.positional.insert(out.positional.end(), more.begin(), more.end());
    }
    const auto add = [&](const Value& key, Value value) -> Status {
      if (!key.is(Kind::kString)) return template_error(place, "names of arguments are strings");
      if (out.named.find(key) != nullptr) {
        return template_error(place, "an argument is given twice: \"" +
                                         escape_for_terminal(key.text().bytes(), 60) + "\"");
      }
      out.named.set(key, std::move(value));
      return {};
    };
    for (size_t i = 0; i < named.size(); ++i) {
      POME_RETURN_IF_ERROR(add(Value(std::string_view(name(shape.named[i]))), std::move(named[i])));
    }
    if (shape.star_star) {
      if (!star_star.is(Kind::kDict)) return template_error(place, "\"**\" needs a dictionary");
      for (const auto& [key, value] : star_star.dict()) POME_RETURN_IF_ERROR(add(key, value));
    }
    if (shape.caller) POME_RETURN_IF_ERROR(add(Value(std::string_view("caller")), caller));
    return out;
  }

  Status filter(const Instruction& in) {
    const CallShape& shape = program_.calls[static_cast<size_t>(in.a)];
    POME_ASSIGN_OR_RETURN(Arguments arguments, take_arguments(in.place, shape));
    arguments.positional.insert(arguments.positional.begin(), pop());
    const auto& table = in.op == Op::kFilter ? program_.filters : program_.tests;
    return push(
        call_builtin(context_, in.place, *table[static_cast<size_t>(in.b)], std::move(arguments)));
  }

  Status call(const Instruction& in) {
    const CallShape& shape = program_.calls[static_cast<size_t>(in.a)];
    POME_ASSIGN_OR_RETURN(Arguments arguments, take_arguments(in.place, shape));
    const Value callee = pop();
    switch (callee.kind()) {
      case Kind::kFunction:
        return push(call_builtin(context_, in.place, callee.function(), std::move(arguments)));
      case Kind::kMethod:
        arguments.positional.insert(arguments.positional.begin(), callee.method().object);
        return push(
            call_builtin(context_, in.place, *callee.method().function, std::move(arguments)));
      case Kind::kObject:
        return call_object(in.place, callee.object(), std::move(arguments));
      case Kind::kUndefined:
        return template_error(in.place, callee.undefined_message());
      default:
        return template_error(in.place,
                              "a " + std::string(callee.type_name()) + " cannot be called");
    }
  }

  Status call_object(Place place, Object& object, Arguments arguments) {
    switch (object.type) {
      case Object::Type::kMacro:
        return call_macro(place, static_cast<Macro&>(object), std::move(arguments));
      case Object::Type::kLoop: {
        auto& loop = static_cast<Loop&>(object);
        if (loop.routine < 0) return template_error(place, "the loop is not recursive");
        if (arguments.positional.size() != 1 || !arguments.named.empty()) {
          return template_error(place, "a loop is called with one argument");
        }
        return enter_loop(place, program_.routines[static_cast<size_t>(loop.routine)], loop.scope,
                          std::move(arguments.positional[0]), loop.depth0 + 1);
      }
      case Object::Type::kJoiner: {
        auto& joiner = static_cast<Joiner&>(object);
        if (!arguments.positional.empty() || !arguments.named.empty()) {
          return template_error(place, "a joiner takes no arguments");
        }
        push(joiner.used ? joiner.separator : Value(Text()));
        joiner.used = true;
        return {};
      }
      default:
        return template_error(place, "a " + std::string(object.type_name()) + " cannot be called");
    }
  }

  Status enter(Place place, size_t begin, Scope* scope) {
    if (frames_.size() >= static_cast<size_t>(context_.limits().calls)) {
      return template_error(place, "macros or loops call one another deeper than " +
                                       std::to_string(context_.limits().calls));
    }
    frames_.push_back({pc_, scope_, nullptr, 0});
    outputs_.emplace_back();
    scope_ = scope;
    pc_ = begin;
    return {};
  }

  Status enter_loop(Place place, size_t begin, Scope* scope, Value items, int64_t depth) {
    POME_RETURN_IF_ERROR(enter(place, begin, scope));
    frames_.back().depth = depth;
    push(std::move(items));
    return {};
  }

  Status finish_frame(Place place) {
    const Frame frame = frames_.back();
    frames_.pop_back();
    pc_ = frame.pc;
    scope_ = frame.scope;
    if (frame.own != nullptr) context_.recycle(frame.own);
    return push(end_capture(place));
  }

  Status make_macro(const Instruction& in) {
    POME_ASSIGN_OR_RETURN(Macro* const macro, context_.make<Macro>(in.place));
    macro->info = &program_.macros[static_cast<size_t>(in.a)];
    macro->name = macro->info->name;
    macro->scope = scope_;
    for (Scope* scope = scope_; scope != nullptr && !scope->captured; scope = scope->parent) {
      scope->captured = true;
    }
    // The loops around it may be asked for after their end.
    for (Loop* loop : loops_) loop->escaped = true;
    push(Value(macro));
    return {};
  }

  Status call_macro(Place place, Macro& macro, Arguments arguments) {
    const MacroInfo& info = *macro.info;
    POME_RETURN_IF_ERROR(context_.spend(place, 4 + info.parameters.size()));
    POME_ASSIGN_OR_RETURN(Scope* const scope, context_.make_scope(place));
    scope->parent = macro.scope;
    forget(*scope, info.unset);
    POME_RETURN_IF_ERROR(bind_macro(context_, place, program_, info, std::move(arguments), *scope));
    POME_RETURN_IF_ERROR(enter(place, info.begin, scope));
    frames_.back().own = scope;
    return {};
  }

  const Program& program_;
  Context context_;  // owns what values point to, so it is freed last
  Scope globals_, root_;
  Scope* scope_ = nullptr;
  size_t pc_ = 0;
  List stack_;
  std::vector<Loop*> loops_;
  std::vector<Frame> frames_;
  std::vector<Text> outputs_;
  // Scopes of blocks in the outermost scope, and where they stand.
  std::vector<std::pair<Scope*, Scope*>> resume_;
  size_t printed_ = 0;  // bytes in all outputs
};

}  // namespace

Result<Text> run(const Program& program, const Dict& globals, int64_t now, const Limits& limits) {
  return Machine(program, limits, now).run(globals);
}

}  // namespace pome::jinja
