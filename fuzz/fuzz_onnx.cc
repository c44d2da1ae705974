// model.onnx: whatever parses can be written, and parses again as the same model.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/onnx.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto model =
      pome::onnx::parse_model(pome::memory_source({bytes.begin(), bytes.end()}, "fuzz"));
  if (!model.ok()) return 0;
  const auto written = pome::onnx::serialize(*model);
  if (!written.ok()) return 0;
  const auto again = pome::onnx::parse_model(pome::memory_source(*written, "again"));
  POME_CHECK(again.ok());
  const auto twice = pome::onnx::serialize(*again);
  POME_CHECK(twice.ok() && *twice == *written);
  return 0;
}
