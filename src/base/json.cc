#include "base/json.h"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <limits>
#include <unordered_set>
#include <utility>

#include "base/byte_source.h"
#include "base/utf8.h"

namespace pome {
namespace {

std::string pointer_of(std::string_view key) {  // RFC 6901
  std::string out = "/";
  for (const char c : key) {
    if (c == '~')
      out += "~0";
    else if (c == '/')
      out += "~1";
    else
      out += c;
  }
  return out;
}

// Builds the value from parser events, so that every limit holds before memory is spent.
class Builder {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  bool null() { return add(Json(nullptr)) != nullptr; }
  bool boolean(bool value) { return add(Json(value)) != nullptr; }
  bool number_integer(Json::number_integer_t value) { return add(Json(value)) != nullptr; }
  bool number_unsigned(Json::number_unsigned_t value) { return add(Json(value)) != nullptr; }
  bool number_float(Json::number_float_t value, const std::string&) {
    return add(Json(value)) != nullptr;
  }
  bool string(std::string& value) { return add(Json(std::move(value))) != nullptr; }
  bool binary(Json::binary_t&) { return false; }  // no such event from text

  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    Frame& frame = open_.back();
    if (is_duplicate(frame, name)) {
      refuse(Refusal::kDup, "the key \"" + escape_for_terminal(name) + "\" occurs twice");
      return false;
    }
    key_ = std::move(name);
    return true;
  }

  template <typename Exception>
  bool parse_error(size_t position, const std::string&, const Exception& error) {
    position_ = position;
    const std::string_view what = error.what();
    if (what.find("number overflow") != std::string_view::npos) {
      refuse(Refusal::kRange, "the number does not fit a double");
    } else if (what.find("surrogate") != std::string_view::npos) {
      refuse(Refusal::kUtf8, "\\u escape of a lone surrogate");
    } else {
      // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ..."
      const size_t place = what.find(": ");
      refuse(Refusal::kType,
             escape_for_terminal(place == std::string_view::npos ? what : what.substr(place + 2)));
    }
    return false;
  }

  Json take() { return std::move(root_); }
  Status take_error() { return std::move(error_); }
  std::optional<size_t> position() const { return position_; }

 private:
  struct Frame {
    Json* value;
    std::unordered_set<std::string> keys;  // filled from kManyKeys on
  };
  static constexpr size_t kManyKeys = 16;

  void refuse(Refusal refusal, std::string message) {
    if (error_.ok()) error_ = bad_input(refusal, std::move(message));
  }

  static bool is_duplicate(Frame& frame, const std::string& name) {
    const Json::object_t& members = frame.value->get_ref<const Json::object_t&>();
    if (members.size() < kManyKeys) {
      for (const auto& member : members)
        if (member.first == name) return true;
      return false;
    }
    if (frame.keys.empty())
      for (const auto& member : members) frame.keys.insert(member.first);
    return !frame.keys.insert(name).second;
  }

