#include "base/byte_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>

#include "base/temp_folder.h"
#include "base/utf8.h"

namespace pome {
namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  std::vector<std::byte> out(text.size());
  if (!text.empty()) std::memcpy(out.data(), text.data(), text.size());
  return out;
}
std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
std::string pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>((i * 31 + i / 251) & 0xFF);
  return text;
}
// The same contents through every kind of source.
std::vector<ByteSourcePtr> all_sources(const TempFolder& folder, const std::string& contents) {
  spit(folder / "plain", contents);
  spit(folder / "wrapped", "abc" + contents + "xyz");
  const auto mapped = open_mapped(folder / "plain");
  const auto read = open_for_reading(folder / "plain");
  const auto wrapped = open_mapped(folder / "wrapped");
  EXPECT_TRUE(mapped.ok() && read.ok() && wrapped.ok());
  return {*mapped, *read, memory_source(bytes_of(contents), "memory"),
          sub_source(*wrapped, 3, contents.size(), "window"), one_byte_source(*read)};
}

TEST(ByteSource, AllKindsReadTheSame) {
  const TempFolder folder;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{4095}, size_t{4097}, size_t{70001}}) {
    const std::string contents = pattern(size);
    for (const ByteSourcePtr& source : all_sources(folder, contents)) {
      SCOPED_TRACE(source->name() + " of " + std::to_string(size));
      ASSERT_EQ(source->size(), size);
      for (const size_t begin : {size_t{0}, size / 3, size}) {
        std::vector<std::byte> out(size - begin);
        ASSERT_TRUE(source->read(begin, out).ok());
        EXPECT_EQ(text_of(out), contents.substr(begin));
        if (const auto view = source->view(begin, out.size())) {
          EXPECT_EQ(text_of(*view), contents.substr(begin));
        }
      }
      std::vector<std::byte> one(1), four(4);
      const Status past = source->read(size, one);
      EXPECT_EQ(past.refusal(), Refusal::kTrunc);
      EXPECT_EQ(past.code(), StatusCode::kBadInput);
      EXPECT_NE(past.message().find("expected 1 byte, found 0"), std::string::npos)
          << past.to_string();
      EXPECT_FALSE(source->read(UINT64_MAX, one).ok());
      EXPECT_FALSE(source->read(UINT64_MAX - 1, four).ok());
    }
  }
}

TEST(ByteSource, ViewsWhereTheyShouldBe) {
  const TempFolder folder;
  const auto sources = all_sources(folder, pattern(100));
  EXPECT_TRUE(sources[0]->view(10, 20).has_value());
  EXPECT_FALSE(sources[1]->view(10, 20).has_value());
  EXPECT_TRUE(sources[2]->view(10, 20).has_value());
  EXPECT_TRUE(sources[3]->view(10, 20).has_value());
  EXPECT_FALSE(sources[4]->view(10, 20).has_value());
  for (const auto& source : sources) {
    EXPECT_FALSE(source->view(90, 11).has_value());
    EXPECT_FALSE(source->view(UINT64_MAX, 2).has_value());
  }
}

TEST(ByteSource, WindowNamesOffsetsOfItsParent) {
  const auto parent = memory_source(bytes_of("0123456789"), "parent.bin");
  const auto window = sub_source(parent, 4, 3, "parent.bin:entry");
  std::vector<std::byte> out(2);
  const Status status = window->read(2, out);
  EXPECT_EQ(status.offset(), 6u);
  EXPECT_EQ(status.file(), "parent.bin:entry");
  const auto inner = sub_source(window, 1, 2, "deeper");
  EXPECT_EQ(inner->read(1, out).offset(), 6u);
  ByteReader reader(inner, 1);
  EXPECT_EQ(reader.u16().status().offset(), 6u);
  EXPECT_EQ(reader.u16().status().file(), "deeper");
}

TEST(ByteSource, ReleaseKeepsTheContents) {
  const TempFolder folder;
  const std::string contents = pattern(5 * 4096 + 17);
  for (const auto& source : all_sources(folder, contents)) {
    source->release(100, 3 * 4096);
    source->release(0, contents.size());
    source->release(UINT64_MAX, 5);
    std::vector<std::byte> out(contents.size());
    ASSERT_TRUE(source->read(0, out).ok());
    EXPECT_EQ(text_of(out), contents);
    if (const auto view = source->view(0, contents.size())) {
      EXPECT_EQ(text_of(*view), contents);
    }
  }
}

