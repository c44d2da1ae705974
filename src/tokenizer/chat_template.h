// ChatTemplate: renders a conversation as spans, so that text a user typed never becomes a special
// token. The language is the one of Jinja with the settings of transformers
// (docs/chat-templates.md).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/tokenizer.h"

namespace pome {

struct ChatMessage {
  std::string role, content;
};

// What a template sees besides the special tokens of the model. All strings in here count as text
// of a user, keys too, but for roles that are plain names.
struct ChatInput {
  Json messages = Json::array();    // objects: role, content (text or parts), tool_calls ...
  Json tools, documents;            // null: none
  Json variables = Json::object();  // more names, such as enable_thinking
  bool add_generation_prompt = true;
  // What strftime_now shows: seconds since 1970 as the clock on the wall shows them. Without it
  // SOURCE_DATE_EPOCH, else the present time here.
  std::optional<int64_t> now;
};

struct TemplateSpan {
  std::string text;
  bool from_user = false;  // came from the input, not from the template
};

// Immutable and shareable. Errors are kTemplate with "line L column C". Bounded: steps, 16 MiB of
// output, 96 MiB of values, nesting depth 200.
class ChatTemplate {
 public:
  static Result<std::shared_ptr<const ChatTemplate>> parse(std::string_view jinja);
  ~ChatTemplate();
  Result<std::vector<TemplateSpan>> render(const ChatInput& input,
                                           const TokenizerSource& tokenizer) const;
  Result<std::vector<TemplateSpan>> render(const std::vector<ChatMessage>& messages,
                                           bool add_generation_prompt,
                                           const TokenizerSource& tokenizer) const;

 private:
  ChatTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string plain_text(const std::vector<TemplateSpan>& spans);
// Template spans with special tokens recognised, user spans without; no BOS is added twice.
std::vector<int32_t> encode_spans(const Tokenizer& tokenizer,
                                  const std::vector<TemplateSpan>& spans);

}  // namespace pome
