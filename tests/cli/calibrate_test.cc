// Importance matrices and qualities, from the command line.
#include <gtest/gtest.h>

#include <set>

#include "cli/program.h"
#include "formats/imatrix.h"

namespace pome {
namespace {

using namespace test;

TEST(CalibrateCommand, WritesWhatConvertReads) {
  const TempFolder folder;
  for (const char* form : {"gguf", "dat"}) {
    const std::string out = folder / (std::string("m.") + form);
    const Json report = pome_json(
        {"calibrate", kTales, "-o", out, "--tokens", "300", "--window", "128", "--form", form});
    EXPECT_EQ(report["tokens"], 300);
    EXPECT_EQ(report["weights"], 8 * 7 + 1);
    EXPECT_EQ(report["text_digest"].get<std::string>().size(), 64u);
    const auto matrix = read_imatrix(out);
    ASSERT_TRUE(matrix.ok()) << matrix.status().to_string();
    EXPECT_EQ(matrix->entries.at("blk.7.ffn_down.weight").mean_squares.size(), 768u);
    EXPECT_EQ(matrix->entries.count("token_embd.weight"), 1u);
    const std::string file = folder / (std::string(form) + ".gguf");
    const Json converted = pome_json(
        {"convert", kTales, "-o", file, "--to", "gguf", "--weights", "q4_0", "--imatrix", out});
    EXPECT_EQ(converted["warnings"], Json::array());
    expect_refused({"calibrate", kTales, "-o", out}, 2, {out, "--force"});
  }
  // The same text gives the same bytes, whatever the number of threads.
  pome_json({"calibrate", kTales, "-o", folder / "again", "--tokens", "300", "--window", "128",
             "-t", "1"});
  EXPECT_EQ(slurp(folder / "again"), slurp(folder / "m.gguf"));
}

TEST(CalibrateCommand, RefusesWithNothingLeft) {
  const TempFolder folder;
  const std::string out = folder / "m.gguf";
  expect_refused({"calibrate", folder / "none", "-o", out}, 3, {"none"});
  expect_refused({"calibrate", kTales, "-o", out, "--text", folder / "none.txt"}, 3, {"none.txt"});
  expect_refused({"calibrate", kTales, "-o", out, "--text", kTales + "/model.safetensors"}, 3,
                 {"model.safetensors", "UTF-8"});
  expect_refused({"calibrate", kTales, "-o", out, "--form", "xml"}, 2, {"--form"});
  EXPECT_EQ(folder.names(), std::set<std::string>{});
}

std::vector<std::string> best(const std::string& out) {
  return {"convert",   kTales,      "-o",
          out,         "--weights", "int4",
          "--quality", "best",      "--calibrate-tokens",
          "512",       "--context", "128"};
}

TEST(Quality, SaysWhatItWillTakeAndGoesOnWhereItWasKilled) {
  const TempFolder folder;
  const Ended whole = pome(best(folder / "whole"));
  ASSERT_EQ(whole.code, 0) << show(whole);
  EXPECT_NE(whole.err.find("best quality: 512 tokens through 18 parts"), std::string::npos)
      << whole.err;
  EXPECT_NE(whole.out.find("calibrated       on 512 tokens of the built-in text"),
            std::string::npos);
  // Crashes at chosen system calls: each run gets further than the one before.
  for (const char* fault : {"30:crash", "60:crash", "90:crash"}) {
    EXPECT_EQ(pome(best(folder / "cut"), "", {{"POME_IO_FAULT", fault}}).code, 137) << fault;
    EXPECT_FALSE(exists(folder / "cut"));
  }
  const Ended cut = pome(best(folder / "cut"));
  ASSERT_EQ(cut.code, 0) << show(cut);
  EXPECT_NE(cut.err.find("that an earlier run had finished"), std::string::npos) << cut.err;
  EXPECT_EQ(contents_of(folder / "cut"), contents_of(folder / "whole"));
  EXPECT_EQ(folder.names(), (std::set<std::string>{"cut", "whole"}));
}

}  // namespace
}  // namespace pome