TEST(ByteSource, FileCutByAnotherProcessIsAnErrorNotASignal) {
  const TempFolder folder;
  spit(folder / "f", pattern(3 * 4096));
  const auto mapped = open_mapped(folder / "f");
  ASSERT_TRUE(mapped.ok());
  ASSERT_EQ(::truncate((folder / "f").c_str(), 5000), 0);
  std::vector<std::byte> out(4096);
  const Status status = (*mapped)->read(4096, out);
  EXPECT_EQ(status.refusal(), Refusal::kTrunc);
  EXPECT_EQ(status.offset(), 4096u);
  EXPECT_EQ(status.file(), folder / "f");
  EXPECT_NE(status.message().find("expected 4096 bytes, found 904"), std::string::npos)
      << status.to_string();
  EXPECT_FALSE((*mapped)->view(4096, 4096).has_value());
  EXPECT_TRUE((*mapped)->view(0, 5000).has_value());
  EXPECT_TRUE((*mapped)->read(0, std::span(out).first(4000)).ok());
}

TEST(ByteSource, OnlyRegularFiles) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  const int sock = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", (folder / "sock").c_str());
  ASSERT_EQ(::bind(sock, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  const auto before = std::chrono::steady_clock::now();
  for (const std::string& path :
       {folder / "fifo", folder / "sock", std::string("/dev/null"), folder.path()}) {
    for (const auto& result : {open_mapped(path), open_for_reading(path)}) {
      EXPECT_EQ(result.status().refusal(), Refusal::kType) << path;
      EXPECT_EQ(result.status().code(), StatusCode::kBadInput) << path;
      EXPECT_EQ(result.status().file(), path);
    }
    EXPECT_EQ(read_text_file(path, 10).status().refusal(), Refusal::kType) << path;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5));
  ::close(sock);
}

TEST(ByteSource, AbsentAndOddPaths) {
  const TempFolder folder;
  EXPECT_EQ(open_mapped(folder / "absent").status().code(), StatusCode::kMissing);
  spit(folder / "file", "x");
  EXPECT_EQ(open_mapped(folder / "file/below").status().code(), StatusCode::kMissing);
  EXPECT_EQ(open_mapped("").status().code(), StatusCode::kUsage);
  // open() would stop at the zero byte and read another file than the one that was named.
  EXPECT_EQ(open_mapped(folder / std::string("file\0.txt", 9)).status().refusal(), Refusal::kPath);
  EXPECT_EQ(open_mapped(folder / std::string(5000, 'a')).status().refusal(), Refusal::kPath);
  ASSERT_EQ(::symlink("loop", (folder / "loop").c_str()), 0);
  EXPECT_EQ(open_mapped(folder / "loop").status().refusal(), Refusal::kLink);
  ASSERT_EQ(::symlink("file", (folder / "link").c_str()), 0);
  EXPECT_TRUE(open_mapped(folder / "link").ok());
}

TEST(ByteSource, TextFileLimitHoldsBeforeReading) {
  const TempFolder folder;
  spit(folder / "text", "0123456789");
  EXPECT_EQ(*read_text_file(folder / "text", 10), "0123456789");
  EXPECT_EQ(read_text_file(folder / "text", 9).status().refusal(), Refusal::kLimit);
  spit(folder / "empty", "");
  EXPECT_EQ(*read_text_file(folder / "empty", 0), "");
  // Sparse: ten gigabytes that are not there.
  spit(folder / "sparse", "{");
  ASSERT_EQ(::truncate((folder / "sparse").c_str(), off_t{10} << 30), 0);
  const auto result = read_text_file(folder / "sparse", 1 << 20);
  EXPECT_EQ(result.status().refusal(), Refusal::kLimit);
  EXPECT_EQ(result.status().file(), folder / "sparse");
}

TEST(ByteSource, SparseFileBeyondFourGigabytes) {
  const TempFolder folder;
  const uint64_t far = (uint64_t{5} << 30) + 12345;
  {
    const int fd = ::open((folder / "big").c_str(), O_CREAT | O_WRONLY, 0600);
    ASSERT_EQ(::pwrite(fd, "needle", 6, static_cast<off_t>(far)), 6);
    ::close(fd);
  }
  for (const auto& source : {*open_mapped(folder / "big"), *open_for_reading(folder / "big")}) {
    EXPECT_EQ(source->size(), far + 6);
    ByteReader reader(source, far);
    EXPECT_EQ(*reader.text(6, 100), "needle");
    EXPECT_TRUE(reader.at_end());
  }
}

