#include "tokenizer/regex.h"

#include <optional>

#include "tokenizer/unicode.h"

#ifdef POME_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif

namespace pome {
namespace {

Status refuse(std::string_view pattern, std::string why) {
  return Status(StatusCode::kUnsupported,
                "pattern \"" + escape_for_terminal(pattern, 120) + "\" " + std::move(why),
                Refusal::kRegex);
}

#ifdef POME_PCRE2

constexpr size_t kMaxPattern = 16384;
constexpr uint32_t kMatchLimit = 1000000, kDepthLimit = 100000, kHeapKilobytes = 65536;

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct FreeData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

class PcreRegex final : public Regex {
 public:
  PcreRegex(pcre2_code* code, pcre2_match_context* context) : code_(code), context_(context) {}

  void find_all(std::string_view text, std::vector<TextSpan>& out) const override {
    out.clear();
    // PCRE2 wants well-formed text; elsewhere U+FFFD stands for what is not, so here as well. A
    // byte of its own keeps the offsets.
    const std::string copy = well_formed(text);
    const std::string_view subject = copy.empty() ? text : std::string_view(copy);
    const std::unique_ptr<pcre2_match_data, FreeData> data(pcre2_match_data_create(1, nullptr));
    if (!data) return;
    const auto* bytes = reinterpret_cast<PCRE2_SPTR>(subject.data());
    size_t at = 0;
    while (at <= subject.size()) {
      const int found = pcre2_match(code_.get(), bytes, subject.size(), at, PCRE2_NO_UTF_CHECK,
                                    data.get(), context_.get());
      if (found < 0) return;
      const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
      const TextSpan match{ends[0], ends[1]};
      if (match.begin > match.end || match.begin < at) return;
      // No match of nothing directly behind another match.
      if (match.begin == match.end && !out.empty() && out.back().end == match.end) {
        if (at >= subject.size()) return;
        at += decode_rune(subject, at).size;
        continue;
      }
      out.push_back(match);
      at = match.end;
    }
  }

 private:
  static std::string well_formed(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size();) {
      const Rune rune = decode_rune(text, i);
      if (!rune.valid) {
        if (out.empty()) out = text;
        out[i] = '\x01';
      }
      i += rune.size;
    }
    return out;
  }

  std::unique_ptr<pcre2_code, FreeCode> code_;
  std::unique_ptr<pcre2_match_context, FreeContext> context_;
};

// The members of a class of characters, in PCRE2's words.
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}\x{24B6}-\x{24E9})"
    R"(\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";
constexpr std::string_view kSpace = R"(\t-\r\x{85}\p{Z})";

// A pattern in Oniguruma's language (Ruby's) as PCRE2 reads it: the shorthands \w and \s mean other
// characters there, and a class inside of a class is none.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  // nullopt: it uses what the two read differently.
  std::optional<std::string> run() {
    while (at_ < in_.size()) {
      if (!(in_[at_] == '\\' ? escape() : depth_ > 0 ? member() : outside())) return std::nullopt;
    }
    return std::move(out_);
  }

 private:
  bool starts(std::string_view text) const { return in_.substr(at_, text.size()) == text; }
  bool copy(size_t size) {
    out_ += in_.substr(at_, size);
    at_ += size;
    return true;
  }
  bool put(std::string_view text) {
    out_ += text;
    at_ += 2;
    return true;
  }

  bool escape() {
    if (at_ + 1 >= in_.size()) return false;
    const char c = in_[at_ + 1];
    const std::string word(kWord), space(kSpace);
    if (std::string_view("hHRXyYKZGKNOC").find(c) != std::string_view::npos) return false;
    if ((c == 'p' || c == 'P' || c == 'x') && at_ + 2 < in_.size() && in_[at_ + 2] == '{') {
      const size_t end = in_.find('}', at_);
      return end != std::string_view::npos && copy(end + 1 - at_);
    }
    if (depth_ > 0) {
      if (c == 'w') return put(word);
      if (c == 's') return put(space);
      return c != 'W' && c != 'S' && c != 'b' && copy(2);
    }
    if (c == 'w') return put("[" + word + "]");
    if (c == 'W') return put("[^" + word + "]");
    if (c == 's') return put("[" + space + "]");
    if (c == 'S') return put("[^" + space + "]");
    const std::string in = "[" + word + "]";
    if (c == 'b') return put("(?:(?<=" + in + ")(?!" + in + ")|(?<!" + in + ")(?=" + in + "))");
    if (c == 'B') return put("(?:(?<=" + in + ")(?=" + in + ")|(?<!" + in + ")(?!" + in + "))");
    return copy(2);
  }
  bool member() {
    if (starts("&&")) return false;
    if (starts("[:")) return copy(2);
    if (in_[at_] == '[') {  // its members are members of the outer one
      if (starts("[^")) return false;
      ++depth_;
      ++at_;
      return true;
    }
    if (in_[at_] != ']') return copy(1);
    if (at_ > 0 && in_[at_ - 1] == ':') return copy(1);  // the end of [:name:]
    --depth_;
    if (depth_ > 0) {
      ++at_;
      return true;
    }
    return copy(1);
  }
  bool outside() {
    if (starts("(?m") || starts("(?s") || starts("(?a") || starts("(?u") || starts("(?y")) {
      return false;  // options of other meaning
    }
    if (starts("}+") || starts("}?")) return false;  // neither possessive nor lazy in Ruby
    if (in_[at_] != '[') return copy(1);
    ++depth_;
    copy(1);
    if (at_ < in_.size() && in_[at_] == '^') copy(1);
    return at_ >= in_.size() || in_[at_] != ']' || copy(1);  // a first ']' is a member
  }

  std::string_view in_;
  std::string out_;
  size_t at_ = 0;
  int depth_ = 0;  // of classes
};

#endif

}  // namespace

#ifdef POME_PCRE2

Result<std::shared_ptr<const Regex>> compile_regex(const std::string& pattern) {
  if (pattern.size() > kMaxPattern) return refuse(pattern, "is longer than 16384 bytes");
  const auto translated = Translator(pattern).run();
  if (!translated) return refuse(pattern, "uses what is not supported");
  int error = 0;
  PCRE2_SIZE at = 0;
  // As in Ruby, ^ and $ match at every line.
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[120] = {};
    pcre2_get_error_message(error, message, sizeof message);
    return refuse(pattern, "does not compile: " + std::string(reinterpret_cast<char*>(message)) +
                               " (at byte " + std::to_string(at) + ")");
  }
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  auto regex = std::make_shared<PcreRegex>(code, context);
  if (context == nullptr) return refuse(pattern, "needs more memory than there is");
  pcre2_set_match_limit(context, kMatchLimit);
  pcre2_set_depth_limit(context, kDepthLimit);
  pcre2_set_heap_limit(context, kHeapKilobytes);
  return std::shared_ptr<const Regex>(std::move(regex));
}

#else

Result<std::shared_ptr<const Regex>> compile_regex(const std::string& pattern) {
  return refuse(pattern, "is not known, and this build has no library for others");
}

#endif

}  // namespace pome
