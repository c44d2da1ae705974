// Methods of strings.
#include <algorithm>
#include <functional>

#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/print.h"
#include "tokenizer/jinja/text_functions.h"
#include "tokenizer/unicode.h"

namespace pome::jinja {
namespace {

using Kind = Value::Kind;

Result<Value> made(Call& call, Text text) {
  return call.context.made(call.place, std::move(text), call.self().is_markup());
}
const Text& self_text(const Call& call) { return call.self().text(); }

template <Text (*map)(const Text&)>
Result<Value> mapped(Call& call) {
  POME_RETURN_IF_ERROR(call.context.spend(call.place, self_text(call).size() / 4));
  return made(call, map(self_text(call)));
}

template <bool left, bool right>
Result<Value> strip_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const auto characters, call.text(1));
  POME_RETURN_IF_ERROR(call.context.spend(
      call.place, self_text(call).size() / 16 * (characters ? 1 + characters->size() / 4 : 1)));
  return made(call,
              strip(self_text(call), left, right,
                    characters ? std::optional<std::string>(characters->bytes()) : std::nullopt));
}

Result<Value> list_of(Call& call, std::vector<Text> parts) {
  List out;
  for (Text& part : parts) {
    POME_ASSIGN_OR_RETURN(Value value, made(call, std::move(part)));
    out.push_back(std::move(value));
  }
  return call.context.list(call.place, std::move(out));
}

// Room for the parts that cutting may give, before they are made.
Status room_for_parts(Call& call, size_t parts) {
  return call.context.room(call.place, self_text(call).size() + parts * (sizeof(Text) + 32));
}

template <bool from_right>
Result<Value> split_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const auto separator, call.text(1));
  POME_ASSIGN_OR_RETURN(const int64_t limit, call.integer(2, -1));
  const Text& text = self_text(call);
  if (!separator) {
    POME_RETURN_IF_ERROR(room_for_parts(call, text.size() / 8));
    return list_of(call, split_at_space(text, limit, from_right));
  }
  if (separator->empty()) return call.fail("the separator is empty");
  size_t parts = 1;
  for (size_t at = text.bytes().find(separator->bytes()); at != std::string::npos;
       at = text.bytes().find(separator->bytes(), at + separator->size())) {
    ++parts;
  }
  POME_RETURN_IF_ERROR(room_for_parts(call, parts));
  return list_of(call, split(text, separator->bytes(), limit, from_right));
}

Result<Value> split_lines_method(Call& call) {
  const Text& text = self_text(call);
  POME_RETURN_IF_ERROR(room_for_parts(
      call, 1 + static_cast<size_t>(std::count(text.bytes().begin(), text.bytes().end(), '\n'))));
  return list_of(call, split_lines(text, call.flag(1)));
}

template <bool from_right>
Result<Value> partition_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text separator, call.string(*call.find(1)));
  if (separator.empty()) return call.fail("the separator is empty");
  const Text& text = self_text(call);
  const size_t at =
      from_right ? text.bytes().rfind(separator.bytes()) : text.bytes().find(separator.bytes());
  Text parts[3];
  if (at == std::string::npos) {
    parts[from_right ? 2 : 0] = text;
  } else {
    parts[0] = text.slice(0, at);
    parts[1] = text.slice(at, at + separator.size());
    parts[2] = text.slice(at + separator.size(), text.size());
  }
  List out;
  for (Text& part : parts) {
    POME_ASSIGN_OR_RETURN(Value value, made(call, std::move(part)));
    out.push_back(std::move(value));
  }
  return call.context.tuple(call.place, std::move(out));
}

Result<Value> replace_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text old, call.string(*call.find(1)));
  POME_ASSIGN_OR_RETURN(const Text fresh, call.string(*call.find(2)));
  POME_ASSIGN_OR_RETURN(const int64_t count, call.integer(3, -1));
  return replaced(call, self_text(call), old, fresh, count);
}

