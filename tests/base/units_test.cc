#include "base/units.h"

#include <gtest/gtest.h>

namespace pome {
namespace {

TEST(Units, SizesAsPeopleWriteThem) {
  const std::pair<const char*, uint64_t> good[] = {{"3GB", 3'000'000'000},
                                                   {"1.5 GB", 1'500'000'000},
                                                   {"800MB", 800'000'000},
                                                   {"4096", 4096},
                                                   {"2GiB", 2147483648},
                                                   {"0.5kB", 500},
                                                   {"12 B", 12}};
  for (const auto& [text, bytes] : good) {
    const auto parsed = parse_bytes(text, "--budget");
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
  for (const char* text :
       {"", "GB", "-1GB", "1..5GB", "3 giga", "1e9", "0", "99999999999999999999TB", "3GB ", "."}) {
    const auto parsed = parse_bytes(text, "--budget");
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.status().code(), StatusCode::kUsage);
    EXPECT_NE(parsed.status().to_string().find("--budget"), std::string::npos);
  }
}

TEST(Units, Human) {
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1500), "1.50 kB");
  EXPECT_EQ(human_bytes(12'300'000), "12.3 MB");
  EXPECT_EQ(human_bytes(3'000'000'000), "3.00 GB");
}

}  // namespace
}  // namespace pome
