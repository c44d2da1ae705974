// Where things lie in GGUF files: what the writer lays out, read back by the reader.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <span>

#include "formats/gguf.h"
#include "malformed/back_ends.h"
#include "malformed/gguf_bytes.h"

namespace pome {
namespace {

using malformed::TempFolder;
using Metadata = std::vector<std::pair<std::string, GgufValue>>;
using Tensors = std::vector<GgufWriter::Declared>;

// Byte i of tensor t.
std::byte byte_of(size_t t, uint64_t i) { return static_cast<std::byte>(t * 41 + i * 7 + 1); }

void write_file(const std::string& path, const Metadata& metadata, const Tensors& tensors) {
  auto writer = GgufWriter::create(path, metadata, tensors);
  ASSERT_TRUE(writer.ok()) << writer.status().to_string();
  for (size_t t = 0; t < tensors.size(); ++t) {
    const EncodingTraits& type = traits(tensors[t].encoding);
    std::vector<std::byte> bytes(static_cast<size_t>(*element_count(tensors[t].shape) /
                                                     type.block_elements * type.block_bytes));
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = byte_of(t, i);
    ASSERT_TRUE((*writer)->begin_tensor().ok());
    ASSERT_TRUE((*writer)->write(bytes).ok());
  }
  ASSERT_TRUE((*writer)->finish().ok());
}

GgufFile read_strictly(const std::string& path) {
  auto source = open_mapped(path);
  EXPECT_TRUE(source.ok());
  auto file = read_gguf(*source, {.strict = true});
  EXPECT_TRUE(file.ok()) << file.status().to_string();
  return file.ok() ? std::move(*file) : GgufFile{};
}

// Sizes that no alignment divides, and a tensor of nothing.
TEST(GgufLayout, TensorsFollowEachOtherAtTheAlignment) {
  const TempFolder folder;
  const Tensors tensors = {
      {"a", {1}, EncodingKind::kI8},        {"b", {3, 32}, EncodingKind::kQ8_0},
      {"c", {17}, EncodingKind::kF16},      {"d", {0, 5}, EncodingKind::kF32},
      {"e", {2, 256}, EncodingKind::kQ6_K}, {"f", {16}, EncodingKind::kF32}};
  for (const uint32_t alignment : {0u, 8u, 32u, 64u, 4096u}) {
    SCOPED_TRACE(alignment);
    Metadata metadata = {{"k", GgufValue::string("v")}};
    if (alignment > 0) metadata.push_back({"general.alignment", GgufValue::u32(alignment)});
    const std::string path = folder.file("a.gguf");
    write_file(path, metadata, tensors);
    const GgufFile file = read_strictly(path);
    const uint64_t step = alignment > 0 ? alignment : 32;
    EXPECT_EQ(file.alignment, step);
    ASSERT_EQ(file.tensors.size(), tensors.size());
    EXPECT_EQ(file.tensors[0].offset % step, 0u);
    uint64_t expected = file.tensors[0].offset;
    for (size_t t = 0; t < file.tensors.size(); ++t) {
      const GgufTensor& tensor = file.tensors[t];
      EXPECT_EQ(tensor.name, tensors[t].name);
      EXPECT_EQ(tensor.shape, tensors[t].shape);
      EXPECT_EQ(tensor.offset, expected) << tensor.name;
      std::vector<std::byte> bytes(tensor.bytes);
      ASSERT_TRUE(file.source->read(tensor.offset, bytes).ok());
      for (size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], byte_of(t, i)) << tensor.name;
      // What is between them is zero.
      expected = (tensor.offset + tensor.bytes + step - 1) / step * step;
      std::vector<std::byte> gap(expected - tensor.offset - tensor.bytes);
      ASSERT_TRUE(file.source->read(tensor.offset + tensor.bytes, gap).ok());
      EXPECT_EQ(std::count(gap.begin(), gap.end(), std::byte{0}), std::ssize(gap));
    }
    EXPECT_EQ(file.source->size(), expected);
  }
}

TEST(GgufLayout, NamesOfUpTo63BytesAndKeysOfUpTo65535) {
  const TempFolder folder;
  const std::string path = folder.file("a.gguf"), longest(63, 'n'), key(65535, 'k');
  write_file(path, {{key, GgufValue::u32(7)}, {"k", GgufValue::u32(8)}},
             {{"n", {2}, EncodingKind::kF32}, {longest, {2}, EncodingKind::kF32}});
  const GgufFile file = read_strictly(path);
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.tensors[0].name, "n");
  EXPECT_EQ(file.tensors[1].name, longest);
  ASSERT_NE(file.find(key), nullptr);
  EXPECT_EQ(file.find(key)->as_unsigned(), 7u);
  EXPECT_EQ(
      GgufWriter::create(path, {}, {{longest + "n", {2}, EncodingKind::kF32}}).status().refusal(),
      Refusal::kRange);
  EXPECT_EQ(GgufWriter::create(path, {{key + "k", GgufValue::u32(7)}}, {}).status().refusal(),
            Refusal::kRange);
  // Another writer's, one byte too long.
  malformed::GgufBytes bytes = malformed::valid_gguf();
  bytes.tensors[0].name = longest + "n";
  const auto refused = read_gguf(memory_source(malformed::bytes_of(bytes.build()), "m"));
  EXPECT_EQ(refused.status().refusal(), Refusal::kRange);
}

