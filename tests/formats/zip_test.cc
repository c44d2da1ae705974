// Archives: what is read, and one row per way to break one (the numbers are those of the checklist
// of bad inputs, part E).
#include "formats/zip.h"

#include <gtest/gtest.h>

#include <functional>

#include "malformed/back_ends.h"
#include "malformed/pytorch_bytes.h"

namespace pome {
namespace {

using namespace malformed;  // NOLINT: builders of the test

ZipBytes two_entries() {
  ZipBytes zip;
  zip.entries = {entry_of("r/a", "hello"), entry_of("r/b", counting_bytes(100))};
  return zip;
}
Result<ZipFile> read(const std::string& bytes) {
  return read_zip(memory_source(bytes_of(bytes), "zip"));
}

TEST(Zip, FindsTheDataOfItsEntries) {
  const TempFolder folder;
  for (const bool zip64 : {true, false}) {
    for (const uint16_t flags : {0x0808, 0x0800, 0x0000, 0x0008}) {
      ZipBytes zip = two_entries();
      zip.zip64 = zip64;
      for (ZipEntryBytes& entry : zip.entries) entry.flags = flags;
      zip.entries[1].extra = "FB" + le<uint16_t>(5) + "ZZZZZ";
      zip.entries.push_back(entry_of("r/empty", ""));
      zip.entries.push_back(entry_of("folder/", ""));
      for (const auto& [name, source] : back_ends(folder, zip.build())) {
        const auto file = read_zip(source);
        ASSERT_TRUE(file.ok()) << name << file.status().to_string();
        ASSERT_EQ(file->entries.size(), 4u);
        const ZipEntry* b = file->find("r/b");
        ASSERT_NE(b, nullptr);
        EXPECT_EQ(b->bytes, 100u);
        std::string data(100, '\0');
        ASSERT_TRUE(source->read(b->offset, std::as_writable_bytes(std::span(data))).ok());
        EXPECT_EQ(data, counting_bytes(100));
        EXPECT_EQ(file->find("r/c"), nullptr);
        for (const ZipEntry& entry : file->entries) {
          EXPECT_TRUE(check_zip_crc(*file, entry).ok()) << entry.name;
        }
      }
    }
  }
  EXPECT_TRUE(read(ZipBytes().build()).ok());  // nothing in it
}

TEST(Zip, ReadsSizesOf64Bits) {
  ZipBytes zip = two_entries();
  ZipEntryBytes& entry = zip.entries[1];
  entry.bytes = 0xFFFFFFFF;
  entry.central_extra = le<uint16_t>(9) + le<uint16_t>(1) + "x" + le<uint16_t>(1) +
                        le<uint16_t>(16) + le<uint64_t>(100) + le<uint64_t>(100);
  const std::string mark = le<uint32_t>(0x08074b50) + le(plain_crc32(entry.data));
  for (const bool wide : {true, false}) {
    entry.descriptor = wide ? mark + le<uint64_t>(100) + le<uint64_t>(100)
                            : mark + le<uint32_t>(100) + le<uint32_t>(100);
    const auto file = read(zip.build());
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    EXPECT_EQ(file->find("r/b")->bytes, 100u);
  }
  zip.entries[0].data.clear();
  zip.entries[0].descriptor = le<uint32_t>(0x08074b50) + std::string(20, '\0');
  EXPECT_TRUE(read(zip.build()).ok());
}

struct Row {
  const char* what;
  Refusal refusal;
  std::function<void(ZipBytes&)> damage;
};

TEST(Zip, RefusesWhatIsWrong) {
  const auto name = [](std::string text) {
    return [text](ZipBytes& z) { z.entries[1].name = text; };
  };
  const Row rows[] = {
      {"113 parent", Refusal::kPath, name("../evil")},
      {"113 absolute", Refusal::kPath, name("/abs")},
      {"113 drive", Refusal::kPath, name("C:\\x")},
      {"113 share", Refusal::kPath, name("\\\\host\\x")},
      {"113 inner parent", Refusal::kPath, name("a/../../b")},
      {"113 backslash", Refusal::kPath, name("a\\..\\b")},
      {"113 NUL", Refusal::kPath, name(std::string("a\0b", 3))},
      {"empty part", Refusal::kPath, name("a//b")},
      {"dot", Refusal::kPath, name("./b")},
      {"no name", Refusal::kPath, name("")},
      {"not UTF-8", Refusal::kUtf8, name("a\xff")},
      {"114 link", Refusal::kLink,
       [](ZipBytes& z) {
         z.entries[1].made_by = 3 << 8;
         z.entries[1].attributes = 0120777u << 16;
       }},
      {"114 device", Refusal::kLink,
       [](ZipBytes& z) {
         z.entries[1].made_by = 3 << 8;
         z.entries[1].attributes = 0060600u << 16;
       }},
      {"115 duplicate", Refusal::kDup, name("r/a")},
      {"115 case", Refusal::kDup, name("R/A")},
      {"116 local name", Refusal::kRange, [](ZipBytes& z) { z.entries[1].local_name = "r/x"; }},
      {"116 local method", Refusal::kRange, [](ZipBytes& z) { z.entries[1].local_method = 8; }},
      {"116 size", Refusal::kRange, [](ZipBytes& z) { z.entries[1].bytes = 99; }},
      {"116 local size", Refusal::kRange,
       [](ZipBytes& z) {
         z.entries[1].flags = 0;
         z.entries[1].bytes = 99;
       }},
      {"116 descriptor", Refusal::kRange,
       [](ZipBytes& z) { z.entries[1].descriptor = std::string(16, 'x'); }},
      {"116 descriptor cut", Refusal::kRange, [](ZipBytes& z) { z.entries[1].descriptor = "PK"; }},
      {"116 checksums", Refusal::kRange, [](ZipBytes& z) { z.entries[1].crc = 1; }},
      {"117 encrypted", Refusal::kType, [](ZipBytes& z) { z.entries[1].flags = 0x0809; }},
      {"117 deflated", Refusal::kType, [](ZipBytes& z) { z.entries[1].method = 8; }},
      {"117 unknown method", Refusal::kType, [](ZipBytes& z) { z.entries[1].method = 93; }},
      {"unknown flag", Refusal::kType, [](ZipBytes& z) { z.entries[1].flags = 0x0818; }},
      {"119 one kernel", Refusal::kBomb, [](ZipBytes& z) { z.entries[1].header_offset = 0; }},
      {"119 overlap", Refusal::kBomb, [](ZipBytes& z) { z.entries[1].header_offset = 40; }},
      {"120 large", Refusal::kRange,
       [](ZipBytes& z) {
         z.entries[1].bytes = 0xFFFFFFFF;
         z.entries[1].central_extra =
             le<uint16_t>(1) + le<uint16_t>(16) + le(UINT64_MAX) + le(UINT64_MAX);
       }},
      {"120 zip64 cut", Refusal::kRange,
       [](ZipBytes& z) {
         z.entries[1].bytes = 0xFFFFFFFF;
         z.entries[1].central_extra = le<uint16_t>(1) + le<uint16_t>(8) + le<uint64_t>(100);
       }},
      {"extra too long", Refusal::kBounds,
       [](ZipBytes& z) { z.entries[1].central_extra = le<uint16_t>(1) + le<uint16_t>(8); }},
      {"two zip64 fields", Refusal::kDup,
       [](ZipBytes& z) {
         const std::string field = le<uint16_t>(1) + le<uint16_t>(0);
         z.entries[1].central_extra = field + field;
       }},
      {"120 two end records", Refusal::kRange,
       [](ZipBytes& z) { z.trailing = ZipBytes().build().substr(76); }},
      {"120 comment", Refusal::kRange, [](ZipBytes& z) { z.comment = "hello"; }},
      {"120 fake end", Refusal::kRange,
       [](ZipBytes& z) { z.comment = std::string(60000, 'x') + "PK\5\6" + std::string(18, '\0'); }},
      {"trailing", Refusal::kRange, [](ZipBytes& z) { z.trailing = "x"; }},
      {"120 data before", Refusal::kRange, [](ZipBytes& z) { z.entries[0].before = "#!/bin/sh"; }},
      {"gap", Refusal::kHole, [](ZipBytes& z) { z.entries[1].before = "xx"; }},
      {"gap at the end", Refusal::kHole,
       [](ZipBytes& z) {
         z.entries[1].descriptor = le<uint32_t>(0x08074b50) + le(plain_crc32(z.entries[1].data)) +
                                   le<uint32_t>(100) + le<uint32_t>(100) + "12345678";
       }},
      {"behind all", Refusal::kRange, [](ZipBytes& z) { z.entries[1].header_offset = 100000; }},
      {"121 long name", Refusal::kLimit, name(std::string(2000, 'a'))},
      {"121 deep name", Refusal::kLimit,
       [](ZipBytes& z) {
         for (int i = 0; i < 100; ++i) z.entries[1].name += "/a";
       }},
      {"121 count", Refusal::kLimit, [](ZipBytes& z) { z.count = 10'000'000; }},
      {"count too large", Refusal::kTrunc, [](ZipBytes& z) { z.count = 3; }},
      {"count too small", Refusal::kRange, [](ZipBytes& z) { z.count = 1; }},
      {"directory outside", Refusal::kRange,
       [](ZipBytes& z) { z.directory_offset = uint64_t{1} << 40; }},
      {"directory size", Refusal::kRange, [](ZipBytes& z) { z.directory_bytes = 1; }},
      {"folder with data", Refusal::kRange, name("r/folder/")},
      {"cut", Refusal::kTrunc, [](ZipBytes& z) { z.cut = 30; }},
  };
  const TempFolder folder;
  for (const Row& row : rows) {
    for (const bool zip64 : {true, false}) {
      ZipBytes zip = two_entries();
      zip.zip64 = zip64;
      row.damage(zip);
      if (!zip64 && zip.count == 10'000'000u) continue;  // does not fit 16 bits
      for (const auto& [back_end, source] : back_ends(folder, zip.build())) {
        const auto file = read_zip(source);
        ASSERT_FALSE(file.ok()) << row.what << " " << back_end;
        EXPECT_EQ(file.status().refusal(), row.refusal)
            << row.what << " " << back_end << ": " << file.status().to_string();
        EXPECT_FALSE(file.status().file().empty()) << row.what;
        EXPECT_FALSE(file.status().hint().empty()) << row.what;
      }
    }
  }
}

TEST(Zip, RefusesEveryCut) {
  const std::string whole = two_entries().build();
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto file = read(whole.substr(0, size));
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_TRUE(file.status().refusal() == Refusal::kTrunc ||
                file.status().refusal() == Refusal::kRange)
        << size << file.status().to_string();
  }
}

TEST(Zip, ComparesChecksums) {  // row 117
  ZipBytes zip = two_entries();
  std::string bytes = zip.build();
  bytes[bytes.find(counting_bytes(100)) + 50] ^= 1;
  const auto file = read(bytes);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_TRUE(check_zip_crc(*file, *file->find("r/a")).ok());
  const Status status = check_zip_crc(*file, *file->find("r/b"));
  EXPECT_EQ(status.refusal(), Refusal::kIntegrity);
  EXPECT_NE(status.message().find("r/b"), std::string_view::npos);
}

TEST(Zip, Crc32IsTheUsualOne) {
  EXPECT_EQ(crc32(0, std::as_bytes(std::span("123456789", 9))), 0xCBF43926u);
  const std::string text = counting_bytes(1000);
  for (size_t size = 0; size < 70; ++size) {
    const std::string_view part = std::string_view(text).substr(3, size);
    const uint32_t head = crc32(0, std::as_bytes(std::span(part.substr(0, size / 3))));
    EXPECT_EQ(crc32(head, std::as_bytes(std::span(part.substr(size / 3)))), plain_crc32(part));
  }
}

}  // namespace
}  // namespace pome
