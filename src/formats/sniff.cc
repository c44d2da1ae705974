#include "formats/sniff.h"

#include <algorithm>
#include <cctype>
#include <string_view>

namespace pome {
namespace {

constexpr uint64_t kPeekBytes = 512;
constexpr uint64_t kShortTextBytes = 4096;  // a longer text is not an error message of a server

std::string peek(const ByteSource& source) {
  std::string head(static_cast<size_t>(std::min(source.size(), kPeekBytes)), '\0');
  if (!source.read(0, std::as_writable_bytes(std::span(head))).ok()) return {};
  return head;
}

bool is_text(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return (u >= 0x20 && u != 0x7f) || u == '\n' || u == '\r' || u == '\t';
  });
}

bool starts_with_ignoring_case(std::string_view text, std::string_view lower) {
  if (text.size() < lower.size()) return false;
  return std::equal(lower.begin(), lower.end(), text.begin(), [](char a, char b) {
    return a == static_cast<char>(std::tolower(static_cast<unsigned char>(b)));
  });
}

}  // namespace

Status check_not_placeholder(const ByteSource& source) {
  const std::string head = peek(source);
  std::string_view text = head;
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) {
    text.remove_prefix(1);
  }
  const auto refuse = [&](std::string message, std::string_view hint) {
    return Status(
        bad_input(Refusal::kMagic, std::move(message)).in(source.name()).at_offset(0).hint(hint));
  };
  const std::string size = std::to_string(source.size()) + " bytes";
  if (text.starts_with("version https://git-lfs.github.com/spec/")) {
    return refuse("this is a Git LFS pointer (" + size + "), not the weights",
                  "download the real file, for example with `git lfs pull`");
  }
  if (starts_with_ignoring_case(text, "<!doctype") || starts_with_ignoring_case(text, "<html") ||
      starts_with_ignoring_case(text, "<?xml")) {
    return refuse("this is a web page (" + size + ") saved under the name of the weights",
                  "the download failed; fetch the file again");
  }
  if (text.size() < 4 || !is_text(text)) return {};
  if (text.front() == '{' || text.front() == '[') {
    return refuse(
        "this is a JSON text (" + size + "), not weights: " + escape_for_terminal(text, 80),
        "the download failed; fetch the file again");
  }
  const bool ascii = std::all_of(text.begin(), text.end(),
                                 [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (ascii && source.size() <= kShortTextBytes && text.find(' ') != std::string_view::npos) {
    return refuse("this is a text (" + size + "), not weights: " + escape_for_terminal(text, 80),
                  "the download failed; fetch the file again");
  }
  return {};
}

std::string foreign_format(const ByteSource& source) {
  const std::string head = peek(source);
  const std::string_view text = head;
  if (text.starts_with(std::string_view("PK\x03\x04", 4)))
    return "a zip archive (a PyTorch checkpoint has this form)";
  if (text.starts_with(std::string_view("\x80\x02\x8a", 3)) ||
      text.starts_with(std::string_view("\x80\x02}", 3)) || text.starts_with("\x80\x04\x95")) {
    return "a Python pickle";
  }
  if (text.starts_with("\x93NUMPY")) return "a NumPy array";
  if (text.starts_with("\x89HDF\r\n")) return "an HDF5 file";
  if (text.size() > 8 && text.substr(4, 4) == "TFL3") return "a TensorFlow Lite model";
  return {};
}

Status with_file_hint(Status status) {
  if (status.ok() || !status.hint().empty()) return status;
  return std::move(status).hint(status.refusal() == Refusal::kTrunc
                                    ? "the file is not complete; fetch it again"
                                    : "the file is damaged or was written by a faulty tool; fetch "
                                      "or convert it again");
}

}  // namespace pome
