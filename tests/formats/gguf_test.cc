#include "formats/gguf.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <ctime>
#include <functional>
#include <set>

#include "malformed/back_ends.h"
#include "malformed/gguf_bytes.h"

namespace pome {
namespace {

using namespace malformed;  // NOLINT: builders of the test

Result<GgufFile> read(const std::string& bytes, bool strict = false) {
  GgufReadOptions options;
  options.strict = strict;
  return read_gguf(memory_source(bytes_of(bytes), "test.gguf"), options);
}

struct Row {
  int number;  // of the list of negative inputs
  std::string name;
  std::function<std::string()> make;
  std::set<Refusal> expected;
  bool strict = false;
};

GgufBytes with_pair(std::string pair) {
  GgufBytes file = valid_gguf();
  file.pairs.push_back(std::move(pair));
  return file;
}
GgufBytes with_tensor(GgufTensorBytes tensor) {
  GgufBytes file = valid_gguf();
  file.tensors = {std::move(tensor)};
  return file;
}
std::string with_version(uint32_t version) {
  GgufBytes file = valid_gguf();
  file.version = version;
  return file.build();
}
std::string with_magic(std::string magic) {
  GgufBytes file = valid_gguf();
  file.magic = std::move(magic);
  return file.build();
}
std::string with_counts(uint64_t tensors, uint64_t pairs, size_t extra) {
  return "GGUF" + le<uint32_t>(3) + le(tensors) + le(pairs) + std::string(extra, '\0');
}
// One pair that begins with this key length and ends `after` bytes later.
std::string with_key_length(uint64_t length, size_t after) {
  return "GGUF" + le<uint32_t>(3) + le<uint64_t>(0) + le<uint64_t>(1) + le(length) +
         std::string(after, 'k');
}
std::string only_pair(std::string pair) {
  GgufBytes file;
  file.pairs = {std::move(pair)};
  return file.build();
}
std::string with_array(uint32_t element, uint64_t count, size_t payload) {
  return only_pair(pair_of("k", kArray, array_of(element, count, std::string(payload, '\0'))));
}
std::string with_alignment(uint32_t value) {
  return with_pair(pair_of("general.alignment", kU32, le(value))).build();
}

std::vector<Row> header_rows() {
  using enum Refusal;
  const auto version = [](uint32_t v) { return [v] { return with_version(v); }; };
  const auto magic = [](const char* m) { return [m] { return with_magic(m); }; };
  return {
      {1, "empty_file", [] { return std::string(); }, {kTrunc}},
      {3, "fugg", magic("FUGG"), {kMagic}},
      {3, "ggml", magic("GGML"), {kMagic}},
      {3, "ggjt", magic("tjgg"), {kMagic}},
      {3, "shifted", [] { return "x" + valid_gguf().build(); }, {kMagic}},
      {4, "version_0", version(0), {kVersion}},
      {5, "version_1", version(1), {kVersion}},
      {6, "version_4", version(4), {kVersion}},
      {6, "version_max", version(0x7fffffff), {kVersion}},
      {7, "version_swapped", version(0x03000000), {kVersion}},
      {8, "tensors_max", [] { return with_counts(~0ull, 0, 0); }, {kLimit}},
      {9, "tensors_2_32", [] { return with_counts(1ull << 32, 0, 0); }, {kLimit}},
      {10, "pairs_max", [] { return with_counts(0, ~0ull, 0); }, {kLimit}},
      {11, "pairs_1e9", [] { return with_counts(0, 1000000000, 76); }, {kLimit}},
      {109,
       "lfs_pointer",
       [] {
         return std::string("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n");
       },
       {kMagic}},
      {110, "web_page", [] { return std::string("\n<!DOCTYPE html><html></html>"); }, {kMagic}},
      {110, "json_error", [] { return std::string("{\"error\":\"not found\"}"); }, {kMagic}},
      {110, "text_error", [] { return std::string("Entry not found"); }, {kMagic}},
  };
}

std::vector<Row> metadata_rows() {
  using enum Refusal;
  const auto pair = [](std::string bytes) {
    return [bytes = std::move(bytes)] { return with_pair(bytes).build(); };
  };
  const auto alignment = [](uint32_t v) { return [v] { return with_alignment(v); }; };
  return {
      {12, "key_max", [] { return with_key_length(~0ull, 6); }, {kBounds}},
      {13, "key_one_too_long", [] { return with_key_length(31, 30); }, {kBounds}},
      {14, "key_2_30", [] { return with_key_length(1u << 30, 128); }, {kLimit}},
      {15, "key_empty", pair(pair_of("", kU8, "x")), {kRange}},
      {16, "key_nul", pair(pair_of(std::string_view("a\0b", 3), kU8, "x")), {kUtf8}},
      {16, "key_control", pair(pair_of("a\x1b[31m", kU8, "x")), {kUtf8}},
      {16, "key_utf8", pair(pair_of("a\xff", kU8, "x")), {kUtf8}},
      {17, "dup_same_type", pair(pair_of("t.u8", kU8, "x")), {kDup}},
      {17, "dup_other_type", pair(pair_of("t.u8", kBool, "\1")), {kDup}},
      {18, "type_13", pair(pair_of("k", 13, "xxxxxxxx")), {kType}},
      {18, "type_255", pair(pair_of("k", 255, "xxxxxxxx")), {kType}},
      {18, "type_max", pair(pair_of("k", 0xffffffff, "xxxxxxxx")), {kType}},
      {18, "element_type", pair(pair_of("k", kArray, array_of(99, 1, "x"))), {kType}},
      {19, "bool_2", pair(pair_of("k", kBool, "\2")), {kRange}},
      {19, "bool_255", pair(pair_of("k", kBool, "\xff")), {kRange}},
      {19, "bool_in_array", pair(pair_of("k", kArray, array_of(kBool, 3, "\1\1\2"))), {kRange}},
      {20,
       "array_of_arrays",
       pair(pair_of("k", kArray, array_of(kArray, 1, array_of(kU8, 1, "x")))),
       {kType}},
      {20,
       "arrays_10000_deep",
       [] {
         std::string nested;
         for (int i = 0; i < 10000; ++i) nested += le<uint32_t>(kArray) + le<uint64_t>(1);
         return with_pair(pair_of("k", kArray, nested)).build();
       },
       {kType}},
      {21, "array_2_63", [] { return with_array(kI32, 1ull << 63, 2); }, {kBounds}},
      {22, "array_wraps", [] { return with_array(kU64, 1ull << 61, 8); }, {kOverflow}},
      {23, "strings_too_many", [] { return with_array(kString, 3, 23); }, {kBounds}},
      {24,
       "string_too_long",
       pair(pair_of("k", kString, le<uint64_t>(1 << 20) + "abc")),
       {kBounds}},
      {24,
       "string_in_array_too_long",
       pair(pair_of("k", kArray, array_of(kString, 1, le<uint64_t>(1 << 20)))),
       {kBounds}},
      {26, "alignment_0", alignment(0), {kRange}},
      {27, "alignment_13", alignment(13), {kRange}},
      {28, "alignment_2_30", alignment(1u << 30), {kLimit}},
      {29, "alignment_i32", pair(pair_of("general.alignment", kI32, le(32))), {kType}},
      {29, "alignment_u64", pair(pair_of("general.alignment", kU64, le<uint64_t>(32))), {kType}},
      {29,
       "alignment_string",
       pair(pair_of("general.alignment", kString, gguf_string("32"))),
       {kType}},
  };
}

std::vector<Row> tensor_rows() {
  using enum Refusal;
  const auto tensor = [](GgufTensorBytes t) {
    return [t = std::move(t)] { return with_tensor(t).build(); };
  };
  const auto named = [&](std::string name) {
    return tensor({std::move(name), {4}, 0, 16, {}, {}, {}});
  };
  const auto shaped = [&](std::vector<uint64_t> dims, uint32_t type = 0) {
    return tensor({"t", std::move(dims), type, 16, {}, {}, {}});
  };
  const auto ranked = [&](uint32_t rank, size_t dims) {
    return tensor({"t", std::vector<uint64_t>(dims, 1), 0, 16, {}, rank, {}});
  };
  const auto typed = [&](uint32_t type) { return shaped({256}, type); };
  std::vector<Row> rows = {
      {30, "name_empty", named(""), {kRange}},
      {30, "name_64", named(std::string(64, 'n')), {kRange}},
      {30, "name_nul", named(std::string("a\0b", 3)), {kUtf8}},
      {30, "name_utf8", named("a\xc3"), {kUtf8}},
      {30, "name_path", named("../evil"), {kRange}},
      {30,
       "name_length_max",
       tensor({"", {4}, 0, 16, {}, {}, le<uint64_t>(~0ull) + "name"}),
       {kBounds}},
      {32, "rank_0", ranked(0, 0), {kRange}},
      {32, "rank_5", ranked(5, 5), {kRange}},
      {32, "rank_9", ranked(9, 9), {kRange}},
      {32, "rank_max", ranked(0xffffffff, 1), {kRange}},
      {33, "dim_2_63", shaped({1ull << 63}), {kRange}},
      {33, "dim_minus_1", shaped({~0ull, 1}), {kRange}},
      {34, "dims_1152_2_42", shaped({1152, (1ull << 42) + 1}), {kOverflow}},
      {35, "dims_product_2_64", shaped({65536, 65536, 65536, 65536}), {kOverflow}},
      {36, "product_2_32", shaped({65536, 65536}), {kBounds}},
      {37,
       "sum_wraps",
       [] {
         GgufBytes file = valid_gguf();
         file.tensors = {{"x", {0x7fffffffffffffc0}, 24, 32, {}, {}, {}},
                         {"y", {0x7fffffffffffffc0}, 24, 32, {}, {}, {}}};
         return file.build();
       },
       {kOverflow}},
      {40, "q8_0_row_of_33", shaped({33}, 8), {kRange}},
      {40, "q4_k_row_of_32", shaped({32, 8}, 12), {kRange}},
  };
  for (const uint32_t type : {0xffffffffu, 4u, 5u, 31u, 33u, 36u, 37u, 38u, 99u, 1000u}) {
    rows.push_back({39, "type_" + std::to_string(type), typed(type), {kType}});
  }
  return rows;
}

std::vector<Row> layout_rows() {
  using enum Refusal;
  const auto at = [](size_t tensor, uint64_t offset) {
    return [=] {
      GgufBytes file = valid_gguf();
      file.tensors[tensor].offset = offset;
      return file.build();
    };
  };
  const auto changed = [](std::function<void(GgufBytes&)> change) {
    return [change = std::move(change)] {
      GgufBytes file = valid_gguf();
      change(file);
      return file.build();
    };
  };
  // The running offsets of valid_gguf() are 0, 64, 224 and 256.
  return {
      {41, "offset_8", at(1, 72), {kRange}},
      {42,
       "offset_at_end",
       [&at] { return at(3, GgufBytes::align(valid_gguf().build().size(), 32))(); },
       {kBounds}},
      {42, "offset_2_40", at(3, 1ull << 40), {kBounds}},
      {42, "offset_near_2_64", at(3, ~0ull - 31), {kOverflow}},
      {43, "same_offset", at(1, 0), {kOverlap}},
      {43, "partial_overlap", at(2, 192), {kOverlap}},
      {44,
       "gap",
       changed([](GgufBytes& f) {
         f.tensors[3].offset = 288;
         f.trailing = std::string(32, '\0');
       }),
       {kHole},
       true},
      {44,
       "order",
       changed([](GgufBytes& f) {
         f.tensors[2].offset = 256;
         f.tensors[3].offset = 224;
       }),
       {kRange},
       true},
      {45,
       "cut_by_1_of_tensor",
       changed([](GgufBytes& f) {
         f.pad_end = false;
         f.cut = 1;
       }),
       {kTrunc}},
      {45, "padding_missing", changed([](GgufBytes& f) { f.pad_end = false; }), {kTrunc}},
      {46, "one_byte_after", changed([](GgufBytes& f) { f.trailing = "x"; }), {kBounds}, true},
      {46,
       "zip_after",
       changed([](GgufBytes& f) { f.trailing = "PK\3\4" + std::string(1 << 20, 'z'); }),
       {kBounds},
       true},
  };
}

std::vector<Row> all_rows() {
  std::vector<Row> rows;
  for (auto part : {header_rows(), metadata_rows(), tensor_rows(), layout_rows()}) {
    rows.insert(rows.end(), part.begin(), part.end());
  }
  return rows;
}

class GgufRefuses : public testing::TestWithParam<Row> {};

TEST_P(GgufRefuses, WithTheSameVerdictFromEverySource) {
  const TempFolder folder;
  const std::string bytes = GetParam().make();
  GgufReadOptions options;
  options.strict = GetParam().strict;
  std::optional<uint64_t> offset;
  for (const auto& [name, source] : back_ends(folder, bytes)) {
    SCOPED_TRACE(name);
    const auto file = read_gguf(source, options);
    ASSERT_FALSE(file.ok());
    const Status& status = file.status();
    EXPECT_TRUE(GetParam().expected.contains(status.refusal())) << status.to_string();
    EXPECT_EQ(status.code(), StatusCode::kBadInput);
    EXPECT_EQ(status.file(), source->name());
    EXPECT_FALSE(status.hint().empty()) << status.to_string();
    ASSERT_TRUE(status.offset().has_value()) << status.to_string();
    EXPECT_LE(*status.offset(), bytes.size());
    if (name == "mapped") offset = status.offset();
    EXPECT_EQ(status.offset(), offset) << status.to_string();
  }
}
INSTANTIATE_TEST_SUITE_P(Rows, GgufRefuses, testing::ValuesIn(all_rows()), [](const auto& row) {
  return std::to_string(row.param.number) + "_" + row.param.name;
});

TEST(Gguf, ReadsEveryValueTypeAndTensor) {
  const TempFolder folder;
  for (const uint32_t version : {2u, 3u}) {
    GgufBytes bytes = valid_gguf();
    bytes.version = version;
    for (const auto& [name, source] : back_ends(folder, bytes.build())) {
      SCOPED_TRACE(name);
      GgufReadOptions options;
      options.strict = true;
      const auto file = read_gguf(source, options);
      ASSERT_TRUE(file.ok()) << file.status().to_string();
      EXPECT_EQ(file->version, version);
      EXPECT_TRUE(file->warnings.empty());
      ASSERT_EQ(file->metadata.size(), 17u);
      EXPECT_EQ(std::get<std::string>(file->find("general.architecture")->data), "llama");
      EXPECT_EQ(std::get<uint64_t>(file->find("t.u8")->data), 200u);
      EXPECT_EQ(std::get<int64_t>(file->find("t.i8")->data), -3);
      EXPECT_EQ(std::get<uint64_t>(file->find("t.u16")->data), 60000u);
      EXPECT_EQ(std::get<int64_t>(file->find("t.i16")->data), -300);
      EXPECT_EQ(std::get<uint64_t>(file->find("t.u32")->data), 4000000000u);
      EXPECT_EQ(std::get<int64_t>(file->find("t.i32")->data), -70000);
      EXPECT_EQ(std::get<double>(file->find("t.f32")->data), 1.5);
      EXPECT_EQ(std::get<bool>(file->find("t.bool")->data), true);
      EXPECT_EQ(std::get<uint64_t>(file->find("t.u64")->data), 1ull << 63);
      EXPECT_EQ(std::get<int64_t>(file->find("t.i64")->data), -5);
      EXPECT_EQ(std::get<double>(file->find("t.f64")->data), -2.25);
      EXPECT_EQ(std::get<std::vector<int64_t>>(file->find("a.i32")->data),
                (std::vector<int64_t>{1, -2, 3}));
      EXPECT_EQ(std::get<std::vector<double>>(file->find("a.f32")->data),
                (std::vector<double>{0.5, -1}));
      EXPECT_EQ(std::get<std::vector<uint8_t>>(file->find("a.bool")->data),
                (std::vector<uint8_t>{1, 0, 1}));
      EXPECT_EQ(std::get<std::vector<std::string>>(file->find("a.string")->data),
                (std::vector<std::string>{"x", ""}));
      EXPECT_TRUE(std::get<std::vector<uint64_t>>(file->find("a.empty")->data).empty());
      EXPECT_EQ(file->find("absent"), nullptr);
      ASSERT_EQ(file->tensors.size(), 4u);
      EXPECT_EQ(file->tensors[0].shape, (Shape{3, 4}));
      EXPECT_EQ(file->tensors[1].shape, (Shape{2, 64}));
      EXPECT_EQ(file->tensors[1].encoding, EncodingKind::kQ8_0);
      EXPECT_EQ(file->tensors[1].bytes, 136u);
      EXPECT_EQ(file->tensors[1].offset, file->tensors[0].offset + 64);
      EXPECT_EQ(file->tensors[3].encoding, EncodingKind::kI32);
      std::byte first;
      ASSERT_TRUE(source->read(file->tensors[1].offset, {&first, 1}).ok());
      EXPECT_EQ(first, std::byte{0x30 + 48});
    }
  }
}

TEST(Gguf, RefusesEveryPrefix) {
  const TempFolder folder;
  const std::string whole = valid_gguf().build();
  for (size_t size = 1; size < whole.size(); ++size) {
    std::optional<Status> first;
    for (const auto& [name, source] : back_ends(folder, whole.substr(0, size))) {
      const auto file = read_gguf(source);
      ASSERT_FALSE(file.ok()) << name << " " << size;
      const Refusal refusal = file.status().refusal();
      EXPECT_TRUE(refusal == Refusal::kTrunc || refusal == Refusal::kBounds ||
                  refusal == Refusal::kLimit)
          << size << ": " << file.status().to_string();
      if (!first) first = file.status();
      EXPECT_EQ(refusal, first->refusal()) << name << " " << size;
      EXPECT_EQ(file.status().offset(), first->offset()) << name << " " << size;
    }
  }
}

TEST(Gguf, FlawsOfLayoutAreWarnings) {
  for (const Row& row : layout_rows()) {
    if (!row.strict) continue;
    const auto file = read(row.make());
    ASSERT_TRUE(file.ok()) << row.name << ": " << file.status().to_string();
    EXPECT_FALSE(file->warnings.empty()) << row.name;
  }
}

TEST(Gguf, SaysWhatItFoundInstead) {
  const auto message = [](const std::string& bytes) { return read(bytes).status().to_string(); };
  EXPECT_NE(message(with_version(0x03000000)).find("big-endian"), std::string::npos);
  EXPECT_NE(message(with_version(4)).find("newer than this pome"), std::string::npos);
  EXPECT_NE(message(with_magic("tjgg")).find("before GGUF"), std::string::npos);
  EXPECT_NE(message("version https://git-lfs.github.com/spec/v1\noid x\n").find("Git LFS pointer"),
            std::string::npos);
  EXPECT_NE(message("<html>").find("web page"), std::string::npos);
  EXPECT_NE(message(std::string("PK\3\4xxxxxxxxxxxxxxxxxxxxxxx")).find("zip archive"),
            std::string::npos);
  EXPECT_NE(message(with_tensor({"t", {32}, 4, 16, {}, {}, {}}).build()).find("Q4_2"),
            std::string::npos);
  // Control bytes of the file never reach a terminal.
  EXPECT_EQ(message(with_pair(pair_of("a\x1b[31m", kU8, "x")).build()).find('\x1b'),
            std::string::npos);
}

TEST(Gguf, MetadataHasABudget) {  // row 25
  GgufBytes file;
  for (int i = 0; i < 10; ++i) {
    file.pairs.push_back(
        pair_of("k" + std::to_string(i), kArray, array_of(kU8, 100, std::string(100, 'x'))));
  }
  GgufReadOptions options;
  options.metadata_bytes = 9000;
  EXPECT_TRUE(read_gguf(memory_source(bytes_of(file.build()), "m"), options).ok());
  options.metadata_bytes = 8000;
  const auto refused = read_gguf(memory_source(bytes_of(file.build()), "m"), options);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().refusal(), Refusal::kLimit);
  // The default, in a file that really is that long: refused before the array is allocated.
  const std::string head = only_pair(pair_of("k", kArray, array_of(kI16, 70000000, "")));
  const auto huge = read_gguf(std::make_shared<SparseSource>(head, 200000000));
  ASSERT_FALSE(huge.ok());
  EXPECT_EQ(huge.status().refusal(), Refusal::kLimit);
  // Many empty strings take far more memory than file.
  const std::string strings = only_pair(pair_of("k", kArray, array_of(kString, 20000000, "")));
  const auto many = read_gguf(std::make_shared<SparseSource>(strings, 200000000));
  ASSERT_FALSE(many.ok());
  EXPECT_EQ(many.status().refusal(), Refusal::kLimit);
}

std::string many_tensors(size_t count, bool duplicate) {
  GgufBytes file;
  for (size_t i = 0; i < count; ++i) {
    file.tensors.push_back({"layer." + std::to_string(i) + ".weight", {1}, 0, 4, {}, {}, {}});
  }
  if (duplicate) file.tensors.back().name = file.tensors[1].name;
  return file.build();
}

TEST(Gguf, ManyTensorsTakeLinearTime) {  // row 31
  const std::string good = many_tensors(100000, false), bad = many_tensors(100000, true);
  const std::clock_t start = std::clock();  // processor time: other load does not count
  const auto file = read(good, true);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ(file->tensors.size(), 100000u);
  const auto refused = read(bad);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().refusal(), Refusal::kDup);
  EXPECT_LT(std::clock() - start, 2 * CLOCKS_PER_SEC);
}

