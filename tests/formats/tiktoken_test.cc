#include "formats/tiktoken.h"

#include <gtest/gtest.h>

#include <functional>

#include "formats/tiktoken_encodings.h"
#include "malformed/back_ends.h"
#include "malformed/tiktoken_bytes.h"

namespace pome {
namespace {

using namespace malformed;  // NOLINT: builders of the test

constexpr size_t kGpt2Tokens = 50256;

Result<TokenizerSource> read(const std::string& bytes, const Json& config = Json()) {
  return read_tiktoken(memory_source(bytes_of(bytes), "x.tiktoken"), config);
}

TEST(Tiktoken, Gpt2) {
  std::vector<std::string> lines = tiktoken_lines(kGpt2Tokens);
  lines.back().pop_back();                     // no newline at the end
  lines[7].insert(lines[7].size() - 1, "\r");  // nor always the same one
  lines[9] += "\n";                            // empty lines say nothing
  const auto source = read(joined(lines));
  ASSERT_TRUE(source.ok()) << source.status().to_string();
  EXPECT_EQ(source->model, TokenizerSource::Model::kBpe);
  ASSERT_EQ(source->tokens.size(), kGpt2Tokens + 1);
  EXPECT_EQ(source->tokens['a'], "a");
  EXPECT_EQ(source->tokens[' '], "\u0120");  // in the byte-level alphabet
  EXPECT_EQ(source->tokens[256], "ab");
  EXPECT_EQ(source->scores[256], -256);
  EXPECT_EQ(source->tokens.back(), "<|endoftext|>");
  EXPECT_EQ(source->kinds.back(), TokenKind::kControl);
  ASSERT_EQ(source->added.size(), 1u);
  EXPECT_TRUE(source->added[0].special);
  EXPECT_EQ(source->eos, 50256);
  EXPECT_TRUE(source->ignore_merges);
  EXPECT_EQ(source->pre_tokenizer.size(), 2u);
  EXPECT_TRUE(source->prefix_ids.empty());
}

TEST(Tiktoken, EncodingsByNumberOfTokens) {
  const auto find = [](size_t tokens, const Json& config = Json()) {
    auto found = find_tiktoken_encoding(tokens, config);
    EXPECT_TRUE(found.ok()) << found.status().to_string();
    return found.ok() ? *std::move(found) : TiktokenEncoding();
  };
  const auto id_of = [](const TiktokenEncoding& encoding, const std::string& text) {
    for (const auto& [known, id] : encoding.special) {
      if (known == text) return id;
    }
    return -1;
  };
  EXPECT_EQ(find(50256).name, "r50k_base");
  EXPECT_EQ(find(50280).name, "p50k_base");
  EXPECT_EQ(id_of(find(100256), "<|endofprompt|>"), 100276);
  EXPECT_EQ(find(199998).name, "o200k_base");
  EXPECT_EQ(find(199998, {{"vocab_size", 201088}}).name, "o200k_harmony");
  const TiktokenEncoding harmony = find(199998, {{"model_type", "gpt_oss"}});
  EXPECT_EQ(harmony.special.size(), 201088u - 199998);
  EXPECT_EQ(id_of(harmony, "<|call|>"), 200012);
  EXPECT_EQ(id_of(harmony, "<|reserved_200013|>"), 200013);
  EXPECT_EQ(id_of(harmony, "<|endofprompt|>"), 200018);
  EXPECT_EQ(id_of(harmony, "<|reserved_201087|>"), 201087);
  EXPECT_EQ(find(151643).special.size(), 208u);
  EXPECT_EQ(id_of(find(151643), "<|extra_204|>"), 151850);
  EXPECT_EQ(find(151643, {{"model_type", "qwen2"}}).special.size(), 3u);
  for (const Json& config : {Json(), Json{{"rope_scaling", nullptr}},
                             Json{{"rope_scaling", {{"rope_type", "llama3"}}}}}) {
    const TiktokenEncoding llama = find(128000, config);
    EXPECT_EQ(llama.special.size(), 256u);
    EXPECT_EQ(id_of(llama, "<|eot_id|>"), 128009);
    const bool old = config.is_object() && config["rope_scaling"].is_null();
    EXPECT_EQ(id_of(llama, "<|eom_id|>"), old ? -1 : 128008);
    EXPECT_EQ(
        id_of(llama, old ? "<|reserved_special_token_250|>" : "<|reserved_special_token_247|>"),
        128255);
    EXPECT_TRUE(llama.add_bos);
  }
  const auto unknown = find_tiktoken_encoding(1000, Json());
  EXPECT_EQ(unknown.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(unknown.status().to_string().find("1000"), std::string::npos);
}

struct Row {
  const char* name;
  std::function<void(std::vector<std::string>&)> change;
  Refusal refusal;
  StatusCode code = StatusCode::kBadInput;
};

std::vector<Row> rows() {
  using enum Refusal;
  using Lines = std::vector<std::string>;
  const auto line = [](std::string text) {
    return [text](Lines& lines) { lines[300] = text + "\n"; };
  };
  return {{"no rank", line("AAAA"), kRange},
          {"no token", line(" 300"), kRange},
          {"empty token", line("==== 300"), kRange},
          {"rank is a word", line("AAAA x"), kRange},
          {"rank is negative", line("AAAA -1"), kRange},
          {"rank has digits behind it", line("AAAA 300 1"), kRange},
          {"rank has a fraction", line("AAAA 300.0"), kRange},
          {"two spaces", line("AAAA  300"), kRange},
          {"base64 without padding", line("AAA 300"), kRange},
          {"base64 with a stray bit", line("AB== 300"), kRange},
          {"base64 of URLs", line("A-_A 300"), kRange},
          {"not text", line(std::string("\0\xff", 2)), kRange},
          {"rank too large", line("AAAA 4194304"), kLimit},
          {"rank of many digits", line("AAAA 99999999999999999999"), kRange},
          {"token too long", line(base64(std::string(1025, 'x')) + " 300"), kLimit},
          {"rank twice", line("AAAB 299"), kDup},
          {"token twice", [](Lines& l) { l[300] = tiktoken_line("ab", 300); }, kDup},
          {"ranks far apart", line("AAAA 4194303"), kRange},
          {"a byte is missing", [](Lines& l) { l['x'] = tiktoken_line("xy", 'x'); }, kRange},
          {"nothing", [](Lines& l) { l.clear(); }, kRange},
          {"unknown size", [](Lines& l) { l.resize(257); }, kNone, StatusCode::kUnsupported}};
}

TEST(Tiktoken, Refusals) {
  const TempFolder folder;
  const std::vector<std::string> valid = tiktoken_lines(1000);
  for (const Row& row : rows()) {
    std::vector<std::string> lines = valid;
    row.change(lines);
    for (const auto& [name, source] : back_ends(folder, joined(lines))) {
      const auto read = read_tiktoken(source, Json());
      ASSERT_FALSE(read.ok()) << row.name << ", " << name;
      EXPECT_EQ(read.status().refusal(), row.refusal)
          << row.name << ", " << name << ": " << read.status().to_string();
      EXPECT_EQ(read.status().code(), row.code) << row.name;
      EXPECT_FALSE(read.status().file().empty()) << row.name;
    }
  }
  const auto huge = read_tiktoken(std::make_shared<SparseSource>("", 65u << 20), Json());
  EXPECT_EQ(huge.status().refusal(), Refusal::kLimit);
}

TEST(Tiktoken, Looks) {
  const auto looks = [](const std::string& bytes) {
    return looks_like_tiktoken(*memory_source(bytes_of(bytes), "x"));
  };
  EXPECT_TRUE(looks("IQ== 0\nIg== 1\n"));
  EXPECT_TRUE(looks("IQ== 0"));
  EXPECT_FALSE(looks(""));
  EXPECT_FALSE(looks("{\"a\": 1}"));
  EXPECT_FALSE(looks("hello world\n"));
  EXPECT_FALSE(
      looks(std::string("\x0a\x05\x0a\x01"
                        "a",
                        5)));
}

}  // namespace
}  // namespace pome
