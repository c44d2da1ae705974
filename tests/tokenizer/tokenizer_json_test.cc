#include "formats/tokenizer_json.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "tokenizer/byte_level.h"
#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

Json byte_level_json() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[token_of_bytes(std::string(1, static_cast<char>(byte)))] = byte;
  }
  vocab["ab"] = 256;
  return {
      {"version", "1.0"},
      {"added_tokens",
       {{{"id", 257}, {"content", "<end>"}, {"special", true}, {"normalized", false}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b"}}}}};
}

Json sentencepiece_json() {
  Json vocab = {{"<unk>", 0}, {"\u2581", 1}, {"a", 2}, {"b", 3}, {"\u2581a", 4}, {"<0x0A>", 5}};
  return {{"added_tokens", {{{"id", 0}, {"content", "<unk>"}, {"special", true}}}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "\u2581"}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", Json::array({Json::array({"\u2581", "a"})})}}}};
}

TokenizerPtr make(const Json& json) { return build(parse_tokenizer_json(json, "tokenizer.json")); }

TEST(TokenizerJson, ByteLevel) {
  const TokenizerPtr tokenizer = make(byte_level_json());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->encode("ab<end> b"), (Ids{256, 257, ' ', 'b'}));
  EXPECT_TRUE(tokenizer->is_special(257));
}

TEST(TokenizerJson, SentencePiece) {
  const TokenizerPtr tokenizer = make(sentencepiece_json());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->encode("a ab\nzz"), (Ids{4, 4, 3, 5, 0}));
  EXPECT_EQ(*tokenizer->decode(Ids{4, 4, 3, 5}), "a ab\n");
}

TEST(TokenizerJson, Metaspace) {
  Json json = sentencepiece_json();
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "Metaspace"},
                           {"replacement", "\u2581"},
                           {"prepend_scheme", "first"},
                           {"split", false}};
  json["decoder"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}};
  const TokenizerPtr tokenizer = make(json);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->encode("a"), (Ids{4}));
  EXPECT_EQ(tokenizer->encode(" a"), (Ids{4}));  // no prefix before a space
  EXPECT_EQ(tokenizer->encode("<unk>a"), (Ids{0, 2}));
  EXPECT_EQ(*tokenizer->decode(Ids{4, 4}), "a a");
}

TEST(TokenizerJson, SequencesOfPreTokenizers) {
  Json json = byte_level_json();
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Digits"}, {"individual_digits", true}},
        {{"type", "Sequence"},
         {"pretokenizers",
          {{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}}}}}}};
  const auto source = parse_tokenizer_json(json, "x");
  ASSERT_TRUE(source.ok()) << source.status().to_string();
  ASSERT_EQ(source->pre_tokenizer.size(), 2u);
  EXPECT_TRUE(std::get<pretokenizer::Digits>(source->pre_tokenizer[0]).individual);
  EXPECT_TRUE(std::get<pretokenizer::ByteLevel>(source->pre_tokenizer[1]).use_regex);
}

TEST(TokenizerJson, TemplateProcessingPutsBosAndEos) {
  Json json = byte_level_json();
  const Json special = {{"SpecialToken", {{"id", "<end>"}, {"type_id", 0}}}};
  const Json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  json["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}},
        {{"type", "TemplateProcessing"},
         {"single", {special, sequence, special}},
         {"special_tokens", {{"<end>", {{"id", "<end>"}, {"ids", {257}}}}}}}}}};
  EXPECT_EQ(make(json)->encode("a"), (Ids{257, 'a', 257}));
  json["post_processor"]["processors"][1]["single"] = {sequence};
  EXPECT_EQ(make(json)->encode("a"), (Ids{'a'}));
  json["post_processor"]["processors"][1]["single"] = {special, special, sequence};
  EXPECT_EQ(make(json)->encode("a"), (Ids{257, 257, 'a'}));
  json["post_processor"]["processors"][1]["single"] = {sequence, sequence};
  EXPECT_EQ(parse_tokenizer_json(json, "x").status().code(), StatusCode::kUnsupported);
  json["post_processor"]["processors"][1]["single"] = {special};
  EXPECT_EQ(parse_tokenizer_json(json, "x").status().code(), StatusCode::kUnsupported);
  json["post_processor"]["processors"][1]["single"] = {special, sequence};
  json["post_processor"]["processors"][1]["special_tokens"]["<end>"]["ids"] = {9999};
  EXPECT_EQ(parse_tokenizer_json(json, "x").status().refusal(), Refusal::kRange);
}

