#include "tokenizer/jinja/eval.h"

#include <algorithm>
#include <utility>

#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

// Start of the character with this number in UTF-8 text; the end for one behind the last.
size_t byte_of_character(std::string_view text, int64_t number) {
  size_t at = 0;
  for (; number > 0 && at < text.size(); --number) at += decode_rune(text, at).size;
  return at;
}
int64_t count_characters(std::string_view text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); at += decode_rune(text, at).size) ++count;
  return count;
}

class Evaluator {
 public:
  Evaluator(Dict globals, const Limits& limits) : context_(limits) {
    scopes_.push_back(std::move(globals));
  }

  Result<Text> run(const Body& body) {
    Text out;
    POME_RETURN_IF_ERROR(run_body(body, out));
    return out;
  }

 private:
  Status write(Place place, const Text& text, Text& out) {
    POME_RETURN_IF_ERROR(context_.spend(place, 1 + text.size() / 64 + text.runs().size()));
    if (text.size() > context_.limits().output - out.size()) {
      return template_error(place, "the output is larger than " +
                                       std::to_string(context_.limits().output) + " bytes");
    }
    out.append(text);
    return {};
  }

  Status run_body(const Body& body, Text& out) {
    for (const Stmt& stmt : body) POME_RETURN_IF_ERROR(run_statement(stmt, out));
    return {};
  }

  Status run_statement(const Stmt& stmt, Text& out) {
    POME_RETURN_IF_ERROR(context_.spend(stmt.place));
    switch (stmt.kind) {
      case Stmt::Kind::kText:
        return write(stmt.place, Text(stmt.text), out);
      case Stmt::Kind::kPrint: {
        POME_ASSIGN_OR_RETURN(const Value value, eval(*stmt.expr));
        POME_RETURN_IF_ERROR(context_.spend(stmt.place, value.weight()));
        return write(stmt.place, to_text(value), out);
      }
      case Stmt::Kind::kIf:
        for (const Stmt::Branch& branch : stmt.branches) {
          bool taken = true;
          if (branch.condition) {
            POME_ASSIGN_OR_RETURN(const Value value, eval(*branch.condition));
            taken = value.truthy();
          }
          if (taken) return run_body(branch.body, out);
        }
        return {};
      case Stmt::Kind::kFor:
        return run_for(stmt, out);
      case Stmt::Kind::kSet: {
        POME_ASSIGN_OR_RETURN(Value value, eval(*stmt.expr));
        return stmt.attribute ? set_attribute(stmt, std::move(value))
                              : assign(stmt, std::move(value));
      }
      case Stmt::Kind::kSetBlock: {
        Text text;
        POME_RETURN_IF_ERROR(run_body(stmt.body, text));
        set_field(scopes_.back(), stmt.targets[0], Value(std::move(text)));
        return {};
      }
      case Stmt::Kind::kBody:
        return run_body(stmt.body, out);
    }
    return {};
  }

  Status set_attribute(const Stmt& stmt, Value value) {
    const Value* object = find(stmt.targets[0]);
    if (object == nullptr || !object->is(Kind::kNamespace)) {
      return template_error(stmt.place, "\"" + stmt.targets[0] + "\" is not a namespace");
    }
    if (value.is(Kind::kNamespace) || value.is(Kind::kMethod)) {
      return template_error(
          stmt.place, "a " + std::string(value.type_name()) + " cannot be stored in a namespace");
    }
    set_field(object->namespace_fields(), stmt.targets[1], std::move(value));
    return {};
  }

  // Binds the targets of a set or a for in the innermost scope.
  Status assign(const Stmt& stmt, Value value) {
    if (stmt.targets.size() == 1) {
      set_field(scopes_.back(), stmt.targets[0], std::move(value));
      return {};
    }
    POME_ASSIGN_OR_RETURN(List items, items_of(context_, stmt.place, value));
    if (items.size() != stmt.targets.size()) {
      return template_error(stmt.place, std::to_string(items.size()) + " values for " +
                                            std::to_string(stmt.targets.size()) + " names");
    }
    for (size_t i = 0; i < items.size(); ++i) {
      set_field(scopes_.back(), stmt.targets[i], std::move(items[i]));
    }
    return {};
  }

