// PyTorch checkpoints: the archive, the pickle in it, and every small tensor that it describes. A
// second way in takes the input as the pickle of an archive whose checksums are right, so that
// mutations reach the machine.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/pytorch.h"
#include "malformed/pytorch_bytes.h"

namespace {

using namespace pome;             // NOLINT
using namespace pome::malformed;  // NOLINT: builders of the tests

void check(const ByteSourcePtr& source) {
  const auto file = read_pytorch(source);
  if (!file.ok()) {
    POME_CHECK(file.status().refusal() != Refusal::kNone);
    POME_CHECK(!file.status().file().empty() && !file.status().hint().empty());
    return;
  }
  constexpr uint64_t kMost = 1 << 16;
  for (const PytorchTensor& tensor : file->tensors) {
    POME_CHECK(tensor.bytes <= source->size());
    POME_CHECK(storage_bytes(tensor.dtype, static_cast<uint64_t>(*element_count(tensor.shape))) ==
               tensor.bytes);
    std::vector<std::byte> bytes(static_cast<size_t>(std::min(tensor.bytes, kMost)));
    POME_CHECK(tensor.source->read(tensor.offset, bytes).ok());
    POME_CHECK(tensor.source->read(tensor.offset + tensor.bytes - bytes.size(), bytes).ok());
  }
  (void)check_checksums(*file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  check(memory_source({bytes.begin(), bytes.end()}, "fuzz"));
  if (size == 0 || data[0] != 0x80) return 0;
  const std::string archive =
      torch_archive(std::string(reinterpret_cast<const char*>(data), size),
                    {counting_bytes(24), counting_bytes(10), "", counting_bytes(2)})
          .build();
  const auto whole = std::as_bytes(std::span(archive));
  check(memory_source({whole.begin(), whole.end()}, "fuzz"));
  return 0;
}
