#include "tokenizer/regex.h"

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

// What Oniguruma and PCRE2 read differently.
bool reads_differently(std::string_view pattern) {
  for (size_t i = 0; i + 1 < pattern.size(); ++i) {
    const std::string_view two = pattern.substr(i, 2);
    if (two == "&&" || two == "\\h" || two == "\\H" || two == "\\R" || two == "\\X" ||
        two == "\\y" || two == "\\Y" || two == "\\K" || two == "\\Z") {
      return true;
    }
    if (pattern[i] == '\\') ++i;
  }
  return false;
}

#endif

}  // namespace

#ifdef POME_PCRE2

Result<std::shared_ptr<const Regex>> compile_regex(const std::string& pattern) {
  if (pattern.size() > kMaxPattern) return refuse(pattern, "is longer than 16384 bytes");
  if (reads_differently(pattern)) return refuse(pattern, "uses what is not supported");
  int error = 0;
  PCRE2_SIZE at = 0;
  // \s, \w and \d mean Unicode. A class inside of a class, which Oniguruma has, is none for PCRE2;
  // published patterns use it only where that makes no difference for the closing bracket.
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr);
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