  Status run_for(const Stmt& stmt, Text& out) {
    POME_ASSIGN_OR_RETURN(const Value sequence, eval(*stmt.expr));
    POME_ASSIGN_OR_RETURN(List items, items_of(context_, stmt.place, sequence));
    if (stmt.condition) {
      List kept;
      for (Value& item : items) {
        POME_RETURN_IF_ERROR(context_.spend(stmt.place));
        scopes_.emplace_back();
        const Status bound = assign(stmt, item);
        auto keep = bound.ok() ? eval(*stmt.condition) : Result<Value>(bound);
        scopes_.pop_back();
        if (!keep.ok()) return std::move(keep).status();
        if (keep->truthy()) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    if (items.empty()) return run_body(stmt.otherwise, out);
    for (size_t i = 0; i < items.size(); ++i) {
      POME_RETURN_IF_ERROR(context_.spend(stmt.place));
      scopes_.emplace_back();
      set_field(scopes_.back(), "loop", loop_value(items, i));
      Status status = assign(stmt, items[i]);
      if (status.ok()) status = run_body(stmt.body, out);
      scopes_.pop_back();
      POME_RETURN_IF_ERROR(std::move(status));
    }
    return {};
  }

  static Value loop_value(const List& items, size_t i) {
    const auto count = static_cast<int64_t>(items.size());
    const auto index = static_cast<int64_t>(i);
    Dict loop{{"index0", Value(index)},
              {"index", Value(index + 1)},
              {"revindex0", Value(count - index - 1)},
              {"revindex", Value(count - index)},
              {"first", Value(i == 0)},
              {"last", Value(index + 1 == count)},
              {"length", Value(count)}};
    // Neighbours are there only where there are any, so that "is defined" works.
    if (i > 0) loop.emplace_back("previtem", items[i - 1]);
    if (i + 1 < items.size()) loop.emplace_back("nextitem", items[i + 1]);
    return Value(std::move(loop));
  }

  const Value* find(std::string_view name) const {
    for (size_t i = scopes_.size(); i-- > 0;) {
      if (const Value* value = find_field(scopes_[i], name)) return value;
    }
    return nullptr;
  }

  Result<Value> eval(const Expr& expr) {
    POME_RETURN_IF_ERROR(context_.spend(expr.place));
    switch (expr.kind) {
      case Expr::Kind::kLiteral:
        return expr.literal;
      case Expr::Kind::kName: {
        if (const Value* value = find(expr.name)) return *value;
        if (is_function(expr.name)) return Value(Function{expr.name});
        return Value(Undefined{expr.name});
      }
      case Expr::Kind::kList: {
        List list;
        for (const ExprPtr& item : expr.args) {
          POME_ASSIGN_OR_RETURN(Value value, eval(*item));
          list.push_back(std::move(value));
        }
        return context_.made(expr.place, std::move(list));
      }
      case Expr::Kind::kDict:
        return eval_dict(expr);
      case Expr::Kind::kAttribute: {
        POME_ASSIGN_OR_RETURN(const Value object, eval(*expr.args[0]));
        return attribute(expr.place, object, expr.name);
      }
      case Expr::Kind::kSubscript: {
        POME_ASSIGN_OR_RETURN(const Value object, eval(*expr.args[0]));
        POME_ASSIGN_OR_RETURN(const Value index, eval(*expr.args[1]));
        return subscript(expr.place, object, index);
      }
      case Expr::Kind::kSlice:
        return slice(expr);
      case Expr::Kind::kCall:
        return call(expr);
      case Expr::Kind::kFilter:
      case Expr::Kind::kTest: {
        POME_ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(expr, 0));
        return expr.kind == Expr::Kind::kFilter
                   ? call_filter(context_, expr.place, expr.name, arguments)
                   : call_test(context_, expr.place, expr.name, arguments);
      }
      case Expr::Kind::kUnary:
        return unary(expr);
      case Expr::Kind::kBinary:
        return binary(expr);
      case Expr::Kind::kCondition: {
        POME_ASSIGN_OR_RETURN(const Value condition, eval(*expr.args[1]));
        if (condition.truthy()) return eval(*expr.args[0]);
        return expr.args[2] ? eval(*expr.args[2]) : Result<Value>(Value());
      }
    }
    return Value();
  }

  Result<Value> eval_dict(const Expr& expr) {
    Dict dict;
    for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
      POME_ASSIGN_OR_RETURN(const Value key, eval(*expr.args[i]));
      POME_ASSIGN_OR_RETURN(Value value, eval(*expr.args[i + 1]));
      if (!key.is(Kind::kString)) return template_error(expr.place, "a key must be a string");
      set_field(dict, key.text().bytes(), std::move(value));
    }
    return context_.made(expr.place, std::move(dict));
  }