TEST(Gguf, AcceptsEmptyTensorsAndFilesWithoutTensors) {  // row 38
  const auto empty = read(with_tensor({"t", {0, 5}, 8, 0, {}, {}, {}}).build(), true);
  ASSERT_TRUE(empty.ok()) << empty.status().to_string();
  EXPECT_EQ(empty->tensors[0].bytes, 0u);
  GgufBytes vocabulary = valid_gguf();
  vocabulary.tensors.clear();
  const auto file = read(vocabulary.build(), true);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_TRUE(file->tensors.empty());
}

TEST(Gguf, HonoursTheAlignment) {
  GgufBytes bytes = with_pair(pair_of("general.alignment", kU32, le<uint32_t>(256)));
  bytes.alignment = 256;
  const auto file = read(bytes.build(), true);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ(file->alignment, 256u);
  EXPECT_EQ(file->tensors[1].offset % 256, 0u);
}

TEST(Gguf, TextThatIsNotUtf8IsKeptWithAWarning) {
  const auto file = read(with_pair(pair_of("k", kString, gguf_string("a\xff"))).build());
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ(file->warnings.size(), 1u);
}

void* read_all_rows(void*) {
  for (const Row& row : all_rows()) {
    EXPECT_FALSE(read(row.make(), row.strict).ok()) << row.name;
  }
  EXPECT_TRUE(read(valid_gguf().build()).ok());
  return nullptr;
}

