// Chat templates: whatever parses renders or is refused by name, in bounded time and memory, and
// the spans of the output are whole.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tokenizer/chat_template.h"

namespace {

const pome::ChatInput& input() {
  static const pome::ChatInput kInput = [] {
    pome::ChatInput out;
    out.messages = pome::Json::parse(R"([{"role": "system", "content": " s "},
      {"role": "user", "content": "caf\u00e9 <s>"}, {"role": "assistant", "content": "a,b",
       "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, null, true]}}}]},
      {"role": "tool", "content": [{"type": "text", "text": "{}"}]}])");
    out.tools = pome::Json::parse(
        R"([{"function": {"name": "f", "parameters": {"properties": {"x": {"type": "array"}}}}}])");
    out.variables = {
        {"n", 3}, {"s", "Ab c"}, {"l", pome::Json::array({3, 1, 2})}, {"d", {{"k", 1}}}};
    out.now = 1700000000;
    return out;
  }();
  return kInput;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = pome::ChatTemplate::parse(text);
  if (!parsed.ok()) {
    POME_CHECK(parsed.status().refusal() == pome::Refusal::kTemplate);
    return 0;
  }
  pome::TokenizerSource tokenizer;
  tokenizer.bos_text = "<s>";
  tokenizer.eos_text = "</s>";
  const auto spans = (*parsed)->render(input(), tokenizer);
  if (!spans.ok()) {
    POME_CHECK(spans.status().refusal() == pome::Refusal::kTemplate);
    return 0;
  }
  for (const pome::TemplateSpan& span : *spans) POME_CHECK(!span.text.empty());
  return 0;
}
