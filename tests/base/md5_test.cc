#include "base/md5.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace pome {
namespace {

std::string md5(std::string_view text) {
  Md5 sum;
  sum.update(std::as_bytes(std::span(text)));
  return sum.finish();
}

// The test suite of RFC 1321, A.5.
TEST(Md5, GivesTheValuesOfTheStandard) {
  EXPECT_EQ(md5(""), "d41d8cd98f00b204e9800998ecf8427e");
  EXPECT_EQ(md5("a"), "0cc175b9c0f1b6a831c399e269772661");
  EXPECT_EQ(md5("abc"), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(md5("message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
  EXPECT_EQ(md5("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"),
            "d174ab98d277d9f5a5611c2c9f419d9f");
  EXPECT_EQ(md5("1234567890123456789012345678901234567890123456789012345678901234567890123456789"
                "0"),
            "57edf4a22be3c955ac49da2e2107b67a");
}

TEST(Md5, DoesNotDependOnHowBytesAreCut) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 37);
  for (const size_t step : {1, 3, 63, 64, 65, 500}) {
    Md5 sum;
    for (size_t at = 0; at < text.size(); at += step)
      sum.update(std::as_bytes(std::span(text).subspan(at, std::min(step, text.size() - at))));
    EXPECT_EQ(sum.finish(), md5(text)) << step;
    EXPECT_EQ(sum.finish(), md5("")) << "starts over";
  }
}

}  // namespace
}  // namespace pome
