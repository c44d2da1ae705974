// Names and order within a function. What operations mean is for whoever runs them.
#include <set>

#include "formats/mil_internal.h"

namespace pome::mil {
namespace {

class Checker {
 public:
  Checker(const Function& function, const std::string& file) : function_(function), file_(file) {}

  Status run() {
    for (const NamedType& input : function_.inputs) {
      POME_RETURN_IF_ERROR(define(input));
      if (input.type.kind == Type::Kind::kState) states_.insert(input.name);
    }
    for (const Operation& op : function_.operations) POME_RETURN_IF_ERROR(operation(op));
    for (const std::string& output : function_.outputs) {
      if (!values_.count(output))
        return refuse(Refusal::kRange, "output", output, "is not defined");
      if (states_.count(output)) return refuse(Refusal::kRange, "state", output, "is an output");
    }
    return {};
  }

 private:
  Status refuse(Refusal refusal, const std::string& what, const std::string& name,
                const std::string& why) const {
    return bad_input(refusal, what + " '" + name + "' " + why)
        .in(file_)
        .at("function " + function_.name);
  }

  Status define(const NamedType& value) {
    if (!values_.insert(value.name).second) {
      return refuse(Refusal::kDup, "value", value.name, "is defined twice");
    }
    return {};
  }

  Status operation(const Operation& op) {
    const bool touches_state = op.type == "read_state" || op.type == "write_state";
    if (touches_state && (op.inputs.empty() || find_state(op) == nullptr)) {
      return refuse(Refusal::kRange, "operation", op.type, "names no state");
    }
    for (const auto& [key, bindings] : op.inputs) {
      for (const Binding& binding : bindings) {
        const std::string* name = std::get_if<std::string>(&binding);
        if (name == nullptr) continue;
        if (!values_.count(*name)) {
          return refuse(Refusal::kRange, "value", *name,
                        "is used by " + op.type + " before it is defined");
        }
        if (states_.count(*name) && !(touches_state && key == "input")) {
          return refuse(Refusal::kRange, "state", *name, "is used by " + op.type);
        }
      }
    }
    if (op.type == "const" && !op.attributes.count("val")) {
      return refuse(Refusal::kRange, "operation", op.type, "has no attribute 'val'");
    }
    for (const NamedType& output : op.outputs) POME_RETURN_IF_ERROR(define(output));
    return {};
  }

  const std::string* find_state(const Operation& op) const {
    for (const auto& [key, bindings] : op.inputs) {
      if (key != "input" || bindings.size() != 1) continue;
      const std::string* name = std::get_if<std::string>(&bindings[0]);
      return name != nullptr && states_.count(*name) ? name : nullptr;
    }
    return nullptr;
  }

  const Function& function_;
  const std::string& file_;
  std::set<std::string> values_, states_;
};

}  // namespace

Status check_function(const Function& function, const std::string& file) {
  return Checker(function, file).run();
}

}  // namespace pome::mil
