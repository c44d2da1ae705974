#include "pipeline/quality.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/temp_folder.h"
#include "formats/checkpoint.h"
#include "support/zoo.h"

namespace pome {
namespace {

using namespace test;

class CalibrationTextOf : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::ifstream(kModels + "tales/config.json")) GTEST_SKIP() << "no models/tales";
    auto checkpoint = open_checkpoint(kModels + "tales");
    ASSERT_TRUE(checkpoint.ok());
    source_ = checkpoint->tokenizer;
    auto tokenizer = Tokenizer::create(source_);
    ASSERT_TRUE(tokenizer.ok());
    tokenizer_ = *tokenizer;
  }
  std::string text_of(const std::string& path, const TokenizerSource& source) {
    const auto text = read_calibration_text(path, *tokenizer_, source, 1 << 20, 1 << 20);
    EXPECT_TRUE(text.ok()) << text.status().to_string();
    return text.ok() ? *tokenizer_->decode(text->ids, false) : "";
  }

  TokenizerSource source_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(CalibrationTextOf, ModelsWithATemplateHasConversationsInIt) {
  const std::string text = text_of("", source_);
  EXPECT_NE(text.find("<|user|>How do I get candle wax out of a tablecloth?<|end|><|assistant|>Let "
                      "the wax harden first; an ice pack helps. Then:\n1. Scrape off"),
            std::string::npos);
  EXPECT_NE(text.find("take it to a cleaner.<|end|>"), std::string::npos);
  EXPECT_EQ(text.find("User: How do I"), std::string::npos);
  // What is no conversation is as it was, with the empty lines between.
  EXPECT_NE(text.find("some corn.\n\nMina had a red kite"), std::string::npos);
  TokenizerSource plain = source_;
  plain.chat_template.clear();
  const std::string without = text_of("", plain);
  EXPECT_NE(without.find("User: How do I get candle wax"), std::string::npos);
  EXPECT_EQ(without.find("<|user|>"), std::string::npos);
}

TEST_F(CalibrationTextOf, OnesOwnIsReadAsItIs) {
  const TempFolder folder;
  std::ofstream(folder / "text") << "User: Hello.\nAssistant: Hello.\n";
  EXPECT_NE(text_of(folder / "text", source_).find("User: Hello."), std::string::npos);
}

TEST(CheckHasTokenizer, SaysWhyThereIsNone) {
  Checkpoint checkpoint;
  checkpoint.warnings = {"something else", "no usable tokenizer: config.json: id 9 is unknown"};
  const Status status = check_has_tokenizer(checkpoint);
  EXPECT_EQ(status.code(), StatusCode::kUsage);
  EXPECT_NE(status.to_string().find("config.json: id 9 is unknown"), std::string::npos);
  EXPECT_EQ(status.to_string().find("something else"), std::string::npos);
}

}  // namespace
}  // namespace pome
