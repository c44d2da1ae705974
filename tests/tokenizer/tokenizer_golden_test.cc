// Recorded ids: the vectors of llama.cpp's vocabulary files and those of the embedded model.
#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

std::vector<std::string> split_at(const std::string& text, const std::string& separator) {
  std::vector<std::string> out;
  size_t begin = 0;
  while (true) {
    const size_t end = text.find(separator, begin);
    out.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return out;
    begin = end + separator.size();
  }
}

class LlamaCppVectors : public testing::TestWithParam<const char*> {};

TEST_P(LlamaCppVectors, EncodesEveryStringAsRecorded) {
  const std::string base =
      shared_path("data/tokenizers/llama.cpp-vocab/ggml-vocab-") + GetParam() + ".gguf";
  POME_NEED(base);
  const TokenizerPtr tokenizer = load_gguf(base);
  ASSERT_NE(tokenizer, nullptr);
  auto inputs = split_at(read_all(base + ".inp"), "\n__ggml_vocab_test__\n");
  inputs.pop_back();  // the file ends with a separator
  std::istringstream outputs(read_all(base + ".out"));
  ASSERT_GT(inputs.size(), 40u);
  for (const std::string& input : inputs) {
    std::string line;
    ASSERT_TRUE(std::getline(outputs, line));
    std::istringstream numbers(line);
    Ids expected;
    for (int32_t id = 0; numbers >> id;) expected.push_back(id);
    const Ids ids = tokenizer->encode(input, {.add_special = false, .parse_special = false});
    EXPECT_EQ(ids, expected) << "for " << testing::PrintToString(input);
    const auto text = tokenizer->decode(ids, false);
    ASSERT_TRUE(text.ok());
    EXPECT_EQ(*text, input);
  }
}

INSTANTIATE_TEST_SUITE_P(All, LlamaCppVectors,
                         testing::Values("gpt-2", "llama-spm", "phi-3", "mpt"));

TEST(Gguf, SpecialIdsAndFlags) {
  const std::string folder = shared_path("data/tokenizers/llama.cpp-vocab/");
  POME_NEED(folder + "ggml-vocab-gpt-2.gguf");
  const TokenizerPtr gpt2 = load_gguf(folder + "ggml-vocab-gpt-2.gguf");
  ASSERT_NE(gpt2, nullptr);
  EXPECT_EQ(gpt2->encode("Hi"), (Ids{17250}));  // no BOS unless the file asks for it
  EXPECT_EQ(gpt2->encode("<|endoftext|>"), (Ids{50256}));
  EXPECT_EQ(std::count(gpt2->stop_ids().begin(), gpt2->stop_ids().end(), 50256), 1);

  const TokenizerPtr llama = load_gguf(folder + "ggml-vocab-llama-spm.gguf");
  ASSERT_NE(llama, nullptr);
  EXPECT_EQ(llama->encode("Hello"), (Ids{1, 15043}));
  EXPECT_EQ(llama->encode("Hello", {.add_special = false}), (Ids{15043}));
  EXPECT_EQ(llama->encode("</s>"), (Ids{1, 2}));
  const Ids typed = llama->encode("</s>", {.parse_special = false});
  EXPECT_EQ(std::count(typed.begin(), typed.end(), 2), 0);
  EXPECT_EQ(llama->encode(""), (Ids{1}));

  const TokenizerPtr phi3 = load_gguf(folder + "ggml-vocab-phi-3.gguf");
  ASSERT_NE(phi3, nullptr);
  // <|user|> swallows the newline behind it, as the flags of the original say.
  EXPECT_EQ(phi3->encode("<|user|>\nHi<|end|>"), (Ids{1, 32010, 6324, 32007}));
  // The template ends a turn with <|end|>, which the file's EOS does not say.
  EXPECT_EQ(std::count(phi3->stop_ids().begin(), phi3->stop_ids().end(), 32007), 1);
  EXPECT_EQ(std::count(phi3->stop_ids().begin(), phi3->stop_ids().end(), 32000), 1);
}

