// Chat templates in MLC's form: its rules give the text that the model's own template gives.
#include "pipeline/mlc_conversation.h"

#include <gtest/gtest.h>

#include "tokenizer/chat_template.h"

namespace pome {
namespace {

using Messages = std::vector<std::pair<std::string, std::string>>;

const Messages kTalk = {{"user", "Hi"},
                        {"assistant", "Hello."},
                        {"user", "More"},
                        {"assistant", "Yes."},
                        {"user", "Bye"}};
const Messages kRuled = {{"system", "Be short."}, {"user", "Hi"}};

TokenizerSource source_with(const std::string& chat_template) {
  TokenizerSource out;
  out.model = TokenizerSource::Model::kBpe;
  out.tokens = {"<s>", "</s>", "a", "b"};
  out.kinds = {TokenKind::kControl, TokenKind::kControl, TokenKind::kNormal, TokenKind::kNormal};
  out.added = {{0, "<s>", true}, {1, "</s>", true}};
  out.bos = 0, out.eos = 1;
  out.bos_text = "<s>", out.eos_text = "</s>";
  out.chat_template = chat_template;
  return out;
}

struct Made {
  Json conversation;
  std::vector<std::string> notes;
  std::shared_ptr<const Tokenizer> tokenizer;
};
Made make(const std::string& chat_template) {
  Made out;
  auto tokenizer = Tokenizer::create(source_with(chat_template));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().to_string();
  out.tokenizer = *tokenizer;
  out.conversation = mlc_conversation(**tokenizer, &out.notes);
  return out;
}
std::string rendered(const Made& made, const Messages& messages) {
  const auto chat = ChatTemplate::parse(made.tokenizer->source().chat_template);
  EXPECT_TRUE(chat.ok());
  std::vector<ChatMessage> list;
  for (const auto& [role, content] : messages) list.push_back({role, content});
  const auto spans = (*chat)->render(list, true, made.tokenizer->source());
  EXPECT_TRUE(spans.ok()) << spans.status().to_string();
  const std::string text = plain_text(*spans);
  return text.starts_with("<s>") ? text.substr(3) : text;
}

constexpr const char* kChatml =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

TEST(MlcConversation, SaysTurnsOfEqualForm) {
  const Made made = make(kChatml);
  EXPECT_EQ(mlc_prompt(made.conversation, kTalk), rendered(made, kTalk));
  EXPECT_FALSE(made.conversation.contains("system_prefix_token_ids"));
  // Most chats have no system message; how one is given is said.
  ASSERT_EQ(made.notes.size(), 1u);
  EXPECT_NE(made.notes[0].find("system\\nTEXT"), std::string::npos) << made.notes[0];
}

TEST(MlcConversation, KeepsTheSystemMessageOfTheTemplate) {
  const Made made = make(std::string("{% if messages[0].role != 'system' %}<|im_start|>system\n"
                                     "You help.<|im_end|>\n{% endif %}") +
                         kChatml);
  EXPECT_EQ(mlc_prompt(made.conversation, kTalk), rendered(made, kTalk));
  EXPECT_EQ(mlc_prompt(made.conversation, kRuled), rendered(made, kRuled));
  EXPECT_EQ(made.conversation["system_message"], "You help.");
  EXPECT_TRUE(made.notes.empty());
}

TEST(MlcConversation, PutsTheFirstTokenInFront) {
  const Made made = make(
      "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} "
      "[/INST]{% elif m.role == 'assistant' %} {{ m.content }}</s>{% else %}"
      "{{ raise_exception('no system') }}{% endif %}{% endfor %}");
  EXPECT_EQ(mlc_prompt(made.conversation, kTalk), rendered(made, kTalk));
  EXPECT_EQ(made.conversation["system_prefix_token_ids"], Json({0}));
  EXPECT_EQ(made.conversation["stop_token_ids"], Json({1}));
  EXPECT_TRUE(made.notes.empty());
}

TEST(MlcConversation, TellsAnOpeningFromARole) {
  const Made made = make(
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
      "{% if add_generation_prompt %}<assistant><think>\n{% endif %}");
  EXPECT_EQ(mlc_prompt(made.conversation, kTalk), rendered(made, kTalk));
  EXPECT_EQ(made.conversation["role_empty_sep"], "<think>\n");
}

TEST(MlcConversation, SaysWhatItCannotSay) {
  // The number of the turn stands in the text.
  const Made made = make(
      "{% for m in messages %}[{{ loop.index }} {{ m.role }}]{{ m.content }}\n{% endfor %}"
      "[assistant]");
  ASSERT_EQ(made.notes.size(), 1u);
  EXPECT_NE(made.notes[0].find("cannot say"), std::string::npos) << made.notes[0];
}

TEST(MlcConversation, WithoutATemplateTextIsText) {
  const Made made = make("");
  EXPECT_EQ(mlc_prompt(made.conversation, {{"user", "Once"}}), "Once");
  EXPECT_TRUE(made.notes.empty());
}

TEST(MlcConversation, TellsHowTokensBecomeText) {
  TokenizerSource source;
  source.decoder = {decoder::ByteLevel{}};
  EXPECT_EQ(mlc_tokenizer_info(source), Json({{"token_postproc_method", "byte_level"},
                                              {"prepend_space_in_encode", false},
                                              {"strip_space_in_decode", false}}));
  source.decoder = {decoder::Replace{{"\xE2\x96\x81"}, " "}, decoder::ByteFallback{},
                    decoder::Fuse{}, decoder::Strip{" ", 1, 0}};
  source.normalizer = {normalizer::Prepend{"\xE2\x96\x81"}};
  EXPECT_EQ(mlc_tokenizer_info(source), Json({{"token_postproc_method", "byte_fallback"},
                                              {"prepend_space_in_encode", true},
                                              {"strip_space_in_decode", true}}));
}

}  // namespace
}  // namespace pome
