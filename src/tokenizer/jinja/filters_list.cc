// Filters over what can be walked over. Those that Python makes lazy give generators, which can be
// walked over once; here their items are computed at once.
#include <algorithm>
#include <functional>

#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/print.h"
#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

Result<List> items(const Call& call) { return items_of(call.context, call.place, call.self()); }

// "a.b.0" as steps; a number alone is one step.
List attribute_path(const Value& attribute) {
  List out;
  if (attribute.is(Kind::kNone)) return out;
  if (!attribute.is(Kind::kString)) return {attribute};
  for (Text& part : split(attribute.text(), ".", -1)) {
    const std::string& bytes = part.bytes();
    const bool number = !bytes.empty() && bytes.size() < 18 &&
                        bytes.find_first_not_of("0123456789") == std::string::npos;
    out.push_back(number ? Value(static_cast<int64_t>(std::strtoll(bytes.c_str(), nullptr, 10)))
                         : Value(std::move(part)));
  }
  return out;
}

struct Getter {
  List path;
  bool ignore_case = false;
  Value otherwise = Value(None{});  // for what is undefined

  Result<Value> operator()(const Call& call, Value item) const {
    for (const Value& step : path) {
      POME_ASSIGN_OR_RETURN(item, get_item(call.context, call.place, item, step));
      if (item.is(Kind::kUndefined) && !otherwise.is(Kind::kNone)) item = otherwise;
    }
    if (!ignore_case || !item.is(Kind::kString)) return item;
    POME_RETURN_IF_ERROR(call.context.spend(call.place, item.text().size() / 4));
    return call.context.made(call.place, lower(item.text()));
  }
};

Getter getter(const Call& call, size_t attribute_slot, std::optional<size_t> case_slot) {
  Getter out;
  if (const Value* attribute = call.find(attribute_slot)) out.path = attribute_path(*attribute);
  out.ignore_case = case_slot && !call.flag(*case_slot);
  return out;
}

Result<List> keys_of(const Call& call, const List& items, const Getter& get) {
  List keys;
  keys.reserve(items.size());
  for (const Value& item : items) {
    POME_ASSIGN_OR_RETURN(Value key, get(call, item));
    keys.push_back(std::move(key));
  }
  return keys;
}

Result<Value> list_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(List all, items(call));
  return call.context.list(call.place, std::move(all));
}

Result<Value> length_filter(Call& call) {
  if (call.self().is(Kind::kString)) {
    POME_RETURN_IF_ERROR(call.context.spend(call.place, call.self().text().size() / 16));
  }
  const int64_t length = length_of(call.self());
  if (length < 0) return call.fail("a " + std::string(call.self().type_name()) + " has no length");
  return Value(length);
}

Result<Value> default_filter(Call& call) {
  const bool replace = call.self().is(Kind::kUndefined) || (call.flag(2) && !call.self().truthy());
  if (!replace) return call.self();
  return call.find(1) != nullptr ? *call.find(1) : Value(Text());
}

Result<Value> join_filter(Call& call) {
  Text separator;
  if (const Value* given = call.find(1)) {
    POME_ASSIGN_OR_RETURN(separator, call.text_of(*given));
  }
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  const Getter get = getter(call, 2, std::nullopt);
  Text out;
  for (size_t i = 0; i < all.size(); ++i) {
    POME_ASSIGN_OR_RETURN(const Value part, get(call, all[i]));
    POME_ASSIGN_OR_RETURN(const Text text, call.text_of(part));
    POME_RETURN_IF_ERROR(call.context.spend(call.place, 1 + separator.size() / 16));
    if (i > 0) out.append(separator);
    out.append(text);
    if (out.size() > call.context.limits().text) break;  // refused below
  }
  return call.context.made(call.place, std::move(out));
}

Result<Value> first_filter(Call& call) {
  const Value empty(Undefined::because("there is no first item"));
  if (call.self().is(Kind::kObject) && call.self().object().type == Object::Type::kGenerator) {
    auto& generator = static_cast<Generator&>(call.self().object());
    if (generator.next >= generator.items.size()) return empty;
    return generator.items[generator.next++];
  }
  if (call.self().is(Kind::kString)) {
    const Text& text = call.self().text();
    if (text.empty()) return empty;
    return call.context.made(call.place, text.slice(0, decode_rune(text.bytes(), 0).size));
  }
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  return all.empty() ? empty : all.front();
}

Result<Value> last_filter(Call& call) {
  if (call.self().is(Kind::kObject)) return call.fail("it has no last item");
  if (call.self().is(Kind::kString) && !call.self().text().empty()) {
    return get_item(call.context, call.place, call.self(), Value(int64_t{-1}));
  }
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  return all.empty() ? Value(Undefined::because("there is no last item")) : all.back();
}

