// Recorded ids for published vocabularies that are at hand in some form: those of
// swift-transformers, of llama.cpp, and of the sentencepiece library for the small models.
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "formats/sentencepiece_model.h"
#include "formats/tiktoken.h"
#include "tokenizer/ggml_pre.h"
#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

std::string data(const std::string& path) { return shared_path("data/tokenizers/" + path); }

Json read_json(const std::string& path) {
  auto json = read_json_file(path);
  EXPECT_TRUE(json.ok()) << json.status().to_string();
  return json.ok() ? *std::move(json) : Json();
}

std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> out;
  std::istringstream in(read_all(path));
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

// Llama 3.2 from its encoder.json and vocab.bpe.
TokenizerPtr llama3() {
  const std::string folder = data("llama3.2-ollama/tokenizer/testdata/llama3.2/");
  const Json vocab = read_json(folder + "encoder.json");
  TokenizerSource source;
  source.model = TokenizerSource::Model::kBpe;
  source.tokens.resize(128256);
  for (const auto& [text, id] : vocab.items()) {
    if (id.get<size_t>() < 128000) source.tokens[id.get<size_t>()] = text;
  }
  AddedToken bos;
  bos.id = 128000;
  bos.content = source.tokens[128000] = "<|begin_of_text|>";
  bos.special = true;
  source.added = {bos};
  for (const std::string& line : lines_of(folder + "vocab.bpe")) {
    const size_t space = line.find(' ');
    if (line.empty() || line[0] == '#' || space == std::string::npos) continue;
    source.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  const auto steps = steps_of_ggml_pre("llama-bpe");
  source.pre_tokenizer = steps->pre_tokenizer;
  source.ignore_merges = steps->ignore_merges;
  source.decoder = {decoder::ByteLevel{}};
  source.bos = 128000;
  source.prefix_ids = {128000};
  return build(Result<TokenizerSource>(std::move(source)));
}

// bert-base-uncased from its list of tokens.
TokenizerPtr bert() {
  TokenizerSource source;
  source.model = TokenizerSource::Model::kWordPiece;
  source.tokens = lines_of(data("swift-transformers/bert-vocab.txt"));
  source.continuing_subword_prefix = "##";
  source.normalizer = {normalizer::Bert{}};
  source.pre_tokenizer = {pretokenizer::Bert{}};
  source.decoder = {decoder::WordPiece{}};
  source.unknown = 100;
  source.prefix_ids = {101};
  source.suffix_ids = {102};
  for (const int32_t id : {0, 100, 101, 102, 103}) {
    AddedToken token;
    token.id = id;
    token.content = source.tokens[static_cast<size_t>(id)];
    token.special = true;
    source.added.push_back(token);
  }
  return build(Result<TokenizerSource>(std::move(source)));
}

TokenizerPtr llama2() {
  auto file = open_mapped(data("llama2-spm/tokenizer.model"));
  EXPECT_TRUE(file.ok());
  auto source = read_sentencepiece_model(*file);
  EXPECT_TRUE(source.ok()) << source.status().to_string();
  source->prefix_ids = {*source->bos};
  return build(std::move(source));
}

TokenizerPtr qwen2() {
  auto file = open_mapped(data("qwen/qwen.tiktoken"));
  EXPECT_TRUE(file.ok());
  return build(read_tiktoken(*file, Json()));
}

// One text with the ids of swift-transformers, with what the class puts around it.
void expect_text(const TokenizerPtr& tokenizer, const std::string& name, bool decodes) {
  ASSERT_NE(tokenizer, nullptr);
  const Json vector = read_json(data("swift-transformers/" + name));
  const Ids expected = vector["token_ids"].get<Ids>();
  EXPECT_EQ(tokenizer->encode(vector["text"].get<std::string>()), expected) << name;
  if (decodes) {
    EXPECT_EQ(*tokenizer->decode(expected, false), vector["decoded_text"].get<std::string>());
  }
}

// The short inputs of swift-transformers for one model.
void expect_inputs(const TokenizerPtr& tokenizer, const std::string& model) {
  ASSERT_NE(tokenizer, nullptr);
  const Json vectors = read_json(data("swift-transformers/tokenizer_tests.json"))[model];
  ASSERT_GT(vectors.size(), 10u);
  for (const Json& vector : vectors) {
    const std::string input = vector["input"];
    EXPECT_EQ(tokenizer->encode(input), vector["encoded"]["input_ids"].get<Ids>())
        << model << ": " << testing::PrintToString(input);
  }
}

TEST(SwiftVectors, Gpt2) {
  POME_NEED(data("swift-transformers/gpt2_encoded_tokens.json"));
  const TokenizerPtr tokenizer = load_hf(data("gpt2-hf-full"));
  expect_text(tokenizer, "gpt2_encoded_tokens.json", true);
  expect_inputs(tokenizer, "distilgpt2");
}

TEST(SwiftVectors, Llama2) {
  POME_NEED(data("swift-transformers/llama_encoded.json"));
  const TokenizerPtr tokenizer = llama2();
  expect_text(tokenizer, "llama_encoded.json", false);
  expect_inputs(tokenizer, "coreml-projects/Llama-2-7b-chat-coreml");
}

TEST(SwiftVectors, Llama3) {
  POME_NEED(data("swift-transformers/llama_3.2_encoded.json"));
  const TokenizerPtr tokenizer = llama3();
  expect_text(tokenizer, "llama_3.2_encoded.json", true);
  expect_inputs(tokenizer, "pcuenq/Llama-3.2-1B-Instruct-tokenizer");
}

TEST(SwiftVectors, Bert) {
  POME_NEED(data("swift-transformers/bert-vocab.txt"));
  const TokenizerPtr tokenizer = bert();
  expect_text(tokenizer, "bert_uncased_encoded.json", false);
  expect_inputs(tokenizer, "bert-base-uncased");
  expect_inputs(tokenizer, "google-bert/bert-base-uncased");
}

TEST(SwiftVectors, BertQuestions) {
  const std::string path = data("swift-transformers/question_tokens.json");
  POME_NEED(path);
  const TokenizerPtr tokenizer = bert();
  ASSERT_NE(tokenizer, nullptr);
  const Json questions = read_json(path);
  const Json ids = read_json(data("swift-transformers/tokenized_questions.json"));
  ASSERT_GT(questions.size(), 10000u);
  ASSERT_EQ(questions.size(), ids.size());
  size_t wrong = 0;
  for (size_t i = 0; i < questions.size() && wrong < 5; ++i) {
    const std::string text = questions[i]["original"];
    const Ids found = tokenizer->encode(text, {.add_special = false});
    if (found == ids[i].get<Ids>()) continue;
    ++wrong;
    ADD_FAILURE() << testing::PrintToString(text) << "\n  expected " << ids[i].dump()
                  << "\n  found    " << testing::PrintToString(found);
  }
}

// llama.cpp's test strings where the vocabulary is at hand in another form.
void expect_llama_cpp(const TokenizerPtr& tokenizer, const std::string& name) {
  ASSERT_NE(tokenizer, nullptr);
  const std::string base = data("llama.cpp-vocab/ggml-vocab-" + name + ".gguf");
  const std::string text = read_all(base + ".inp"), separator = "\n__ggml_vocab_test__\n";
  const std::vector<std::string> outputs = lines_of(base + ".out");
  ASSERT_GT(outputs.size(), 40u);
  size_t begin = 0;
  for (const std::string& output : outputs) {
    const size_t end = text.find(separator, begin);
    ASSERT_NE(end, std::string::npos);
    const std::string input = text.substr(begin, end - begin);
    begin = end + separator.size();
    std::istringstream numbers(output);
    Ids expected;
    for (int32_t id = 0; numbers >> id;) expected.push_back(id);
    EXPECT_EQ(tokenizer->encode(input, {.add_special = false, .parse_special = false}), expected)
        << name << ": " << testing::PrintToString(input);
  }
}

TEST(LlamaCppVectors, Llama3) {
  POME_NEED(data("llama.cpp-vocab/ggml-vocab-llama-bpe.gguf.inp"));
  expect_llama_cpp(llama3(), "llama-bpe");
}
TEST(LlamaCppVectors, Qwen2FromTiktoken) {
  POME_NEED(data("llama.cpp-vocab/ggml-vocab-qwen2.gguf.inp"));
  expect_llama_cpp(qwen2(), "qwen2");
}
TEST(LlamaCppVectors, Llama2FromSentencePiece) {
  POME_NEED(data("llama.cpp-vocab/ggml-vocab-llama-spm.gguf.inp"));
  expect_llama_cpp(llama2(), "llama-spm");
}

TEST(SentencePieceVectors, ModelAndTokenizerJsonOfTheSmallModels) {
  const std::string zoo = shared_path("models/zoo/");
  POME_NEED(zoo + "gemma/sentencepiece_ids.json");
  for (const char* name : {"gemma", "gemma2", "phi3", "phi3-longrope"}) {
    const std::string folder = zoo + name;
    auto file = open_mapped(folder + "/tokenizer.model");
    ASSERT_TRUE(file.ok());
    const TokenizerPtr model = build(read_sentencepiece_model(*file));
    const TokenizerPtr json = load_hf(folder);
    ASSERT_NE(model, nullptr);
    ASSERT_NE(json, nullptr);
    for (const Json& vector : read_json(folder + "/sentencepiece_ids.json")) {
      const std::string text = vector[0];
      const Ids expected = vector[1].get<Ids>();
      EXPECT_EQ(model->encode(text), expected) << name << ": " << text;
      EXPECT_EQ(json->encode(text, {.add_special = false}), expected) << name << ": " << text;
    }
  }
}

// The same vocabulary as tokenizer.json and as vocab.json with merges.txt.
TEST(VocabAndMerges, GiveTheIdsOfTokenizerJson) {
  for (const char* name : {"gpt2-hf-full", "gpt-neo"}) {
    const std::string folder = data(name);
    POME_NEED(folder + "/merges.txt");
    const TokenizerPtr json = load_hf(folder);
    const TokenizerPtr files =
        build(read_vocab_and_merges(folder, {{"model_type", "gpt2"}}, Json()));
    ASSERT_NE(json, nullptr);
    ASSERT_NE(files, nullptr);
    const std::string text =
        read_all(data("gpt2-hf-full/README.md")) + "<|endoftext|>\n  na\u00efve";
    const Ids ids = files->encode(text);
    EXPECT_EQ(ids, json->encode(text)) << name;
    EXPECT_EQ(*files->decode(ids, false), text);
  }
}

}  // namespace
}  // namespace pome
