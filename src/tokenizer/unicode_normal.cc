#include "tokenizer/unicode_normal.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "tokenizer/unicode.h"
#include "tokenizer/unicode_ranges.h"

namespace pome {
namespace {

struct ClassRange {
  uint32_t first, last;
  uint8_t combining_class;
};
struct Canonical {
  uint32_t point, first, second;  // second == 0: a single character
};
struct CompatibleSpan {
  uint32_t point;
  uint16_t begin, size;  // in kCompatibleParts
};
struct NewerRange {
  uint32_t first, last;
  uint8_t version;  // of Unicode that brought these; 10 stands for all later ones
};

#include "tokenizer/normal_tables.inc"

constexpr char32_t kLeadBase = 0x1100, kVowelBase = 0x1161, kTrailBase = 0x11A7;
constexpr char32_t kSyllableBase = 0xAC00;
constexpr uint32_t kLeads = 19, kVowels = 21, kTrails = 28;

bool is_syllable(char32_t point) {
  return point >= kSyllableBase && point < kSyllableBase + kLeads * kVowels * kTrails;
}
bool is_vowel_jamo(char32_t point) { return point >= kVowelBase && point < kVowelBase + kVowels; }
bool is_trail_jamo(char32_t point) { return point > kTrailBase && point < kTrailBase + kTrails; }

// What the forms need to know of a character. The expansions are complete: nothing in them
// decomposes further.
struct Properties {
  uint32_t canonical_begin = 0, compatible_begin = 0;  // in NormalData::parts
  uint8_t canonical_size = 0, compatible_size = 0;     // 0: the character itself; 0: the canonical
  uint8_t combining_class = 0;
  bool composes_again = false;     // composition undoes the canonical decomposition
  bool combines_backward = false;  // composition may join it to what stands before
};

// The tables unfolded, once, into something that is looked up in constant time.
class NormalData {
 public:
  static const NormalData& get() {
    static const NormalData data;
    return data;
  }
  const Properties& of(char32_t point) const {
    if (point > 0x10FFFF) return properties_[0];
    return properties_[entries_[pages_[point >> 8] + (point & 0xFF)]];
  }
  const char32_t* parts(uint32_t begin) const { return &parts_[begin]; }
  // 0: the two do not compose.
  char32_t compose(char32_t first, char32_t second) const {
    if (first >= kLeadBase && first < kLeadBase + kLeads && is_vowel_jamo(second)) {
      return kSyllableBase + ((first - kLeadBase) * kVowels + (second - kVowelBase)) * kTrails;
    }
    if (is_syllable(first) && (first - kSyllableBase) % kTrails == 0 && is_trail_jamo(second)) {
      return first + (second - kTrailBase);
    }
    const uint64_t key = uint64_t{first} << 32 | second;
    const auto found = std::lower_bound(pairs_.begin(), pairs_.end(), key,
                                        [](const std::pair<uint64_t, char32_t>& pair,
                                           uint64_t wanted) { return pair.first < wanted; });
    return found != pairs_.end() && found->first == key ? found->second : 0;
  }

 private:
  NormalData() : properties_(1) {
    entries_.resize(256);  // the page of all characters without properties
    for (const ClassRange& range : kCombiningClasses) {
      for (char32_t point = range.first; point <= range.last; ++point) {
        edit(point).combining_class = range.combining_class;
      }
    }
    for (const Canonical& entry : kCanonical) {
      if (entry.second == 0 || find_range(kNotComposed, entry.point) != nullptr) continue;
      pairs_.emplace_back(uint64_t{entry.first} << 32 | entry.second, entry.point);
      edit(entry.point).composes_again = true;
      edit(entry.second).combines_backward = true;
    }
    std::sort(pairs_.begin(), pairs_.end());
    for (char32_t i = 0; i < kVowels; ++i) edit(kVowelBase + i).combines_backward = true;
    for (char32_t i = 1; i < kTrails; ++i) edit(kTrailBase + i).combines_backward = true;
    for (const Canonical& entry : kCanonical) add_expansion(entry.point, false);
    // Characters whose canonical parts have a compatible form need one too.
    for (const Canonical& entry : kCanonical) add_expansion(entry.point, true);
    for (const CaseRange& range : kCompatibleOne) {
      for (char32_t point = range.first; point <= range.last; point += range.step) {
        add_expansion(point, true);
      }
    }
    for (const CompatibleSpan& span : kCompatibleSeveral) add_expansion(span.point, true);
  }