TEST(Gguf, NeedsLittleStack) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, read_all_rows, nullptr), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

// ---- writer ------------------------------------------------------------------------------------

using Metadata = std::vector<std::pair<std::string, GgufValue>>;

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(GgufWriter, WritesWhatTheReaderReadByteForByte) {
  const TempFolder folder;
  for (const uint64_t alignment : {32, 64}) {
    GgufBytes bytes = valid_gguf();
    if (alignment != 32)
      bytes.pairs.push_back(pair_of("general.alignment", kU32, le<uint32_t>(64)));
    bytes.alignment = alignment;
    const std::string whole = bytes.build();
    const auto source = memory_source(bytes_of(whole), "m");
    const auto file = read_gguf(source);
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    std::vector<GgufWriter::Declared> declared;
    for (const GgufTensor& t : file->tensors) declared.push_back({t.name, t.shape, t.encoding});
    const std::string path = folder.file("out.gguf");
    auto writer = GgufWriter::create(path, file->metadata, declared);
    ASSERT_TRUE(writer.ok()) << writer.status().to_string();
    for (const GgufTensor& t : file->tensors) {
      ASSERT_TRUE((*writer)->begin_tensor().ok());
      const auto data = source->view(t.offset, t.bytes);
      ASSERT_TRUE(data.has_value());
      ASSERT_TRUE((*writer)->write(data->first(3)).ok());
      ASSERT_TRUE((*writer)->write(data->subspan(3)).ok());
    }
    ASSERT_TRUE((*writer)->finish().ok());
    EXPECT_EQ(contents(path), whole);
  }
}

