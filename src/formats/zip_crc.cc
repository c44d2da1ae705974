#include <algorithm>
#include <array>

#include "formats/zip.h"

namespace pome {
namespace {

// Eight bytes at a time: table k is what a byte does to the checksum k bytes later.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables out{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0);
    out[0][i] = value;
  }
  for (size_t k = 1; k < out.size(); ++k) {
    for (size_t i = 0; i < 256; ++i) {
      out[k][i] = (out[k - 1][i] >> 8) ^ out[0][out[k - 1][i] & 0xFF];
    }
  }
  return out;
}
constexpr Tables kTables = make_tables();

uint32_t at(std::span<const std::byte> bytes, size_t i) { return static_cast<uint32_t>(bytes[i]); }

}  // namespace

uint32_t crc32(uint32_t crc, std::span<const std::byte> bytes) {
  crc = ~crc;
  for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
    crc = kTables[7][(crc ^ at(bytes, 0)) & 0xFF] ^ kTables[6][((crc >> 8) ^ at(bytes, 1)) & 0xFF] ^
          kTables[5][((crc >> 16) ^ at(bytes, 2)) & 0xFF] ^ kTables[4][(crc >> 24) ^ at(bytes, 3)] ^
          kTables[3][at(bytes, 4)] ^ kTables[2][at(bytes, 5)] ^ kTables[1][at(bytes, 6)] ^
          kTables[0][at(bytes, 7)];
  }
  for (const std::byte byte : bytes) {
    crc = (crc >> 8) ^ kTables[0][(crc ^ static_cast<uint32_t>(byte)) & 0xFF];
  }
  return ~crc;
}

Status check_zip_crc(const ZipFile& file, const ZipEntry& entry) {
  constexpr uint64_t kStep = 1 << 20;
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(kStep, entry.bytes)));
  uint32_t crc = 0;
  for (uint64_t done = 0; done < entry.bytes;) {
    const auto part =
        std::span(buffer).first(static_cast<size_t>(std::min(kStep, entry.bytes - done)));
    POME_RETURN_IF_ERROR(file.source->read(entry.offset + done, part));
    file.source->release(entry.offset + done, part.size());
    crc = crc32(crc, part);
    done += part.size();
  }
  if (crc == entry.crc) return {};
  return bad_input(Refusal::kIntegrity, "the entry " + escape_for_terminal(entry.name, 80) +
                                            " does not have the checksum that the archive states")
      .in(file.source->name())
      .at_offset(entry.offset)
      .hint("the file is damaged; fetch it again");
}

}  // namespace pome