TEST(TokenizerJson, MergesAsPairsAndAsTexts) {
  Json json = byte_level_json();
  json["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_EQ(make(json)->encode("ab"), (Ids{256}));
}

TEST(TokenizerJson, HolesBecomeUnusedTokens) {
  Json json = byte_level_json();
  json["added_tokens"][0]["id"] = 300;
  const TokenizerPtr tokenizer = make(json);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 301);
  EXPECT_EQ(tokenizer->encode("<end>"), (Ids{300}));
  EXPECT_EQ(tokenizer->token_bytes(299), "");
}

struct Broken {
  const char* name;
  Refusal refusal;
  const char* where;  // the beginning of the JSON path
  std::function<void(Json&)> damage;
};

TEST(TokenizerJson, RefusesMalformedFiles) {
  const Broken cases[] = {
      {"no model", Refusal::kType, "/model", [](Json& j) { j.erase("model"); }},
      {"vocab list", Refusal::kType, "/model/vocab",
       [](Json& j) { j["model"]["vocab"] = Json::array(); }},
      {"id huge", Refusal::kType, "/model/vocab/ab",
       [](Json& j) { j["model"]["vocab"]["ab"] = 1e300; }},
      {"id negative", Refusal::kRange, "/model/vocab/ab",
       [](Json& j) { j["model"]["vocab"]["ab"] = -1; }},
      {"id 2^31", Refusal::kRange, "/model/vocab/ab",
       [](Json& j) { j["model"]["vocab"]["ab"] = 2147483648u; }},
      {"id 2^64-1", Refusal::kRange, "/model/vocab/ab",
       [](Json& j) { j["model"]["vocab"]["ab"] = UINT64_MAX; }},
      {"id text", Refusal::kType, "/model/vocab/ab",
       [](Json& j) { j["model"]["vocab"]["ab"] = "7"; }},
      {"id float", Refusal::kType, "/model/vocab/ab",
       [](Json& j) { j["model"]["vocab"]["ab"] = 1.0; }},
      {"id gap", Refusal::kRange, "/model/vocab/ab",
       [](Json& j) { j["model"]["vocab"]["ab"] = 600; }},
      {"id twice", Refusal::kDup, "/model/vocab/ab",
       [](Json& j) { j["model"]["vocab"]["ab"] = 7; }},
      {"added twice", Refusal::kDup, "/added_tokens/0",
       [](Json& j) { j["added_tokens"][0]["id"] = 256; }},
      {"added empty", Refusal::kRange, "/added_tokens/0/content",
       [](Json& j) { j["added_tokens"][0]["content"] = ""; }},
      {"added no id", Refusal::kType, "/added_tokens/0/id",
       [](Json& j) { j["added_tokens"][0].erase("id"); }},
      {"added flag", Refusal::kType, "/added_tokens/0/special",
       [](Json& j) { j["added_tokens"][0]["special"] = 1; }},
      {"added gap", Refusal::kRange, "/added_tokens/0",
       [](Json& j) { j["added_tokens"][0]["id"] = 100000; }},
      {"merges object", Refusal::kType, "/model/merges", [](Json& j) { j["model"]["merges"] = 3; }},
      {"merge one", Refusal::kRange, "/model/merges/0",
       [](Json& j) { j["model"]["merges"][0] = "ab"; }},
      {"merge three", Refusal::kRange, "/model/merges/0",
       [](Json& j) { j["model"]["merges"][0] = "a b c"; }},
      {"merge number", Refusal::kType, "/model/merges/0",
       [](Json& j) { j["model"]["merges"][0] = 1; }},
      {"pre type", Refusal::kType, "/pre_tokenizer/type",
       [](Json& j) { j["pre_tokenizer"]["type"] = 1; }},
      {"sequence", Refusal::kType, "/pre_tokenizer/pretokenizers",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "Sequence"}};
       }},
      {"charsmap", Refusal::kType, "/normalizer/precompiled_charsmap",
       [](Json& j) {
         j["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "?"}};
       }},
      {"delimiter", Refusal::kType, "/pre_tokenizer/delimiter",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "CharDelimiterSplit"}, {"delimiter", "ab"}};
       }},
      {"length", Refusal::kRange, "/pre_tokenizer/length",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "FixedLength"}, {"length", -1}};
       }},
      {"cls", Refusal::kType, "/post_processor/cls",
       [](Json& j) {
         j["post_processor"] = {{"type", "BertProcessing"}, {"sep", {"<end>", 257}}};
       }},
      {"sep", Refusal::kRange, "/post_processor/sep",
       [](Json& j) {
         j["post_processor"] = {
             {"type", "RobertaProcessing"}, {"cls", {"a", 97}}, {"sep", {"x", 999}}};
       }},
      {"word length", Refusal::kRange, "/model/max_input_chars_per_word",
       [](Json& j) { j["model"]["max_input_chars_per_word"] = -3; }},
      {"empty pattern", Refusal::kRange, "/pre_tokenizer/pattern",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "Split"},
                               {"pattern", {{"String", ""}}},
                               {"behavior", "Isolated"},
                               {"invert", false}};
       }},
      {"empty replace", Refusal::kRange, "/normalizer/pattern",
       [](Json& j) {
         j["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}};
       }},
  };
  for (const Broken& broken : cases) {
    Json json = byte_level_json();
    broken.damage(json);
    const auto source = parse_tokenizer_json(json, "tokenizer.json");
    ASSERT_FALSE(source.ok()) << broken.name;
    EXPECT_EQ(source.status().refusal(), broken.refusal)
        << broken.name << ": " << source.status().to_string();
    EXPECT_EQ(source.status().where().substr(0, std::string(broken.where).size()), broken.where)
        << broken.name << ": " << source.status().to_string();
    EXPECT_EQ(source.status().file(), "tokenizer.json");
  }
  Json unknown_merge = byte_level_json();
  unknown_merge["model"]["merges"].push_back("ab q\u00ff\u00ff");
  auto source = parse_tokenizer_json(unknown_merge, "x");
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(Tokenizer::create(*source).status().refusal(), Refusal::kRange);
  Json regex = byte_level_json();
  regex["pre_tokenizer"] = {{"type", "Split"},
                            {"pattern", {{"Regex", "(?<=a*)b"}}},
                            {"behavior", "Isolated"},
                            {"invert", false}};
  source = parse_tokenizer_json(regex, "x");
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(Tokenizer::create(*source).status().refusal(), Refusal::kRegex);
}