TEST(GgufWriter, RefusesWhatTheFormatCannotHold) {
  const TempFolder folder;
  const std::string path = folder.file("out.gguf");
  const auto refusal = [&](const Metadata& metadata, std::vector<GgufWriter::Declared> tensors) {
    const auto writer = GgufWriter::create(path, metadata, tensors);
    EXPECT_FALSE(writer.ok());
    EXPECT_FALSE(std::filesystem::exists(path));
    return writer.status().refusal();
  };
  const auto tensor = [](std::string name, Shape shape, EncodingKind kind = EncodingKind::kF32) {
    return GgufWriter::Declared{std::move(name), std::move(shape), kind};
  };
  EXPECT_EQ(refusal({{"k", GgufValue::u32(1)}, {"k", GgufValue::f32(1)}}, {}), Refusal::kRange);
  EXPECT_EQ(refusal({{"", GgufValue::u32(1)}}, {}), Refusal::kRange);
  EXPECT_EQ(refusal({{"k", GgufValue::u32s({1ull << 32})}}, {}), Refusal::kRange);
  EXPECT_EQ(refusal({{"k", {GgufType::kString, GgufType::kU32, uint64_t{1}}}}, {}),
            Refusal::kRange);
  EXPECT_EQ(refusal({{"general.alignment", GgufValue::u32(48)}}, {}), Refusal::kRange);
  EXPECT_EQ(refusal({}, {tensor("a", {2}), tensor("a", {3})}), Refusal::kDup);
  EXPECT_EQ(refusal({}, {tensor(std::string(64, 'n'), {2})}), Refusal::kRange);
  EXPECT_EQ(refusal({}, {tensor("a", {})}), Refusal::kRange);
  EXPECT_EQ(refusal({}, {tensor("a", {1, 1, 1, 1, 1})}), Refusal::kRange);
  EXPECT_EQ(refusal({}, {tensor("a", {48}, EncodingKind::kQ8_0)}), Refusal::kRange);
  EXPECT_EQ(GgufWriter::create(path, {}, {tensor("a", {4}, EncodingKind::kLut)}).status().code(),
            StatusCode::kUnsupported);
}

TEST(GgufWriter, HoldsTheCallerToWhatWasDeclared) {
  const TempFolder folder;
  auto writer = GgufWriter::create(folder.file("out.gguf"), {}, {{"a", {2}, EncodingKind::kF32}});
  ASSERT_TRUE(writer.ok());
  const std::vector<std::byte> bytes(9);
  EXPECT_FALSE((*writer)->finish().ok());
  EXPECT_FALSE((*writer)->write(bytes).ok());
  ASSERT_TRUE((*writer)->begin_tensor().ok());
  EXPECT_FALSE((*writer)->write(bytes).ok());
  EXPECT_TRUE((*writer)->write(std::span(bytes).first(4)).ok());
  EXPECT_FALSE((*writer)->begin_tensor().ok());
  EXPECT_FALSE((*writer)->finish().ok());
  EXPECT_TRUE((*writer)->write(std::span(bytes).first(4)).ok());
  EXPECT_FALSE((*writer)->begin_tensor().ok());
  EXPECT_TRUE((*writer)->finish().ok());
}

}  // namespace
}  // namespace pome
