// Chat templates: whatever parses renders or is refused by name, in bounded time and memory.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tokenizer/chat_template.h"

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
  const auto spans = (*parsed)->render(
      {{"system", " s "}, {"user", "caf\u00e9 <s>"}, {"assistant", "a,b"}}, true, tokenizer);
  if (!spans.ok()) {
    POME_CHECK(spans.status().refusal() == pome::Refusal::kTemplate);
    return 0;
  }
  for (const pome::TemplateSpan& span : *spans) POME_CHECK(!span.text.empty());
  return 0;
}
