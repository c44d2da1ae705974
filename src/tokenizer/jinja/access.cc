// Items, attributes, slices, walking and sorting.
#include <algorithm>
#include <optional>

#include "tokenizer/jinja/native.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/print.h"
#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

Value size_value(size_t size) { return Value(static_cast<int64_t>(size)); }

std::optional<Value> loop_attribute(const Loop& loop, std::string_view name) {
  const size_t size = loop.items().size();
  const size_t index0 = loop.next - 1;
  if (name == "index") return size_value(loop.next);
  if (name == "index0") return size_value(index0);
  if (name == "revindex") return size_value(size - index0);
  if (name == "revindex0") return size_value(size - loop.next);
  if (name == "first") return Value(index0 == 0);
  if (name == "last") return Value(loop.next >= size);
  if (name == "length") return size_value(size);
  if (name == "depth") return Value(loop.depth0 + 1);
  if (name == "depth0") return Value(loop.depth0);
  if (name == "previtem") {
    return index0 == 0 ? Value(Undefined::because("there is no previous item"))
                       : loop.items()[index0 - 1];
  }
  if (name == "nextitem") {
    return loop.next >= size ? Value(Undefined::because("there is no next item"))
                             : loop.items()[loop.next];
  }
  return std::nullopt;
}

std::optional<Value> object_attribute(const Object& object, std::string_view name) {
  switch (object.type) {
    case Object::Type::kNamespace: {
      const Value* field = static_cast<const Namespace&>(object).fields.find(name);
      return field ? std::optional(*field) : std::nullopt;
    }
    case Object::Type::kLoop:
      return loop_attribute(static_cast<const Loop&>(object), name);
    case Object::Type::kMacro:
      if (name == "name") return Value(static_cast<const Macro&>(object).name);
      return std::nullopt;
    case Object::Type::kCycler: {
      const auto& cycler = static_cast<const Cycler&>(object);
      if (name == "current") return cycler.items[cycler.at];
      return std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

std::optional<Value> number_attribute(const Value& value, std::string_view name) {
  if (name == "real") return value.is(Kind::kFloat) ? value : Value(value.to_int());
  if (name == "imag") return value.is(Kind::kFloat) ? Value(0.0) : Value(int64_t{0});
  if (value.is(Kind::kFloat)) return std::nullopt;
  if (name == "numerator") return Value(value.to_int());
  if (name == "denominator") return Value(int64_t{1});
  return std::nullopt;
}

// Methods that would change a list or dictionary: the sandbox hides them.
bool changes(const Value& object, std::string_view name) {
  constexpr std::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                        "insert", "sort",  "extend", "remove"};
  constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  const auto has = [name](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  if (object.is(Kind::kDict)) return has(kDict);
  return object.is(Kind::kSequence) && object.sequence().shape == Sequence::Shape::kList &&
         has(kList);
}

Value nothing(const Value& object, const std::string& what) {
  return Value(Undefined::because("a " + std::string(object.type_name()) + " has no " + what));
}

Value no_attribute(const Value& object, std::string_view name) {
  return nothing(object, "attribute \"" + escape_for_terminal(name, 60) + "\"");
}

// The index of Python's rules in [0, size), or -1.
int64_t settled(int64_t index, int64_t size) {
  if (index < 0) index += size;
  return index < 0 || index >= size ? -1 : index;
}

// object[key] without looking at attributes; nullopt where there is no such item.
Result<std::optional<Value>> find_item(Context& context, Place place, const Value& object,
                                       const Value& key) {
  if (object.is(Kind::kDict)) {
    const Value* field = object.dict().find(key);
    return field ? std::optional(*field) : std::nullopt;
  }
  if (!key.is_integral()) return std::optional<Value>();
  if (object.is(Kind::kSequence) && !object.sequence().is_view()) {
    const int64_t index = settled(key.to_int(), static_cast<int64_t>(object.items().size()));
    if (index < 0) return std::optional<Value>();
    return std::optional(object.items()[static_cast<size_t>(index)]);
  }
  if (object.is(Kind::kString)) {
    const Text& text = object.text();
    POME_RETURN_IF_ERROR(context.spend(place, text.size() / 16));
    const int64_t index = settled(key.to_int(), count_characters(text.bytes()));
    if (index < 0) return std::optional<Value>();
    const size_t begin = byte_of_character(text.bytes(), index);
    const size_t size = decode_rune(text.bytes(), begin).size;
    POME_ASSIGN_OR_RETURN(Value out,
                          context.made(place, text.slice(begin, begin + size), object.is_markup()));
    return std::optional(std::move(out));
  }
  return std::optional<Value>();
}

}  // namespace

Result<std::optional<Value>> find_attribute(Context& context, Place place, const Value& object,
                                            std::string_view name) {
  std::optional<Value> found;
  if (object.is(Kind::kObject)) found = object_attribute(object.object(), name);
  if (object.is_number()) found = number_attribute(object, name);
  if (object.is(Kind::kSequence)) {
    const Sequence& sequence = object.sequence();
    if (sequence.shape == Sequence::Shape::kGroup && (name == "grouper" || name == "list")) {
      return std::optional(sequence.items[name == "list" ? 1 : 0]);
    }
    if (sequence.shape == Sequence::Shape::kRange) {
      if (name == "start") return std::optional(Value(sequence.start));
      if (name == "stop") return std::optional(Value(sequence.stop));
      if (name == "step") return std::optional(Value(sequence.step));
    }
  }
  if (found) return found;
  const bool dunder = name.size() > 4 && name.substr(0, 2) == "__";
  if (changes(object, name) || (dunder && !object.is(Kind::kDict))) {
    return std::optional(
        Value(Undefined::because("the sandbox does not allow \"" + escape_for_terminal(name, 60) +
                                 "\" of a " + std::string(object.type_name()))));
  }
  const Builtin* method = find_method(object, name);
  if (method == nullptr) return std::optional<Value>();
  POME_RETURN_IF_ERROR(context.spend(place, 4));
  if (object.depth() >= kMaxDepth) return template_error(place, "a value is nested too deeply");
  if (object.is(Kind::kObject) && object.object().type == Object::Type::kLoop) {
    static_cast<Loop&>(object.object()).escaped = true;
  }
  return std::optional(Value(Method{object, method}));
}

Result<Value> get_item(Context& context, Place place, const Value& object, const Value& key) {
  if (object.is(Kind::kUndefined)) return template_error(place, object.undefined_message());
  POME_ASSIGN_OR_RETURN(std::optional<Value> found, find_item(context, place, object, key));
  if (found) return *std::move(found);
  if (key.is(Kind::kString)) {
    const std::string& name = key.text().bytes();
    POME_ASSIGN_OR_RETURN(found, find_attribute(context, place, object, name));
    return found ? *std::move(found) : no_attribute(object, name);
  }
  if (key.is_integral()) return nothing(object, "element " + std::to_string(key.to_int()));
  return nothing(object, "such element");
}

Result<Value> get_attribute(Context& context, Place place, const Value& object,
                            std::string_view name) {
  if (object.is(Kind::kUndefined)) return template_error(place, object.undefined_message());
  POME_ASSIGN_OR_RETURN(std::optional<Value> found, find_attribute(context, place, object, name));
  if (found) return *std::move(found);
  if (object.is(Kind::kDict)) {
    if (const Value* field = object.dict().find(name)) return *field;
  }
  return no_attribute(object, name);
}

Result<Value> get_slice(Context& context, Place place, const Value& object, const Value& begin,
                        const Value& end, const Value& step) {
  if (object.is(Kind::kUndefined)) return template_error(place, object.undefined_message());
  std::optional<int64_t> bounds[3];
  const Value* const given[3] = {&begin, &end, &step};
  for (size_t i = 0; i < 3; ++i) {
    if (given[i]->is(Kind::kNone)) continue;
    if (!given[i]->is_integral()) {
      return template_error(
          place, "a slice needs whole numbers, not a " + std::string(given[i]->type_name()));
    }
    bounds[i] = given[i]->to_int();
  }
  const int64_t stride = bounds[2].value_or(1);
  if (stride == 0) return template_error(place, "the step of a slice is 0");
  const bool is_text = object.is(Kind::kString);
  if (!is_text && !(object.is(Kind::kSequence) && !object.sequence().is_view())) {
    return template_error(place, "a " + std::string(object.type_name()) + " cannot be sliced");
  }
  if (is_text) POME_RETURN_IF_ERROR(context.spend(place, object.text().size() / 16));
  const int64_t size = is_text ? count_characters(object.text().bytes())
                               : static_cast<int64_t>(object.items().size());
  // Python's rules: from the end where negative, then held to the range.
  const auto bound = [&](const std::optional<int64_t>& value, int64_t otherwise) {
    if (!value) return otherwise;
    const int64_t low = stride > 0 ? 0 : -1;
    const int64_t high = stride > 0 ? size : size - 1;
    const int64_t at = *value < 0 ? std::max(*value, -size - 1) + size : *value;
    return std::clamp(at, std::min(low, high), std::max(low, high));
  };
  const int64_t from = bound(bounds[0], stride > 0 ? 0 : size - 1);
  const int64_t to = bound(bounds[1], stride > 0 ? size : -1);
  if (is_text && stride == 1) {
    const std::string& bytes = object.text().bytes();
    const size_t first = byte_of_character(bytes, from);
    const size_t last = std::max(first, byte_of_character(bytes, to));
    return context.made(place, object.text().slice(first, last), object.is_markup());
  }
  const int64_t held = std::clamp(stride, -size - 1, size + 1);
  const auto walk = [&](const auto& visit) {
    for (int64_t i = from; held > 0 ? i < to : i > to; i += held) visit(static_cast<size_t>(i));
  };
  if (is_text) {
    const std::string& bytes = object.text().bytes();
    POME_RETURN_IF_ERROR(context.room(place, bytes.size() * sizeof(uint32_t)));
    std::vector<uint32_t> starts;  // of the characters; strings are at most 16 MiB
    for (size_t at = 0; at < bytes.size(); at += decode_rune(bytes, at).size) {
      starts.push_back(static_cast<uint32_t>(at));
    }
    starts.push_back(static_cast<uint32_t>(bytes.size()));
    Text out;
    walk([&](size_t i) { out.append(object.text(), starts[i], starts[i + 1]); });
    return context.made(place, std::move(out), object.is_markup());
  }
  POME_RETURN_IF_ERROR(context.spend(place, object.items().size()));
  Sequence out{.shape = object.sequence().shape, .items = {}};
  walk([&](size_t i) { out.items.push_back(object.items()[i]); });
  if (out.shape == Sequence::Shape::kGroup) out.shape = Sequence::Shape::kTuple;
  if (out.shape == Sequence::Shape::kRange) {
    const Sequence& range = object.sequence();
    // Only what is printed; it may wrap around where no item can be.
    const auto at = [&](int64_t index) {
      return static_cast<int64_t>(static_cast<uint64_t>(range.start) +
                                  static_cast<uint64_t>(index) * static_cast<uint64_t>(range.step));
    };
    out.start = at(from);
    out.stop = at(to);
    out.step =
        static_cast<int64_t>(static_cast<uint64_t>(range.step) * static_cast<uint64_t>(stride));
  }
  return context.made(place, std::move(out));
}

bool is_iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kSequence:
    case Kind::kDict:
      return true;
    case Kind::kObject:
      return value.object().type == Object::Type::kGenerator ||
             value.object().type == Object::Type::kLoop;
    default:
      return false;
  }
}

