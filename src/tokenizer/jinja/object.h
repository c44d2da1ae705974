// What a Value can only point to: things that change, or that refer back to where they stand. The
// Context of a render owns them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace pome::jinja {

struct MacroInfo;

// Names of one block while it runs.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int32_t, Value>> names;
  bool block = false;     // a block in the outermost scope
  bool captured = false;  // a macro refers to it: it lives until the render ends
  const Value* find(int32_t name) const {
    for (const auto& [id, value] : names) {
      if (id == name) return &value;
    }
    return nullptr;
  }
  void set(int32_t name, Value value) {
    for (auto& [id, old] : names) {
      if (id == name) {
        old = std::move(value);
        return;
      }
    }
    names.emplace_back(name, std::move(value));
  }
};

struct Object {
  enum class Type : uint8_t { kNamespace, kLoop, kMacro, kCycler, kJoiner, kGenerator };
  const Type type;
  explicit Object(Type t) : type(t) {}
  std::string_view type_name() const {
    constexpr std::string_view kNames[] = {"Namespace", "LoopContext", "Macro",
                                           "Cycler",    "Joiner",      "generator"};
    return kNames[static_cast<size_t>(type)];
  }
};

struct Namespace : Object {
  Namespace() : Object(Type::kNamespace) {}
  Dict fields;
};

struct Loop : Object {
  Loop() : Object(Type::kLoop) {}
  const List& items() const { return sequence.items(); }
  Value sequence;   // what it walks over
  size_t next = 0;  // items begun; the current one is next - 1
  int64_t depth0 = 0;
  int32_t routine = -1;  // of a recursive loop: what a call runs
  Scope* scope = nullptr;
  bool completed = false;  // some turn ran to its end
  bool escaped = false;    // something may still refer to it when it is over
  List kept;               // items that passed the filter
  bool has_changed = false;
  Value last_changed;
};

struct Macro : Object {
  Macro() : Object(Type::kMacro) {}
  const MacroInfo* info = nullptr;
  std::string_view name;
  Scope* scope = nullptr;
};

struct Cycler : Object {
  Cycler() : Object(Type::kCycler) {}
  List items;
  size_t at = 0;
};

struct Joiner : Object {
  Joiner() : Object(Type::kJoiner) {}
  Value separator;
  bool used = false;
};

// What lazy filters give: it can be walked over once.
struct Generator : Object {
  Generator() : Object(Type::kGenerator) {}
  List items;
  size_t next = 0;
};

}  // namespace pome::jinja
