// The directory of a zip archive whose entries are stored, not compressed: what PyTorch writes and
// maps. PKWARE APPNOTE 6.3.10; zip64 included.
//
//   local header | name | extra | data | [descriptor]   for each entry, one after the other from 0
//   central directory                                   one record for each
//   [zip64 end record | zip64 locator] | end record     the last 22 bytes: a comment is refused
//
// Strict, because two readers that disagree about an archive are how bad files get past a check:
// local headers must agree with the directory, entries must fill the file without gaps or overlaps,
// names are plain relative paths and unique (also when case is ignored).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_source.h"
#include "base/status.h"

namespace pome {

struct ZipEntry {
  std::string name;                // "archive/data/0"; a folder ends in "/"
  uint64_t offset = 0, bytes = 0;  // of the data, absolute in the source
  uint64_t header_offset = 0;      // of the local header
  uint32_t crc = 0;
};
struct ZipFile {
  ByteSourcePtr source;
  std::vector<ZipEntry> entries;  // by offset
  std::vector<uint32_t> by_name;  // indices of `entries`, sorted by name
  const ZipEntry* find(std::string_view name) const;
};
// Reads headers only. Refusals: kTrunc, kLimit, kBounds, kRange, kPath, kLink, kDup, kBomb (entries
// that overlap), kHole, kUtf8; kUnsupported with kType for compressed and encrypted entries.
Result<ZipFile> read_zip(ByteSourcePtr source);

// Reads all data of the entry; kIntegrity when its checksum is not that of the directory.
Status check_zip_crc(const ZipFile& file, const ZipEntry& entry);

// CRC-32 of zip, gzip and Ethernet (reflected polynomial 0xEDB88320). `crc` is 0 to begin with,
// else the value of the bytes before.
uint32_t crc32(uint32_t crc, std::span<const std::byte> bytes);

}  // namespace pome
