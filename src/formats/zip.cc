#include "formats/zip.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "formats/duplicates.h"
#include "formats/sniff.h"

namespace pome {
namespace {

constexpr uint64_t kEndBytes = 22, kLocatorBytes = 20, kZip64EndBytes = 56;
constexpr uint32_t kLocalMark = 0x04034b50, kCentralMark = 0x02014b50, kEndMark = 0x06054b50,
                   kZip64EndMark = 0x06064b50, kLocatorMark = 0x07064b50,
                   kDescriptorMark = 0x08074b50;
constexpr uint16_t kEncrypted = 1 << 0 | 1 << 6 | 1 << 13;
constexpr uint16_t kHasDescriptor = 1 << 3, kUtf8Names = 1 << 11;
constexpr uint64_t kMaxEntries = 1 << 20;
constexpr uint64_t kMaxDirectoryBytes = 128u << 20;
constexpr size_t kMaxNameBytes = 1024, kMaxNameDepth = 32;

std::string in_quotes(std::string_view text) { return "\"" + escape_for_terminal(text, 80) + "\""; }

struct Directory {
  uint64_t entries = 0, offset = 0, bytes = 0;
};
// One record of the central directory.
struct Record {
  ZipEntry entry;
  uint64_t at = 0;  // where the record lies, for messages
  uint16_t flags = 0, method = 0;
  bool zip64 = false;
};

class ZipParser {
 public:
  explicit ZipParser(ByteSourcePtr source) { file_.source = std::move(source); }

  Result<ZipFile> parse() {
    POME_ASSIGN_OR_RETURN(const Directory directory, read_end());
    POME_RETURN_IF_ERROR(read_directory(directory));
    POME_RETURN_IF_ERROR(check_names());
    POME_RETURN_IF_ERROR(place_entries(directory.offset));
    return std::move(file_);
  }

 private:
  Status refuse(Refusal refusal, uint64_t offset, std::string message) const {
    return bad_input(refusal, std::move(message)).in(file_.source->name()).at_offset(offset);
  }

  Result<Directory> read_end() const;
  Result<Directory> read_zip64_end(uint64_t end_at, const Directory& small) const;
  Status refuse_no_end() const;
  Status read_directory(const Directory& directory);
  Result<Record> read_record(ByteReader& reader) const;
  Status read_zip64_extra(ByteReader& reader, uint16_t extra_bytes, Record& record) const;
  Status check_kind(const Record& record, uint16_t made_by, uint32_t attributes) const;
  Status check_name(const Record& record) const;
  Status check_names() const;
  Status read_local_header(Record& record, uint64_t limit) const;
  Status check_local_extra(ByteReader& reader, uint16_t extra_bytes, const Record& record,
                           uint64_t* compressed, uint64_t* bytes) const;
  Result<uint64_t> skip_descriptor(const Record& record, uint64_t limit) const;
  Status place_entries(uint64_t directory_offset);