  Result<Arguments> eval_arguments(const Expr& expr, size_t first) {
    Arguments out;
    for (size_t i = first; i < expr.args.size(); ++i) {
      POME_ASSIGN_OR_RETURN(Value value, eval(*expr.args[i]));
      out.positional.push_back(std::move(value));
    }
    for (const auto& [name, argument] : expr.named) {
      POME_ASSIGN_OR_RETURN(Value value, eval(*argument));
      set_field(out.named, name, std::move(value));
    }
    return out;
  }

  Result<Value> call(const Expr& expr) {
    POME_ASSIGN_OR_RETURN(const Value callee, eval(*expr.args[0]));
    POME_ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(expr, 1));
    if (callee.is(Kind::kFunction)) {
      return call_function(context_, expr.place, callee.function_name(), arguments);
    }
    if (callee.is(Kind::kMethod)) {
      return call_method(context_, expr.place, callee.bound_method(), arguments);
    }
    if (callee.is(Kind::kUndefined)) {
      return template_error(
          expr.place, "unknown function \"" + escape_for_terminal(callee.undefined_name()) + "\"");
    }
    return template_error(expr.place, "a " + std::string(callee.type_name()) + " is no function");
  }

  Result<Value> attribute(Place place, const Value& object, const std::string& name) {
    if (object.is(Kind::kUndefined)) return undefined_error(place, object);
    if (is_method(object, name)) return Value::method(object, name);
    const Value* field = nullptr;
    if (object.is(Kind::kDict)) field = find_field(object.dict(), name);
    if (object.is(Kind::kNamespace)) field = find_field(object.namespace_fields(), name);
    return field ? *field : Value(Undefined{name});
  }

  static Status undefined_error(Place place, const Value& value) {
    return template_error(place,
                          "\"" + escape_for_terminal(value.undefined_name()) + "\" is undefined");
  }

  Result<Value> subscript(Place place, const Value& object, const Value& index) {
    if (object.is(Kind::kUndefined)) return undefined_error(place, object);
    if (index.is(Kind::kString)) {
      const std::string& name = index.text().bytes();
      if (object.is(Kind::kDict)) {
        if (const Value* field = find_field(object.dict(), name)) return *field;
      }
      return attribute(place, object, name);
    }
    if (!index.is(Kind::kInt) && !index.is(Kind::kBool)) return Value(Undefined{"item"});
    int64_t i = index.to_int();
    if (object.is(Kind::kList)) {
      const auto size = static_cast<int64_t>(object.list().size());
      if (i < 0) i += size;
      if (i < 0 || i >= size) return Value(Undefined{"item " + std::to_string(index.to_int())});
      return object.list()[static_cast<size_t>(i)];
    }
    if (object.is(Kind::kString)) {
      const Text& text = object.text();
      POME_RETURN_IF_ERROR(context_.spend(place, text.size() / 16));
      const int64_t size = count_characters(text.bytes());
      if (i < 0) i += size;
      if (i < 0 || i >= size) return Value(Undefined{"item " + std::to_string(index.to_int())});
      const size_t begin = byte_of_character(text.bytes(), i);
      return context_.made(place, text.slice(begin, begin + decode_rune(text.bytes(), begin).size));
    }
    return Value(Undefined{"item " + std::to_string(i)});
  }

  Result<Value> slice(const Expr& expr) {
    POME_ASSIGN_OR_RETURN(const Value object, eval(*expr.args[0]));
    std::optional<int64_t> bounds[3];
    for (size_t i = 0; i < 3; ++i) {
      if (!expr.args[i + 1]) continue;
      POME_ASSIGN_OR_RETURN(const Value bound, eval(*expr.args[i + 1]));
      if (bound.is(Kind::kNone)) continue;
      if (!bound.is(Kind::kInt)) {
        return template_error(expr.place, "a slice needs whole numbers");
      }
      bounds[i] = bound.as_int();
    }
    const int64_t step = bounds[2].value_or(1);
    if (step == 0) return template_error(expr.place, "the step of a slice is 0");
    if (object.is(Kind::kUndefined)) return undefined_error(expr.place, object);
    const bool is_text = object.is(Kind::kString);
    if (!is_text && !object.is(Kind::kList)) {
      return template_error(expr.place,
                            "a " + std::string(object.type_name()) + " cannot be sliced");
    }
    if (is_text && step != 1) {
      return template_error(expr.place, "a string can only be sliced with step 1");
    }
    if (is_text) POME_RETURN_IF_ERROR(context_.spend(expr.place, object.text().size() / 16));
    const int64_t size = is_text ? count_characters(object.text().bytes())
                                 : static_cast<int64_t>(object.list().size());
    // Python's rules: from the end where negative, then held to the range.
    const auto bound = [&](const std::optional<int64_t>& value, int64_t otherwise) {
      if (!value) return otherwise;
      const int64_t low = step > 0 ? 0 : -1;
      const int64_t high = step > 0 ? size : size - 1;
      const int64_t at = *value < 0 ? std::max(*value, -size - 1) + size : *value;
      return std::clamp(at, std::min(low, high), std::max(low, high));
    };
    const int64_t begin = bound(bounds[0], step > 0 ? 0 : size - 1);
    const int64_t end = bound(bounds[1], step > 0 ? size : -1);
    if (is_text) {
      const std::string& bytes = object.text().bytes();
      const size_t from = byte_of_character(bytes, begin);
      const size_t to = std::max(from, byte_of_character(bytes, end));
      return context_.made(expr.place, object.text().slice(from, to));
    }
    List out;
    const int64_t stride = std::clamp(step, -size - 1, size + 1);
    for (int64_t i = begin; stride > 0 ? i < end : i > end; i += stride) {
      out.push_back(object.list()[static_cast<size_t>(i)]);
    }
    return context_.made(expr.place, std::move(out));
  }

  Result<Value> unary(const Expr& expr) {
    POME_ASSIGN_OR_RETURN(const Value value, eval(*expr.args[0]));
    if (expr.name == "not") return Value(!value.truthy());
    if (value.is(Kind::kFloat)) {
      return Value(expr.name == "-" ? -value.to_double() : value.to_double());
    }
    if (!value.is_number()) {
      return template_error(expr.place, "a " + std::string(value.type_name()) + " has no sign");
    }
    int64_t out = value.to_int();
    if (expr.name == "-" && __builtin_sub_overflow(int64_t{0}, out, &out)) {
      return template_error(expr.place, "the result does not fit 64 bits");
    }
    return Value(out);
  }

  Result<Value> binary(const Expr& expr) {
    POME_ASSIGN_OR_RETURN(Value left, eval(*expr.args[0]));
    if (expr.name == "and" && !left.truthy()) return left;
    if (expr.name == "or" && left.truthy()) return left;
    POME_ASSIGN_OR_RETURN(Value right, eval(*expr.args[1]));
    if (expr.name == "and" || expr.name == "or") return right;
    return binary_operation(context_, expr.place, expr.name, left, right);
  }

  Context context_;
  std::vector<Dict> scopes_;
};

}  // namespace

