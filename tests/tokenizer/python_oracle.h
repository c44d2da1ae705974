// Runs a Python script on JSON input, for tests against reference implementations.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "base/json.h"

namespace pome {

inline bool python_has(const std::string& package) {
  return std::system(("python3 -c 'import " + package + "' >/dev/null 2>&1").c_str()) == 0;
}

// The script reads JSON from the file sys.argv[1] and writes JSON to sys.argv[2]. Null on failure.
inline Json run_python_file(const std::string& script, const Json& input) {
  static int count = 0;
  const std::string base = testing::TempDir() + "pome_oracle_" + std::to_string(getpid()) + "_" +
                           std::to_string(count++);
  std::ofstream(base + ".in") << dump_json(input);
  const std::string command = "python3 -B \"" + script + "\" " + base + ".in " + base + ".out";
  Json output;
  if (std::system(command.c_str()) == 0) {
    auto json = read_json_file(base + ".out");
    EXPECT_TRUE(json.ok()) << json.status().to_string();
    if (json.ok()) output = *std::move(json);
  } else {
    ADD_FAILURE() << "the reference script failed";
  }
  for (const char* ending : {".in", ".out"}) std::remove((base + ending).c_str());
  return output;
}

inline Json run_python(const std::string& script, const Json& input) {
  static int count = 0;
  const std::string path = testing::TempDir() + "pome_script_" + std::to_string(getpid()) + "_" +
                           std::to_string(count++) + ".py";
  std::ofstream(path) << script;
  const Json output = run_python_file(path, input);
  std::remove(path.c_str());
  return output;
}

}  // namespace pome

#define POME_NEED_PYTHON(package) \
  if (!::pome::python_has(package)) GTEST_SKIP() << "no Python package " << (package)