Result<Value> reverse_filter(Call& call) {
  const Value& value = call.self();
  if (value.is(Kind::kString)) {
    POME_RETURN_IF_ERROR(call.context.spend(call.place, value.text().size() / 4));
    return call.context.made(call.place, reversed(value.text()), value.is_markup());
  }
  POME_ASSIGN_OR_RETURN(List all, items(call));
  std::reverse(all.begin(), all.end());
  if (value.is(Kind::kObject)) return call.context.list(call.place, std::move(all));
  return call.context.generator(call.place, std::move(all));
}

Result<Value> batch_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  POME_ASSIGN_OR_RETURN(const int64_t size, call.integer(1, 1));
  const Value* fill = call.find(2);
  List out, row;
  const auto flush = [&]() -> Status {
    POME_ASSIGN_OR_RETURN(Value made, call.context.list(call.place, std::move(row)));
    out.push_back(std::move(made));
    row = {};
    return {};
  };
  for (const Value& item : all) {
    if (static_cast<int64_t>(row.size()) == size) POME_RETURN_IF_ERROR(flush());
    row.push_back(item);
  }
  if (!row.empty()) {
    const int64_t missing = std::max<int64_t>(size, 0) - static_cast<int64_t>(row.size());
    if (fill != nullptr && !fill->is(Kind::kNone) && missing > 0) {
      POME_RETURN_IF_ERROR(call.context.room(
          call.place, static_cast<uint64_t>(std::min<int64_t>(missing, 1 << 30)) * sizeof(Value)));
      row.insert(row.end(), static_cast<size_t>(missing), *fill);
    }
    POME_RETURN_IF_ERROR(flush());
  }
  return call.context.generator(call.place, std::move(out));
}

Result<Value> slice_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  POME_ASSIGN_OR_RETURN(const int64_t slices, call.integer(1, 1));
  if (slices == 0) return call.fail("division by zero");
  const Value* fill = call.find(2);
  const auto size = static_cast<int64_t>(all.size());
  const int64_t each = size / std::max<int64_t>(slices, 1),
                extra = size % std::max<int64_t>(slices, 1);
  List out;
  size_t at = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const size_t count = static_cast<size_t>(each + (i < extra ? 1 : 0));
    List row(all.begin() + static_cast<std::ptrdiff_t>(at),
             all.begin() + static_cast<std::ptrdiff_t>(at + count));
    at += count;
    if (fill != nullptr && !fill->is(Kind::kNone) && i >= extra) row.push_back(*fill);
    POME_ASSIGN_OR_RETURN(Value made, call.context.list(call.place, std::move(row)));
    out.push_back(std::move(made));
  }
  return call.context.generator(call.place, std::move(out));
}

Result<Value> sort_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(List all, items(call));
  std::vector<Getter> getters;
  const Value* attribute = call.find(3);
  if (attribute != nullptr && attribute->is(Kind::kString)) {
    for (Text& part : split(attribute->text(), ",", -1)) {
      getters.push_back({attribute_path(Value(std::move(part))), !call.flag(2)});
    }
  } else {
    getters.push_back(getter(call, 3, 2));
  }
  List keys;
  for (const Value& item : all) {
    List parts;
    for (const Getter& get : getters) {
      POME_ASSIGN_OR_RETURN(Value part, get(call, item));
      parts.push_back(std::move(part));
    }
    POME_ASSIGN_OR_RETURN(Value key, call.context.list(call.place, std::move(parts)));
    keys.push_back(std::move(key));
  }
  POME_ASSIGN_OR_RETURN(List out,
                        sorted(call.context, call.place, std::move(all), keys, call.flag(1)));
  return call.context.list(call.place, std::move(out));
}

Result<Value> unique_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  POME_ASSIGN_OR_RETURN(const List keys, keys_of(call, all, getter(call, 2, 1)));
  Dict seen;
  List out;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!Dict::can_be_key(keys[i])) {
      return call.fail("a " + std::string(keys[i].type_name()) + " cannot be looked up");
    }
    if (seen.find(keys[i]) != nullptr) continue;
    seen.set(keys[i], Value(true));
    out.push_back(all[i]);
  }
  return call.context.generator(call.place, std::move(out));
}

