// Holds the tensor lists against the Python packages gguf and safetensors: name, shape, bytes and
// where they lie.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>

#include "formats/checkpoint.h"

namespace pome {
namespace {

constexpr const char* kGgufScript = R"(
import sys, gguf
for t in gguf.GGUFReader(sys.argv[1]).tensors:
    print(t.name, *[int(d) for d in reversed(t.shape)], '@', int(t.data_offset), int(t.n_bytes))
)";
constexpr const char* kSafetensorsScript = R"(
import json, struct, sys
from safetensors import safe_open
with safe_open(sys.argv[1], 'np') as f:
    names = set(f.keys())
raw = open(sys.argv[1], 'rb')
n = struct.unpack('<Q', raw.read(8))[0]
header = json.loads(raw.read(n))
header.pop('__metadata__', None)
assert set(header) == names
for name, t in header.items():
    a, b = t['data_offsets']
    print(name, *t['shape'], '@', 8 + n + a, b - a)
)";

bool has_python(const std::string& module) {
  return std::system(("python3 -c 'import " + module + "' >/dev/null 2>&1").c_str()) == 0;
}

// Runs the script that the environment variable POME_SCRIPT holds.
std::set<std::string> lines_of(const std::string& path) {
  std::set<std::string> lines;
  FILE* pipe = popen(("python3 -c \"$POME_SCRIPT\" '" + path + "'").c_str(), "r");
  std::string text;
  char buffer[4096];
  while (pipe && std::fgets(buffer, sizeof(buffer), pipe)) text += buffer;
  EXPECT_TRUE(pipe != nullptr && pclose(pipe) == 0) << path;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.insert(line);
  return lines;
}

std::set<std::string> own_lines(const Checkpoint& checkpoint) {
  std::set<std::string> lines;
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    std::string line = tensor.name;
    for (const int64_t dim : tensor.shape) line += " " + std::to_string(dim);
    lines.insert(line + " @ " + std::to_string(tensor.offset) + " " + std::to_string(tensor.bytes));
  }
  return lines;
}

void compare(const std::string& ending, const char* script) {
  const std::filesystem::path root =
      std::filesystem::path(POME_SOURCE_DIR) / "../shared/data/models";
  if (!std::filesystem::exists(root)) GTEST_SKIP() << "the models of shared/data are not here";
  ASSERT_EQ(setenv("POME_SCRIPT", script, 1), 0);
  size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().extension() != ending) continue;
    ++files;
    const auto checkpoint = open_checkpoint(entry.path().string());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    EXPECT_EQ(own_lines(*checkpoint), lines_of(entry.path().string())) << entry.path();
  }
  EXPECT_GT(files, 0u);
}

TEST(CheckpointOracle, ListsTheTensorsThatTheGgufPackageLists) {
  if (!has_python("gguf")) GTEST_SKIP() << "python3 has no module gguf";
  compare(".gguf", kGgufScript);
}

TEST(CheckpointOracle, ListsTheTensorsThatTheSafetensorsPackageLists) {
  if (!has_python("safetensors")) GTEST_SKIP() << "python3 has no module safetensors";
  compare(".safetensors", kSafetensorsScript);
}

}  // namespace
}  // namespace pome
