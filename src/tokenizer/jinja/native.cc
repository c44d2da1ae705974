#include "tokenizer/jinja/native.h"

#include <algorithm>

#include "tokenizer/jinja/print.h"

namespace pome::jinja {

Status Call::fail(const std::string& message) const {
  return template_error(place, std::string(name) + ": " + message);
}

Result<Text> Call::string(const Value& value) const {
  if (value.is(Value::Kind::kUndefined)) return template_error(place, value.undefined_message());
  if (!value.is(Value::Kind::kString)) {
    return fail("a string is needed, not a " + std::string(value.type_name()));
  }
  return to_text(context, place, value);
}

Result<Text> Call::text_of(const Value& value) const { return to_text(context, place, value); }

Result<int64_t> Call::integer(size_t slot, int64_t otherwise) const {
  const Value* value = find(slot);
  if (value == nullptr) return otherwise;
  if (value->is(Value::Kind::kUndefined)) return template_error(place, value->undefined_message());
  if (!value->is_integral()) {
    return fail("a whole number is needed, not a " + std::string(value->type_name()));
  }
  return value->to_int();
}

Result<std::optional<Text>> Call::text(size_t slot) const {
  const Value* value = find(slot);
  if (value == nullptr || value->is(Value::Kind::kNone)) return std::optional<Text>();
  POME_ASSIGN_OR_RETURN(Text out, string(*value));
  return std::optional<Text>(std::move(out));
}

bool Call::flag(size_t slot, bool otherwise) const {
  const Value* value = find(slot);
  return value == nullptr ? otherwise : value->truthy();
}

namespace {

struct Parameter {
  std::string_view name;
  bool optional = false, positional_only = false;
};

// Cuts the list of parameters; true for the marks "*" and "**".
struct Parameters {
  std::vector<Parameter> slots;
  bool rest = false, named = false;
};

Parameters parse(std::string_view text) {
  Parameters out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (word == "*") {
      out.rest = true;
    } else if (word == "**") {
      out.named = true;
    } else {
      Parameter parameter;
      if (word.front() == '.') {
        parameter.positional_only = true;
        word.remove_prefix(1);
      }
      if (word.back() == '=') {
        parameter.optional = true;
        word.remove_suffix(1);
      }
      parameter.name = word;
      out.slots.push_back(parameter);
    }
  }
  return out;
}

Status bind(Call& call, const Parameters& parameters, Arguments arguments) {
  call.slots.resize(parameters.slots.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i < call.slots.size()) {
      call.slots[i] = std::move(arguments.positional[i]);
    } else if (parameters.rest) {
      call.rest.push_back(std::move(arguments.positional[i]));
    } else {
      return call.fail("too many arguments");
    }
  }
  for (const auto& [key, value] : arguments.named) {
    const std::string& name = key.text().bytes();
    const auto found =
        std::find_if(parameters.slots.begin(), parameters.slots.end(),
                     [&](const Parameter& p) { return p.name == name && !p.positional_only; });
    if (found == parameters.slots.end()) {
      if (!parameters.named) {
        return call.fail("no argument is named \"" + escape_for_terminal(name, 60) + "\"");
      }
      call.named.set(key, value);
      continue;
    }
    auto& slot = call.slots[static_cast<size_t>(found - parameters.slots.begin())];
    if (slot) return call.fail("\"" + name + "\" is given twice");
    slot = value;
  }
  for (size_t i = 0; i < call.slots.size(); ++i) {
    if (!call.slots[i] && !parameters.slots[i].optional) {
      return call.fail("\"" + std::string(parameters.slots[i].name) + "\" is missing");
    }
  }
  return {};
}

}  // namespace

Result<Value> call_builtin(Context& context, Place place, const Builtin& builtin,
                           Arguments arguments) {
  POME_RETURN_IF_ERROR(
      context.spend(place, 4 + arguments.positional.size() + arguments.named.size()));
  Call call{context, place, builtin.name, {}, {}, {}};
  POME_RETURN_IF_ERROR(bind(call, parse(builtin.parameters), std::move(arguments)));
  return builtin.run(call);
}

Status unknown_filter(Place place, std::string_view name) {
  return template_error(place, "unknown filter \"" + escape_for_terminal(name, 60) + "\"");
}
Status unknown_test(Place place, std::string_view name) {
  return template_error(place, "unknown test \"" + escape_for_terminal(name, 60) + "\"");
}

}  // namespace pome::jinja
