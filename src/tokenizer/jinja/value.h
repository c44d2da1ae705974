// Values of the template language, with Python's kinds and meanings. Strings know which of their
// bytes came from a user.
//
// What can change or refer back (namespaces, loops, macros, generators) is an Object that the
// Context of a render owns: a Value only points to it, so that no chain or cycle of values can leak
// or recurse when it is freed, and no value of a render may outlive its Context.
//
// Thread safety: immutable values are shareable; objects belong to one render.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tokenizer/jinja/text.h"

namespace pome::jinja {

class Value;
class Dict;
struct Object;
struct Builtin;
struct Method;
struct Sequence;
struct DictBox;
struct TextBox;
using List = std::vector<Value>;

struct None {};
// What was looked for and not found. Printing it gives nothing; most other uses are errors.
struct Undefined {
  std::shared_ptr<const std::string> message;
  static Undefined named(std::string_view name);  // "name" is undefined
  static Undefined because(std::string message);
};

// Gives back to an account what was charged to it when the value dies.
class Charge {
 public:
  Charge() = default;
  Charge(Charge&& other) noexcept
      : account_(std::exchange(other.account_, nullptr)), bytes_(other.bytes_) {}
  Charge& operator=(Charge&&) = delete;
  ~Charge() {
    if (account_ != nullptr) *account_ -= bytes_;
  }
  void take(int64_t* account, int64_t bytes) {
    account_ = account;
    bytes_ = bytes;
    *account_ += bytes_;
  }

 private:
  int64_t* account_ = nullptr;
  int64_t bytes_ = 0;
};

class Value {
 public:
  enum class Kind : uint8_t {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,
    kSequence,  // list, tuple, range, views of a dictionary
    kDict,
    kObject,
    kFunction,
    kMethod
  };
  Value() : data_(Undefined{}) {}
  Value(Undefined undefined) : data_(std::move(undefined)) {}  // NOLINT: implicit on purpose
  Value(None none) : data_(none) {}                            // NOLINT
  Value(bool value) : data_(value) {}                          // NOLINT
  Value(int64_t value) : data_(value) {}                       // NOLINT
  Value(double value) : data_(value) {}                        // NOLINT
  Value(Object* object) : data_(object) {}                     // NOLINT
  Value(const Builtin* function) : data_(function) {}          // NOLINT
  Value(Text text);                                            // NOLINT
  Value(TextBox box);                                          // NOLINT
  Value(Sequence sequence);                                    // NOLINT
  Value(Dict dict);                                            // NOLINT
  Value(Method method);                                        // NOLINT
  explicit Value(std::string_view text);
  Value(const char*) = delete;
  static Value list(List items);
  static Value tuple(List items);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind wanted) const { return kind() == wanted; }
  bool is_integral() const { return is(Kind::kInt) || is(Kind::kBool); }  // a bool counts as 0 or 1
  bool is_number() const { return is_integral() || is(Kind::kFloat); }

  bool as_bool() const { return std::get<bool>(data_); }
  int64_t to_int() const;    // kInt or kBool
  double to_double() const;  // any number
  const Text& text() const;
  bool is_markup() const;  // a string that was marked as safe HTML
  const Sequence& sequence() const { return *std::get<SequencePtr>(data_); }
  const List& items() const;  // kSequence
  const Dict& dict() const;
  Object& object() const { return *std::get<Object*>(data_); }
  const Builtin& function() const { return *std::get<const Builtin*>(data_); }
  const Method& method() const { return *std::get<MethodPtr>(data_); }
  std::string undefined_message() const;
  bool has_message() const { return std::get<Undefined>(data_).message != nullptr; }

  // How deep sequences and dictionaries are nested in it (0: not at all). Kept below a bound by the
  // Context, so that walking and freeing a value is safe on the stack.
  int depth() const;
  bool truthy() const;
  std::string_view type_name() const;                  // as Python says it
  const void* address() const;                         // of what is shared; null for plain values
  void charge(int64_t* account, int64_t bytes) const;  // strings, sequences, dictionaries

 private:
  using TextPtr = std::shared_ptr<TextBox>;
  using SequencePtr = std::shared_ptr<Sequence>;
  using DictPtr = std::shared_ptr<DictBox>;
  using MethodPtr = std::shared_ptr<Method>;
  // In the order of Kind.
  std::variant<Undefined, None, bool, int64_t, double, TextPtr, SequencePtr, DictPtr, Object*,
               const Builtin*, MethodPtr>
      data_;
};

struct TextBox {
  Text text;
  bool markup = false;
  Charge charge = {};
};

struct Sequence {
  enum class Shape : uint8_t {
    kList,
    kTuple,
    kGroup,  // a tuple of (grouper, list) with names
    kRange,
    kKeys,
    kValues,
    kItems
  };
  Shape shape = Shape::kList;
  List items;
  int64_t start = 0, stop = 0, step = 1;  // of a range
  int depth = 1;
  Charge charge = {};
  bool is_tuple() const { return shape == Shape::kTuple || shape == Shape::kGroup; }
  bool is_view() const { return shape >= Shape::kKeys; }
};

struct Method {
  Value object;
  const Builtin* function = nullptr;
};

// Keys in the order in which they came, each once; found by hash where there are many. A key is a
// scalar, or a tuple of scalars; 1, 1.0 and true are the same key, as in Python.
class Dict {
 public:
  using Field = std::pair<Value, Value>;
  static bool can_be_key(const Value& value);
  // What may be looked for: all but lists, dictionaries, views, and tuples of them.
  static bool can_be_sought(const Value& value);
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  const Value* find(const char* key) const { return find(std::string_view(key)); }
  void set(Value key, Value value);
  void set(std::string_view key, Value value) { set(Value(key), std::move(value)); }
  void set(const char* key, Value value) { set(std::string_view(key), std::move(value)); }
  void erase(std::string_view key);
  size_t size() const { return fields_.size(); }
  bool empty() const { return fields_.empty(); }
  const std::vector<Field>& fields() const { return fields_; }
  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }

 private:
  static constexpr size_t kLinear = 8;  // up to here fields are looked through
  size_t index_of(const Value& key) const;
  void index_all();
  std::vector<Field> fields_;
  std::vector<uint32_t> table_;  // index + 1 by hash, open addressing; 0 = free
};

struct DictBox {
  Dict dict;
  int depth = 1;
  Charge charge = {};
};

// Equality of numbers is exact, whatever their kinds; unordered (NaN) is never equal.
enum class Order : uint8_t { kLess, kEqual, kGreater, kUnordered };
Order compare_numbers(const Value& a, const Value& b);

}  // namespace pome::jinja
