#include "base/json.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "base/temp_folder.h"

namespace pome {
namespace {

Refusal refusal_of(std::string_view text, const JsonLimits& limits = {}) {
  const auto result = parse_json(text, "t.json", limits);
  if (result.ok()) return Refusal::kNone;
  EXPECT_EQ(result.status().file(), "t.json");
  EXPECT_TRUE(result.status().offset().has_value() || text.size() > limits.bytes)
      << result.status().to_string();
  EXPECT_EQ(result.status().code(), StatusCode::kBadInput);
  return result.status().refusal();
}

TEST(Json, ReadsEveryKindOfValue) {
  const auto json = parse_json(
      R"( {"z": [1, -2, 18446744073709551615, 1.5e3, true, false, null], "a": {"": "\u20ac\ud83d\ude00\n"}} )",
      "t.json");
  ASSERT_TRUE(json.ok()) << json.status().to_string();
  EXPECT_EQ((*json)["z"].size(), 7u);
  EXPECT_EQ((*json)["z"][1].get<int64_t>(), -2);
  EXPECT_EQ((*json)["z"][2].get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ((*json)["z"][3].get<double>(), 1500.0);
  EXPECT_TRUE((*json)["z"][6].is_null());
  EXPECT_EQ((*json)["a"][""].get<std::string>(), "\xE2\x82\xAC\xF0\x9F\x98\x80\n");
  EXPECT_EQ(json->begin().key(), "z") << "the order of the file is kept";
  EXPECT_EQ(*parse_json("7", "t"), Json(7));
  EXPECT_EQ(*parse_json("\"x\"", "t"), Json("x"));
  EXPECT_EQ(*parse_json("[]", "t"), Json::array());
  EXPECT_EQ(*parse_json("{}", "t"), Json::object());
}

// Our builder and the library's own must agree, value by value.
TEST(Json, SameAsTheLibrarysParser) {
  std::string text = "[";
  for (int i = 0; i < 500; ++i) {
    if (i) text += ",";
    text += "{\"k" + std::to_string(i) + "\":[" + std::to_string(i * 0.37) + ",{\"deep\":[[[" +
            std::to_string(-i) + "]]]},\"s\\t" + std::to_string(i) + "\"],\"n\":null,\"b\":true}";
  }
  text += "]";
  const auto json = parse_json(text, "t");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(*json, Json::parse(text));
}

TEST(Json, SyntaxErrors) {
  for (const std::string_view text :
       {"",           " ",        "{",         "[",         "[1,]",
        "{\"a\":1,}", "{a:1}",    "{'a':1}",   "01",        "1.",
        ".5",         "+1",       "--1",       "1e",        "nul",
        "truE",       "\"abc",    "\"\\x\"",   "\"\\u12\"", "\"\t\"",
        "NaN",        "Infinity", "-Infinity", "// c\n1",   "/* c */ 1",
        "1 2",        "{} {}",    "[1] x",     "]",         "}",
        "{\"a\"}",    "{\"a\":}", "{1:2}",     "[1 2]",     "{\"a\":1 \"b\":2}",
        "\x01"})
    EXPECT_EQ(refusal_of(text), Refusal::kType) << text;
}

TEST(Json, OffsetsPointAtTheFault) {
  EXPECT_EQ(parse_json("[1, 2, x]", "t").status().offset(), 7u);
  EXPECT_EQ(parse_json("{\"a\": 1} xyz", "t").status().offset(), 9u);
  EXPECT_EQ(parse_json("[\"ab\xFF\"]", "t").status().offset(), 4u);
  EXPECT_EQ(parse_json(std::string_view("[1\0]", 4), "t").status().offset(), 2u);
  EXPECT_EQ(parse_json("", "t").status().offset(), 0u);
  // The place just read when a duplicate is noticed: inside or at the end of the second key.
  const auto duplicate = parse_json(R"({"a": 1, "a": 2})", "t").status();
  ASSERT_TRUE(duplicate.offset().has_value());
  EXPECT_GE(*duplicate.offset(), 9u);
  EXPECT_LE(*duplicate.offset(), 12u);
}

TEST(Json, Utf8AndItsRelatives) {
  EXPECT_EQ(refusal_of("\"\xFF\""), Refusal::kUtf8);
  EXPECT_EQ(refusal_of("\"\xC0\x80\""), Refusal::kUtf8);
  EXPECT_EQ(refusal_of("\"\xED\xA0\x80\""), Refusal::kUtf8);
  EXPECT_EQ(refusal_of("\xEF\xBB\xBF{}"), Refusal::kUtf8);
  EXPECT_EQ(refusal_of(std::string_view("{}\0", 3)), Refusal::kUtf8);
  EXPECT_EQ(refusal_of(std::string_view("{}\0garbage", 10)), Refusal::kUtf8);
  EXPECT_EQ(refusal_of(R"("\ud800")"), Refusal::kUtf8);
  EXPECT_EQ(refusal_of(R"("\udc00 x")"), Refusal::kUtf8);
  EXPECT_EQ(refusal_of(R"("\ud800\u0041")"), Refusal::kUtf8);
  EXPECT_EQ(refusal_of("\xFE\xFF"), Refusal::kUtf8);
  EXPECT_EQ(refusal_of(R"("\u0000")"), Refusal::kNone) << "an escaped zero is text";
}

TEST(Json, DuplicateKeys) {
  EXPECT_EQ(refusal_of(R"({"a":1,"a":1})"), Refusal::kDup);
  EXPECT_EQ(refusal_of(R"({"a":1,"\u0061":1})"), Refusal::kDup);
  EXPECT_EQ(refusal_of(R"({"x":{"a":1,"b":2,"a":3}})"), Refusal::kDup);
  EXPECT_EQ(refusal_of(R"({"":1,"":2})"), Refusal::kDup);
  EXPECT_EQ(refusal_of(R"({"a":{"a":{"a":1}}})"), Refusal::kNone);
  EXPECT_EQ(refusal_of(R"([{"a":1},{"a":1}])"), Refusal::kNone);
  EXPECT_EQ(refusal_of(R"({"a":{"x":1},"b":{"x":1},"x":1})"), Refusal::kNone);
  // On both sides of the size where the search turns into a hash table.
  for (int count = 2; count < 40; ++count) {
    for (int repeated = 0; repeated < count; ++repeated) {
      std::string text = "{";
      for (int i = 0; i < count; ++i) text += "\"" + std::to_string(i) + "\":{\"0\":[]},";
      const std::string once = text + "\"end\":0}";
      const std::string twice = text + "\"" + std::to_string(repeated) + "\":0}";
      ASSERT_EQ(refusal_of(twice), Refusal::kDup) << twice;
      ASSERT_EQ(refusal_of(once), Refusal::kNone) << once;
    }
  }
}

TEST(Json, DepthLimit) {
  const auto nested = [](int depth, char open, char close) {
    return std::string(static_cast<size_t>(depth), open) +
           std::string(static_cast<size_t>(depth), close);
  };
  EXPECT_EQ(refusal_of(nested(128, '[', ']')), Refusal::kNone);
  EXPECT_EQ(refusal_of(nested(129, '[', ']')), Refusal::kDepth);
  EXPECT_EQ(parse_json(nested(129, '[', ']'), "t").status().offset(), 128u);
  EXPECT_EQ(refusal_of(nested(10'000'000, '[', ']')), Refusal::kDepth);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_EQ(refusal_of(objects), Refusal::kDepth);
  JsonLimits tight;
  tight.depth = 2;
  EXPECT_EQ(refusal_of("[[1],[2],[3]]", tight), Refusal::kNone) << "depth is not the number";
  EXPECT_EQ(refusal_of("[[1],{\"a\":[]}]", tight), Refusal::kDepth);
  tight.depth = 0;
  EXPECT_EQ(refusal_of("1", tight), Refusal::kNone);
  EXPECT_EQ(refusal_of("[]", tight), Refusal::kDepth);
}

TEST(Json, ValueAndByteLimits) {
  JsonLimits limits;
  limits.values = 4;
  EXPECT_EQ(refusal_of("[1,2,3]", limits), Refusal::kNone);
  EXPECT_EQ(refusal_of("[1,2,3,4]", limits), Refusal::kLimit);
  EXPECT_EQ(refusal_of(R"({"a":1,"b":{"c":2}})", limits), Refusal::kNone);
  EXPECT_EQ(refusal_of(R"({"a":1,"b":{"c":2,"d":[]}})", limits), Refusal::kLimit);
  limits = {};
  limits.bytes = 5;
  EXPECT_EQ(refusal_of("[1,2]", limits), Refusal::kNone);
  EXPECT_EQ(refusal_of("[1,2] ", limits), Refusal::kLimit);
}

TEST(Json, NumbersThatDoNotFit) {
  EXPECT_EQ(refusal_of("1e400"), Refusal::kRange);
  EXPECT_EQ(refusal_of("[-1e400]"), Refusal::kRange);
  EXPECT_EQ(refusal_of("1e-400"), Refusal::kNone);
  EXPECT_EQ(refusal_of(std::string(400, '9')), Refusal::kRange);
  // One beyond 64 bits becomes a double, which json_int() then refuses.
  const auto json = parse_json(R"({"a": 18446744073709551616})", "t");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json_int(*json, "a").status().refusal(), Refusal::kType);
}

// A vocabulary has 150 000 keys: neither reading nor the duplicate check may be quadratic.
TEST(Json, LargeObjectsTakeLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i)
    text += (i ? ",\"" : "\"") + std::to_string(i * 7919LL) + "\":" + std::to_string(i);
  text += "}";
  const auto before = std::chrono::steady_clock::now();
  const auto json = parse_json(text, "vocab");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json->size(), 300'000u);
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(30));
  EXPECT_EQ(json->back().get<int>(), 299'999);
}

TEST(Json, LongGarbageGivesAShortMessage) {
  const auto status = parse_json("[\"" + std::string(1 << 20, 'x'), "t").status();
  EXPECT_EQ(status.refusal(), Refusal::kType);
  EXPECT_LT(status.to_string().size(), 1000u);
}

TEST(Json, TypedAccess) {
  const auto parsed = parse_json(
      R"({"i":7,"n":-3,"big":9223372036854775808,"max":9223372036854775807,"f":1.0,"t":true,"s":"x","nul":null,"a/b~c":"q"})",
      "t");
  ASSERT_TRUE(parsed.ok());
  const Json& json = *parsed;
  EXPECT_EQ(**json_int(json, "i"), 7);
  EXPECT_EQ(**json_int(json, "n"), -3);
  EXPECT_EQ(**json_int(json, "max"), INT64_MAX);
  EXPECT_EQ(json_int(json, "big").status().refusal(), Refusal::kRange);
  EXPECT_EQ(json_int(json, "f").status().refusal(), Refusal::kType);
  EXPECT_EQ(json_int(json, "t").status().refusal(), Refusal::kType);
  EXPECT_EQ(json_int(json, "s").status().refusal(), Refusal::kType);
  EXPECT_FALSE(json_int(json, "absent")->has_value());
  EXPECT_FALSE(json_int(json, "nul")->has_value());
  EXPECT_EQ(**json_number(json, "i"), 7.0);
  EXPECT_EQ(**json_number(json, "f"), 1.0);
  EXPECT_EQ(**json_number(json, "big"), 9223372036854775808.0);
  EXPECT_EQ(json_number(json, "s").status().refusal(), Refusal::kType);
  EXPECT_EQ(json_number(json, "t").status().refusal(), Refusal::kType);
  EXPECT_EQ(**json_bool(json, "t"), true);
  EXPECT_EQ(json_bool(json, "i").status().refusal(), Refusal::kType);
  EXPECT_FALSE(json_bool(json, "nul")->has_value());
  EXPECT_EQ(**json_string(json, "s"), "x");
  EXPECT_EQ(json_string(json, "i").status().refusal(), Refusal::kType);
  EXPECT_EQ(json_int(json, "a/b~c").status().where(), "/a~1b~0c");
  EXPECT_EQ(json_int(Json::array(), "a").status().refusal(), Refusal::kType);
  EXPECT_EQ(json_number(Json{{"x", std::nan("")}}, "x").status().refusal(), Refusal::kRange);
}

TEST(Json, DumpKeepsOrderAndRepairsUtf8) {
  Json json;
  json["z"] = 1;
  json["a"] = "\xFF";
  json["u"] = "\xE2\x82\xAC";
  EXPECT_EQ(dump_json(json), "{\"z\":1,\"a\":\"\xEF\xBF\xBD\",\"u\":\"\xE2\x82\xAC\"}");
  EXPECT_EQ(dump_json(Json{{"k", {1, 2}}}, 1), "{\n \"k\": [\n  1,\n  2\n ]\n}");
}

TEST(Json, Files) {
  const TempFolder folder;
  spit(folder / "good.json", R"({"a": 1})");
  EXPECT_EQ((*read_json_file(folder / "good.json"))["a"], 1);
  spit(folder / "bad.json", "{");
  EXPECT_EQ(read_json_file(folder / "bad.json").status().file(), folder / "bad.json");
  EXPECT_EQ(read_json_file(folder / "none.json").status().code(), StatusCode::kMissing);
  ASSERT_EQ(::truncate((folder / "bad.json").c_str(), off_t{10} << 30), 0);
  EXPECT_EQ(read_json_file(folder / "bad.json").status().refusal(), Refusal::kLimit);
}

}  // namespace
}  // namespace pome
