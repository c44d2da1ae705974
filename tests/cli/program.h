// The program under test, its model, and what every call of it must keep to.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/temp_folder.h"
#include "support/child.h"

namespace pome::test {

inline const std::string kTales = POME_SOURCE_DIR "/models/tales";
inline const std::string kShared = POME_SOURCE_DIR "/../shared";

inline bool exists(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

inline std::vector<std::string> command(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), POME_PROGRAM);
  return arguments;
}
inline Ended pome(std::vector<std::string> arguments, const std::string& input = "",
                  const Child::Environment& environment = {}) {
  return run_program(command(std::move(arguments)), input, environment);
}
inline std::string show(const Ended& ended) {
  return "exit " + std::to_string(ended.code) + " signal " + std::to_string(ended.signal) +
         "\nstdout: " + ended.out.substr(0, 2000) + "\nstderr: " + ended.err.substr(0, 2000);
}
// One JSON object on one line, and nothing else.
inline Json json_of(const Ended& ended) {
  auto parsed = parse_json(ended.out, "stdout");
  EXPECT_TRUE(parsed.ok()) << parsed.status().to_string() << "\n" << show(ended);
  return parsed.ok() ? *parsed : Json();
}
// The call succeeds, says nothing on stderr, and gives out one JSON object.
inline Json pome_json(std::vector<std::string> arguments, const std::string& input = "") {
  arguments.push_back("--json");
  const Ended ended = pome(arguments, input);
  EXPECT_EQ(ended.code, 0) << show(ended);
  EXPECT_EQ(ended.err, "") << show(ended);
  return json_of(ended);
}
inline void expect_keys(const Json& object, const std::vector<std::string>& keys) {
  for (const std::string& key : keys)
    EXPECT_TRUE(object.contains(key)) << key << " in " << object.dump().substr(0, 500);
}
// The call is refused with this code, nothing on stdout, and a message that holds `words`.
inline void expect_refused(std::vector<std::string> arguments, int code,
                           const std::vector<std::string>& words, const std::string& input = "") {
  const Ended ended = pome(std::move(arguments), input);
  EXPECT_EQ(ended.code, code) << show(ended);
  EXPECT_EQ(ended.out, "") << show(ended);
  for (const std::string& word : words)
    EXPECT_NE(ended.err.find(word), std::string::npos) << word << " in\n" << show(ended);
  EXPECT_LT(ended.err.size(), 2000u) << show(ended);
}

// Relative path -> contents of every file below.
inline std::map<std::string, std::string> contents_of(const std::string& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.is_regular_file())
      out[std::filesystem::relative(entry.path(), folder).string()] = slurp(entry.path().string());
  return out;
}

// One artefact of the embedded model for all tests of this program that only read it.
inline const std::string& tales_artefact() {
  static const TempFolder folder;
  static const std::string path = [] {
    const std::string out = folder / "tales-int4";
    const Ended ended = pome({"convert", kTales, "-o", out, "--weights", "int4", "-t", "2"});
    EXPECT_EQ(ended.code, 0) << show(ended);
    return out;
  }();
  return path;
}

}  // namespace pome::test