TEST(Gguf, Stories260K) {
  const std::string path = shared_path("data/models/stories260K-gguf/stories260K.gguf");
  POME_NEED(path);
  const TokenizerPtr tokenizer = load_gguf(path);
  ASSERT_NE(tokenizer, nullptr);
  // What the model was trained with (llama2.c, tok512).
  const Ids ids = tokenizer->encode("Once upon a time");
  EXPECT_EQ(ids, (Ids{1, 403, 407, 261, 378}));
  EXPECT_EQ(*tokenizer->decode(ids), "Once upon a time");
}

TEST(Gguf, TinyStoriesMatchesItsTokenizerJson) {
  const std::string folder = shared_path("data/models/");
  const std::string text_path = shared_path("data/text/tinystories/valid.txt");
  POME_NEED(folder + "tinystories-656k-hf/tokenizer.json");
  POME_NEED(text_path);
  const TokenizerPtr json = load_hf(folder + "tinystories-656k-hf");
  ASSERT_NE(json, nullptr);
  const std::string text = read_all(text_path).substr(0, 100000);
  const Ids expected = json->encode(text);
  EXPECT_EQ(expected.front(), 1);
  for (const char* name : {"Q2_K", "Q8_0"}) {
    const TokenizerPtr gguf =
        load_gguf(folder + "tinystories-656k-gguf/TinyStories-656K-" + name + ".gguf");
    ASSERT_NE(gguf, nullptr);
    EXPECT_EQ(gguf->encode(text), expected);
    EXPECT_EQ(*gguf->decode(expected), text);
  }
  EXPECT_EQ(*json->decode(expected), text);
}

std::string tales_folder() { return std::string(POME_SOURCE_DIR) + "/models/tales"; }

TEST(Tales, ChatsRenderAndEncodeAsRecorded) {
  POME_NEED(tales_folder() + "/golden/chat.json");
  const TokenizerPtr tokenizer = load_hf(tales_folder());
  ASSERT_NE(tokenizer, nullptr);
  const auto chat_template = ChatTemplate::parse(tokenizer->source().chat_template);
  ASSERT_TRUE(chat_template.ok()) << chat_template.status().to_string();
  const auto chats = read_json_file(tales_folder() + "/golden/chat.json");
  ASSERT_TRUE(chats.ok()) << chats.status().to_string();
  ASSERT_FALSE(chats->empty());
  for (const Json& chat : *chats) {
    std::vector<ChatMessage> messages;
    for (const Json& message : chat["messages"]) {
      messages.push_back({message["role"], message["content"]});
    }
    const auto spans = (*chat_template)->render(messages, true, tokenizer->source());
    ASSERT_TRUE(spans.ok()) << spans.status().to_string();
    EXPECT_EQ(plain_text(*spans), chat["rendered"].get<std::string>());
    EXPECT_EQ(encode_spans(*tokenizer, *spans), chat["prompt_ids"].get<Ids>());
    EXPECT_EQ(*tokenizer->decode(chat["greedy_ids"].get<Ids>()), chat["text"].get<std::string>());
  }
}

TEST(Tales, CorpusEncodesAsRecorded) {
  const std::string text_path = shared_path("data/text/tinystories/valid.txt");
  POME_NEED(text_path);
  POME_NEED(tales_folder() + "/golden/perplexity.json");
  const TokenizerPtr tokenizer = load_hf(tales_folder());
  ASSERT_NE(tokenizer, nullptr);
  const auto golden = read_json_file(tales_folder() + "/golden/perplexity.json");
  ASSERT_TRUE(golden.ok());
  const Ids expected = (*golden)["first_ids"].get<Ids>();
  Ids ids = tokenizer->encode(read_all(text_path).substr(0, 4000));
  ASSERT_GT(ids.size(), expected.size());
  ids.resize(expected.size());
  EXPECT_EQ(ids, expected);
}

TEST(Tales, StopsAtEndOfTextAndEndOfTurn) {
  POME_NEED(tales_folder() + "/tokenizer.json");
  // Without the configs only the template says that <|end|> ends a turn.
  const TokenizerPtr tokenizer = build(read_hf_tokenizer(tales_folder(), Json(), Json()));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(Ids(tokenizer->stop_ids().begin(), tokenizer->stop_ids().end()), (Ids{0, 3}));
  const TokenizerPtr full = load_hf(tales_folder());
  EXPECT_EQ(Ids(full->stop_ids().begin(), full->stop_ids().end()), (Ids{0, 3}));
}

}  // namespace
}  // namespace pome
