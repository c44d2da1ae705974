// llama.cpp loads what convert writes: ids and perplexity. LLAMA_BIN names the folder of its
// programs.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace pome {
namespace {

TEST(GgufOracle, LlamaCppReadsTalesAndSomeFamilies) {
  const char* llama = std::getenv("LLAMA_BIN");
  if (!llama) GTEST_SKIP() << "LLAMA_BIN does not name a folder with llama.cpp's programs";
  if (std::system("python3 -c 'import gguf, numpy' >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "needs python3 with the packages gguf and numpy";
  const std::string root = POME_SOURCE_DIR, zoo = root + "/models/zoo/";
  const std::string command = root + "/scripts/gguf-compare --llama '" + llama +
                              "' --pome " POME_BINARY_DIR "/bin/pome --types q8_0,q4_k_m " + root +
                              "/models/tales " + zoo + "llama3 " + zoo + "gpt2 " + zoo +
                              "qwen3-moe " + zoo + "gemma3 " + zoo + "deepseek-mla";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace pome