int64_t length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return count_characters(value.text().bytes());
    case Kind::kSequence:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().size());
    case Kind::kObject:
      if (value.object().type == Object::Type::kLoop) {
        return static_cast<int64_t>(static_cast<Loop&>(value.object()).items().size());
      }
      return -1;
    default:
      return -1;
  }
}

Result<List> items_of(Context& context, Place place, const Value& value) {
  List out;
  switch (value.kind()) {
    case Kind::kUndefined:
      return out;
    case Kind::kSequence:
      POME_RETURN_IF_ERROR(context.room(place, value.items().size() * sizeof(Value)));
      return value.items();
    case Kind::kDict:
      POME_RETURN_IF_ERROR(context.room(place, value.dict().size() * sizeof(Value)));
      for (const auto& [key, item] : value.dict()) out.push_back(key);
      return out;
    case Kind::kString: {
      // Characters of a string that was marked as safe are plain strings.
      const std::string& bytes = value.text().bytes();
      for (size_t at = 0; at < bytes.size();) {
        const size_t size = decode_rune(bytes, at).size;
        POME_ASSIGN_OR_RETURN(Value item, context.made(place, value.text().slice(at, at + size)));
        out.push_back(std::move(item));
        at += size;
      }
      return out;
    }
    case Kind::kObject:
      if (value.object().type == Object::Type::kGenerator) {
        auto& generator = static_cast<Generator&>(value.object());
        out.assign(std::make_move_iterator(generator.items.begin() +
                                           static_cast<std::ptrdiff_t>(generator.next)),
                   std::make_move_iterator(generator.items.end()));
        generator.items.clear();
        generator.next = 0;
        return out;
      }
      break;
    default:
      break;
  }
  return template_error(place, "a " + std::string(value.type_name()) + " cannot be walked over");
}

Result<List> sorted(Context& context, Place place, List items, const List& keys, bool reverse) {
  // Merges runs of growing width, so that comparisons that make no sense do no harm.
  std::vector<size_t> order(items.size()), merged(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t begin = 0; begin < order.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, order.size());
      const size_t end = std::min(begin + 2 * width, order.size());
      size_t left = begin, right = middle;
      for (size_t at = begin; at < end; ++at) {
        bool take_right = left == middle;
        if (!take_right && right < end) {
          const Value& a = keys[order[left]];
          const Value& b = keys[order[right]];
          POME_ASSIGN_OR_RETURN(take_right,
                                reverse ? less(context, place, a, b) : less(context, place, b, a));
        }
        merged[at] = order[take_right ? right++ : left++];
      }
    }
    order.swap(merged);
  }
  List out;
  out.reserve(items.size());
  for (const size_t index : order) out.push_back(std::move(items[index]));
  return out;
}

Result<List> sorted(Context& context, Place place, List items, bool reverse,
                    const std::function<Value(const Value&)>& key) {
  List keys;
  keys.reserve(items.size());
  for (const Value& item : items) keys.push_back(key(item));
  return sorted(context, place, std::move(items), keys, reverse);
}

}  // namespace pome::jinja
