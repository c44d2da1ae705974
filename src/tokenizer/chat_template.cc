#include "tokenizer/chat_template.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "tokenizer/jinja/compiler.h"
#include "tokenizer/jinja/machine.h"

namespace pome {
namespace {

using jinja::Text;
using jinja::Value;

// Templates write markers such as "<|" + role + "|>", so that a role is template text, unless it
// could be something else than a name.
bool is_plain_role(const std::string& role) {
  return std::all_of(role.begin(), role.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

Status input_error(Refusal refusal, std::string message) {
  return bad_input(refusal, std::move(message)).at("input of the chat template");
}

Result<Value> to_value(const Json& json, int depth) {
  if (depth > jinja::kMaxDepth - 50) {
    return input_error(Refusal::kDepth, "the input is nested deeper than 150");
  }
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value(json.get<bool>());
    case Json::value_t::number_integer:
      return Value(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
        return input_error(Refusal::kOverflow, "a number does not fit 64 bits");
      }
      return Value(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value(json.get<double>());
    case Json::value_t::string:
      return Value(Text(json.get<std::string>(), true));
    case Json::value_t::array: {
      jinja::List items;
      items.reserve(json.size());
      for (const Json& item : json) {
        POME_ASSIGN_OR_RETURN(Value value, to_value(item, depth + 1));
        items.push_back(std::move(value));
      }
      return Value::list(std::move(items));
    }
    case Json::value_t::object: {
      jinja::Dict dict;
      for (const auto& [key, item] : json.items()) {
        POME_ASSIGN_OR_RETURN(Value value, to_value(item, depth + 1));
        dict.set(Value(Text(key, true)), std::move(value));
      }
      return Value(std::move(dict));
    }
    default:
      return Value(jinja::None{});
  }
}

Result<Value> messages_value(const Json& messages) {
  jinja::List out;
  for (const Json& message : messages) {
    POME_ASSIGN_OR_RETURN(Value value, to_value(message, 1));
    const Value* role = value.is(Value::Kind::kDict) ? value.dict().find("role") : nullptr;
    if (role != nullptr && role->is(Value::Kind::kString) && is_plain_role(role->text().bytes())) {
      jinja::Dict fields = value.dict();
      fields.set("role", Value(std::string_view(role->text().bytes())));
      value = Value(std::move(fields));
    }
    out.push_back(std::move(value));
  }
  return Value::list(std::move(out));
}

int64_t wall_clock() {
  if (const char* fixed = std::getenv("SOURCE_DATE_EPOCH")) return std::strtoll(fixed, nullptr, 10);
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return static_cast<int64_t>(timegm(&local));
}

// As in transformers, a token that the model does not have is undefined.
void add_special_tokens(jinja::Dict& globals, const TokenizerSource& tokenizer) {
  const auto add = [&](std::string_view name, const std::string& text) {
    if (!text.empty()) globals.set(name, Value(Text(text)));
  };
  const auto text_of = [&](const std::optional<int32_t>& id) {
    const bool known = id && *id >= 0 && static_cast<size_t>(*id) < tokenizer.tokens.size();
    return known ? tokenizer.tokens[static_cast<size_t>(*id)] : std::string();
  };
  add("bos_token", tokenizer.bos_text);
  add("eos_token", tokenizer.eos_text);
  add("unk_token", text_of(tokenizer.unknown));
  add("pad_token", text_of(tokenizer.padding));
}

}  // namespace

struct ChatTemplate::Impl {
  jinja::Program program;
};

ChatTemplate::ChatTemplate() : impl_(std::make_unique<Impl>()) {}
ChatTemplate::~ChatTemplate() = default;

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::parse(std::string_view jinja) {
  POME_ASSIGN_OR_RETURN(jinja::Program program, jinja::compile(jinja));
  std::shared_ptr<ChatTemplate> out(new ChatTemplate());
  out->impl_->program = std::move(program);
  return std::shared_ptr<const ChatTemplate>(std::move(out));
}

Result<std::vector<TemplateSpan>> ChatTemplate::render(const ChatInput& input,
                                                       const TokenizerSource& tokenizer) const {
  if (!input.messages.is_array()) {
    return input_error(Refusal::kType, "the messages are no list");
  }
  jinja::Dict globals;
  add_special_tokens(globals, tokenizer);
  for (const auto& [name, item] : input.variables.items()) {
    POME_ASSIGN_OR_RETURN(Value value, to_value(item, 1));
    globals.set(name, std::move(value));
  }
  POME_ASSIGN_OR_RETURN(Value messages, messages_value(input.messages));
  globals.set("messages", std::move(messages));
  POME_ASSIGN_OR_RETURN(Value tools, to_value(input.tools, 1));
  globals.set("tools", std::move(tools));
  POME_ASSIGN_OR_RETURN(Value documents, to_value(input.documents, 1));
  globals.set("documents", std::move(documents));
  globals.set("add_generation_prompt", Value(input.add_generation_prompt));
  POME_ASSIGN_OR_RETURN(const Text text,
                        jinja::run(impl_->program, globals, input.now ? *input.now : wall_clock()));
  std::vector<TemplateSpan> spans;
  size_t begin = 0;
  for (const Text::Run& run : text.runs()) {
    spans.push_back({text.bytes().substr(begin, run.end - begin), run.from_user});
    begin = run.end;
  }
  return spans;
}

Result<std::vector<TemplateSpan>> ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                                       bool add_generation_prompt,
                                                       const TokenizerSource& tokenizer) const {
  ChatInput input;
  input.add_generation_prompt = add_generation_prompt;
  for (const ChatMessage& message : messages) {
    input.messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  return render(input, tokenizer);
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
