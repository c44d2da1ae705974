// Text: bytes that know their origin, so that what a user typed stays told apart from what a
// template wrote through every operation on strings.
//
// Thread safety: a value.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace pome::jinja {

class Text {
 public:
  struct Run {
    size_t end = 0;  // the run reaches from the end of the one before to here
    bool from_user = false;
  };
  Text() = default;
  explicit Text(std::string bytes, bool from_user = false);

  const std::string& bytes() const { return bytes_; }
  const std::vector<Run>& runs() const { return runs_; }
  bool empty() const { return bytes_.empty(); }
  size_t size() const { return bytes_.size(); }
  void append(const Text& other);
  void append(std::string_view bytes, bool from_user);
  void append(const Text& other, size_t begin, size_t end);  // a part of it
  Text slice(size_t begin, size_t end) const;                // begin <= end <= size()
  bool is_user_at(size_t at) const;                          // of the byte there

 private:
  size_t run_at(size_t at) const;  // index of the run that holds the byte
  std::string bytes_;
  std::vector<Run> runs_;
};

}  // namespace pome::jinja
