// Runs a reader over the same bytes through four kinds of source, which must agree on the verdict.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "base/byte_source.h"

namespace pome::malformed {

inline std::vector<std::byte> bytes_of(std::string_view text) {
  std::vector<std::byte> out(text.size());
  if (!text.empty()) std::memcpy(out.data(), text.data(), text.size());
  return out;
}

// A folder of this test process, removed with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pome-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) ADD_FAILURE() << "cannot make a folder";
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  std::string write(std::string_view name, std::string_view contents) const {
    const std::string path = file(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << contents;
    return path;
  }

 private:
  std::string path_;
};

// {"mapped", source}, {"pread", ...}, {"memory", ...}, {"one byte", ...}
inline std::vector<std::pair<std::string, ByteSourcePtr>> back_ends(const TempFolder& folder,
                                                                    const std::string& bytes) {
  const std::string path = folder.write("bytes", bytes);
  std::vector<std::pair<std::string, ByteSourcePtr>> out;
  auto mapped = open_mapped(path);
  auto plain = open_for_reading(path);
  EXPECT_TRUE(mapped.ok()) << mapped.status().to_string();
  EXPECT_TRUE(plain.ok()) << plain.status().to_string();
  if (mapped.ok()) out.emplace_back("mapped", *mapped);
  if (plain.ok()) out.emplace_back("pread", *plain);
  out.emplace_back("memory", memory_source(bytes_of(bytes), "bytes"));
  out.emplace_back("one byte", one_byte_source(memory_source(bytes_of(bytes), "bytes")));
  return out;
}

// Begins with `head` and goes on with zeros up to `size`: huge files without disk.
class SparseSource final : public ByteSource {
 public:
  SparseSource(std::string head, uint64_t size)
      : ByteSource("sparse", size), head_(std::move(head)) {}
  Status read(uint64_t offset, std::span<std::byte> out) const override {
    if (offset > size() || out.size() > size() - offset) {
      return bad_input(Refusal::kTrunc, "past the end").in(name()).at_offset(offset);
    }
    std::fill(out.begin(), out.end(), std::byte{0});
    if (offset < head_.size()) {
      std::memcpy(out.data(), head_.data() + offset,
                  std::min<size_t>(out.size(), head_.size() - static_cast<size_t>(offset)));
    }
    return {};
  }

 private:
  std::string head_;
};

}  // namespace pome::malformed