TEST(TokenizerJson, NamesWhatItCannotDo) {
  const std::pair<const char*, std::function<void(Json&)>> cases[] = {
      {"/model/type", [](Json& j) { j["model"]["type"] = "Backtracking"; }},
      {"/model/dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }},
      {"/normalizer",
       [](Json& j) {
         j["normalizer"] = {{"type", "Shout"}};
       }},
      {"/pre_tokenizer",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "Guess"}};
       }},
      {"/pre_tokenizer",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "Punctuation"}, {"behavior", "Sometimes"}};
       }},
      {"/decoder",
       [](Json& j) {
         j["decoder"] = {{"type", "Speak"}};
       }},
      {"/post_processor",
       [](Json& j) {
         j["post_processor"] = {{"type", "Sign"}};
       }},
  };
  for (const auto& [where, damage] : cases) {
    Json json = byte_level_json();
    damage(json);
    const auto source = parse_tokenizer_json(json, "tokenizer.json");
    ASSERT_FALSE(source.ok()) << where;
    EXPECT_EQ(source.status().code(), StatusCode::kUnsupported) << source.status().to_string();
    EXPECT_EQ(source.status().where(), where);
  }
}

// A folder that goes away with the test.
class Folder {
 public:
  Folder() {
    static int count = 0;
    path_ =
        testing::TempDir() + "pome_tok_" + std::to_string(getpid()) + "_" + std::to_string(count++);
    mkdir(path_.c_str(), 0755);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name) << text;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(HfFolder, ReadsConfigTemplateAndStopIds) {
  const Folder folder;
  folder.write("tokenizer.json", dump_json(byte_level_json()));
  folder.write("tokenizer_config.json",
               R"({"bos_token": {"content": "a"}, "eos_token": "<end>", "chat_template":
                   [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]})");
  auto source =
      read_hf_tokenizer(folder.path(), {{"eos_token_id", 5}}, {{"eos_token_id", {257, 5}}});
  ASSERT_TRUE(source.ok()) << source.status().to_string();
  EXPECT_EQ(source->bos, 97);
  EXPECT_EQ(source->bos_text, "a");
  EXPECT_EQ(source->eos, 257);
  EXPECT_EQ(source->chat_template, "yes");
  EXPECT_EQ(source->stop_ids, (Ids{5, 257}));
  EXPECT_FALSE(source->add_bos());
  folder.write("chat_template.jinja", "file");
  EXPECT_EQ(read_hf_tokenizer(folder.path(), Json(), Json())->chat_template, "file");
}

