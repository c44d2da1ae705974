#include "tokenizer/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "tokenizer/jinja/object.h"

namespace pome::jinja {

Undefined Undefined::named(std::string_view name) {
  return because("\"" + std::string(name) + "\" is undefined");
}
Undefined Undefined::because(std::string message) {
  return {std::make_shared<const std::string>(std::move(message))};
}

Value::Value(Text text) : data_(std::make_shared<TextBox>(TextBox{std::move(text)})) {}
Value::Value(TextBox box) : data_(std::make_shared<TextBox>(std::move(box))) {}
Value::Value(std::string_view text) : Value(Text(std::string(text))) {}
Value::Value(Method method) : data_(std::make_shared<Method>(std::move(method))) {}

Value::Value(Sequence sequence) {
  for (const Value& item : sequence.items) {
    sequence.depth = std::max(sequence.depth, item.depth() + 1);
  }
  data_ = std::make_shared<Sequence>(std::move(sequence));
}
Value::Value(Dict dict) {
  DictBox box;
  for (const auto& [key, item] : dict) {
    box.depth = std::max({box.depth, key.depth() + 1, item.depth() + 1});
  }
  box.dict = std::move(dict);
  data_ = std::make_shared<DictBox>(std::move(box));
}
Value Value::list(List items) { return Value(Sequence{.items = std::move(items)}); }
Value Value::tuple(List items) {
  return Value(Sequence{.shape = Sequence::Shape::kTuple, .items = std::move(items)});
}

int64_t Value::to_int() const {
  return is(Kind::kBool) ? static_cast<int64_t>(as_bool()) : std::get<int64_t>(data_);
}
double Value::to_double() const {
  return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(to_int());
}
const Text& Value::text() const { return std::get<TextPtr>(data_)->text; }
bool Value::is_markup() const { return is(Kind::kString) && std::get<TextPtr>(data_)->markup; }
const List& Value::items() const { return sequence().items; }
const Dict& Value::dict() const { return std::get<DictPtr>(data_)->dict; }
std::string Value::undefined_message() const {
  const auto& message = std::get<Undefined>(data_).message;
  return message ? *message : "a value is undefined";
}

int Value::depth() const {
  if (is(Kind::kSequence)) return sequence().depth;
  if (is(Kind::kDict)) return std::get<DictPtr>(data_)->depth;
  if (is(Kind::kMethod)) return method().object.depth() + 1;
  return 0;
}

bool Value::truthy() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return as_bool();
    case Kind::kInt:
      return to_int() != 0;
    case Kind::kFloat:
      return to_double() != 0;
    case Kind::kString:
      return !text().empty();
    case Kind::kSequence:
      return !items().empty();
    case Kind::kDict:
      return !dict().empty();
    case Kind::kObject:
      return object().type != Object::Type::kLoop || !static_cast<Loop&>(object()).items().empty();
    case Kind::kFunction:
    case Kind::kMethod:
      return true;
  }
  return false;
}

std::string_view Value::type_name() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return is_markup() ? "Markup" : "str";
    case Kind::kSequence: {
      constexpr std::string_view kShapes[] = {"list",      "tuple",       "tuple",     "range",
                                              "dict_keys", "dict_values", "dict_items"};
      return kShapes[static_cast<size_t>(sequence().shape)];
    }
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      return object().type_name();
    case Kind::kFunction:
      return "function";
    case Kind::kMethod:
      return "method";
  }
  return "";
}

const void* Value::address() const {
  switch (kind()) {
    case Kind::kString:
      return std::get<TextPtr>(data_).get();
    case Kind::kSequence:
      return std::get<SequencePtr>(data_).get();
    case Kind::kDict:
      return std::get<DictPtr>(data_).get();
    case Kind::kObject:
      return &object();
    case Kind::kFunction:
      return &function();
    default:
      return nullptr;
  }
}

void Value::charge(int64_t* account, int64_t bytes) const {
  if (is(Kind::kString)) std::get<TextPtr>(data_)->charge.take(account, bytes);
  if (is(Kind::kSequence)) std::get<SequencePtr>(data_)->charge.take(account, bytes);
  if (is(Kind::kDict)) std::get<DictPtr>(data_)->charge.take(account, bytes);
}

Order compare_numbers(const Value& a, const Value& b) {
  const auto order = [](auto x, auto y) {
    return x < y ? Order::kLess : x > y ? Order::kGreater : Order::kEqual;
  };
  const bool float_a = a.is(Value::Kind::kFloat), float_b = b.is(Value::Kind::kFloat);
  if (!float_a && !float_b) return order(a.to_int(), b.to_int());
  const double x = a.to_double(), y = b.to_double();
  if (std::isnan(x) || std::isnan(y)) return Order::kUnordered;
  if (float_a && float_b) return order(x, y);
  // An integer that a double cannot hold is compared as an integer, where the double is in range.
  const double value = float_a ? x : y;
  const int64_t whole = float_a ? b.to_int() : a.to_int();
  Order out;
  if (value >= 9223372036854775808.0) {
    out = Order::kLess;  // of the integer against the double
  } else if (value < -9223372036854775808.0) {
    out = Order::kGreater;
  } else {
    const double floor = std::floor(value);
    out = order(whole, static_cast<int64_t>(floor));
    if (out == Order::kEqual && value > floor) out = Order::kLess;
  }
  if (!float_a) return out;
  return out == Order::kLess ? Order::kGreater : out == Order::kGreater ? Order::kLess : out;
}

