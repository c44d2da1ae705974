#include "base/status.h"

#include <gtest/gtest.h>

#include "base/byte_source.h"
#include "base/checked.h"

namespace pome {
namespace {

TEST(Status, CarriesWhatEachLevelKnows) {
  Status status = bad_input(Refusal::kBounds, "expected 4, found 5");
  status = std::move(status).at_offset(12).in("inner.bin").in("outer.bin").hint("download again");
  EXPECT_EQ(status.code(), StatusCode::kBadInput);
  EXPECT_EQ(status.refusal(), Refusal::kBounds);
  EXPECT_EQ(status.file(), "inner.bin");
  EXPECT_EQ(status.offset(), 12u);
  EXPECT_EQ(status.to_string(), "inner.bin: offset 12: expected 4, found 5; download again");
  EXPECT_TRUE(ok_status().ok());
  EXPECT_EQ(ok_status().to_string(), "ok");
}

TEST(Status, TextFromFilesCannotSteerATerminal) {
  const Status status = bad_input(Refusal::kType, "name \x1b[31m\x07\xC2\x9B end\xFF");
  const std::string text = status.to_string();
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_NE(text.find("\\x1b[31m\\x07"), std::string::npos);
  EXPECT_TRUE(is_valid_utf8(text));
  // One line, whatever a file is called.
  EXPECT_EQ(missing("a\nb").in("new\nline").to_string(), "new\\nline: a\\nb");
  EXPECT_EQ(escape_for_terminal("abcdef", 3), "abc...");
  EXPECT_EQ(escape_for_terminal("\xE2\x82\xAC"), "\xE2\x82\xAC");
}

Result<int> half(int value) {
  if (value % 2 != 0) return bad_input(Refusal::kRange, "odd");
  return value / 2;
}
Result<int> quarter(int value) {
  POME_ASSIGN_OR_RETURN(const int once, half(value));
  POME_ASSIGN_OR_RETURN(const int twice, half(once));
  return twice;
}

TEST(Result, Propagates) {
  EXPECT_EQ(*quarter(12), 3);
  EXPECT_EQ(quarter(6).status().refusal(), Refusal::kRange);
  EXPECT_TRUE(quarter(4).status().ok());
}

TEST(Checked, EdgesOfTheTypes) {
  EXPECT_EQ(checked_add<uint64_t>(UINT64_MAX, 1), std::nullopt);
  EXPECT_EQ(checked_add<uint64_t>(UINT64_MAX - 1, 1), UINT64_MAX);
  EXPECT_EQ(checked_mul<int64_t>(INT64_MAX, 2), std::nullopt);
  EXPECT_EQ((checked_mul<uint64_t>(uint64_t{1} << 32, uint64_t{1} << 32)), std::nullopt);
  EXPECT_EQ((checked_cast<int8_t>(128)), std::nullopt);
  EXPECT_EQ((checked_cast<int8_t>(-128)), int8_t{-128});
  EXPECT_EQ((checked_cast<uint64_t>(int64_t{-1})), std::nullopt);
  EXPECT_EQ((checked_cast<int64_t>(UINT64_MAX)), std::nullopt);
  EXPECT_EQ(checked_align(UINT64_MAX, 64), std::nullopt);
  EXPECT_EQ(checked_align(65, 64), 128u);
  EXPECT_EQ(checked_align(64, 64), 64u);
  EXPECT_TRUE(span_fits(10, 0, 10));
  EXPECT_FALSE(span_fits(11, 0, 10));
  EXPECT_FALSE(span_fits(UINT64_MAX, 2, 10));
  EXPECT_FALSE(span_fits(5, UINT64_MAX, 10));
}

TEST(Status, ExitCodes) {
  const std::pair<StatusCode, int> kExpected[] = {
      {StatusCode::kOk, 0},           {StatusCode::kGateFailed, 1},  {StatusCode::kUsage, 2},
      {StatusCode::kExists, 2},       {StatusCode::kBadInput, 3},    {StatusCode::kMissing, 3},
      {StatusCode::kDoesNotFit, 4},   {StatusCode::kUnsupported, 5}, {StatusCode::kUnavailable, 6},
      {StatusCode::kInterrupted, 130}};
  for (const auto& [code, expected] : kExpected) EXPECT_EQ(exit_code(code), expected);
}

}  // namespace
}  // namespace pome
