// llama.cpp loads what convert writes: ids and perplexity. LLAMA_BIN names the folder of its
// programs.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "support/zoo.h"

namespace pome {
namespace {

using namespace test;

// Where llama.cpp differs from the model, with the files of its own converter as well.
const std::map<std::string, std::string>& differs() {
  static const std::map<std::string, std::string> known = {
      {"gpt-oss", "rounds the bounds of YaRN"},
      {"gpt-oss-mxfp4", "rounds the bounds of YaRN"},
      {"deepseek-v2-lite", "knows it by 27 layers"},
  };
  return known;
}
// Tokens up to which readers that leave out a sliding window, or pad to the long rope factors,
// agree.
std::string window_of(const std::string& model) {
  if (model == "mistral" || model == "phi3") return "64";
  return model == "phi3-longrope" ? "256" : "128";
}

class GgufOracle : public testing::TestWithParam<std::string> {
 protected:
  static std::string output_of(const std::string& command) {
    std::string out;
    FILE* pipe = ::popen(command.c_str(), "r");
    if (!pipe) return out;
    char buffer[4096];
    for (size_t got; (got = fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, got);
    ::pclose(pipe);
    return out;
  }
};

// A line of the script: "<model> <type>: 19013 ids equal, perplexity pome 4.1, llama.cpp 4.1
// (-0.021 %), KL 1e-5".
TEST_P(GgufOracle, LlamaCppReadsIt) {
  const char* llama = std::getenv("LLAMA_BIN");
  if (!llama) GTEST_SKIP() << "LLAMA_BIN does not name a folder with llama.cpp's programs";
  if (std::system("python3 -c 'import gguf, numpy' >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "needs python3 with the packages gguf and numpy";
  if (const auto known = differs().find(GetParam()); known != differs().end()) {
    record(GetParam(), "llama.cpp written", known->second);
    GTEST_SKIP() << "llama.cpp " << known->second;
  }
  const std::string lines =
      output_of(POME_SOURCE_DIR "/scripts/gguf-compare --llama '" + std::string(llama) +
                "' --pome " POME_BINARY_DIR "/bin/pome --types q8_0,q4_k_m --window " +
                window_of(GetParam()) + " " + kZoo + GetParam());
  double worst = 0;
  int compared = 0;
  for (size_t at = 0; (at = lines.find("llama.cpp ", at)) != std::string::npos; ++at) {
    const size_t percent = lines.find('(', at);
    if (percent == std::string::npos) break;
    worst = std::max(worst, std::fabs(std::atof(lines.c_str() + percent + 1)) / 100);
    ++compared;
  }
  if (compared == 0) {  // the exporter says which families a file cannot say
    EXPECT_TRUE(GetParam() == "gptneo" || GetParam() == "latent-kv") << lines;
    record(GetParam(), "llama.cpp written", "not in GGUF");
    return;
  }
  EXPECT_EQ(compared, 2) << lines;
  EXPECT_EQ(lines.find("DIFFER"), std::string::npos) << lines;
  EXPECT_LT(worst, 5e-3) << lines;
  record(GetParam(), "llama.cpp written", worst);
}

INSTANTIATE_TEST_SUITE_P(Models, GgufOracle, testing::ValuesIn(zoo_names()), name_of_parameter);

}  // namespace
}  // namespace pome