// The part of the string that arguments `first` and the one behind it (characters) bound; false
// where the beginning lies behind the end.
struct Window {
  size_t begin = 0, end = 0;
  int64_t first_character = 0;
  bool valid = true;
};
Result<Window> window(Call& call, size_t first) {
  const std::string& bytes = self_text(call).bytes();
  Window out;
  out.end = bytes.size();
  const auto given = [&](size_t slot) {
    return call.find(slot) != nullptr && !call.find(slot)->is(Kind::kNone);
  };
  if (!given(first) && !given(first + 1)) return out;
  POME_RETURN_IF_ERROR(call.context.spend(call.place, bytes.size() / 16));
  const int64_t size = count_characters(bytes);
  int64_t bounds[2] = {0, size};
  for (size_t i = 0; i < 2; ++i) {
    if (!given(first + i)) continue;
    POME_ASSIGN_OR_RETURN(bounds[i], call.integer(first + i, 0));
    if (bounds[i] < 0) bounds[i] = std::max<int64_t>(bounds[i] + size, 0);
  }
  out.valid = bounds[0] <= size && bounds[0] <= std::min(bounds[1], size);
  out.first_character = bounds[0];
  out.begin = byte_of_character(bytes, std::min(bounds[0], size));
  out.end = std::max(out.begin, byte_of_character(bytes, std::min(bounds[1], size)));
  return out;
}

template <bool at_end>
Result<Value> affix_method(Call& call) {
  const Value& wanted = *call.find(1);
  List choices;
  if (wanted.is(Kind::kSequence) && wanted.sequence().is_tuple()) {
    choices = wanted.items();
  } else {
    choices.push_back(wanted);
  }
  POME_ASSIGN_OR_RETURN(const Window in, window(call, 2));
  const std::string_view part =
      std::string_view(self_text(call).bytes()).substr(in.begin, in.end - in.begin);
  for (const Value& choice : choices) {
    POME_ASSIGN_OR_RETURN(const Text text, call.string(choice));
    const std::string& affix = text.bytes();
    if (!in.valid || affix.size() > part.size()) continue;
    const size_t at = at_end ? part.size() - affix.size() : 0;
    if (part.substr(at, affix.size()) == affix) return Value(true);
  }
  return Value(false);
}

template <bool from_right, bool must_find>
Result<Value> find_method_of_string(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text wanted, call.string(*call.find(1)));
  POME_ASSIGN_OR_RETURN(const Window in, window(call, 2));
  POME_RETURN_IF_ERROR(call.context.spend(call.place, self_text(call).size() / 16));
  const std::string_view part =
      std::string_view(self_text(call).bytes()).substr(in.begin, in.end - in.begin);
  const size_t at = !in.valid    ? std::string_view::npos
                    : from_right ? part.rfind(wanted.bytes())
                                 : part.find(wanted.bytes());
  if (at != std::string_view::npos) {
    return Value(in.first_character + count_characters(part.substr(0, at)));
  }
  if (must_find) return call.fail("there is no such part");
  return Value(int64_t{-1});
}

Result<Value> count_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text wanted, call.string(*call.find(1)));
  POME_ASSIGN_OR_RETURN(const Window in, window(call, 2));
  POME_RETURN_IF_ERROR(call.context.spend(call.place, self_text(call).size() / 16));
  const std::string_view part =
      std::string_view(self_text(call).bytes()).substr(in.begin, in.end - in.begin);
  if (!in.valid) return Value(int64_t{0});
  if (wanted.empty()) return Value(count_characters(part) + 1);
  int64_t count = 0;
  for (size_t at = part.find(wanted.bytes()); at != std::string_view::npos;
       at = part.find(wanted.bytes(), at + wanted.size())) {
    ++count;
  }
  return Value(count);
}

Result<Value> join_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const List all, items_of(call.context, call.place, *call.find(1)));
  Text out;
  for (size_t i = 0; i < all.size(); ++i) {
    POME_ASSIGN_OR_RETURN(const Text text, call.string(all[i]));
    POME_RETURN_IF_ERROR(call.context.spend(call.place, 1 + self_text(call).size() / 16));
    if (i > 0) out.append(self_text(call));
    out.append(text);
    if (out.size() > call.context.limits().text) break;  // refused below
  }
  return made(call, std::move(out));
}

Result<Value> format_method(Call& call) {
  POME_ASSIGN_OR_RETURN(
      Text out, brace_format(call.context, call.place, self_text(call), call.rest, call.named));
  return made(call, std::move(out));
}
Result<Value> format_map_method(Call& call) {
  if (!call.find(1)->is(Kind::kDict)) return call.fail("a dictionary is needed");
  POME_ASSIGN_OR_RETURN(
      Text out, brace_format(call.context, call.place, self_text(call), {}, call.find(1)->dict()));
  return made(call, std::move(out));
}

