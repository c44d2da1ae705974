#include "formats/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <functional>

#include "tokenizer/byte_level.h"
#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

using Strings = std::vector<std::string>;

template <typename T>
GgufValue value_of(T data) {
  GgufValue value;
  value.data = std::move(data);
  return value;
}
void set(GgufFile& file, const std::string& key, GgufValue value) {
  for (auto& [name, old] : file.metadata) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  file.metadata.emplace_back(key, std::move(value));
}
template <typename T>
void set(GgufFile& file, const std::string& key, T data) {
  set(file, "tokenizer.ggml." + key, value_of(std::move(data)));
}
void erase(GgufFile& file, const std::string& key) {
  std::erase_if(file.metadata,
                [&](const auto& entry) { return entry.first == "tokenizer.ggml." + key; });
}

GgufFile sentencepiece_file() {
  GgufFile file;
  set(file, "model", std::string("llama"));
  set(file, "tokens", Strings{"<unk>", "<s>", "</s>", "<0x0A>", "\u2581", "a", "\u2581a", "[x]"});
  set(file, "scores", std::vector<double>{0, 0, 0, 0, -3, -2, -1, 0});
  set(file, "token_type", std::vector<int64_t>{2, 3, 3, 6, 1, 1, 1, 4});
  return file;
}
GgufFile byte_file() {
  GgufFile file;
  Strings tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(token_of_bytes(std::string(1, static_cast<char>(byte))));
  }
  tokens.push_back("ab");
  tokens.push_back("<end>");
  std::vector<int64_t> types(tokens.size(), 1);
  types.back() = 3;
  set(file, "model", std::string("gpt2"));
  set(file, "pre", std::string("gpt-2"));
  set(file, "tokens", tokens);
  set(file, "token_type", types);
  set(file, "merges", Strings{"a b"});
  set(file, "eos_token_id", uint64_t{257});
  return file;
}

TEST(GgufTokenizer, SentencePieceDefaults) {
  const TokenizerPtr tokenizer = build(read_gguf_tokenizer(sentencepiece_file()));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->encode("a\na[x]a</s>"), (Ids{1, 6, 3, 5, 7, 6, 2}));
  EXPECT_EQ(tokenizer->source().eos, 2);
  EXPECT_EQ(tokenizer->source().bos_text, "<s>");
  EXPECT_EQ(*tokenizer->decode(Ids{1, 6, 6}), "a a");
}

TEST(GgufTokenizer, FlagsOverrideTheDefaults) {
  GgufFile file = sentencepiece_file();
  set(file, "add_bos_token", false);
  set(file, "add_eos_token", true);
  set(file, "add_space_prefix", false);
  EXPECT_EQ(build(read_gguf_tokenizer(file))->encode("a"), (Ids{5, 2}));
}

TEST(GgufTokenizer, ByteLevel) {
  const TokenizerPtr tokenizer = build(read_gguf_tokenizer(byte_file()));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->encode("ab<end>"), (Ids{256, 257}));
  GgufFile llama3 = byte_file();
  set(llama3, "pre", std::string("llama-bpe"));
  set(llama3, "bos_token_id", uint64_t{257});
  EXPECT_EQ(build(read_gguf_tokenizer(llama3))->encode("ab"), (Ids{257, 256}));
}

TEST(GgufTokenizer, OneScoreForAllPiecesMeansTheOrderOfIds) {
  GgufFile file = sentencepiece_file();
  set(file, "tokens", Strings{"<unk>", "<s>", "</s>", "a", "b", "c", "bc", "ab", "\u2581"});
  set(file, "scores", std::vector<double>(9, -1000));
  set(file, "token_type", std::vector<int64_t>{2, 3, 3, 1, 1, 1, 1, 1, 1});
  // bc was numbered, so merged, before ab.
  EXPECT_EQ(build(read_gguf_tokenizer(file))->encode("abc"), (Ids{1, 8, 3, 6}));
}

TEST(GgufTokenizer, AllOnesIsNoId) {
  GgufFile file = sentencepiece_file();
  set(file, "padding_token_id", uint64_t{0xFFFFFFFF});
  const auto source = read_gguf_tokenizer(file);
  ASSERT_TRUE(source.ok()) << source.status().to_string();
  EXPECT_FALSE(source->padding.has_value());
}

TEST(GgufTokenizer, NoTokenizerIsNoError) {
  const auto source = read_gguf_tokenizer(GgufFile());
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(source->model, TokenizerSource::Model::kNone);
}

struct Broken {
  const char* name;
  Refusal refusal;
  std::function<void(GgufFile&)> damage;
};

