#include "tokenizer/class_pattern.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <string>

#include "tokenizer/unicode.h"

namespace pome {
namespace {

constexpr size_t kAnyNumber = std::numeric_limits<size_t>::max();
// A run shorter than asked for is looked at again from each of its characters.
constexpr size_t kMostRepeats = 64;

constexpr uint32_t bit(Category category) { return uint32_t{1} << static_cast<uint32_t>(category); }
constexpr uint32_t bits(Category first, Category last) {
  uint32_t out = 0;
  for (auto c = static_cast<uint32_t>(first); c <= static_cast<uint32_t>(last); ++c) {
    out |= uint32_t{1} << c;
  }
  return out;
}

struct NamedCategories {
  std::string_view name;
  uint32_t categories;
};
constexpr NamedCategories kCategories[] = {
    {"L", bits(Category::kLu, Category::kLo)},
    {"Lu", bit(Category::kLu)},
    {"Ll", bit(Category::kLl)},
    {"Lt", bit(Category::kLt)},
    {"Lm", bit(Category::kLm)},
    {"Lo", bit(Category::kLo)},
    {"M", bits(Category::kMn, Category::kMe)},
    {"Mn", bit(Category::kMn)},
    {"N", bits(Category::kNd, Category::kNo)},
    {"Nd", bit(Category::kNd)},
    {"P", bits(Category::kPc, Category::kPo)},
    {"S", bits(Category::kSm, Category::kSo)},
    {"Sc", bit(Category::kSc)},
    {"Z", bits(Category::kZs, Category::kZp)},
};

// Sorted ranges without those that overlap.
void join_ranges(std::vector<std::pair<char32_t, char32_t>>& ranges) {
  size_t kept = 0;
  for (const auto& range : ranges) {
    if (kept > 0 && range.first <= ranges[kept - 1].second) {
      ranges[kept - 1].second = std::max(ranges[kept - 1].second, range.second);
    } else {
      ranges[kept++] = range;
    }
  }
  ranges.resize(kept);
}

// Broken bytes are what U+FFFD is.
Rune rune_at(std::string_view text, size_t at) { return decode_rune(text, at); }

}  // namespace

bool ClassPattern::Set::find(char32_t point) const {
  const uint8_t kind = char_kind(point);
  bool found =
      (categories >> (kind & 0x1F) & 1) != 0 || (white_space && (kind & kWhiteSpaceBit) != 0);
  if (!found && !ranges.empty()) {
    const auto behind =
        std::upper_bound(ranges.begin(), ranges.end(), point,
                         [](char32_t value, const std::pair<char32_t, char32_t>& range) {
                           return value < range.first;
                         });
    found = behind != ranges.begin() && point <= std::prev(behind)->second;
  }
  return found != negated;
}

// Reads a pattern from front to back; `fail` ends it.
class ClassPatternParser {
 public:
  explicit ClassPatternParser(std::string_view text) : text_(text) {}

  std::optional<ClassPattern> parse() {
    ClassPattern out;
    while (true) {
      ClassPattern::Run run;
      if (!read_run(run)) return std::nullopt;
      if (run.at_end && (!out.runs_.empty() || at_ < text_.size())) return std::nullopt;
      out.runs_.push_back(std::move(run));
      if (at_ == text_.size()) return out;
      if (out.runs_.size() == kMostAlternatives || text_[at_] != '|') return std::nullopt;
      ++at_;
    }
  }

 private:
  using Set = ClassPattern::Set;
  static constexpr size_t kMostAlternatives = 8;

  bool next_is(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool take(char c) {
    if (!next_is(c)) return false;
    ++at_;
    return true;
  }

  bool read_run(ClassPattern::Run& run) {
    std::string_view source;
    if (!read_set(run.set, source)) return false;
    size_t least = 0, most = 0;
    if (!read_repeat(least, most)) return false;
    if (least == 0 && most == 1) {
      run.before = std::move(run.set);
      run.set = {};
      if (!read_set(run.set, source) || !read_repeat(least, most)) return false;
    }
    if (least == 0) return false;
    // The same set again: [0-9][0-9][0-9].
    while (least == most && at_ < text_.size() && text_[at_] != '|' && text_[at_] != '$') {
      if (text_.substr(at_, source.size()) != source) return false;
      at_ += source.size();
      size_t again = 0, again_most = 0;
      if (!read_repeat(again, again_most) || again != again_most) return false;
      least += again;
      most += again;
    }
    if (least > kMostRepeats) return false;
    run.least = least;
    run.most = most;
    run.at_end = take('$');
    return !run.at_end || (!run.before && run.least == 1 && run.most == kAnyNumber);
  }

  bool read_repeat(size_t& least, size_t& most) {
    least = most = 1;
    if (take('?')) {
      least = 0;
    } else if (take('+')) {
      most = kAnyNumber;
    } else if (take('{')) {
      if (!read_number(least)) return false;
      most = least;
      if (take(',')) {
        most = kAnyNumber;
        if (!next_is('}') && !read_number(most)) return false;
      }
      if (!take('}') || most < least || most == 0) return false;
    } else if (next_is('*')) {
      return false;
    }
    // Lazy and possessive repeats are something else.
    return !next_is('?') && !next_is('+') && !next_is('*');
  }
  bool read_number(size_t& value) {
    const size_t begin = at_;
    value = 0;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9' && at_ < begin + 4) {
      value = value * 10 + static_cast<size_t>(text_[at_++] - '0');
    }
    return at_ > begin;
  }