  Properties& edit(char32_t point) {
    uint32_t& page = pages_[point >> 8];
    if (page == 0) {
      page = static_cast<uint32_t>(entries_.size());
      entries_.resize(entries_.size() + 256);
    }
    uint16_t& entry = entries_[page + (point & 0xFF)];
    if (entry == 0) {
      entry = static_cast<uint16_t>(properties_.size());
      properties_.emplace_back();
    }
    return properties_[entry];
  }

  // One step of decomposition; false where there is none.
  static bool split(char32_t point, bool compatible, std::vector<char32_t>& out) {
    const auto* pair = std::lower_bound(
        std::begin(kCanonical), std::end(kCanonical), point,
        [](const Canonical& entry, char32_t wanted) { return entry.point < wanted; });
    if (pair != std::end(kCanonical) && pair->point == point) {
      out.push_back(pair->first);
      if (pair->second != 0) out.push_back(pair->second);
      return true;
    }
    if (!compatible) return false;
    if (const char32_t one = map_case(kCompatibleOne, point); one != point) {
      out.push_back(one);
      return true;
    }
    const auto* span = std::lower_bound(
        std::begin(kCompatibleSeveral), std::end(kCompatibleSeveral), point,
        [](const CompatibleSpan& entry, char32_t wanted) { return entry.point < wanted; });
    if (span == std::end(kCompatibleSeveral) || span->point != point) return false;
    out.insert(out.end(), kCompatibleParts + span->begin,
               kCompatibleParts + span->begin + span->size);
    return true;
  }

  void add_expansion(char32_t point, bool compatible) {
    std::vector<char32_t> done, open{point};
    while (!open.empty()) {
      std::vector<char32_t> step;
      const char32_t part = open.back();
      open.pop_back();
      if (split(part, compatible, step)) {
        open.insert(open.end(), step.rbegin(), step.rend());
      } else {
        done.push_back(part);
      }
    }
    Properties& entry = edit(point);
    const char32_t* canonical = parts_.data() + entry.canonical_begin;
    if (compatible && done.size() == entry.canonical_size &&
        std::equal(done.begin(), done.end(), canonical)) {
      return;
    }
    (compatible ? entry.compatible_begin : entry.canonical_begin) =
        static_cast<uint32_t>(parts_.size());
    (compatible ? entry.compatible_size : entry.canonical_size) = static_cast<uint8_t>(done.size());
    parts_.insert(parts_.end(), done.begin(), done.end());
  }

  std::array<uint32_t, 0x1100> pages_{};  // begin of a page in entries_
  std::vector<uint16_t> entries_;         // numbers in properties_
  std::vector<Properties> properties_;    // [0]: a character that nothing is known of
  std::vector<char32_t> parts_;
  std::vector<std::pair<uint64_t, char32_t>> pairs_;  // (first, second) -> composed, sorted
};

class Normalizer {
 public:
  Normalizer(std::string_view text, NormalForm form)
      : text_(text),
        composing_(form == NormalForm::kNfc || form == NormalForm::kNfkc),
        compatible_(form == NormalForm::kNfkc || form == NormalForm::kNfkd) {}

  // Copies what is normal already; from the last character before something that is not, on which
  // nothing before it has influence, goes the long way.
  std::string run() {
    out_.reserve(text_.size());
    size_t copied = 0, boundary = 0;
    uint8_t last_class = 0;
    for (size_t at = 0; at < text_.size();) {
      if (static_cast<uint8_t>(text_[at]) < 0x80) {
        boundary = at++;
        last_class = 0;
        continue;
      }
      const Rune rune = decode_rune(text_, at);
      const uint8_t combining = rune.valid ? data_.of(rune.point).combining_class : 0;
      if (!rune.valid || is_normal(rune.point)) {
        if (combining == 0) boundary = at;
        if (combining == 0 || combining >= last_class) {
          last_class = combining;
          at += rune.size;
          continue;
        }
      }
      out_.append(text_, copied, boundary - copied);
      at = copied = boundary = rewrite(boundary, at);
      last_class = 0;
    }
    return std::move(out_.append(text_, copied));
  }

