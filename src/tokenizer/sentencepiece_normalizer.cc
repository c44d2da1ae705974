#include "tokenizer/sentencepiece_normalizer.h"

#include <algorithm>
#include <utility>

#include "tokenizer/unicode.h"

namespace pome {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581
constexpr std::string_view kReplaced = "\xEF\xBF\xBD";   // U+FFFD

// The text that is being written, and of each byte whether it came from one of the ranges.
class Output {
 public:
  Output(const std::vector<TextRange>* ranges, size_t size) : ranges_(ranges) {
    text_.reserve(size + size / 2);
  }
  void append(std::string_view part, size_t begin, size_t end) {
    text_ += part;
    if (ranges_ != nullptr) inside_.resize(text_.size(), touches(begin, end));
  }
  // Not from the text.
  void insert(std::string_view part) {
    text_ += part;
    if (ranges_ != nullptr) inside_.resize(text_.size(), false);
  }
  void strip_end(std::string_view part) {
    while (text_.size() >= part.size() && std::string_view(text_).ends_with(part)) {
      text_.resize(text_.size() - part.size());
    }
    if (ranges_ != nullptr) inside_.resize(text_.size());
  }
  std::vector<TextRange> take_ranges() const {
    std::vector<TextRange> out;
    for (size_t i = 0; i < inside_.size(); ++i) {
      if (!inside_[i]) continue;
      if (out.empty() || out.back().end != i) out.push_back({i, i});
      out.back().end = i + 1;
    }
    return out;
  }
  std::string take_text() { return std::move(text_); }

 private:
  bool touches(size_t begin, size_t end) {
    while (next_ < ranges_->size() && (*ranges_)[next_].end <= begin) ++next_;
    return next_ < ranges_->size() && (*ranges_)[next_].begin < end;
  }
  const std::vector<TextRange>* ranges_;
  size_t next_ = 0;
  std::string text_;
  std::vector<bool> inside_;
};

}  // namespace

Result<SentencePieceNormalizer> SentencePieceNormalizer::create(
    const normalizer::SentencePiece& step) {
  SentencePieceNormalizer out;
  out.options_ = step;
  POME_ASSIGN_OR_RETURN(out.map_, CharsMap::parse(step.charsmap));
  out.options_.charsmap.clear();
  std::vector<std::pair<std::string_view, int32_t>> texts;
  for (const std::string& text : out.options_.user_defined) texts.emplace_back(text, 0);
  out.user_defined_ = TokenTrie(std::move(texts));
  return out;
}

SentencePieceNormalizer::Part SentencePieceNormalizer::next_part(std::string_view text) const {
  size_t kept = 0;
  user_defined_.walk(text, [&](size_t size, int32_t) { kept = size; });
  if (kept > 0) return {text.substr(0, kept), kept};
  if (const auto match = map_.longest(text)) return {match->replacement, match->size};
  const Rune rune = decode_rune(text, 0);
  return {rune.valid ? text.substr(0, rune.size) : kReplaced, rune.size};
}

std::string SentencePieceNormalizer::run(std::string_view text,
                                         std::vector<TextRange>* ranges) const {
  const std::string_view space = options_.escape_whitespaces ? kSpaceMark : " ";
  Output out(ranges, text.size());
  size_t at = 0;
  while (options_.remove_extra_whitespaces && at < text.size()) {
    const Part part = next_part(text.substr(at));
    if (part.text != " ") break;
    at += part.size;
  }
  if (at < text.size()) {
    const bool dummy = options_.add_dummy_prefix;
    if (dummy && !options_.treat_whitespace_as_suffix) out.insert(space);
    bool after_space = options_.remove_extra_whitespaces;
    while (at < text.size()) {
      const Part part = next_part(text.substr(at));
      std::string_view rest = part.text;
      while (after_space && rest.starts_with(' ')) rest.remove_prefix(1);
      for (const char& c : rest) {
        out.append(c == ' ' ? space : std::string_view(&c, 1), at, at + part.size);
      }
      if (!rest.empty()) after_space = options_.remove_extra_whitespaces && rest.ends_with(' ');
      at += part.size;
    }
    if (options_.remove_extra_whitespaces) out.strip_end(space);
    if (dummy && options_.treat_whitespace_as_suffix) out.insert(space);
  }
  if (ranges != nullptr) *ranges = out.take_ranges();
  return out.take_text();
}

}  // namespace pome
