// Holds the tensor lists against the Python packages gguf and safetensors: name, shape, bytes and
// where they lie.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>

#include "formats/checkpoint.h"
#include "malformed/back_ends.h"

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

// Tensors of the first file, in parts of three tensors: by the splitting writer of the gguf
// package.
constexpr const char* kSplitScript = R"(
import sys, gguf
r = gguf.GGUFReader(sys.argv[1])
w = gguf.GGUFWriter(None, 'llama', split_max_tensors=3)
for t in r.tensors:
    w.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
import os, pathlib
w.write_header_to_file(pathlib.Path(os.environ['POME_OUT']))
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
)";

std::vector<std::byte> bytes_of(const CheckpointTensor& tensor) {
  std::vector<std::byte> out(static_cast<size_t>(tensor.bytes));
  EXPECT_TRUE(tensor.source->read(tensor.offset, out).ok()) << tensor.name;
  return out;
}

TEST(CheckpointOracle, JoinsWhatTheGgufPackageHasSplit) {
  if (!has_python("gguf")) GTEST_SKIP() << "python3 has no module gguf";
  const std::string whole = std::string(POME_SOURCE_DIR) +
                            "/../shared/data/models/tinystories-656k-gguf/"
                            "TinyStories-656K-Q8_0.gguf";
  if (!std::filesystem::exists(whole)) GTEST_SKIP() << "the models of shared/data are not here";
  const malformed::TempFolder folder;
  ASSERT_EQ(setenv("POME_OUT", folder.file("m.gguf").c_str(), 1), 0);
  ASSERT_EQ(setenv("POME_SCRIPT", kSplitScript, 1), 0);
  lines_of(whole);
  const auto original = open_checkpoint(whole);
  ASSERT_TRUE(original.ok()) << original.status().to_string();
  const size_t parts = (original->tensors.size() + 2) / 3;
  ASSERT_GT(parts, 3u);
  char name[64];
  std::snprintf(name, sizeof(name), "m-%05zu-of-%05zu.gguf", parts - 1, parts);
  for (const std::string& path : {folder.path(), folder.file(name)}) {
    const auto split = open_checkpoint(path);
    ASSERT_TRUE(split.ok()) << split.status().to_string();
    ASSERT_EQ(split->tensors.size(), original->tensors.size());
    EXPECT_EQ(split->gguf["general.architecture"], "llama");
    for (const CheckpointTensor& tensor : original->tensors) {
      const CheckpointTensor* other = split->find(tensor.name);
      ASSERT_NE(other, nullptr) << tensor.name;
      EXPECT_EQ(other->shape, tensor.shape);
      EXPECT_EQ(other->encoding, tensor.encoding);
      EXPECT_TRUE(bytes_of(*other) == bytes_of(tensor)) << tensor.name;
    }
  }
}

}  // namespace
}  // namespace pome