  ZipFile file_;
  std::vector<Record> records_;
};

// The end record is where it must be, or the reason is looked for.
Status ZipParser::refuse_no_end() const {
  const uint64_t size = file_.source->size();
  std::string tail(static_cast<size_t>(std::min<uint64_t>(size, kEndBytes + 65535)), '\0');
  POME_RETURN_IF_ERROR(
      file_.source->read(size - tail.size(), std::as_writable_bytes(std::span(tail))));
  const size_t found = tail.rfind(std::string_view("PK\x05\x06", 4));
  if (found != std::string::npos && tail.size() - found >= kEndBytes) {
    const uint64_t at = size - tail.size() + found;
    return refuse(Refusal::kRange, at + kEndBytes,
                  std::to_string(size - at - kEndBytes) +
                      " bytes follow the end record of the archive, where nothing may be");
  }
  return refuse(Refusal::kTrunc, size, "the archive has no end record: it is cut off");
}

Result<Directory> ZipParser::read_end() const {
  const uint64_t size = file_.source->size();
  if (size < kEndBytes) return refuse(Refusal::kTrunc, size, "too short for a zip archive");
  const uint64_t at = size - kEndBytes;
  ByteReader reader(file_.source, at);
  POME_ASSIGN_OR_RETURN(const uint32_t mark, reader.u32());
  if (mark != kEndMark) return refuse_no_end();
  POME_ASSIGN_OR_RETURN(const uint16_t disk, reader.u16());
  POME_ASSIGN_OR_RETURN(const uint16_t directory_disk, reader.u16());
  POME_ASSIGN_OR_RETURN(const uint16_t here, reader.u16());
  POME_ASSIGN_OR_RETURN(const uint16_t all, reader.u16());
  POME_ASSIGN_OR_RETURN(const uint32_t bytes, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint32_t offset, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint16_t comment, reader.u16());
  if (disk != 0 || directory_disk != 0 || here != all) {
    return refuse(Refusal::kRange, at, "the archive says that it is split over several files");
  }
  if (comment != 0)
    return refuse(Refusal::kRange, at + 20, "the comment of the archive is cut off");
  Directory directory{all, offset, bytes};
  uint64_t end = at;
  if (at >= kLocatorBytes) {
    ByteReader locator(file_.source, at - kLocatorBytes);
    POME_ASSIGN_OR_RETURN(const uint32_t locator_mark, locator.u32());
    if (locator_mark == kLocatorMark) {
      POME_ASSIGN_OR_RETURN(directory, read_zip64_end(at, directory));
      end = at - kLocatorBytes - kZip64EndBytes;
    }
  }
  if (directory.offset > end || directory.bytes != end - directory.offset) {
    return refuse(Refusal::kRange, at,
                  "the directory is said to be at " + std::to_string(directory.offset) + " with " +
                      std::to_string(directory.bytes) + " bytes, but it must end at " +
                      std::to_string(end));
  }
  if (directory.entries > kMaxEntries || directory.bytes > kMaxDirectoryBytes) {
    return refuse(Refusal::kLimit, at,
                  "the directory has " + std::to_string(directory.entries) + " entries in " +
                      std::to_string(directory.bytes) + " bytes, over the limit");
  }
  return directory;
}

Result<Directory> ZipParser::read_zip64_end(uint64_t end_at, const Directory& small) const {
  const uint64_t locator_at = end_at - kLocatorBytes;
  ByteReader locator(file_.source, locator_at + 4);
  POME_ASSIGN_OR_RETURN(const uint32_t disk, locator.u32());
  POME_ASSIGN_OR_RETURN(const uint64_t at, locator.u64());
  POME_ASSIGN_OR_RETURN(const uint32_t disks, locator.u32());
  if (disk != 0 || disks > 1 || locator_at < kZip64EndBytes || at != locator_at - kZip64EndBytes) {
    return refuse(Refusal::kRange, locator_at,
                  "the zip64 locator does not name the record before it");
  }
  ByteReader reader(file_.source, at);
  POME_ASSIGN_OR_RETURN(const uint32_t mark, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint64_t record_bytes, reader.u64());
  POME_RETURN_IF_ERROR(reader.skip(4));  // versions
  POME_ASSIGN_OR_RETURN(const uint32_t this_disk, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint32_t directory_disk, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint64_t here, reader.u64());
  Directory out;
  POME_ASSIGN_OR_RETURN(out.entries, reader.u64());
  POME_ASSIGN_OR_RETURN(out.bytes, reader.u64());
  POME_ASSIGN_OR_RETURN(out.offset, reader.u64());
  if (mark != kZip64EndMark || record_bytes != kZip64EndBytes - 12 || this_disk != 0 ||
      directory_disk != 0 || here != out.entries) {
    return refuse(Refusal::kRange, at, "the zip64 end record makes no sense");
  }
  const auto agree = [](uint64_t small_value, uint64_t large, uint64_t all_ones) {
    return small_value == large || small_value == all_ones;
  };
  if (!agree(small.entries, out.entries, 0xFFFF) || !agree(small.bytes, out.bytes, 0xFFFFFFFF) ||
      !agree(small.offset, out.offset, 0xFFFFFFFF)) {
    return refuse(Refusal::kRange, end_at, "the two end records of the archive disagree");
  }
  return out;
}

Status ZipParser::read_directory(const Directory& directory) {
  ByteReader reader(file_.source, directory.offset, directory.offset + directory.bytes);
  for (uint64_t i = 0; i < directory.entries; ++i) {
    POME_ASSIGN_OR_RETURN(Record record, read_record(reader));
    records_.push_back(std::move(record));
  }
  if (reader.at_end()) return {};
  return reader.fail(Refusal::kRange, "the directory goes on after its last entry");
}

Result<Record> ZipParser::read_record(ByteReader& reader) const {
  Record record;
  record.at = reader.offset();
  POME_ASSIGN_OR_RETURN(const uint32_t mark, reader.u32());
  if (mark != kCentralMark) {
    return refuse(Refusal::kRange, record.at, "expected an entry of the directory");
  }
  POME_ASSIGN_OR_RETURN(const uint16_t made_by, reader.u16());
  POME_RETURN_IF_ERROR(reader.skip(2));  // version needed
  POME_ASSIGN_OR_RETURN(record.flags, reader.u16());
  POME_ASSIGN_OR_RETURN(record.method, reader.u16());
  POME_RETURN_IF_ERROR(reader.skip(4));  // time
  POME_ASSIGN_OR_RETURN(record.entry.crc, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint32_t compressed, reader.u32());
  POME_ASSIGN_OR_RETURN(record.entry.bytes, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint16_t name_bytes, reader.u16());
  POME_ASSIGN_OR_RETURN(const uint16_t extra_bytes, reader.u16());
  POME_ASSIGN_OR_RETURN(const uint16_t comment_bytes, reader.u16());
  POME_ASSIGN_OR_RETURN(const uint16_t disk, reader.u16());
  POME_RETURN_IF_ERROR(reader.skip(2));  // internal attributes
  POME_ASSIGN_OR_RETURN(const uint32_t attributes, reader.u32());
  POME_ASSIGN_OR_RETURN(record.entry.header_offset, reader.u32());
  POME_ASSIGN_OR_RETURN(record.entry.name, reader.text(name_bytes, kMaxNameBytes));
  POME_RETURN_IF_ERROR(check_name(record));
  POME_RETURN_IF_ERROR(check_kind(record, made_by, attributes));
  // For a moment `offset` is the compressed size: it must come out equal to `bytes`.
  record.entry.offset = compressed;
  POME_RETURN_IF_ERROR(read_zip64_extra(reader, extra_bytes, record));
  if (disk != 0) return refuse(Refusal::kRange, record.at, "an entry lies in another file");
  if (record.entry.offset != record.entry.bytes) {
    return refuse(Refusal::kRange, record.at,
                  "the entry " + in_quotes(record.entry.name) + " is stored, but has two sizes");
  }
  if (record.entry.bytes > file_.source->size()) {
    return refuse(Refusal::kRange, record.at,
                  "the entry " + in_quotes(record.entry.name) + " is larger than the archive");
  }
  POME_RETURN_IF_ERROR(reader.skip(comment_bytes));
  return record;
}

// Only the fields that do not fit 32 bits are there, in this order.
Status ZipParser::read_zip64_extra(ByteReader& reader, uint16_t extra_bytes, Record& record) const {
  constexpr uint16_t kZip64 = 1;
  constexpr uint64_t kElsewhere = 0xFFFFFFFF;
  uint64_t left = extra_bytes;
  bool found = false;
  while (left >= 4) {
    POME_ASSIGN_OR_RETURN(const uint16_t id, reader.u16());
    POME_ASSIGN_OR_RETURN(const uint16_t bytes, reader.u16());
    left -= 4;
    if (bytes > left)
      return reader.fail(Refusal::kBounds, "an extra field is longer than its room");
    left -= bytes;
    if (id != kZip64) {
      POME_RETURN_IF_ERROR(reader.skip(bytes));
      continue;
    }
    if (found) return reader.fail(Refusal::kDup, "an entry has two zip64 fields");
    found = record.zip64 = true;
    uint64_t used = 0;
    for (uint64_t* field :
         {&record.entry.bytes, &record.entry.offset, &record.entry.header_offset}) {
      if (*field != kElsewhere) continue;
      if (used + 8 > bytes) return reader.fail(Refusal::kRange, "a zip64 field is too short");
      POME_ASSIGN_OR_RETURN(*field, reader.u64());
      used += 8;
    }
    POME_RETURN_IF_ERROR(reader.skip(bytes - used));
  }
  return reader.skip(left);
}

Status ZipParser::check_kind(const Record& record, uint16_t made_by, uint32_t attributes) const {
  const std::string who = "the entry " + in_quotes(record.entry.name);
  const auto cannot = [&](std::string message, std::string_view hint) {
    return Status(StatusCode::kUnsupported, who + std::move(message), Refusal::kType)
        .in(file_.source->name())
        .at_offset(record.at)
        .hint(hint);
  };
  if (record.flags & kEncrypted) return cannot(" is encrypted", "decrypt the archive first");
  if (record.method != 0) {
    return cannot(" is compressed (method " + std::to_string(record.method) +
                      "); weights are read in place, so entries must be stored",
                  "pack the archive again without compression, for example with zip -0; of a "
                  "TorchScript program save the state_dict instead");
  }
  if (record.flags & ~(kHasDescriptor | kUtf8Names | 0x6)) {
    return refuse(Refusal::kType, record.at, who + " has unknown flags");
  }
  // The upper half of the attributes is a Unix mode where the archive was made on Unix.
  constexpr uint32_t kFormat = 0170000, kRegular = 0100000, kFolder = 0040000;
  const uint32_t format = made_by >> 8 == 3 ? attributes >> 16 & kFormat : 0;
  if (format != 0 && format != kRegular && format != kFolder) {
    return refuse(Refusal::kLink, record.at, who + " is a link or a device, not a file");
  }
  return {};
}

Status ZipParser::check_name(const Record& record) const {
  const std::string& name = record.entry.name;
  const auto wrong = [&](Refusal refusal, const std::string& message) {
    return refuse(refusal, record.at, "the entry name " + in_quotes(name) + " " + message);
  };
  if (!is_valid_utf8(name)) return wrong(Refusal::kUtf8, "is not valid UTF-8");
  if (name.empty() || name.front() == '/' || name.find('\\') != std::string::npos ||
      name.find('\0') != std::string::npos || name.find(':') != std::string::npos) {
    return wrong(Refusal::kPath, "is no plain relative path");
  }
  size_t depth = 0;
  for (size_t at = 0; at < name.size();) {
    const size_t slash = std::min(name.find('/', at), name.size());
    const std::string_view part = std::string_view(name).substr(at, slash - at);
    if (part.empty() || part == "." || part == "..") {
      return wrong(Refusal::kPath, "is no plain relative path");
    }
    if (++depth > kMaxNameDepth) return wrong(Refusal::kLimit, "has too many folders");
    at = slash + 1;
  }
  if (name.back() == '/' && record.entry.bytes != 0) {
    return wrong(Refusal::kRange, "is that of a folder, but it has contents");
  }
  return {};
}

Status ZipParser::check_names() const {
  std::vector<std::string> folded;
  folded.reserve(records_.size());
  for (const Record& record : records_) {
    std::string name = record.entry.name;
    std::transform(name.begin(), name.end(), name.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    folded.push_back(std::move(name));
  }
  const auto duplicate =
      first_duplicate(folded.size(), [&](size_t i) { return std::string_view(folded[i]); });
  if (!duplicate) return {};
  return refuse(Refusal::kDup, records_[*duplicate].at,
                "the entry " + in_quotes(records_[*duplicate].entry.name) + " is there twice");
}

// Sizes of a local header that stand in its extra field.
Status ZipParser::check_local_extra(ByteReader& reader, uint16_t extra_bytes, const Record& record,
                                    uint64_t* compressed, uint64_t* bytes) const {
  Record local;
  local.entry.offset = *compressed;
  local.entry.bytes = *bytes;
  // A padding field of old writers may be no well-formed field: then nothing is in it.
  ByteReader extra(file_.source, reader.offset(), reader.offset() + extra_bytes);
  if (record.zip64 || *bytes == 0xFFFFFFFF) {
    POME_RETURN_IF_ERROR(read_zip64_extra(extra, extra_bytes, local));
    *compressed = local.entry.offset;
    *bytes = local.entry.bytes;
  }
  return reader.skip(extra_bytes);
}

// Holds the local header against the directory and finds where the data starts.
Status ZipParser::read_local_header(Record& record, uint64_t limit) const {
  ZipEntry& entry = record.entry;
  const std::string who = "the entry " + in_quotes(entry.name);
  ByteReader reader(file_.source, entry.header_offset, limit);
  POME_ASSIGN_OR_RETURN(const uint32_t mark, reader.u32());
  if (mark != kLocalMark) {
    return refuse(Refusal::kRange, entry.header_offset, who + " does not start here");
  }
  POME_RETURN_IF_ERROR(reader.skip(2));
  POME_ASSIGN_OR_RETURN(const uint16_t flags, reader.u16());
  POME_ASSIGN_OR_RETURN(const uint16_t method, reader.u16());
  POME_RETURN_IF_ERROR(reader.skip(4));
  POME_ASSIGN_OR_RETURN(const uint32_t crc, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint32_t small_compressed, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint32_t small_bytes, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint16_t name_bytes, reader.u16());
  POME_ASSIGN_OR_RETURN(const uint16_t extra_bytes, reader.u16());
  POME_ASSIGN_OR_RETURN(const std::string name, reader.text(name_bytes, 65535));
  uint64_t compressed = small_compressed, bytes = small_bytes;
  POME_RETURN_IF_ERROR(check_local_extra(reader, extra_bytes, record, &compressed, &bytes));
  // A writer that streams states sizes and checksum behind the data, and zeros here.
  const bool later = flags & kHasDescriptor;
  const auto agrees = [later](uint64_t here, uint64_t there) {
    return here == there || (later && here == 0);
  };
  if (name != entry.name || method != record.method ||
      (flags & ~kUtf8Names) != (record.flags & ~kUtf8Names) || !agrees(crc, entry.crc) ||
      !agrees(compressed, entry.bytes) || !agrees(bytes, entry.bytes)) {
    return refuse(Refusal::kRange, entry.header_offset,
                  who + " is described differently in the directory");
  }
  entry.offset = reader.offset();
  if (!span_fits(entry.offset, entry.bytes, limit)) {
    return refuse(Refusal::kBounds, entry.header_offset,
                  who + " is said to have " + std::to_string(entry.bytes) +
                      " bytes, more than there are before the directory");
  }
  return {};
}

// Where the entry ends, its descriptor included.
Result<uint64_t> ZipParser::skip_descriptor(const Record& record, uint64_t limit) const {
  const ZipEntry& entry = record.entry;
  const uint64_t end = entry.offset + entry.bytes;
  if (!(record.flags & kHasDescriptor)) return end;
  ByteReader reader(file_.source, end, limit);
  const auto wrong = [&] {
    return refuse(Refusal::kRange, end,
                  "what follows the data of " + in_quotes(entry.name) +
                      " does not state its checksum and size");
  };
  if (reader.remaining() < 16) return wrong();
  POME_ASSIGN_OR_RETURN(const uint32_t mark, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint32_t crc, reader.u32());
  if (mark != kDescriptorMark || crc != entry.crc) return wrong();
  POME_ASSIGN_OR_RETURN(const uint32_t first, reader.u32());
  POME_ASSIGN_OR_RETURN(const uint32_t second, reader.u32());
  const auto low = static_cast<uint32_t>(entry.bytes);
  const auto high = static_cast<uint32_t>(entry.bytes >> 32);
  if (high == 0 && first == low && second == low) {
    if (low != 0 || reader.remaining() < 8) return reader.offset();
    // An empty entry looks the same with sizes of 32 and of 64 bits; what follows cannot be zeros.
    const uint64_t at = reader.offset();
    POME_ASSIGN_OR_RETURN(const uint64_t next, reader.u64());
    return next == 0 ? reader.offset() : at;
  }
  // With zip64 the two sizes have 64 bits each.
  if (reader.remaining() < 8) return wrong();
  POME_ASSIGN_OR_RETURN(const uint64_t other, reader.u64());
  if (first != low || second != high || other != entry.bytes) return wrong();
  return reader.offset();
}

// Entries follow each other from the first byte of the file to the directory.
Status ZipParser::place_entries(uint64_t directory_offset) {
  std::sort(records_.begin(), records_.end(), [](const Record& a, const Record& b) {
    return a.entry.header_offset < b.entry.header_offset;
  });
  uint64_t end = 0;
  for (Record& record : records_) {
    const ZipEntry& entry = record.entry;
    const std::string who = "the entry " + in_quotes(entry.name);
    if (entry.header_offset >= directory_offset) {
      return refuse(Refusal::kRange, record.at,
                    who + " is said to start at " + std::to_string(entry.header_offset) +
                        ", behind all entries");
    }
    if (entry.header_offset < end) {
      return refuse(Refusal::kBomb, record.at, who + " overlaps the one before it");
    }
    if (entry.header_offset > end) {
      return refuse(end == 0 ? Refusal::kRange : Refusal::kHole, end,
                    std::to_string(entry.header_offset - end) + " unused bytes before " + who);
    }
    POME_RETURN_IF_ERROR(read_local_header(record, directory_offset));
    POME_ASSIGN_OR_RETURN(end, skip_descriptor(record, directory_offset));
    file_.entries.push_back(std::move(record.entry));
  }
  if (end != directory_offset) {
    return refuse(Refusal::kHole, end,
                  std::to_string(directory_offset - end) + " unused bytes before the directory");
  }
  auto& order = file_.by_name;
  order.resize(file_.entries.size());
  std::iota(order.begin(), order.end(), uint32_t{0});
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return file_.entries[a].name < file_.entries[b].name; });
  return {};
}

}  // namespace

const ZipEntry* ZipFile::find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name.begin(), by_name.end(), name,
      [&](uint32_t i, std::string_view wanted) { return entries[i].name < wanted; });
  return found != by_name.end() && entries[*found].name == name ? &entries[*found] : nullptr;
}

Result<ZipFile> read_zip(ByteSourcePtr source) {
  auto file = ZipParser(std::move(source)).parse();
  if (!file.ok()) return with_file_hint(std::move(file).status());
  return file;
}

}  // namespace pome