Result<Value> extreme(Call& call, bool largest) {
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  if (all.empty()) return Value(Undefined::because("there is no item to choose"));
  POME_ASSIGN_OR_RETURN(const List keys, keys_of(call, all, getter(call, 2, 1)));
  size_t best = 0;
  for (size_t i = 1; i < all.size(); ++i) {
    POME_ASSIGN_OR_RETURN(const bool better,
                          largest ? less(call.context, call.place, keys[best], keys[i])
                                  : less(call.context, call.place, keys[i], keys[best]));
    if (better) best = i;
  }
  return all[best];
}
Result<Value> min_filter(Call& call) { return extreme(call, false); }
Result<Value> max_filter(Call& call) { return extreme(call, true); }

Result<Value> sum_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  const Getter get = getter(call, 1, std::nullopt);
  Value sum = call.find(2) != nullptr ? *call.find(2) : Value(int64_t{0});
  if (sum.is(Kind::kString)) return call.fail("strings cannot be summed");
  for (const Value& item : all) {
    POME_ASSIGN_OR_RETURN(const Value part, get(call, item));
    POME_ASSIGN_OR_RETURN(sum, binary(call.context, call.place, Operator::kAdd, sum, part));
  }
  return sum;
}

Result<Value> group_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(List all, items(call));
  Getter get = getter(call, 1, 3);
  if (call.find(2) != nullptr) get.otherwise = *call.find(2);
  POME_ASSIGN_OR_RETURN(const List unsorted, keys_of(call, all, get));
  POME_ASSIGN_OR_RETURN(const List in_order,
                        sorted(call.context, call.place, std::move(all), unsorted, false));
  POME_ASSIGN_OR_RETURN(const List keys, keys_of(call, in_order, get));
  Getter plain = get;
  plain.ignore_case = false;
  List out;
  for (size_t begin = 0; begin < in_order.size();) {
    size_t end = begin + 1;
    while (end < in_order.size()) {
      POME_ASSIGN_OR_RETURN(const bool same,
                            equal(call.context, call.place, keys[begin], keys[end]));
      if (!same) break;
      ++end;
    }
    POME_ASSIGN_OR_RETURN(Value key, plain(call, in_order[begin]));
    POME_ASSIGN_OR_RETURN(
        Value members,
        call.context.list(call.place, List(in_order.begin() + static_cast<std::ptrdiff_t>(begin),
                                           in_order.begin() + static_cast<std::ptrdiff_t>(end))));
    POME_ASSIGN_OR_RETURN(
        Value group,
        call.context.made(call.place, Sequence{.shape = Sequence::Shape::kGroup,
                                               .items = {std::move(key), std::move(members)}}));
    out.push_back(std::move(group));
    begin = end;
  }
  return call.context.list(call.place, std::move(out));
}

Result<List> pairs_of(const Call& call) {
  List out;
  for (const auto& [key, value] : call.self().dict()) {
    POME_ASSIGN_OR_RETURN(Value pair, call.context.tuple(call.place, {key, value}));
    out.push_back(std::move(pair));
  }
  return out;
}

Result<Value> dict_sort_filter(Call& call) {
  std::string by = "key";
  if (call.find(2) != nullptr) {
    POME_ASSIGN_OR_RETURN(const Text given, call.text_of(*call.find(2)));
    by = given.bytes();
  }
  if (by != "key" && by != "value") return call.fail("sorts by key or by value");
  if (!call.self().is(Kind::kDict)) return call.fail("a dictionary is needed");
  POME_ASSIGN_OR_RETURN(List pairs, pairs_of(call));
  Getter get;
  get.path = {Value(int64_t{by == "key" ? 0 : 1})};
  get.ignore_case = !call.flag(1);
  POME_ASSIGN_OR_RETURN(const List keys, keys_of(call, pairs, get));
  POME_ASSIGN_OR_RETURN(List out,
                        sorted(call.context, call.place, std::move(pairs), keys, call.flag(3)));
  return call.context.list(call.place, std::move(out));
}

Result<Value> items_filter(Call& call) {
  if (call.self().is(Kind::kUndefined)) return call.context.generator(call.place, {});
  if (!call.self().is(Kind::kDict)) return call.fail("a dictionary is needed");
  POME_ASSIGN_OR_RETURN(List pairs, pairs_of(call));
  return call.context.generator(call.place, std::move(pairs));
}

Result<Value> attr_filter(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text name, call.string(*call.find(1)));
  if (call.self().is(Kind::kUndefined)) {
    return template_error(call.place, call.self().undefined_message());
  }
  POME_ASSIGN_OR_RETURN(auto found,
                        find_attribute(call.context, call.place, call.self(), name.bytes()));
  if (found) return *std::move(found);
  return Value(Undefined::named(escape_for_terminal(name.bytes(), 60)));
}

// One item through the filter or test that the arguments name.
using Apply = std::function<Result<Value>(const Value&)>;

