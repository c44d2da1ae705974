// A folder of its own for each test, removed at the end.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace pome {

class TempFolder {
 public:
  // `in_memory`: on /dev/shm where there is one, unless TMPDIR names a place.
  explicit TempFolder(bool in_memory = false) {
    std::filesystem::path parent = std::filesystem::temp_directory_path();
    if (in_memory && ::getenv("TMPDIR") == nullptr && ::access("/dev/shm", W_OK) == 0)
      parent = "/dev/shm";
    std::string text = (parent / "pome_test_XXXXXX").string();
    if (::mkdtemp(text.data()) == nullptr) ADD_FAILURE() << "mkdtemp " << text;
    path_ = text;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // Names directly inside, hidden ones too.
  std::set<std::string> names() const {
    std::set<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      out.insert(entry.path().filename().string());
    return out;
  }

 private:
  std::string path_;
};

inline void spit(const std::string& path, const std::string& contents) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << contents;
  ASSERT_TRUE(out.good()) << path;
}
inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return in.good() ? text.str() : "<cannot read " + path + ">";
}

}  // namespace pome