TEST(ByteReader, NumbersAreLittleEndian) {
  std::vector<std::byte> bytes(60);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(0xF0 + i);
  ByteReader reader(memory_source(bytes, "m"));
  EXPECT_EQ(*reader.u8(), 0xF0u);
  EXPECT_EQ(*reader.u16(), 0xF2F1u);
  EXPECT_EQ(*reader.u32(), 0xF6F5F4F3u);
  EXPECT_EQ(*reader.u64(), 0xFEFDFCFBFAF9F8F7u);
  EXPECT_EQ(*reader.i8(), -1);
  EXPECT_EQ(*reader.i16(), 0x0100);
  ASSERT_TRUE(reader.seek(0).ok());
  EXPECT_EQ(*reader.i8(), -16);
  EXPECT_EQ(*reader.i16(), static_cast<int16_t>(0xF2F1));
  EXPECT_EQ(*reader.i32(), static_cast<int32_t>(0xF6F5F4F3u));
  EXPECT_EQ(*reader.i64(), static_cast<int64_t>(0xFEFDFCFBFAF9F8F7u));
  ASSERT_TRUE(reader.seek(1).ok());
  EXPECT_EQ(*reader.f32(), std::bit_cast<float>(0xF4F3F2F1u));
  EXPECT_EQ(*reader.f64(), std::bit_cast<double>(0xFCFBFAF9F8F7F6F5u));
  EXPECT_EQ(reader.offset(), 13u);
  EXPECT_EQ(reader.remaining(), 47u);
}

TEST(ByteReader, EveryFieldThatTheEndCutsIsTrunc) {
  for (size_t size = 0; size < 8; ++size) {
    const auto source = memory_source(std::vector<std::byte>(size), "cut");
    const auto check = [&](size_t width, auto read) {
      ByteReader reader(source);
      const Status status = read(reader);
      EXPECT_EQ(status.ok(), width <= size);
      if (status.ok()) return;
      EXPECT_EQ(status.refusal(), Refusal::kTrunc);
      EXPECT_EQ(status.message(), "expected " + std::to_string(width) +
                                      (width == 1 ? " byte" : " bytes") + ", found " +
                                      std::to_string(size));
      EXPECT_EQ(status.file(), "cut");
      EXPECT_EQ(status.offset(), 0u);
      EXPECT_EQ(reader.offset(), 0u) << "a failed read must not move";
    };
    check(1, [](ByteReader& r) { return r.u8().status(); });
    check(1, [](ByteReader& r) { return r.i8().status(); });
    check(2, [](ByteReader& r) { return r.u16().status(); });
    check(2, [](ByteReader& r) { return r.i16().status(); });
    check(4, [](ByteReader& r) { return r.u32().status(); });
    check(4, [](ByteReader& r) { return r.i32().status(); });
    check(4, [](ByteReader& r) { return r.f32().status(); });
    check(8, [](ByteReader& r) { return r.u64().status(); });
    check(8, [](ByteReader& r) { return r.i64().status(); });
    check(8, [](ByteReader& r) { return r.f64().status(); });
    check(5, [](ByteReader& r) {
      std::vector<std::byte> out(5);
      return r.bytes(out);
    });
  }
}

TEST(ByteReader, LengthsFromTheFileAreBounded) {
  ByteReader reader(memory_source(bytes_of("0123456789"), "m"), 2);
  EXPECT_EQ(reader.text(9, 100).status().refusal(), Refusal::kBounds);
  EXPECT_EQ(reader.text(UINT64_MAX, UINT64_MAX).status().refusal(), Refusal::kBounds);
  EXPECT_EQ(reader.text(5, 4).status().refusal(), Refusal::kLimit);
  EXPECT_EQ(reader.text(5, 4).status().offset(), 2u);
  EXPECT_EQ(*reader.text(0, 0), "");
  EXPECT_EQ(*reader.text(5, 5), "23456");
  EXPECT_EQ(reader.skip(4).refusal(), Refusal::kBounds);
  EXPECT_EQ(reader.skip(UINT64_MAX).refusal(), Refusal::kBounds);
  EXPECT_TRUE(reader.skip(3).ok());
  EXPECT_TRUE(reader.at_end());
  EXPECT_TRUE(reader.skip(0).ok());
  EXPECT_EQ(reader.seek(11).refusal(), Refusal::kBounds);
  EXPECT_TRUE(reader.seek(10).ok());
  EXPECT_TRUE(reader.seek(0).ok());
  EXPECT_EQ(*reader.u8(), '0');
}

