// Values of the template language. Strings know which of their bytes came from a user.
//
// Thread safety: values are immutable once made, but for namespaces, which belong to one render.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"

namespace pome::jinja {

// Bytes with their origin: runs of template text and of user text.
class Text {
 public:
  struct Run {
    size_t end = 0;  // the run reaches from the end of the one before to here
    bool from_user = false;
  };
  Text() = default;
  explicit Text(std::string bytes, bool from_user = false);

  const std::string& bytes() const { return bytes_; }
  const std::vector<Run>& runs() const { return runs_; }
  bool empty() const { return bytes_.empty(); }
  size_t size() const { return bytes_.size(); }
  void append(const Text& other);
  void append(std::string_view bytes, bool from_user);
  Text slice(size_t begin, size_t end) const;  // begin <= end <= size()

 private:
  std::string bytes_;
  std::vector<Run> runs_;
};

class Value;
using List = std::vector<Value>;
using Dict = std::vector<std::pair<std::string, Value>>;  // in order, unique keys

struct Undefined {
  std::string name;  // what was asked for, for messages
};
struct None {};
struct Function {
  std::string name;
};
struct Method;  // a bound method: object and name

class Value {
 public:
  enum class Kind : uint8_t {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,
    kList,
    kDict,
    kNamespace,
    kFunction,
    kMethod
  };
  Value() : data_(Undefined{}) {}
  Value(Undefined undefined) : data_(std::move(undefined)) {}  // NOLINT: implicit on purpose
  Value(None none) : data_(none) {}                            // NOLINT
  Value(bool value) : data_(value) {}                          // NOLINT
  Value(int64_t value) : data_(value) {}                       // NOLINT
  Value(double value) : data_(value) {}                        // NOLINT
  Value(Text text);                                            // NOLINT
  explicit Value(std::string_view text);
  Value(const char*) = delete;
  Value(List list);                                         // NOLINT
  Value(Dict dict);                                         // NOLINT
  Value(Function function) : data_(std::move(function)) {}  // NOLINT
  static Value make_namespace(Dict fields);
  static Value method(Value object, std::string name);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind wanted) const { return kind() == wanted; }
  bool is_number() const { return is(Kind::kInt) || is(Kind::kFloat) || is(Kind::kBool); }

  bool as_bool() const { return std::get<bool>(data_); }
  int64_t as_int() const { return std::get<int64_t>(data_); }  // kInt
  int64_t to_int() const;                                      // kInt or kBool
  double to_double() const;                                    // any number
  const Text& text() const { return *std::get<TextPtr>(data_); }
  const List& list() const { return std::get<ListPtr>(data_)->items; }
  const Dict& dict() const { return std::get<DictPtr>(data_)->fields; }
  Dict& namespace_fields() const { return std::get<NamespacePtr>(data_)->fields; }
  const std::string& function_name() const { return std::get<Function>(data_).name; }
  const Method& bound_method() const { return *std::get<MethodPtr>(data_); }
  const std::string& undefined_name() const { return std::get<Undefined>(data_).name; }

  // How deep lists and dictionaries are nested in it (0: not at all). Kept below a bound by the
  // evaluator, so that walking a value is safe on the stack.
  int depth() const;
  // How much there is to walk over, shared parts counted as often as they occur; saturates.
  uint64_t weight() const;
  bool truthy() const;
  std::string_view type_name() const;

 private:
  struct ListBox {
    List items;
    int depth = 1;
    uint64_t weight = 1;
  };
  struct DictBox {
    Dict fields;
    int depth = 1;
    uint64_t weight = 1;
  };
  struct NamespaceBox {
    Dict fields;
  };
  using TextPtr = std::shared_ptr<const Text>;
  using ListPtr = std::shared_ptr<const ListBox>;
  using DictPtr = std::shared_ptr<const DictBox>;
  using NamespacePtr = std::shared_ptr<NamespaceBox>;
  using MethodPtr = std::shared_ptr<const Method>;
  // In the order of Kind.
  std::variant<Undefined, None, bool, int64_t, double, TextPtr, ListPtr, DictPtr, NamespacePtr,
               Function, MethodPtr>
      data_;
};

struct Method {
  Value object;
  std::string name;
};

const Value* find_field(const Dict& dict, std::string_view key);
void set_field(Dict& dict, std::string_view key, Value value);
bool equal(const Value& a, const Value& b);
// As Python's str() prints it; the text of a string keeps its origin.
Text to_text(const Value& value);

}  // namespace pome::jinja