TEST(GgufTokenizer, RefusesMalformedMetadata) {
  const Broken sentencepiece[] = {
      {"short scores", Refusal::kRange, [](auto& f) { set(f, "scores", std::vector<double>{0}); }},
      {"no scores", Refusal::kRange, [](auto& f) { erase(f, "scores"); }},
      {"long types", Refusal::kRange,
       [](auto& f) { set(f, "token_type", std::vector<int64_t>(9, 1)); }},
      {"type 7", Refusal::kRange,
       [](auto& f) { set(f, "token_type", std::vector<int64_t>(8, 7)); }},
      {"type -1", Refusal::kRange,
       [](auto& f) { set(f, "token_type", std::vector<int64_t>(8, -1)); }},
      {"no tokens", Refusal::kRange, [](auto& f) { erase(f, "tokens"); }},
      {"tokens scalar", Refusal::kType, [](auto& f) { set(f, "tokens", std::string("a")); }},
      {"scores scalar", Refusal::kType, [](auto& f) { set(f, "scores", 1.0); }},
      {"types text", Refusal::kType, [](auto& f) { set(f, "token_type", Strings{"a"}); }},
      {"model array", Refusal::kType, [](auto& f) { set(f, "model", Strings{"llama"}); }},
      {"bos", Refusal::kRange, [](auto& f) { set(f, "bos_token_id", uint64_t{8}); }},
      {"eos", Refusal::kRange, [](auto& f) { set(f, "eos_token_id", uint64_t{1} << 40); }},
      {"unk", Refusal::kRange, [](auto& f) { set(f, "unknown_token_id", uint64_t{8}); }},
      {"pad", Refusal::kRange, [](auto& f) { set(f, "padding_token_id", int64_t{8}); }},
      {"eot", Refusal::kRange, [](auto& f) { set(f, "eot_token_id", uint64_t{8}); }},
      {"bos text", Refusal::kType, [](auto& f) { set(f, "bos_token_id", std::string("1")); }},
      {"flag", Refusal::kType, [](auto& f) { set(f, "add_bos_token", uint64_t{1}); }},
      {"one token", Refusal::kRange,  // the default ids 1 and 2 are outside
       [](auto& f) {
         set(f, "tokens", Strings{"a"});
         set(f, "scores", std::vector<double>{0});
         set(f, "token_type", std::vector<int64_t>{1});
       }},
  };
  for (const Broken& broken : sentencepiece) {
    GgufFile file = sentencepiece_file();
    broken.damage(file);
    const auto source = read_gguf_tokenizer(file);
    ASSERT_FALSE(source.ok()) << broken.name;
    EXPECT_EQ(source.status().refusal(), broken.refusal)
        << broken.name << ": " << source.status().to_string();
    EXPECT_EQ(source.status().where().substr(0, 15), "tokenizer.ggml.") << broken.name;
  }
  const Broken byte_level[] = {
      {"no merges", Refusal::kRange, [](auto& f) { erase(f, "merges"); }},
      {"merge without space", Refusal::kRange, [](auto& f) { set(f, "merges", Strings{"ab"}); }},
      {"empty merge", Refusal::kRange, [](auto& f) { set(f, "merges", Strings{""}); }},
      {"half a merge", Refusal::kRange, [](auto& f) { set(f, "merges", Strings{"a "}); }},
      {"merges scalar", Refusal::kType, [](auto& f) { set(f, "merges", uint64_t{1}); }},
  };
  for (const Broken& broken : byte_level) {
    GgufFile file = byte_file();
    broken.damage(file);
    EXPECT_EQ(read_gguf_tokenizer(file).status().refusal(), broken.refusal) << broken.name;
  }
}

TEST(GgufTokenizer, NamesWhatItCannotDo) {
  GgufFile file = sentencepiece_file();
  set(file, "model", std::string("rwkv"));
  EXPECT_EQ(read_gguf_tokenizer(file).status().code(), StatusCode::kUnsupported);
  GgufFile no_pre = byte_file();
  erase(no_pre, "pre");
  EXPECT_EQ(read_gguf_tokenizer(no_pre).status().code(), StatusCode::kUnsupported);
  set(no_pre, "general.architecture", value_of(std::string("gpt2")));
  EXPECT_EQ(build(read_gguf_tokenizer(no_pre))->encode("ab"), (Ids{256}));
  GgufFile unknown = byte_file();
  set(unknown, "pre", std::string("no-such-model"));
  EXPECT_EQ(read_gguf_tokenizer(unknown).status().refusal(), Refusal::kRegex);
}

}  // namespace
}  // namespace pome
