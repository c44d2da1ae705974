// Helpers of the tokenizer tests.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "base/byte_source.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "formats/tokenizer_json.h"
#include "tokenizer/tokenizer.h"

namespace pome {

using TokenizerPtr = std::shared_ptr<const Tokenizer>;
using Ids = std::vector<int32_t>;

inline std::string shared_path(const std::string& path) {
  return std::string(POME_SOURCE_DIR) + "/../shared/" + path;
}
inline bool is_there(const std::string& path) { return std::ifstream(path).good(); }

inline std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// null with a failed expectation when it cannot be built.
inline TokenizerPtr build(Result<TokenizerSource> source) {
  EXPECT_TRUE(source.ok()) << source.status().to_string();
  if (!source.ok()) return nullptr;
  auto tokenizer = Tokenizer::create(*std::move(source));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().to_string();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

inline TokenizerPtr load_hf(const std::string& folder) {
  const auto config = read_json_file(folder + "/config.json");
  const auto generation = read_json_file(folder + "/generation_config.json");
  return build(read_hf_tokenizer(folder, config.ok() ? *config : Json(),
                                 generation.ok() ? *generation : Json()));
}

inline TokenizerPtr load_gguf(const std::string& path) {
  auto source = open_mapped(path);
  EXPECT_TRUE(source.ok()) << source.status().to_string();
  if (!source.ok()) return nullptr;
  const auto file = read_gguf(*source);
  EXPECT_TRUE(file.ok()) << file.status().to_string();
  if (!file.ok()) return nullptr;
  return build(read_gguf_tokenizer(*file));
}

}  // namespace pome

#define POME_NEED(path) \
  if (!::pome::is_there(path)) GTEST_SKIP() << "not there: " << (path)
