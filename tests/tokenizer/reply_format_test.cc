#include "tokenizer/reply_format.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tokenizer/byte_level.h"
#include "tokenizer/tokenizer_testing.h"

namespace pome {
namespace {

constexpr const char* kMarkers[] = {"<|start|>",  "<|channel|>", "<|message|>",  "<|end|>",
                                    "<|return|>", "<|call|>",    "<|constrain|>"};

// A layout with channels, as small as it can be.
constexpr const char* kChannelTemplate =
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.tool_calls %}<|start|>assistant to=functions.{{ m.tool_calls[0].function.name }}"
    "<|channel|>commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% else %}"
    "{% if m.thinking and loop.last %}<|start|>assistant<|channel|>analysis<|message|>"
    "{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% endif %}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}";

// All bytes, and the markers as special tokens.
TokenizerSource source_with(const std::string& chat_template,
                            const std::vector<std::string>& markers) {
  TokenizerSource source;
  source.model = TokenizerSource::Model::kBpe;
  source.origin = "test";
  for (int byte = 0; byte < 256; ++byte) {
    source.tokens.push_back(token_of_bytes(std::string(1, static_cast<char>(byte))));
  }
  source.kinds.assign(256, TokenKind::kNormal);
  for (const std::string& marker : markers) {
    AddedToken token;
    token.id = static_cast<int32_t>(source.tokens.size());
    token.content = marker;
    token.special = true;
    source.tokens.push_back(marker);
    source.kinds.push_back(TokenKind::kControl);
    source.added.push_back(token);
  }
  source.pre_tokenizer = {pretokenizer::ByteLevel{false, true}};
  source.decoder = {decoder::ByteLevel{}};
  source.chat_template = chat_template;
  return source;
}
std::vector<std::string> channel_markers() { return {std::begin(kMarkers), std::end(kMarkers)}; }

ReplyFormat format_of(const TokenizerPtr& tokenizer) {
  const auto chat_template = ChatTemplate::parse(tokenizer->source().chat_template);
  EXPECT_TRUE(chat_template.ok()) << chat_template.status().to_string();
  return ReplyFormat::of(*tokenizer, **chat_template);
}

// "kind channel>recipient:text|..." of a reply that comes id by id.
std::string read(const TokenizerPtr& tokenizer, const std::string& prompt,
                 const std::string& reply) {
  const auto prompt_ids = tokenizer->encode(prompt);
  ReplyReader reader(tokenizer, format_of(tokenizer), prompt_ids);
  std::string out, last;
  const auto add = [&](const std::vector<ReplyPart>& parts) {
    for (const ReplyPart& part : parts) {
      constexpr const char* kNames[] = {"answer", "thinking", "call", "commentary"};
      std::string head = kNames[static_cast<size_t>(part.kind)];
      if (!part.channel.empty()) head += " " + part.channel;
      if (!part.recipient.empty()) head += ">" + part.recipient;
      if (head != last) out += (out.empty() ? "" : "|") + head + ":";
      last = head;
      out += part.text;
    }
  };
  for (const int32_t id : tokenizer->encode(reply)) add(reader.push(id));
  add(reader.flush());
  return out;
}

std::string stops(const TokenizerPtr& tokenizer) {
  std::string out;
  for (const int32_t id : tokenizer->stop_ids()) out += tokenizer->token_bytes(id);
  return out;
}

TEST(ReplyFormat, ChannelsAreFoundByTheTemplate) {
  const TokenizerPtr tokenizer = build(source_with(kChannelTemplate, channel_markers()));
  ASSERT_TRUE(tokenizer != nullptr);
  const ReplyFormat format = format_of(tokenizer);
  EXPECT_EQ(format.layout, ReplyFormat::Layout::kChannels);
  EXPECT_EQ(tokenizer->token_bytes(format.start), "<|start|>");
  EXPECT_EQ(tokenizer->token_bytes(format.channel), "<|channel|>");
  EXPECT_EQ(tokenizer->token_bytes(format.message), "<|message|>");
  EXPECT_EQ(format.answer_channel, "final");
  EXPECT_EQ(format.thinking_channel, "analysis");
}

TEST(ReplyFormat, WhatEndsAMessageButNoReplyIsNoStopId) {
  TokenizerSource source = source_with(kChannelTemplate, channel_markers());
  source.eos = 256 + 4;
  EXPECT_EQ(stops(build(source)), "<|return|><|call|>");
  source.end_of_turn = 256 + 3;  // some files say so
  EXPECT_EQ(stops(build(source)), "<|return|><|call|>");
}

TEST(ReplyFormat, OneTokenMayCloseThePartsAndAnotherTheReply) {
  const TokenizerPtr tokenizer = build(source_with(
      "{% for m in messages %}<|open|>{{ m.role }}<|sep|>{% if m.thinking %}<|open|>think<|sep|>"
      "{{ m.thinking }}<|close|>{% endif %}<|open|>response<|sep|>{{ m.content }}<|close|><|eom|>"
      "{% endfor %}",
      {"<|open|>", "<|sep|>", "<|close|>", "<|eom|>"}));
  ASSERT_TRUE(tokenizer != nullptr);
  // A call of a tool is not written by this template.
  TokenizerSource source = tokenizer->source();
  std::vector<bool> special(source.tokens.size());
  for (const AddedToken& token : source.added) special[static_cast<size_t>(token.id)] = true;
  const auto chat_template = ChatTemplate::parse(source.chat_template);
  ASSERT_TRUE(chat_template.ok());
  const TemplateEnds ends = template_ends(**chat_template, source, special);
  EXPECT_EQ(ends.turn, std::vector<int32_t>{259});
  EXPECT_EQ(ends.inner, std::vector<int32_t>{258});
  EXPECT_EQ(stops(tokenizer), "<|eom|>");
  EXPECT_EQ(read(tokenizer, "<|open|>assistant<|sep|>",
                 "<|open|>think<|sep|>Hm.<|close|><|open|>response<|sep|>Yes.<|close|>"),
            "thinking think:Hm.|answer response:Yes.");
}

TEST(ReplyReader, Channels) {
  const TokenizerPtr tokenizer = build(source_with(kChannelTemplate, channel_markers()));
  ASSERT_TRUE(tokenizer != nullptr);
  const std::string prompt = "<|start|>user<|message|>Hi<|end|><|start|>assistant";
  EXPECT_EQ(read(tokenizer, prompt,
                 "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final"
                 "<|message|>Hello é!<|return|>"),
            "thinking analysis:Hm.|answer final:Hello é!");
  EXPECT_EQ(read(tokenizer, prompt, "<|channel|>final<|message|>Hello"), "answer final:Hello");
  EXPECT_EQ(read(tokenizer, prompt,
                 "<|channel|>analysis<|message|>Look.<|end|><|start|>assistant"
                 "<|channel|>commentary to=functions.get <|constrain|>json<|message|>{\"x\": 1}"
                 "<|call|>"),
            "thinking analysis:Look.|call commentary>functions.get:{\"x\": 1}");
  // The recipient may stand in front of the channel too.
  EXPECT_EQ(
      read(tokenizer, prompt, " to=functions.f<|channel|>commentary json<|message|>{}<|call|>"),
      "call commentary>functions.f:{}");
  EXPECT_EQ(read(tokenizer, prompt, "<|channel|>commentary<|message|>Plan.<|end|>"),
            "commentary commentary:Plan.");
  // Without a channel, or without any marker, it is the answer.
  EXPECT_EQ(read(tokenizer, prompt, "<|message|>Hello<|return|>"), "answer:Hello");
  EXPECT_EQ(read(tokenizer, prompt, " Hello there"), "answer:Hello there");
  EXPECT_EQ(read(tokenizer, prompt, ""), "");
  // The prompt may give the header.
  EXPECT_EQ(read(tokenizer, prompt + "<|channel|>final<|message|>", "Yes."), "answer final:Yes.");
  EXPECT_EQ(read(tokenizer, prompt + "<|channel|>ana", "lysis<|message|>Hm."),
            "thinking analysis:Hm.");
}

TEST(ReplyReader, TextThatLooksLikeAMarkerIsText) {
  const TokenizerPtr tokenizer = build(source_with(kChannelTemplate, channel_markers()));
  ASSERT_TRUE(tokenizer != nullptr);
  const std::vector<int32_t> prompt = tokenizer->encode("<|start|>assistant");
  ReplyReader reader(tokenizer, format_of(tokenizer), prompt);
  std::string text;
  for (const int32_t id : tokenizer->encode("<|channel|>final<|message|>")) reader.push(id);
  for (const int32_t id : tokenizer->encode("a<|end|>b", {.parse_special = false})) {
    for (const ReplyPart& part : reader.push(id)) text += part.text;
  }
  EXPECT_EQ(text, "a<|end|>b");
}

TEST(ReplyReader, ThinkingTags) {
  const std::string chat_template =
      "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}<e>{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}";
  for (const bool special : {false, true}) {
    std::vector<std::string> markers = {"<e>"};
    if (special) markers.insert(markers.end(), {"<think>", "</think>"});
    const TokenizerPtr tokenizer = build(source_with(chat_template, markers));
    ASSERT_TRUE(tokenizer != nullptr);
    EXPECT_EQ(format_of(tokenizer).layout, ReplyFormat::Layout::kThinking);
    EXPECT_EQ(read(tokenizer, "[assistant]", "<think>\nHm.\n</think>\n\nHello <b>"),
              "thinking:\nHm.\n|answer:Hello <b>");
    EXPECT_EQ(read(tokenizer, "[assistant]<think>\n", "Hm.</think>Hello"),
              "thinking:Hm.|answer:Hello");
    EXPECT_EQ(read(tokenizer, "[assistant]<think>\n\n</think>\n\n", "Hello"), "answer:Hello");
    EXPECT_EQ(read(tokenizer, "[assistant]", "Hello <think>"), "answer:Hello <think>");
    EXPECT_EQ(read(tokenizer, "[assistant]", " <th"), "answer: <th");
    EXPECT_EQ(read(tokenizer, "[assistant]<think>", "Hm. </th"), "thinking:Hm. </th");
    EXPECT_EQ(read(tokenizer, "[assistant]<think>", "a</b>c</think>\n"), "thinking:a</b>c");
    EXPECT_EQ(stops(tokenizer), "<e>");
  }
}

TEST(ReplyReader, PlainRepliesAreAnswers) {
  const TokenizerPtr tokenizer =
      build(source_with("{% for m in messages %}{{ m.content }}<e>{% endfor %}", {"<e>"}));
  ASSERT_TRUE(tokenizer != nullptr);
  EXPECT_EQ(format_of(tokenizer).layout, ReplyFormat::Layout::kPlain);
  EXPECT_EQ(read(tokenizer, "x", "Hello é"), "answer:Hello é");
}

// The published template of the layout: markers, stop ids, and a reply.
TEST(ReplyFormat, PublishedTemplateWithChannels) {
  const std::string path = shared_path("data/chat-templates/templates/openai-gpt-oss-120b.jinja");
  POME_NEED(path);
  const TokenizerPtr tokenizer = build(source_with(read_all(path), channel_markers()));
  ASSERT_TRUE(tokenizer != nullptr);
  const ReplyFormat format = format_of(tokenizer);
  EXPECT_EQ(format.layout, ReplyFormat::Layout::kChannels);
  EXPECT_EQ(format.answer_channel, "final");
  EXPECT_EQ(format.thinking_channel, "analysis");
  EXPECT_EQ(stops(tokenizer), "<|return|><|call|>");
  EXPECT_EQ(read(tokenizer, "<|start|>assistant",
                 "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final"
                 "<|message|>b<|return|>"),
            "thinking analysis:a|answer final:b");
}

}  // namespace
}  // namespace pome