TEST(GgufLayout, EmptyArraysOfEveryKind) {
  const TempFolder folder;
  const std::string path = folder.file("a.gguf");
  const GgufValue bools{GgufType::kArray, GgufType::kBool, std::vector<uint8_t>{}};
  write_file(path,
             {{"strings", GgufValue::strings({})},
              {"i32s", GgufValue::i32s({})},
              {"u32s", GgufValue::u32s({})},
              {"f32s", GgufValue::f32s({})},
              {"bools", bools},
              {"last", GgufValue::string("")}},
             {{"t", {3}, EncodingKind::kF32}});
  const GgufFile file = read_strictly(path);
  ASSERT_EQ(file.metadata.size(), 6u);
  for (const auto& [key, element] :
       {std::pair("strings", GgufType::kString), std::pair("i32s", GgufType::kI32),
        std::pair("u32s", GgufType::kU32), std::pair("f32s", GgufType::kF32),
        std::pair("bools", GgufType::kBool)}) {
    const GgufValue* const value = file.find(key);
    ASSERT_NE(value, nullptr) << key;
    EXPECT_EQ(value->type, GgufType::kArray) << key;
    EXPECT_EQ(value->element, element) << key;
    std::visit(
        [&](const auto& items) {
          if constexpr (requires { items.empty(); }) {
            EXPECT_TRUE(items.empty()) << key;
          } else {
            ADD_FAILURE() << key << " is no array";
          }
        },
        value->data);
  }
  EXPECT_EQ(std::get<std::string>(file.find("last")->data), "");
}

// The header says where a tensor lies; of the data only one value is on the disk.
TEST(GgufLayout, OffsetsBeyondFourGigabytes) {
  const TempFolder folder;
  const std::string path = folder.file("a.gguf");
  constexpr int64_t kMost = int64_t{1} << 30;
  {
    // The writer is left before it has any data to write.
    const auto writer = GgufWriter::create(
        path, {},
        {{"large", {5, kMost / 4}, EncodingKind::kF32}, {"behind", {3}, EncodingKind::kF32}});
    ASSERT_TRUE(writer.ok()) << writer.status().to_string();
    ASSERT_TRUE((*writer)->flush_behind().ok());
  }
  struct stat before;
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  const uint64_t start = (static_cast<uint64_t>(before.st_size) + 31) / 32 * 32,
                 behind = start + uint64_t{5} * kMost;
  ASSERT_GT(behind, uint64_t{1} << 32);
  if (::truncate(path.c_str(), static_cast<off_t>(behind + 32)) != 0)
    GTEST_SKIP() << "no file of " << behind << " bytes can be made in " << folder.path();
  struct stat after;
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  if (after.st_blocks * 512 > 1 << 20) GTEST_SKIP() << folder.path() << " has no files with holes";
  const float value = 2.5f;
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(behind + 4));
    file.write(reinterpret_cast<const char*>(&value), sizeof value);
    ASSERT_TRUE(file.flush().good());
  }
  for (const bool mapped : {false, true}) {
    const auto source = mapped ? open_mapped(path) : open_for_reading(path);
    ASSERT_TRUE(source.ok()) << source.status().to_string();
    const auto file = read_gguf(*source, {.strict = true});
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    ASSERT_EQ(file->tensors.size(), 2u);
    EXPECT_EQ(file->tensors[0].bytes, uint64_t{5} * kMost);
    EXPECT_EQ(file->tensors[1].offset, behind);
    float found[3];
    ASSERT_TRUE((*source)->read(behind, std::as_writable_bytes(std::span(found))).ok());
    EXPECT_EQ(found[0], 0);
    EXPECT_EQ(found[1], value);
    EXPECT_EQ(found[2], 0);
  }
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  EXPECT_LT(after.st_blocks * 512, 1 << 20);
  // A byte less, and the tensor is cut.
  ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(behind + 11)), 0);
  const auto source = open_for_reading(path);
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(read_gguf(*source).status().refusal(), Refusal::kTrunc);
}

}  // namespace
}  // namespace pome
