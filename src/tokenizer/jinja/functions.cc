// Functions that every template sees.
#include <algorithm>
#include <string>

#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/native.h"
#include "tokenizer/jinja/operators.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

constexpr uint64_t kMaxRange = 100000;  // the bound of Jinja's sandbox

Result<Value> raise_function(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text text, call.text_of(call.self()));
  return template_error(call.place, "the template says: " + escape_for_terminal(text.bytes()));
}

// What dict(...) makes of its arguments.
Result<Dict> dict_of(Call& call) {
  Dict out;
  if (const Value* from = call.find(0)) {
    if (from->is(Kind::kDict)) {
      out = from->dict();
    } else {
      POME_ASSIGN_OR_RETURN(const List pairs, items_of(call.context, call.place, *from));
      for (const Value& pair : pairs) {
        POME_ASSIGN_OR_RETURN(const List parts, items_of(call.context, call.place, pair));
        if (parts.size() != 2) return call.fail("pairs are needed");
        if (!Dict::can_be_key(parts[0])) {
          return call.fail("a " + std::string(parts[0].type_name()) + " cannot be a key");
        }
        out.set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [key, value] : call.named) out.set(key, value);
  return out;
}

Result<Value> dict_function(Call& call) {
  POME_ASSIGN_OR_RETURN(Dict out, dict_of(call));
  return call.context.made(call.place, std::move(out));
}

Result<Value> namespace_function(Call& call) {
  POME_ASSIGN_OR_RETURN(Dict fields, dict_of(call));
  for (const auto& [key, value] : fields) {
    if (key.is(Kind::kString) && key.text().bytes().substr(0, 1) == "_") {
      return call.fail("the sandbox does not allow names that begin with \"_\"");
    }
  }
  POME_ASSIGN_OR_RETURN(Namespace* const out, call.context.make<Namespace>(
                                                  call.place, fields.size() * sizeof(Dict::Field)));
  out->fields = std::move(fields);
  return Value(out);
}

Result<Value> range_function(Call& call) {
  int64_t numbers[3] = {0, 0, 1};
  size_t given = 0;
  while (given < 3 && call.find(given) != nullptr) ++given;
  for (size_t i = 0; i < given; ++i) {
    POME_ASSIGN_OR_RETURN(numbers[given == 1 ? 1 : i], call.integer(i, 0));
  }
  const auto [begin, end, step] = numbers;
  if (step == 0) return call.fail("the step is 0");
  Sequence out{.shape = Sequence::Shape::kRange, .items = {}};
  out.start = begin;
  out.stop = end;
  out.step = step;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (out.items.size() == kMaxRange) {
      return call.fail("a range has at most " + std::to_string(kMaxRange) + " items");
    }
    out.items.push_back(Value(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return call.context.made(call.place, std::move(out));
}

Result<Value> cycler_function(Call& call) {
  if (call.rest.empty()) return call.fail("at least one item is needed");
  POME_ASSIGN_OR_RETURN(Cycler* const out,
                        call.context.make<Cycler>(call.place, call.rest.size() * sizeof(Value)));
  out->items = std::move(call.rest);
  return Value(out);
}

Result<Value> joiner_function(Call& call) {
  POME_ASSIGN_OR_RETURN(Joiner* const out, call.context.make<Joiner>(call.place));
  out->separator = call.find(0) != nullptr ? *call.find(0) : Value(Text(", "));
  return Value(out);
}

Result<Value> strftime_function(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text pattern, call.string(call.self()));
  POME_RETURN_IF_ERROR(call.context.room(call.place, pattern.size() * 16));
  return call.context.made(call.place, time_format(pattern.bytes(), call.context.now()));
}

Result<Value> refused(Call& call) { return call.fail("this function is not supported"); }

constexpr Builtin kFunctions[] = {
    {"cycler", "*", cycler_function},
    {"dict", ".mapping= **", dict_function},
    {"joiner", "sep=", joiner_function},
    {"lipsum", "* **", refused},
    {"namespace", ".mapping= **", namespace_function},
    {"raise_exception", "message", raise_function},
    {"range", ".start .stop= .step=", range_function},
    {"strftime_now", "format", strftime_function},
};

}  // namespace

const Builtin* find_function(std::string_view name) {
  for (const Builtin& function : kFunctions) {
    if (function.name == name) return &function;
  }
  return nullptr;
}

}  // namespace pome::jinja