enum class Side : uint8_t { kLeft, kRight, kBoth };
template <Side side>
Result<Value> justify_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const int64_t width, call.integer(1, 0));
  std::string fill = " ";
  if (call.find(2) != nullptr) {
    POME_ASSIGN_OR_RETURN(const Text given, call.string(*call.find(2)));
    if (count_characters(given.bytes()) != 1) return call.fail("the fill is one character");
    fill = given.bytes();
  }
  const Text& text = self_text(call);
  const int64_t missing =
      std::max<int64_t>(std::max<int64_t>(width, 0) - count_characters(text.bytes()), 0);
  POME_RETURN_IF_ERROR(call.context.room(
      call.place, text.size() + static_cast<uint64_t>(std::min<int64_t>(missing, 1 << 30)) * 4));
  if (side == Side::kBoth) return made(call, centered(text, width, fill));
  return made(call, padded(text, side == Side::kRight ? missing : 0,
                           side == Side::kLeft ? missing : 0, fill));
}

Result<Value> zero_fill_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const int64_t width, call.integer(1, 0));
  const Text& text = self_text(call);
  const int64_t missing =
      std::max<int64_t>(std::max<int64_t>(width, 0) - count_characters(text.bytes()), 0);
  POME_RETURN_IF_ERROR(call.context.room(
      call.place, text.size() + static_cast<uint64_t>(std::min<int64_t>(missing, 1 << 30))));
  const bool sign = !text.empty() && (text.bytes()[0] == '-' || text.bytes()[0] == '+');
  Text out = text.slice(0, sign ? 1 : 0);
  out.append(padded(text.slice(sign ? 1 : 0, text.size()), missing, 0, "0"));
  return made(call, std::move(out));
}

Result<Value> expand_tabs_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const int64_t size, call.integer(1, 8));
  const Text& text = self_text(call);
  if (size > 1000) return call.fail("tabs are at most 1000 wide");
  const auto tabs =
      static_cast<uint64_t>(std::count(text.bytes().begin(), text.bytes().end(), '\t'));
  POME_RETURN_IF_ERROR(call.context.room(
      call.place, text.size() + tabs * static_cast<uint64_t>(std::max<int64_t>(size, 0))));
  Text out;
  int64_t column = 0;
  for (size_t at = 0; at < text.size();) {
    const Rune rune = decode_rune(text.bytes(), at);
    if (rune.point == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      out.append(std::string(static_cast<size_t>(spaces), ' '), text.is_user_at(at));
      column += spaces;
    } else {
      out.append(text, at, at + rune.size);
      column = rune.point == '\n' || rune.point == '\r' ? 0 : column + 1;
    }
    at += rune.size;
  }
  return made(call, std::move(out));
}

template <bool prefix>
Result<Value> remove_affix_method(Call& call) {
  POME_ASSIGN_OR_RETURN(const Text affix, call.string(*call.find(1)));
  const Text& text = self_text(call);
  if (affix.size() > text.size()) return call.self();
  const size_t at = prefix ? 0 : text.size() - affix.size();
  if (text.bytes().compare(at, affix.size(), affix.bytes()) != 0) return call.self();
  return made(call, prefix ? text.slice(affix.size(), text.size())
                           : text.slice(0, text.size() - affix.size()));
}

