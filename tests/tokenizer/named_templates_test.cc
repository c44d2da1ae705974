// The built-in templates, each over one conversation, and what ends an answer under them.
#include "tokenizer/named_templates.h"

#include <gtest/gtest.h>

#include "tokenizer/chat_template.h"
#include "tokenizer/stop_ids.h"
#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

const std::vector<ChatMessage> kTalk = {
    {"system", "S"}, {"user", "U"}, {"assistant", "A"}, {"user", "V"}};

struct Case {
  const char *name, *text, *stop;
};
// `stop`: with the tokenizer of the embedded model, to which </s> is EOS and <|end|> a special
// token.
constexpr Case kCases[] = {
    {"alpaca",
     "S\n\n### Instruction:\nU\n\n### Response:\nA\n\n### Instruction:\nV\n\n### Response:\n",
     "### Instruction:"},
    {"chatml",
     "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
     "A<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
     "<|im_end|>"},
    {"gemma",
     "<s><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
     "<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
     "<end_of_turn>"},
    {"llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]", ""},
    {"llama3",
     "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\n",
     "<|eot_id|>"},
    {"mistral", "<s>[INST] S\n\nU [/INST] A</s>[INST] V [/INST]", ""},
    {"phi3",
     "<s><|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n"
     "<|assistant|>\n",
     ""},
    {"vicuna", "<s>S USER: U ASSISTANT: A</s>USER: V ASSISTANT:", ""},
    {"zephyr",
     "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n"
     "<|assistant|>\n",
     ""},
};

TEST(NamedTemplates, RenderTheirConventionsAndSayWhatEndsAnAnswer) {
  TokenizerSource source = load_hf(POME_SOURCE_DIR "/models/tales")->source();
  source.tokens[0] = source.added[0].content = "</s>";
  source.bos_text = "<s>";
  source.eos_text = "</s>";
  std::string names;
  for (const Case& one : kCases) {
    const auto jinja = named_template(one.name);
    ASSERT_TRUE(jinja) << one.name;
    const auto parsed = ChatTemplate::parse(*jinja);
    ASSERT_TRUE(parsed.ok()) << one.name << parsed.status().to_string();
    const auto spans = (*parsed)->render(kTalk, true, source);
    ASSERT_TRUE(spans.ok()) << one.name << spans.status().to_string();
    EXPECT_EQ(plain_text(*spans), one.text);
    std::string said;
    for (const TemplateSpan& span : *spans)
      if (span.from_user) said += span.text;
    EXPECT_EQ(said, "SUAV") << one.name;  // what people said stays theirs

    const auto made = Tokenizer::create(source);
    ASSERT_TRUE(made.ok()) << made.status().to_string();
    EXPECT_EQ(find_stop_text(**made, **parsed), one.stop) << one.name;
    names += (names.empty() ? "" : ", ") + std::string(one.name);
  }
  EXPECT_EQ(named_template_list(), names);
  EXPECT_FALSE(named_template("Chatml"));
  EXPECT_FALSE(named_template(""));
}

}  // namespace
}  // namespace pome
