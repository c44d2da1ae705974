#include "tokenizer/chat_template.h"

#include <algorithm>
#include <utility>

#include "tokenizer/jinja/eval.h"
#include "tokenizer/jinja/parser.h"

namespace pome {
namespace {

// Templates write markers such as "<|" + role + "|>", so that a role is template text, unless it
// could be something else than a name.
bool is_plain_role(const std::string& role) {
  return std::all_of(role.begin(), role.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

}  // namespace

struct ChatTemplate::Impl {
  jinja::Body body;
};

ChatTemplate::ChatTemplate() : impl_(std::make_unique<Impl>()) {}
ChatTemplate::~ChatTemplate() = default;

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::parse(std::string_view jinja) {
  POME_ASSIGN_OR_RETURN(jinja::Body body, jinja::parse_template(jinja));
  std::shared_ptr<ChatTemplate> out(new ChatTemplate());
  out->impl_->body = std::move(body);
  return std::shared_ptr<const ChatTemplate>(std::move(out));
}

Result<std::vector<TemplateSpan>> ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                                       bool add_generation_prompt,
                                                       const TokenizerSource& tokenizer) const {
  using jinja::Text;
  using jinja::Value;
  jinja::List list;
  for (const ChatMessage& message : messages) {
    jinja::Dict fields;
    fields.emplace_back("role", Text(message.role, !is_plain_role(message.role)));
    fields.emplace_back("content", Text(message.content, true));
    list.emplace_back(std::move(fields));
  }
  jinja::Dict globals;
  globals.emplace_back("messages", std::move(list));
  globals.emplace_back("add_generation_prompt", add_generation_prompt);
  // As in transformers, a token that the model does not have is undefined.
  if (!tokenizer.bos_text.empty()) globals.emplace_back("bos_token", Text(tokenizer.bos_text));
  if (!tokenizer.eos_text.empty()) globals.emplace_back("eos_token", Text(tokenizer.eos_text));
  POME_ASSIGN_OR_RETURN(const Text text, jinja::render(impl_->body, std::move(globals)));
  std::vector<TemplateSpan> spans;
  size_t begin = 0;
  for (const Text::Run& run : text.runs()) {
    spans.push_back({text.bytes().substr(begin, run.end - begin), run.from_user});
    begin = run.end;
  }
  return spans;
}

std::string plain_text(const std::vector<TemplateSpan>& spans) {
  std::string out;
  for (const TemplateSpan& span : spans) out += span.text;
  return out;
}

std::vector<int32_t> encode_spans(const Tokenizer& tokenizer,
                                  const std::vector<TemplateSpan>& spans) {
  std::string text;
  std::vector<TextRange> user_text;
  for (const TemplateSpan& span : spans) {
    if (span.from_user && !span.text.empty()) {
      user_text.push_back({text.size(), text.size() + span.text.size()});
    }
    text += span.text;
  }
  std::vector<int32_t> ids =
      tokenizer.encode_with_user_text(text, user_text, {.add_special = false});
  const TokenizerSource& source = tokenizer.source();
  if (source.add_bos() && (ids.empty() || ids.front() != *source.bos)) {
    ids.insert(ids.begin(), *source.bos);
  }
  return ids;
}

}  // namespace pome
