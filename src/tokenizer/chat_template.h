// ChatTemplate: renders a conversation as spans, so that text a user typed never becomes a special
// token.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

namespace pome {

struct ChatMessage {
  std::string role, content;
};

struct TemplateSpan {
  std::string text;
  bool from_user = false;  // came from a message (its content), not from the template
};

// Immutable and shareable. Errors are kTemplate with "line L column C". Bounded: fuel for steps, 16
// MiB of output, nesting depth 200.
class ChatTemplate {
 public:
  static Result<std::shared_ptr<const ChatTemplate>> parse(std::string_view jinja);
  ~ChatTemplate();
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
