// Importance matrices, in both forms: what is read has numbers that can be used as weights.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/imatrix.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto matrix = pome::read_imatrix(pome::memory_source({bytes.begin(), bytes.end()}, "fuzz"));
  if (!matrix.ok()) {
    POME_CHECK(matrix.status().refusal() != pome::Refusal::kNone);
    return 0;
  }
  POME_CHECK(!matrix->entries.empty());
  for (const auto& [name, entry] : matrix->entries) {
    POME_CHECK(!entry.mean_squares.empty() && entry.calls >= 0);
    for (const float value : entry.mean_squares) POME_CHECK(std::isfinite(value) && value >= 0);
  }
  return 0;
}