// True where the string is not empty and each character passes.
template <bool (*passes)(char32_t)>
Result<Value> all_test(Call& call) {
  const std::string& bytes = self_text(call).bytes();
  POME_RETURN_IF_ERROR(call.context.spend(call.place, bytes.size() / 16));
  for (size_t at = 0; at < bytes.size();) {
    const Rune rune = decode_rune(bytes, at);
    if (!passes(rune.point)) return Value(false);
    at += rune.size;
  }
  return Value(!bytes.empty());
}
bool is_alnum(char32_t point) { return is_alpha(point) || is_numeric(point); }
Result<Value> ascii_test(Call& call) {
  const std::string& bytes = self_text(call).bytes();
  return Value(std::all_of(bytes.begin(), bytes.end(),
                           [](char c) { return static_cast<uint8_t>(c) < 0x80; }));
}
Result<Value> printable_test(Call& call) {
  if (self_text(call).empty()) return Value(true);
  return all_test<is_printable>(call);
}
Result<Value> identifier_test(Call& call) {
  const std::string& bytes = self_text(call).bytes();
  for (size_t at = 0; at < bytes.size();) {
    const Rune rune = decode_rune(bytes, at);
    const bool first = is_alpha(rune.point) || rune.point == '_';
    if (!first && (at == 0 || !is_word_character(rune.point))) return Value(false);
    at += rune.size;
  }
  return Value(!bytes.empty());
}
template <bool lower_wanted>
Result<Value> case_test(Call& call) {
  Arguments arguments;
  arguments.positional.push_back(call.self());
  return call_builtin(call.context, call.place, *find_test(lower_wanted ? "lower" : "upper"),
                      std::move(arguments));
}
Result<Value> title_test(Call& call) {
  const std::string& bytes = self_text(call).bytes();
  bool in_word = false, any = false;
  for (size_t at = 0; at < bytes.size();) {
    const Rune rune = decode_rune(bytes, at);
    at += rune.size;
    if (is_upper(rune.point) || is_title(rune.point)) {
      if (in_word) return Value(false);
      in_word = any = true;
    } else if (is_lower(rune.point)) {
      if (!in_word) return Value(false);
      any = true;
    } else {
      in_word = false;
    }
  }
  return Value(any);
}

Result<Value> refused(Call& call) { return call.fail("this method is not supported"); }

constexpr Builtin kMethods[] = {
    {"capitalize", "self", mapped<capitalize>},
    {"casefold", "self", mapped<fold>},
    {"center", "self .width .fillchar=", justify_method<Side::kBoth>},
    {"count", "self .sub .start= .end=", count_method},
    {"encode", "self * **", refused},
    {"endswith", "self .suffix .start= .end=", affix_method<true>},
    {"expandtabs", "self tabsize=", expand_tabs_method},
    {"find", "self .sub .start= .end=", find_method_of_string<false, false>},
    {"format", "self * **", format_method},
    {"format_map", "self .mapping", format_map_method},
    {"index", "self .sub .start= .end=", find_method_of_string<false, true>},
    {"isalnum", "self", all_test<is_alnum>},
    {"isalpha", "self", all_test<is_alpha>},
    {"isascii", "self", ascii_test},
    {"isdecimal", "self", all_test<is_decimal>},
    {"isdigit", "self", all_test<is_digit>},
    {"isidentifier", "self", identifier_test},
    {"islower", "self", case_test<true>},
    {"isnumeric", "self", all_test<is_numeric>},
    {"isprintable", "self", printable_test},
    {"isspace", "self", all_test<is_python_space>},
    {"istitle", "self", title_test},
    {"isupper", "self", case_test<false>},
    {"join", "self .iterable", join_method},
    {"ljust", "self .width .fillchar=", justify_method<Side::kLeft>},
    {"lower", "self", mapped<lower>},
    {"lstrip", "self .chars=", strip_method<true, false>},
    {"maketrans", "self * **", refused},
    {"partition", "self .sep", partition_method<false>},
    {"removeprefix", "self .prefix", remove_affix_method<true>},
    {"removesuffix", "self .suffix", remove_affix_method<false>},
    {"replace", "self .old .new .count=", replace_method},
    {"rfind", "self .sub .start= .end=", find_method_of_string<true, false>},
    {"rindex", "self .sub .start= .end=", find_method_of_string<true, true>},
    {"rjust", "self .width .fillchar=", justify_method<Side::kRight>},
    {"rpartition", "self .sep", partition_method<true>},
    {"rsplit", "self sep= maxsplit=", split_method<true>},
    {"rstrip", "self .chars=", strip_method<false, true>},
    {"split", "self sep= maxsplit=", split_method<false>},
    {"splitlines", "self keepends=", split_lines_method},
    {"startswith", "self .prefix .start= .end=", affix_method<false>},
    {"strip", "self .chars=", strip_method<true, true>},
    {"swapcase", "self", mapped<swap_case>},
    {"title", "self", mapped<title>},
    {"translate", "self * **", refused},
    {"upper", "self", mapped<upper>},
    {"zfill", "self .width", zero_fill_method},
};

}  // namespace

const Builtin* find_string_method(std::string_view name) {
  for (const Builtin& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

}  // namespace pome::jinja