 private:
  struct Part {
    char32_t point;
    uint8_t combining_class;
  };

  // Whether the form keeps the character whatever stands before it.
  bool is_normal(char32_t point) const {
    const Properties& p = data_.of(point);
    if (compatible_ && p.compatible_size != 0) return false;
    if (!composing_) return p.canonical_size == 0 && !is_syllable(point);
    return (p.canonical_size == 0 || p.composes_again) && !p.combines_backward;
  }

  // Writes text from `at` to behind `until` and on to the next character that begins anew.
  size_t rewrite(size_t at, size_t until) {
    while (at < text_.size()) {
      const Rune rune = decode_rune(text_, at);
      if (at > until &&
          (!rune.valid || (data_.of(rune.point).combining_class == 0 && is_normal(rune.point)))) {
        break;
      }
      if (rune.valid) {
        expand(rune.point);
      } else {
        flush();
        out_.push_back(text_[at]);
      }
      at += rune.size;
    }
    flush();
    return at;
  }

  void expand(char32_t point) {
    if (is_syllable(point)) {
      const uint32_t index = point - kSyllableBase;
      push(kLeadBase + index / (kVowels * kTrails));
      push(kVowelBase + index / kTrails % kVowels);
      if (index % kTrails != 0) push(kTrailBase + index % kTrails);
      return;
    }
    const Properties& p = data_.of(point);
    const bool compatible = compatible_ && p.compatible_size != 0;
    const uint8_t size = compatible ? p.compatible_size : p.canonical_size;
    if (size == 0) return push(point);
    const char32_t* parts = data_.parts(compatible ? p.compatible_begin : p.canonical_begin);
    for (uint8_t i = 0; i < size; ++i) push(parts[i]);
  }

  void push(char32_t point) {
    const Properties& p = data_.of(point);
    if (p.combining_class == 0 && !(composing_ && p.combines_backward)) flush();
    buffer_.push_back({point, p.combining_class});
  }

  void flush() {
    for (size_t begin = 0; begin < buffer_.size();) {
      size_t end = begin;
      while (end < buffer_.size() && buffer_[end].combining_class != 0) ++end;
      sort_marks(begin, end);
      begin = end + 1;
    }
    if (composing_) compose();
    for (const Part& part : buffer_) append_utf8(out_, part.point);
    buffer_.clear();
  }

  // By class, those of one class in their order: by exchanging neighbours where there are few, by
  // counting where there are many.
  void sort_marks(size_t begin, size_t end) {
    constexpr size_t kFew = 16;
    if (end - begin <= kFew) {
      for (size_t i = begin + 1; i < end; ++i) {
        for (size_t k = i; k > begin && buffer_[k - 1].combining_class > buffer_[k].combining_class;
             --k) {
          std::swap(buffer_[k - 1], buffer_[k]);
        }
      }
      return;
    }
    std::array<size_t, 257> places{};
    for (size_t i = begin; i < end; ++i) ++places[buffer_[i].combining_class + size_t{1}];
    for (size_t i = 1; i < places.size(); ++i) places[i] += places[i - 1];
    sorted_.resize(end - begin);
    for (size_t i = begin; i < end; ++i) sorted_[places[buffer_[i].combining_class]++] = buffer_[i];
    std::copy(sorted_.begin(), sorted_.end(), buffer_.begin() + static_cast<ptrdiff_t>(begin));
  }

  void compose() {
    constexpr size_t kNone = SIZE_MAX;
    size_t starter = kNone, kept = 0;
    int last_class = -1;  // of what was kept since the starter; -1: nothing
    for (size_t i = 0; i < buffer_.size(); ++i) {
      const Part part = buffer_[i];
      if (starter != kNone && last_class < static_cast<int>(part.combining_class)) {
        if (const char32_t joined = data_.compose(buffer_[starter].point, part.point)) {
          buffer_[starter].point = joined;
          continue;
        }
      }
      if (part.combining_class == 0) {
        starter = kept;
        last_class = -1;
      } else {
        last_class = part.combining_class;
      }
      buffer_[kept++] = part;
    }
    buffer_.resize(kept);
  }

