#include "base/sha256.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "base/cpu_features.h"

namespace pome {
namespace {

// FIPS 180-4 example values.
TEST(Sha256, PublishedVectors) {
  EXPECT_EQ(to_hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(to_hex(sha256(std::string(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// Lengths where padding needs one block or two, each cut in two at every place.
TEST(Sha256, SplitsDoNotMatter) {
  for (size_t size = 50; size <= 135; ++size) {
    std::string text(size, '\0');
    for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 7 + size);
    const Digest whole = sha256(text);
    for (size_t cut = 0; cut <= size; ++cut) {
      Sha256 hash;
      hash.update(std::string_view(text).substr(0, cut));
      hash.update(std::string_view(text).substr(cut));
      ASSERT_EQ(to_hex(hash.finish()), to_hex(whole)) << size << " cut at " << cut;
    }
    Sha256 bytewise;
    for (const char c : text) bytewise.update(std::string_view(&c, 1));
    EXPECT_EQ(bytewise.finish(), whole);
  }
}

// Computed with Python's hashlib: so many times the letter q.
TEST(Sha256, LengthsAroundTheBlock) {
  const std::pair<size_t, const char*> kExpected[] = {
      {55, "85528b5baff5639cb8e7daca79d085ac29ac0978e873ed7527158616b2b6c379"},
      {56, "f8ce2f8d6990c639668fe404262f35ed72d8bb145ad6bae786af7284447386df"},
      {63, "9b49777003a4143d8c3f4d3002eb631c6bda8b030a3ccc87f8a21d5f61c89e87"},
      {64, "ee8e658590c9a5e119400a774415a01db104de1ee6e2c29ec69aa73ef46544d2"},
      {65, "2b6c3f7f12b1b12fc5409626dc4e5302d8d37082cbeddea7755eac43aba039c8"},
      {119, "c8bc8a6e9626586bb888ad131d44ed2bd37fc608e902904ade3c566c4208e6ca"},
      {120, "77a2d49d72a11e41678c51f8f0cb67f5cb570f30370c3aeffe266a0d1ee43209"}};
  for (const auto& [size, hex] : kExpected)
    EXPECT_EQ(to_hex(sha256(std::string(size, 'q'))), hex) << size;
}

TEST(Sha256, InstructionsEqualPortableCode) {
  if (!cpu_flags().sha_ni) GTEST_SKIP() << "this processor has no SHA instructions";
  std::mt19937 random(7);
  for (size_t count : {0, 1, 2, 3, 17}) {
    std::vector<uint8_t> data(64 * count + 1);
    for (auto& byte : data) byte = static_cast<uint8_t>(random());
    uint32_t fast[8], plain[8];
    for (int i = 0; i < 8; ++i) fast[i] = plain[i] = static_cast<uint32_t>(random());
    // One byte in: unaligned data.
    detail::sha256_blocks(fast, data.data() + 1, count, true);
    detail::sha256_blocks(plain, data.data() + 1, count, false);
    for (int i = 0; i < 8; ++i) EXPECT_EQ(fast[i], plain[i]) << count << " word " << i;
  }
}

TEST(Sha256, NumbersAreEightLittleEndianBytes) {
  Sha256 a, b;
  a.update_u64(0x0102030405060708u);
  b.update(std::string_view("\x08\x07\x06\x05\x04\x03\x02\x01", 8));
  EXPECT_EQ(a.finish(), b.finish());
}

TEST(Sha256, FinishStartsOver) {
  Sha256 hash;
  hash.update("left over");
  (void)hash.finish();
  hash.update("abc");
  EXPECT_EQ(hash.finish(), sha256("abc"));
}

}  // namespace
}  // namespace pome
