// *.tiktoken: what builds a tokenizer encodes any text. The input is the lines behind the 256
// bytes, and once the whole file.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tiktoken.h"
#include "malformed/tiktoken_bytes.h"
#include "tokenizer_checks.h"

namespace {

void read_and_check(std::string_view file, std::string_view sample) {
  std::vector<std::byte> bytes(file.size());
  if (!file.empty()) std::memcpy(bytes.data(), file.data(), file.size());
  static const auto kEncoding = pome::find_tiktoken_encoding(50256, pome::Json());
  auto source = pome::read_tiktoken_as(pome::memory_source(std::move(bytes), "fuzz"), *kEncoding);
  if (source.ok()) pome::check_tokenizer(*std::move(source), sample);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string kBytes = pome::malformed::joined(pome::malformed::tiktoken_lines(256));
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  read_and_check(text, pome::sample_of(text));
  read_and_check(kBytes + std::string(text), pome::sample_of(text));
  return 0;
}