namespace {

bool is_scalar(const Value& value) { return value.kind() <= Value::Kind::kString; }

uint64_t hash_scalar(const Value& key) {
  using Kind = Value::Kind;
  if (key.is(Kind::kString)) return std::hash<std::string>()(key.text().bytes());
  if (!key.is_number()) return static_cast<uint64_t>(key.kind());
  // Equal numbers have equal hashes, whatever their kinds.
  return std::hash<double>()(key.to_double());
}

// Spread over the low bits, which are what the table takes.
uint64_t hash_of(const Value& key) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;
  uint64_t hash = 0;
  if (!key.is(Value::Kind::kSequence)) {
    hash = hash_scalar(key);
  } else {
    for (const Value& item : key.items()) hash = (hash + hash_scalar(item)) * kGolden;
  }
  hash *= kGolden;
  return hash ^ hash >> 32;
}

bool same_scalar(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == Order::kEqual;
  if (a.kind() != b.kind()) return false;
  return !a.is(Value::Kind::kString) || a.text().bytes() == b.text().bytes();
}

bool same_key(const Value& a, const Value& b) {
  const bool tuple = a.is(Value::Kind::kSequence);
  if (tuple != b.is(Value::Kind::kSequence)) return false;
  if (!tuple) return same_scalar(a, b);
  return std::equal(a.items().begin(), a.items().end(), b.items().begin(), b.items().end(),
                    same_scalar);
}

}  // namespace

bool Dict::can_be_key(const Value& value) {
  if (is_scalar(value)) return true;
  return value.is(Value::Kind::kSequence) && value.sequence().is_tuple() &&
         std::all_of(value.items().begin(), value.items().end(), is_scalar);
}

bool Dict::can_be_sought(const Value& value) {
  if (value.is(Value::Kind::kDict)) return false;
  if (!value.is(Value::Kind::kSequence)) return true;
  const Sequence& sequence = value.sequence();
  if (!sequence.is_tuple()) {
    return sequence.shape == Sequence::Shape::kRange || sequence.shape == Sequence::Shape::kValues;
  }
  return std::all_of(sequence.items.begin(), sequence.items.end(), can_be_sought);
}

size_t Dict::index_of(const Value& key) const {
  if (table_.empty()) {
    for (size_t i = 0; i < fields_.size(); ++i) {
      if (same_key(fields_[i].first, key)) return i;
    }
    return fields_.size();
  }
  for (size_t at = hash_of(key) & (table_.size() - 1); table_[at] != 0;
       at = (at + 1) & (table_.size() - 1)) {
    if (same_key(fields_[table_[at] - 1].first, key)) return table_[at] - 1;
  }
  return fields_.size();
}

const Value* Dict::find(const Value& key) const {
  if (!can_be_key(key)) return nullptr;
  const size_t index = index_of(key);
  return index < fields_.size() ? &fields_[index].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  if (!table_.empty()) return find(Value(key));
  for (const auto& [name, value] : fields_) {
    if (name.is(Value::Kind::kString) && name.text().bytes() == key) return &value;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  const size_t index = index_of(key);
  if (index < fields_.size()) {
    fields_[index].second = std::move(value);
    return;
  }
  fields_.emplace_back(std::move(key), std::move(value));
  if (fields_.size() <= kLinear) return;
  if (fields_.size() * 2 > table_.size()) return index_all();
  size_t at = hash_of(fields_.back().first) & (table_.size() - 1);
  while (table_[at] != 0) at = (at + 1) & (table_.size() - 1);
  table_[at] = static_cast<uint32_t>(fields_.size());
}

void Dict::index_all() {
  size_t size = 32;
  while (size < fields_.size() * 4) size *= 2;
  table_.assign(size, 0);
  for (size_t i = 0; i < fields_.size(); ++i) {
    size_t at = hash_of(fields_[i].first) & (size - 1);
    while (table_[at] != 0) at = (at + 1) & (size - 1);
    table_[at] = static_cast<uint32_t>(i + 1);
  }
}

void Dict::erase(std::string_view key) {
  const size_t index = index_of(Value(key));
  if (index == fields_.size()) return;
  fields_.erase(fields_.begin() + static_cast<std::ptrdiff_t>(index));
  if (!table_.empty()) index_all();
}

}  // namespace pome::jinja
