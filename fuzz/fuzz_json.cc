// JSON: whatever parses can be written, and parses again as the same text.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto value = pome::parse_json(text, "fuzz");
  if (!value.ok()) {
    POME_CHECK(value.status().refusal() != pome::Refusal::kNone);
    return 0;
  }
  const std::string once = pome::dump_json(*value);
  const auto again = pome::parse_json(once, "again");
  POME_CHECK(again.ok() && pome::dump_json(*again) == once);
  return 0;
}
