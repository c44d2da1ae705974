// Which parts of a text came from a user, carried through rewritings of the text: special tokens
// are not looked for there.
//
// Thread safety: one thread.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace pome {

// Builds the rewritten form of a text from front to back and finds where `ranges` (sorted, not
// overlapping) of the text go. A replacement of what a range touches belongs to the range.
class RangeWriter {
 public:
  RangeWriter(std::string_view text, const std::vector<TextRange>& ranges)
      : text_(text), ranges_(ranges) {
    out_.reserve(text.size() + text.size() / 8 + 16);
  }

  // text[begin, end) as it is; begin is where the last call ended, or behind it.
  void copy(size_t begin, size_t end) {
    if (begin == end) return;
    skip_to(begin);
    const size_t base = out_.size();
    out_.append(text_.substr(begin, end - begin));
    for (size_t i = next_; i < ranges_.size() && ranges_[i].begin < end; ++i) {
      mark(base + std::max(ranges_[i].begin, begin) - begin,
           base + std::min(ranges_[i].end, end) - begin);
    }
  }
  // `with` in place of text[begin, end), which may be empty.
  void replace(size_t begin, size_t end, std::string_view with) {
    skip_to(begin);
    const size_t base = out_.size();
    out_.append(with);
    if (next_ == ranges_.size()) return;
    const bool inside = begin == end ? ranges_[next_].begin < begin : ranges_[next_].begin < end;
    if (inside) mark(base, out_.size());
  }

  std::string take_text() { return std::move(out_); }
  std::vector<TextRange> take_ranges() { return std::move(mapped_); }

 private:
  void skip_to(size_t at) {
    while (next_ < ranges_.size() && ranges_[next_].end <= at) ++next_;
  }
  void mark(size_t begin, size_t end) {
    if (begin == end) return;
    if (!mapped_.empty() && mapped_.back().end >= begin) {
      mapped_.back().end = std::max(mapped_.back().end, end);
    } else {
      mapped_.push_back({begin, end});
    }
  }

  std::string_view text_;
  const std::vector<TextRange>& ranges_;
  size_t next_ = 0;  // the first range that ends behind what was written
  std::string out_;
  std::vector<TextRange> mapped_;
};

}  // namespace pome
