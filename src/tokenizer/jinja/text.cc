#include "tokenizer/jinja/text.h"

#include <algorithm>
#include <utility>

namespace pome::jinja {

Text::Text(std::string bytes, bool from_user) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), from_user});
}

void Text::append(std::string_view bytes, bool from_user) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().from_user == from_user) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), from_user});
  }
}

void Text::append(const Text& other) { append(other, 0, other.size()); }

void Text::append(const Text& other, size_t begin, size_t end) {
  const std::string_view all(other.bytes_);
  for (size_t run = other.run_at(begin); begin < end; ++run) {
    const size_t to = std::min(end, other.runs_[run].end);
    append(all.substr(begin, to - begin), other.runs_[run].from_user);
    begin = to;
  }
}

Text Text::slice(size_t begin, size_t end) const {
  Text out;
  out.append(*this, begin, end);
  return out;
}

bool Text::is_user_at(size_t at) const { return runs_[run_at(at)].from_user; }

size_t Text::run_at(size_t at) const {
  const auto found = std::partition_point(runs_.begin(), runs_.end(),
                                          [at](const Run& run) { return run.end <= at; });
  return static_cast<size_t>(found - runs_.begin());
}

}  // namespace pome::jinja
