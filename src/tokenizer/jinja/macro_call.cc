#include "tokenizer/jinja/macro_call.h"

#include <string>
#include <utility>

namespace pome::jinja {

Status bind_macro(Context& context, Place place, const Program& program, const MacroInfo& info,
                  Arguments arguments, Scope& scope) {
  const auto wrong = [&](const std::string& what) {
    return template_error(place, "macro \"" + escape_for_terminal(info.name, 60) + "\": " + what);
  };
  const size_t given = arguments.positional.size();
  for (size_t i = 0; i < info.parameters.size(); ++i) {
    const int32_t id = info.parameters[i];
    const std::string& parameter = program.names[static_cast<size_t>(id)];
    if (i < given) {
      scope.set(id, std::move(arguments.positional[i]));
    } else if (const Value* value = arguments.named.find(parameter)) {
      scope.set(id, *value);
      arguments.named.erase(parameter);
    } else if (i < info.required) {
      scope.set(id, Undefined::because("parameter \"" + escape_for_terminal(parameter, 60) +
                                       "\" was not provided"));
    }
  }
  if (info.uses_caller) {
    const Value* caller = arguments.named.find("caller");
    scope.set(program.caller_name,
              caller ? *caller : Value(Undefined::because("there is no caller")));
    arguments.named.erase("caller");
  }
  if (info.catches_named) {
    POME_ASSIGN_OR_RETURN(Value rest, context.made(place, std::move(arguments.named)));
    scope.set(program.kwargs_name, std::move(rest));
  } else if (!arguments.named.empty()) {
    const std::string& name = arguments.named.fields()[0].first.text().bytes();
    return wrong("no parameter is named \"" + escape_for_terminal(name, 60) + "\"");
  }
  List rest;
  for (size_t i = info.parameters.size(); i < given; ++i) {
    rest.push_back(std::move(arguments.positional[i]));
  }
  if (info.catches_rest) {
    POME_ASSIGN_OR_RETURN(Value value, context.tuple(place, std::move(rest)));
    scope.set(program.varargs_name, std::move(value));
  } else if (!rest.empty()) {
    return wrong("too many arguments");
  }
  return {};
}

}  // namespace pome::jinja
