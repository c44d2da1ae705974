// Conversations for chat templates: plain, with a system prompt, of several turns, with tools, with
// reasoning; each with the contents as strings and as lists of parts.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer_source.h"

namespace pome {

struct Conversation {
  std::string name;
  ChatInput input;
};

inline constexpr int64_t kConversationTime = 1700000000;  // 2023-11-14 22:13:20

inline TokenizerSource conversation_tokens() {
  TokenizerSource source;
  source.bos_text = "<s>";
  source.eos_text = "</s>";
  return source;
}

namespace conversations {

inline constexpr const char* kTools = R"([
  {"type": "function", "function": {"name": "get_weather", "description": "Current weather of a place",
   "parameters": {"type": "object", "properties": {
     "location": {"type": "string", "description": "City, \"state\""},
     "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
     "days": {"type": ["integer", "null"], "description": "how many"},
     "places": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}}}}},
    "required": ["location"]}, "return": {"type": "object", "description": "weather"}}},
  {"type": "function", "function": {"name": "search", "description": "Durchsucht das Netz – schnell",
   "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}}},
  {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}}
])";

// What templates that turn schemas into signatures can read.
inline constexpr const char* kSimpleTools = R"([
  {"type": "function", "function": {"name": "add", "description": "Adds.",
   "parameters": {"type": "object", "properties": {"a": {"type": "integer", "description": "one"},
     "b": {"type": "number", "description": "other"}}, "required": ["a", "b"]},
   "return": {"type": "number", "description": "sum"}}}
])";

inline constexpr const char* kMessages[][2] = {
    {"plain", R"([{"role": "user", "content": "  Hello <b>you</b> & \"me\" – 你好 "}])"},
    {"system",
     R"([{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": "Hi"}])"},
    {"turns",
     R"([{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "One?"},
      {"role": "assistant", "content": "It is 1.\n\nReally."}, {"role": "user", "content": "Two?"},
      {"role": "assistant", "content": "2"}, {"role": "user", "content": "Three?"}])"},
    {"answered", R"([{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}])"},
    {"developer",
     R"([{"role": "developer", "content": "Rules."}, {"role": "user", "content": "Hi"}])"},
    {"empty",
     R"([{"role": "user", "content": ""}, {"role": "assistant", "content": ""}, {"role": "user", "content": "x"}])"},
    {"two_users", R"([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])"},
    {"reasoning", R"([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "42",
      "reasoning_content": "Let me think.\nHm.", "thinking": "Let me think.\nHm.", "reasoning": "Let me think.\nHm."},
      {"role": "user", "content": "And?"}])"},
    {"think_tags", R"([{"role": "user", "content": "Why?"}, {"role": "assistant",
      "content": "<think>\nI think.\n</think>\n\nAnswer."}, {"role": "user", "content": "And?"}])"},
    {"think_last",
     R"([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Answer.",
      "reasoning_content": "So.", "thinking": "So."}])"},
};

inline constexpr const char* kToolMessages[][2] = {
    {"tools_offered",
     R"([{"role": "system", "content": "Use tools."}, {"role": "user", "content": "Weather?"}])"},
    {"tool_call",
     R"([{"role": "user", "content": "Weather in NY?"}, {"role": "assistant", "content": null,
      "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}]}])"},
    {"tool_result",
     R"([{"role": "user", "content": "Weather in NY?"}, {"role": "assistant", "content": "",
      "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}]},
      {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "{\"temp\": 20, \"sky\": \"klar\"}"},
      {"role": "assistant", "content": "20 degrees."}, {"role": "user", "content": "Thanks"}])"},
    {"parallel",
     R"([{"role": "user", "content": "Both?"}, {"role": "assistant", "content": "Looking.",
      "reasoning_content": "Two calls.", "thinking": "Two calls.",
      "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}},
        {"id": "call00002", "type": "function", "function": {"name": "search", "arguments": {"query": "a \"b\" ü", "n": [1, 2.5, null, true]}}}]},
      {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "20C"},
      {"role": "tool", "tool_call_id": "call00002", "name": "search", "content": "none"}])"},
};

// Contents of strings become lists of one text part.
inline Json with_parts(Json messages) {
  for (Json& message : messages) {
    if (message.contains("content") && message["content"].is_string()) {
      const std::string text = message["content"];
      message["content"] = Json::array({{{"type", "text"}, {"text", text}}});
    }
  }
  return messages;
}

inline Json parsed(std::string text) {
  auto json = parse_json(text, "conversation");
  return json.ok() ? *std::move(json) : Json();
}

}  // namespace conversations

inline std::vector<Conversation> all_conversations() {
  using namespace conversations;  // NOLINT: its own names
  std::vector<Conversation> out;
  const auto add = [&](const std::string& name, const Json& messages, const Json& tools,
                       const Json& variables) {
    for (const bool parts : {false, true}) {
      for (const bool prompt : {true, false}) {
        ChatInput input;
        input.messages = parts ? with_parts(messages) : messages;
        input.tools = tools;
        input.variables = variables;
        input.add_generation_prompt = prompt;
        input.now = kConversationTime;
        out.push_back({name + (parts ? "/parts" : "") + (prompt ? "/prompt" : ""), input});
      }
    }
  };
  for (const auto& [name, text] : kMessages) add(name, parsed(text), Json(), Json::object());
  for (const bool as_string : {false, true}) {
    const std::string arguments =
        R"({"location": "NY", "unit": "c", "days": 3, "places": [{"x": 1.5}]})";
    const std::string written = as_string ? dump_json(Json(arguments)) : arguments;
    for (const auto& [name, text] : kToolMessages) {
      std::string messages = text;
      const std::string mark = "ARGUMENTS";
      for (size_t at = messages.find(mark); at != std::string::npos; at = messages.find(mark, at)) {
        messages.replace(at, mark.size(), written);
      }
      add(std::string(name) + (as_string ? "/string" : ""), parsed(messages), parsed(kTools),
          Json::object());
    }
  }
  add("simple_tools", parsed(kMessages[1][1]), parsed(kSimpleTools),
      {{"functions", "[]"}, {"datetime", "2024-01-01"}});
  add("no_thinking", parsed(kMessages[1][1]), Json(),
      {{"enable_thinking", false}, {"thinking", false}, {"reasoning_effort", "low"}});
  add("thinking", parsed(kMessages[2][1]), Json(),
      {{"enable_thinking", true},
       {"thinking", true},
       {"reasoning_effort", "high"},
       {"builtin_tools", Json::array({"browser", "python"})},
       {"model_identity", "I am a test."},
       {"date_string", "1 Jan 2024"},
       {"custom_tools", nullptr}});
  return out;
}

// What Jinja is given for an input.
inline Json reference_variables(const ChatInput& input) {
  Json out = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  out.update(input.variables);
  out["messages"] = input.messages;
  out["tools"] = input.tools;
  out["documents"] = input.documents;
  out["add_generation_prompt"] = input.add_generation_prompt;
  return out;
}

}  // namespace pome