  bool read_set(Set& set, std::string_view& source) {
    const size_t begin = at_;
    if (take('[')) {
      set.negated = take('^');
      if (!read_members(set)) return false;
    } else if (at_ >= text_.size() ||
               std::string_view("(){}*+?|^$.").find(text_[at_]) != std::string_view::npos) {
      return false;
    } else if (!read_member(set)) {
      return false;
    }
    std::sort(set.ranges.begin(), set.ranges.end());
    join_ranges(set.ranges);
    for (char32_t point = 0; point < 128; ++point) set.ascii[point] = set.find(point);
    source = text_.substr(begin, at_ - begin);
    return true;
  }

  // Behind '[': members up to ']'. A class inside adds what it holds.
  bool read_members(Set& set) {
    if (next_is(']')) return false;
    while (!take(']')) {
      if (at_ >= text_.size()) return false;
      if (take('[')) {
        if (next_is('^') || next_is(':') || !read_inner(set)) return false;
      } else if (!read_member(set)) {
        return false;
      }
    }
    return true;
  }
  bool read_inner(Set& set) {
    while (!take(']')) {
      if (at_ >= text_.size() || text_[at_] == '[' || !read_member(set)) return false;
    }
    return true;
  }

  // One character, a range of them, or an escaped class.
  bool read_member(Set& set) {
    if (text_.substr(at_, 2) == "&&") return false;
    if (next_is('\\')) {
      const std::string_view name = text_.substr(at_, 2);
      if (name == "\\s") {
        set.white_space = true;
        at_ += 2;
        return true;
      }
      if (name == "\\d") {
        set.categories |= bit(Category::kNd);
        at_ += 2;
        return true;
      }
      if (name == "\\p") return read_property(set);
      if (name == "\\S" && !set.negated && set.ranges.empty() && set.categories == 0) {
        set.white_space = set.negated = true;
        at_ += 2;
        return true;
      }
    }
    char32_t first = 0;
    if (!read_character(first)) return false;
    char32_t last = first;
    if (next_is('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
      ++at_;
      if (!read_character(last) || last < first) return false;
    }
    set.ranges.emplace_back(first, last);
    return set.ranges.size() <= 256;
  }
  bool read_property(Set& set) {
    const size_t end = text_.find('}', at_);
    if (end == std::string_view::npos || text_.substr(at_, 3) != "\\p{") return false;
    const std::string_view name = text_.substr(at_ + 3, end - at_ - 3);
    for (const NamedCategories& known : kCategories) {
      if (known.name != name) continue;
      set.categories |= known.categories;
      at_ = end + 1;
      return true;
    }
    return false;
  }
  bool read_character(char32_t& point) {
    if (at_ >= text_.size()) return false;
    if (text_[at_] != '\\') {
      const Rune rune = decode_rune(text_, at_);
      point = rune.point;
      at_ += rune.size;
      return rune.valid;
    }
    if (at_ + 1 >= text_.size()) return false;
    const char c = text_[at_ + 1];
    at_ += 2;
    if (c == 'n') {
      point = '\n';
    } else if (c == 'r') {
      point = '\r';
    } else if (c == 't') {
      point = '\t';
    } else {
      point = static_cast<unsigned char>(c);
      return point < 128 && is_punctuation_or_symbol(c);
    }
    return true;
  }
  static bool is_punctuation_or_symbol(char c) {
    return c > ' ' && c < 127 && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') &&
           !(c >= 'A' && c <= 'Z');
  }

  std::string_view text_;
  size_t at_ = 0;
};

std::optional<ClassPattern> ClassPattern::parse(std::string_view pattern) {
  if (pattern.size() > 4096) return std::nullopt;
  return ClassPatternParser(pattern).parse();
}

// End of the match at `at`; 0: none.
size_t ClassPattern::match(const Run& run, std::string_view text, size_t at) {
  const auto repeat = [&](size_t from) -> size_t {
    size_t end = from, count = 0;
    while (count < run.most && end < text.size()) {
      const Rune rune = rune_at(text, end);
      if (!run.set.holds(rune.point)) break;
      end += rune.size;
      ++count;
    }
    return count < run.least ? 0 : end;
  };
  if (run.before) {
    const Rune first = rune_at(text, at);
    if (run.before->holds(first.point)) {
      if (const size_t end = repeat(at + first.size); end != 0) return end;
    }
  }
  return repeat(at);
}

// Runs that reach the end of the text, or else up to the last newline in them.
TextSpan ClassPattern::next_at_end(std::string_view text, size_t at) const {
  const Set& set = runs_[0].set;
  while (at < text.size()) {
    const size_t begin = at;
    while (at < text.size()) {
      const Rune rune = rune_at(text, at);
      if (!set.holds(rune.point)) break;
      at += rune.size;
    }
    if (at == text.size() && at > begin) return {begin, at};
    const size_t newline = text.substr(begin, at - begin).rfind('\n');
    if (newline != std::string_view::npos && newline > 0) return {begin, begin + newline};
    if (at == begin) at += rune_at(text, at).size;
  }
  return {text.size(), text.size()};
}

TextSpan ClassPattern::next(std::string_view text, size_t at) const {
  if (runs_[0].at_end) return next_at_end(text, at);
  while (at < text.size()) {
    for (const Run& run : runs_) {
      if (const size_t end = match(run, text, at); end != 0) return {at, end};
    }
    at += rune_at(text, at).size;
  }
  return {text.size(), text.size()};
}

}  // namespace pome