TEST(ByteReader, WindowIsNotLeft) {
  const auto source = memory_source(bytes_of("0123456789"), "m");
  ByteReader reader(source, 3, 6);
  EXPECT_EQ(reader.remaining(), 3u);
  EXPECT_EQ(reader.u32().status().refusal(), Refusal::kTrunc);
  EXPECT_EQ(*reader.u16(), 0x3433u);
  EXPECT_EQ(reader.seek(2).refusal(), Refusal::kBounds);
  EXPECT_EQ(reader.seek(7).refusal(), Refusal::kBounds);
  EXPECT_TRUE(reader.seek(6).ok());
  EXPECT_TRUE(reader.at_end());
  // Ends beyond the source, and windows that are upside down, are empty rather than huge.
  EXPECT_EQ(ByteReader(source, 4, UINT64_MAX).remaining(), 6u);
  EXPECT_EQ(ByteReader(source, 100).remaining(), 0u);
  EXPECT_EQ(ByteReader(source, 8, 2).remaining(), 0u);
}

// Records that straddle the end of the reader's buffer, larger and smaller than it.
TEST(ByteReader, CrossesItsBuffer) {
  const TempFolder folder;
  const std::string contents = pattern(3 * 65536 + 777);
  for (const auto& source : all_sources(folder, contents)) {
    ByteReader reader(source);
    std::string seen;
    for (size_t step = 1; !reader.at_end(); step = step * 3 % 200003 + 1) {
      const uint64_t size = std::min<uint64_t>(step, reader.remaining());
      const auto text = reader.text(size, 1 << 20);
      ASSERT_TRUE(text.ok()) << text.status().to_string();
      seen += *text;
    }
    EXPECT_TRUE(seen == contents) << source->name();
    ASSERT_TRUE(reader.seek(65533).ok());
    uint64_t expected;
    std::memcpy(&expected, contents.data() + 65533, 8);
    EXPECT_EQ(*reader.u64(), expected);
    ASSERT_TRUE(reader.seek(5).ok());
    EXPECT_EQ(*reader.u8(), static_cast<uint8_t>(contents[5]));
  }
}

TEST(Utf8, WellFormedSequences) {
  for (const std::string_view good :
       {"", "plain", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF",
        "a long text of ASCII and then \xE2\x82\xAC and more of it \xF0\x9F\x98\x80"})
    EXPECT_TRUE(is_valid_utf8(good)) << good;
}

TEST(Utf8, IllFormedSequences) {
  for (const std::string_view bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xE0\x9F\xBF", "\xE2\x82", "\xED\xA0\x80",
        "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x98", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
        "\xFE", "\xFF", "\xC2\x41", "\xE2\x41\x80"}) {
    EXPECT_FALSE(is_valid_utf8(bad));
    // At every distance from the words that the scan takes at once.
    for (size_t prefix = 0; prefix < 20; ++prefix) {
      const std::string text = std::string(prefix, 'x') + std::string(bad) + "tail of the text";
      EXPECT_EQ(utf8_first_error(text), prefix);
    }
  }
}

// Against the definition: a code point encoded by the bit pattern of its range, all of them.
TEST(Utf8, AllCodePoints) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    char text[4];
    size_t n = 0;
    if (c < 0x80) {
      text[n++] = static_cast<char>(c);
    } else if (c < 0x800) {
      text[n++] = static_cast<char>(0xC0 | c >> 6);
      text[n++] = static_cast<char>(0x80 | (c & 63));
    } else if (c < 0x10000) {
      text[n++] = static_cast<char>(0xE0 | c >> 12);
      text[n++] = static_cast<char>(0x80 | (c >> 6 & 63));
      text[n++] = static_cast<char>(0x80 | (c & 63));
    } else {
      text[n++] = static_cast<char>(0xF0 | c >> 18);
      text[n++] = static_cast<char>(0x80 | (c >> 12 & 63));
      text[n++] = static_cast<char>(0x80 | (c >> 6 & 63));
      text[n++] = static_cast<char>(0x80 | (c & 63));
    }
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    if (is_valid_utf8({text, n}) == surrogate) FAIL() << std::hex << c;
  }
}

}  // namespace
}  // namespace pome
