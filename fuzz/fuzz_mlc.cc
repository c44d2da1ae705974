// The list of weights of an MLC package: what is accepted lies inside its shards.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/checked.h"
#include "formats/mlc.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto cache = pome::parse_mlc_cache(text, "fuzz");
  if (!cache.ok()) {
    POME_CHECK(cache.status().refusal() != pome::Refusal::kNone);
    return 0;
  }
  for (const pome::MlcTensor& tensor : cache->tensors) {
    POME_CHECK(tensor.shard < cache->shards.size());
    POME_CHECK(pome::span_fits(tensor.offset, tensor.bytes, cache->shards[tensor.shard].bytes));
    const auto count = pome::element_count(tensor.shape);
    POME_CHECK(count && static_cast<uint64_t>(*count) * pome::mlc_element_bytes(tensor.encoding) ==
                            tensor.bytes);
  }
  return 0;
}