Status Context::spend(Place place, uint64_t amount) {
  if (amount <= limits_.fuel - spent_) {
    spent_ += amount;
    return {};
  }
  spent_ = limits_.fuel;
  return template_error(place,
                        "the template takes more than " + std::to_string(limits_.fuel) + " steps");
}

Result<Value> Context::made(Place place, Text text) {
  POME_RETURN_IF_ERROR(spend(place, 1 + text.size() / 64 + text.runs().size()));
  if (text.size() > limits_.output) {
    return template_error(place,
                          "a string is larger than " + std::to_string(limits_.output) + " bytes");
  }
  return Value(std::move(text));
}

namespace {

Result<Value> checked(Place place, Value value) {
  if (value.depth() > kMaxDepth) return template_error(place, "lists are nested deeper than 200");
  return value;
}
Status storable(Place place, const Value& value) {
  // A namespace inside of a list could come to hold that list, and then never be freed.
  if (!value.is(Kind::kNamespace) && !value.is(Kind::kMethod)) return {};
  return template_error(place,
                        "a " + std::string(value.type_name()) + " cannot be stored in a list");
}

}  // namespace

Result<Value> Context::made(Place place, List list) {
  POME_RETURN_IF_ERROR(spend(place, 1 + list.size()));
  for (const Value& item : list) POME_RETURN_IF_ERROR(storable(place, item));
  return checked(place, Value(std::move(list)));
}

Result<Value> Context::made(Place place, Dict dict) {
  POME_RETURN_IF_ERROR(spend(place, 1 + dict.size()));
  for (const auto& [key, item] : dict) POME_RETURN_IF_ERROR(storable(place, item));
  return checked(place, Value(std::move(dict)));
}

const Value* Arguments::find(size_t position, std::string_view name) const {
  if (position < positional.size()) return &positional[position];
  return find_field(named, name);
}

Result<Text> render(const Body& body, Dict globals, const Limits& limits) {
  return Evaluator(std::move(globals), limits).run(body);
}

}  // namespace pome::jinja