  // The new value where it now lives, or null when a limit was hit.
  Json* add(Json&& value) {
    if (++values_ > limits_.values) {
      refuse(Refusal::kLimit, "more than " + std::to_string(limits_.values) + " values");
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back().value;
    if (parent.is_array()) {
      auto& items = parent.get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    // The map's own insert looks through all keys each time; duplicates were refused in key().
    auto& members = parent.get_ref<Json::object_t&>();
    members.Json::object_t::Container::emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }

  bool open(Json&& container) {
    if (open_.size() >= static_cast<size_t>(limits_.depth)) {
      refuse(Refusal::kDepth, "nested deeper than " + std::to_string(limits_.depth));
      return false;
    }
    Json* const value = add(std::move(container));
    if (value == nullptr) return false;
    open_.push_back({value, {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  JsonLimits limits_;
  Json root_;
  std::vector<Frame> open_;  // a child is the last member of its parent: pointers stay valid
  std::string key_;
  uint64_t values_ = 0;
  Status error_;
  std::optional<size_t> position_;
};

// Counts what the parser has taken, because its events carry no position.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *furthest_ = ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** furthest_;
};

Result<const Json*> member_of(const Json& object, std::string_view key) {
  if (!object.is_object())
    return bad_input(Refusal::kType, std::string("expected an object, found ") + object.type_name())
        .at(pointer_of(key));
  const auto member = object.find(std::string(key));
  if (member == object.end() || member->is_null()) return static_cast<const Json*>(nullptr);
  return &*member;
}

Status wrong_type(std::string_view key, const char* expected, const Json& found) {
  return bad_input(Refusal::kType,
                   std::string("expected ") + expected + ", found " + found.type_name())
      .at(pointer_of(key));
}

}  // namespace

Result<Json> parse_json(std::string_view text, const std::string& name, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    return bad_input(Refusal::kLimit, "the text has " + std::to_string(text.size()) +
                                          " bytes, at most " + std::to_string(limits.bytes) +
                                          " are accepted")
        .in(name);
  if (text.substr(0, 3) == "\xEF\xBB\xBF")
    return bad_input(Refusal::kUtf8, "the text starts with a byte order mark")
        .in(name)
        .at_offset(0);
  // The parser would take a zero byte for the end of the text.
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos)
    return bad_input(Refusal::kUtf8, "a zero byte").in(name).at_offset(zero);
  if (const size_t bad = utf8_first_error(text); bad != text.size())
    return bad_input(Refusal::kUtf8, "invalid UTF-8").in(name).at_offset(bad);

  Builder builder(limits);
  const char* furthest = text.data();
  const CountingIterator begin(text.data(), &furthest);
  const CountingIterator end(text.data() + text.size(), &furthest);
  if (Json::sax_parse(begin, end, &builder)) return builder.take();
  Status error = builder.take_error();
  if (error.ok()) error = bad_input(Refusal::kType, "not a JSON value");
  const size_t taken = static_cast<size_t>(furthest - text.data());
  return std::move(error).in(name).at_offset(taken == 0 ? 0 : taken - 1);
}

Result<Json> read_json_file(const std::string& path, const JsonLimits& limits) {
  POME_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, limits.bytes));
  return parse_json(text, path, limits);
}

Result<std::optional<int64_t>> json_int(const Json& object, std::string_view key) {
  POME_ASSIGN_OR_RETURN(const Json* value, member_of(object, key));
  if (value == nullptr) return std::optional<int64_t>();
  if (!value->is_number_integer()) return wrong_type(key, "an integer", *value);
  if (value->is_number_unsigned() &&
      value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return bad_input(Refusal::kRange,
                     std::to_string(value->get<uint64_t>()) + " does not fit a 64-bit integer")
        .at(pointer_of(key));
  return std::optional<int64_t>(value->get<int64_t>());
}

Result<std::optional<double>> json_number(const Json& object, std::string_view key) {
  POME_ASSIGN_OR_RETURN(const Json* value, member_of(object, key));
  if (value == nullptr) return std::optional<double>();
  if (!value->is_number()) return wrong_type(key, "a number", *value);
  const double number = value->get<double>();
  if (!std::isfinite(number))
    return bad_input(Refusal::kRange, "expected a finite number").at(pointer_of(key));
  return std::optional<double>(number);
}

Result<std::optional<bool>> json_bool(const Json& object, std::string_view key) {
  POME_ASSIGN_OR_RETURN(const Json* value, member_of(object, key));
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_boolean()) return wrong_type(key, "true or false", *value);
  return std::optional<bool>(value->get<bool>());
}

Result<std::optional<std::string>> json_string(const Json& object, std::string_view key) {
  POME_ASSIGN_OR_RETURN(const Json* value, member_of(object, key));
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) return wrong_type(key, "a string", *value);
  return std::optional<std::string>(value->get<std::string>());
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace pome