Apply applied(const Call& call, const Builtin* builtin, size_t first) {
  return [&call, builtin, first](const Value& item) {
    Arguments arguments;
    arguments.positional.push_back(item);
    arguments.positional.insert(arguments.positional.end(),
                                call.rest.begin() + static_cast<std::ptrdiff_t>(first),
                                call.rest.end());
    arguments.named = call.named;
    return call_builtin(call.context, call.place, *builtin, std::move(arguments));
  };
}

Result<Value> map_filter(Call& call) {
  if (!call.self().truthy()) return call.context.generator(call.place, {});
  Apply apply;
  if (const Value* attribute = call.named.find("attribute"); call.rest.empty() && attribute) {
    const Value* otherwise = call.named.find("default");
    if (call.named.size() > (otherwise ? 2u : 1u)) return call.fail("unexpected named argument");
    Getter get;
    get.path = attribute_path(*attribute);
    if (otherwise != nullptr) get.otherwise = *otherwise;
    apply = [&call, get](const Value& item) { return get(call, item); };
  } else {
    if (call.rest.empty()) return call.fail("the name of a filter is missing");
    POME_ASSIGN_OR_RETURN(const Text name, call.string(call.rest[0]));
    const Builtin* filter = find_filter(name.bytes());
    if (filter == nullptr) return unknown_filter(call.place, name.bytes());
    apply = applied(call, filter, 1);
  }
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  List out;
  for (const Value& item : all) {
    POME_ASSIGN_OR_RETURN(Value mapped, apply(item));
    out.push_back(std::move(mapped));
  }
  return call.context.generator(call.place, std::move(out));
}

Result<Value> choose(Call& call, bool wanted, bool by_attribute) {
  if (!call.self().truthy()) return call.context.generator(call.place, {});
  Getter get;
  size_t first = 0;
  if (by_attribute) {
    if (call.rest.empty()) return call.fail("the name of an attribute is missing");
    get.path = attribute_path(call.rest[0]);
    first = 1;
  }
  Apply test = [](const Value& item) -> Result<Value> { return Value(item.truthy()); };
  if (call.rest.size() > first) {
    POME_ASSIGN_OR_RETURN(const Text name, call.string(call.rest[first]));
    const Builtin* found = find_test(name.bytes());
    if (found == nullptr) return unknown_test(call.place, name.bytes());
    test = applied(call, found, first + 1);
  }
  POME_ASSIGN_OR_RETURN(const List all, items(call));
  List out;
  for (const Value& item : all) {
    POME_ASSIGN_OR_RETURN(const Value looked_at, get(call, item));
    POME_ASSIGN_OR_RETURN(const Value passed, test(looked_at));
    if (passed.truthy() == wanted) out.push_back(item);
  }
  return call.context.generator(call.place, std::move(out));
}
Result<Value> select_filter(Call& call) { return choose(call, true, false); }
Result<Value> reject_filter(Call& call) { return choose(call, false, false); }
Result<Value> select_attr_filter(Call& call) { return choose(call, true, true); }
Result<Value> reject_attr_filter(Call& call) { return choose(call, false, true); }

constexpr Builtin kListFilters[] = {
    {"attr", "obj name", attr_filter},
    {"batch", "value linecount fill_with=", batch_filter},
    {"count", ".obj", length_filter},
    {"d", "value default_value= boolean=", default_filter},
    {"default", "value default_value= boolean=", default_filter},
    {"dictsort", "value case_sensitive= by= reverse=", dict_sort_filter},
    {"first", "seq", first_filter},
    {"groupby", "value attribute default= case_sensitive=", group_filter},
    {"items", "value", items_filter},
    {"join", "value d= attribute=", join_filter},
    {"last", "seq", last_filter},
    {"length", ".obj", length_filter},
    {"list", "value", list_filter},
    {"map", ".value * **", map_filter},
    {"max", "value case_sensitive= attribute=", max_filter},
    {"min", "value case_sensitive= attribute=", min_filter},
    {"reject", ".value * **", reject_filter},
    {"rejectattr", ".value * **", reject_attr_filter},
    {"reverse", "value", reverse_filter},
    {"select", ".value * **", select_filter},
    {"selectattr", ".value * **", select_attr_filter},
    {"slice", "value slices fill_with=", slice_filter},
    {"sort", "value reverse= case_sensitive= attribute=", sort_filter},
    {"sum", "iterable attribute= start=", sum_filter},
    {"unique", "value case_sensitive= attribute=", unique_filter},
};

}  // namespace

const Builtin* find_list_filter(std::string_view name) {
  for (const Builtin& filter : kListFilters) {
    if (filter.name == name) return &filter;
  }
  return nullptr;
}

}  // namespace pome::jinja
