// Every type against the `gguf` Python package, bit for bit, on random blocks.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>

#include "block_bytes.h"

namespace pome {
namespace {

using testing::Bytes;

Bytes read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Bytes bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

bool have_gguf() { return std::system("python3 -c 'import gguf, numpy' >/dev/null 2>&1") == 0; }

struct TemporaryFolder {
  std::filesystem::path path;
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "encoding-oracle-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
};

TEST(EncodingOracle, EveryTypeEqualsTheGgufPackage) {
  if (!have_gguf()) GTEST_SKIP() << "needs python3 with the packages gguf and numpy";
  const TemporaryFolder folder;
  std::string command =
      "python3 " POME_SOURCE_DIR "/tests/encoding/gguf_blocks.py " + folder.path.string();
  std::vector<const EncodingTraits*> types;
  for (int k = 0; k < kEncodingKindCount; ++k) {
    const EncodingTraits& type = traits(static_cast<EncodingKind>(k));
    // Quantised types and bf16; the others are the machine's own and tested by hand.
    if (type.block_elements < 2 && type.kind != EncodingKind::kBF16) continue;
    types.push_back(&type);
    command += " " + std::to_string(type.gguf_type);
  }
  ASSERT_EQ(std::system(command.c_str()), 0);

  std::set<int> missing;
  std::ifstream list(folder.path / "missing.txt");
  for (int type; list >> type;) missing.insert(type);
  int compared = 0;
  for (const EncodingTraits* type : types) {
    if (missing.count(type->gguf_type) > 0) {
      std::cout << "the installed gguf package cannot decode " << type->name
                << "; blocks_test and encoding_golden_test cover it\n";
      continue;
    }
    SCOPED_TRACE(type->name);
    const std::string id = std::to_string(type->gguf_type);
    const Bytes blocks = read_bytes(folder.path / (id + ".blocks"));
    const Bytes expected = read_bytes(folder.path / (id + ".f32"));
    const std::vector<float> values = testing::decode_blocks(type->kind, blocks);
    ASSERT_EQ(4 * values.size(), expected.size());
    ASSERT_EQ(values.size(), static_cast<size_t>(type->block_elements) * 400);
    int differ = 0, finite = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      float want;
      std::memcpy(&want, expected.data() + 4 * i, 4);
      finite += std::isfinite(want) ? 1 : 0;
      const bool same = std::isnan(want) ? std::isnan(values[i])
                                         : std::memcmp(&want, &values[i], sizeof want) == 0;
      if (!same && ++differ <= 3)
        ADD_FAILURE() << "value " << i << ": " << values[i] << " v " << want;
    }
    EXPECT_EQ(differ, 0) << "of " << values.size();
    EXPECT_GE(finite, static_cast<int>(values.size() / 2));
    ++compared;
  }
  EXPECT_GE(compared, 20) << "the gguf package is too old to be an oracle";
}

}  // namespace
}  // namespace pome
