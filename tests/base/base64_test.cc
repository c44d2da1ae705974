#include "base/base64.h"

#include <gtest/gtest.h>

namespace pome {
namespace {

TEST(Base64, Decodes) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("Zg=="), "f");
  EXPECT_EQ(decode_base64("Zm8="), "fo");
  EXPECT_EQ(decode_base64("Zm9v"), "foo");
  EXPECT_EQ(decode_base64("AP+/"), std::string("\0\xff\xbf", 3));
}

TEST(Base64, Refuses) {
  for (const char* text : {"Z", "Zg", "Zg=", "Z===", "====", "Zh==", "Zm9=", "Zm9v=", "Zm 9",
                           "Zm-_", "=Zm9", "Zg==Zg==", "Zm9v\n"}) {
    EXPECT_FALSE(decode_base64(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace pome