  const NormalData& data_ = NormalData::get();
  std::string_view text_;
  bool composing_, compatible_;
  std::string out_;
  std::vector<Part> buffer_, sorted_;
};

// Characters whose category has changed since the version of Unicode that counts: they were
// punctuation, marks or letters then.
constexpr char32_t kPunctuationOnce[] = {0x166D, 0x111C9};
constexpr char32_t kMarksOnce[] = {0x1CF2, 0x1CF3};
constexpr char32_t kNonspacingOnce = 0x1734;
constexpr char32_t kNonspacingSince[] = {0x1885, 0x1886, 0xA9BD, 0x111C9};
constexpr char32_t kMarkSince = 0x111C9;

template <size_t N>
bool is_one_of(const char32_t (&list)[N], char32_t point) {
  return std::find(std::begin(list), std::end(list), point) != std::end(list);
}

bool came_after(char32_t point, uint8_t version) {
  const NewerRange* range = find_range(kNewer, point);
  return range != nullptr && range->version > version;
}

bool is_any_mark(char32_t point) {
  if (point < 0x300) return false;
  if (is_one_of(kMarksOnce, point)) return true;
  return is_mark(category_of(point)) && point != kMarkSince && !came_after(point, 9);
}

bool is_nonspacing(char32_t point) {
  if (point < 0x300) return false;
  if (point == kNonspacingOnce) return true;
  return category_of(point) == Category::kMn && !is_one_of(kNonspacingSince, point) &&
         !came_after(point, 8);
}

bool is_control(char32_t point) {
  if (point == '\t' || point == '\n' || point == '\r') return false;
  const Category c = category_of(point);
  if (c == Category::kCc || c == Category::kCo) return true;
  return c == Category::kCf && !came_after(point, 8);
}

bool is_ideograph(char32_t point) {
  static constexpr PointRange kIdeographs[] = {
      {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
      {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  return point >= 0x3400 && find_range(kIdeographs, point) != nullptr;
}

template <typename Drop>
std::string without(std::string_view text, const Drop& drop) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Rune rune = decode_rune(text, at);
    if (!rune.valid || !drop(rune.point)) out.append(text, at, rune.size);
    at += rune.size;
  }
  return out;
}

}  // namespace

std::string normalize_unicode(std::string_view text, NormalForm form) {
  return Normalizer(text, form).run();
}

uint8_t combining_class(char32_t point) { return NormalData::get().of(point).combining_class; }

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Rune rune = decode_rune(text, at);
    if (!rune.valid) {
      out.push_back(text[at]);
    } else if (rune.point == 0x130) {
      out += "i\xCC\x87";
    } else {
      append_utf8(out, to_lower(rune.point));
    }
    at += rune.size;
  }
  return out;
}

std::string remove_marks(std::string_view text) { return without(text, is_any_mark); }

std::string bert_clean(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Rune rune = decode_rune(text, at);
    const size_t begin = at;
    at += rune.size;
    if (rune.point == kReplacement || is_control(rune.point)) continue;
    if (is_white_space(rune.point)) {
      out.push_back(' ');
    } else {
      out.append(text, begin, rune.size);
    }
  }
  return out;
}

std::string bert_space_ideographs(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Rune rune = decode_rune(text, at);
    const bool spaced = rune.valid && is_ideograph(rune.point);
    if (spaced) out.push_back(' ');
    out.append(text, at, rune.size);
    if (spaced) out.push_back(' ');
    at += rune.size;
  }
  return out;
}

std::string bert_strip_accents(std::string_view text) {
  return without(normalize_unicode(text, NormalForm::kNfd), is_nonspacing);
}

bool is_bert_punctuation(char32_t point) {
  if (point < 0x80) {
    return (point >= '!' && point <= '/') || (point >= ':' && point <= '@') ||
           (point >= '[' && point <= '`') || (point >= '{' && point <= '~');
  }
  if (is_one_of(kPunctuationOnce, point)) return true;
  return is_punctuation(category_of(point)) && !came_after(point, 8);
}

}  // namespace pome