TEST(HfFolder, LlamaClassesDecideAboutBos) {
  const Folder folder;
  folder.write("tokenizer.json", dump_json(sentencepiece_json()));
  folder.write("tokenizer_config.json",
               R"({"tokenizer_class": "LlamaTokenizer", "bos_token": "b", "add_bos_token": true})");
  const TokenizerPtr tokenizer = build(read_hf_tokenizer(folder.path(), Json(), Json()));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->encode("a"), (Ids{3, 4}));
}

TEST(HfFolder, Refusals) {
  const Folder folder;
  EXPECT_EQ(read_hf_tokenizer(folder.path(), Json(), Json()).status().code(), StatusCode::kMissing);
  folder.write("tokenizer.json", std::string(100000, '['));
  EXPECT_EQ(read_hf_tokenizer(folder.path(), Json(), Json()).status().refusal(), Refusal::kDepth);
  std::string nested = "{\"type\":\"Whitespace\"}";
  for (int i = 0; i < 10000; ++i)
    nested = "{\"type\":\"Sequence\",\"pretokenizers\":[" + nested + "]}";
  folder.write("tokenizer.json", "{\"pre_tokenizer\":" + nested + "}");
  EXPECT_EQ(read_hf_tokenizer(folder.path(), Json(), Json()).status().refusal(), Refusal::kDepth);

  folder.write("tokenizer.json", dump_json(byte_level_json()));
  for (const Json& eos : {Json(-1), Json(100000), Json("7"), Json(1.0), Json::array({0, "x"})}) {
    const auto source = read_hf_tokenizer(folder.path(), {{"eos_token_id", eos}}, Json());
    ASSERT_FALSE(source.ok()) << eos.dump();
    EXPECT_EQ(source.status().file(), "config.json");
    EXPECT_EQ(source.status().where(), "/eos_token_id");
    EXPECT_EQ(source.status().refusal(),
              eos.is_number_integer() ? Refusal::kRange : Refusal::kType);
  }
  folder.write("tokenizer_config.json", R"({"eos_token": 3})");
  EXPECT_EQ(read_hf_tokenizer(folder.path(), Json(), Json()).status().refusal(), Refusal::kType);
  folder.write("tokenizer_config.json", "{");
  EXPECT_FALSE(read_hf_tokenizer(folder.path(), Json(), Json()).ok());
}

}  // namespace
}  // namespace pome
