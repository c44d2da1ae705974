#include "formats/safetensors.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <ctime>
#include <functional>
#include <set>

#include "malformed/back_ends.h"
#include "malformed/safetensors_bytes.h"

namespace pome {
namespace {

using namespace malformed;  // NOLINT: builders of the test

Result<SafetensorsFile> read(const std::string& bytes) {
  return read_safetensors(memory_source(bytes_of(bytes), "test.safetensors"));
}

struct Row {
  int number;  // of the list of negative inputs
  std::string name;
  std::function<std::string()> make;
  std::set<Refusal> expected;
};

std::string header_only(const std::string& header) {
  return SafetensorsBytes{header, 0, {}}.build();
}
// One tensor "t" with `data` bytes behind the header.
std::string one(std::string_view dtype, std::string_view shape, std::string_view span,
                uint64_t data) {
  return SafetensorsBytes{"{" + tensor_json("t", dtype, shape, span) + "}", data, {}}.build();
}
std::string two(std::string_view first_span, uint64_t first, std::string_view second_span,
                uint64_t second, uint64_t data) {
  return SafetensorsBytes{
      "{" + tensor_json("a", "U8", "[" + std::to_string(first) + "]", first_span) + "," +
          tensor_json("b", "U8", "[" + std::to_string(second) + "]", second_span) + "}",
      data,
      {}}
      .build();
}

std::vector<Row> header_rows() {
  using enum Refusal;
  const auto header = [](std::string text) {
    return [text = std::move(text)] { return header_only(text); };
  };
  const auto stated = [](uint64_t n) {
    return [n] {
      SafetensorsBytes file = valid_safetensors();
      file.header_bytes = n;
      return file.build();
    };
  };
  const std::string t = tensor_json("t", "U8", "[0]", "[0,0]");
  const std::string deep(100000, '[');
  std::string deep_object;
  for (int i = 0; i < 100000; ++i) deep_object += "{\"a\":";
  std::vector<Row> rows = {
      {66, "n_max", stated(~0ull), {kLimit}},
      {67, "n_over_limit", stated(100000001), {kLimit}},
      {68, "n_is_file_size", stated(valid_safetensors().build().size()), {kBounds}},
      {69, "n_zero", stated(0), {kRange}},
      {69, "array", header("[1,2]"), {kRange}},
      {69, "space_first", header(" {}"), {kRange}},
      {70, "ff", header("\xff\xff"), {kUtf8}},
      {70, "ff_in_name", header("{\"\xff\":1}"), {kUtf8}},
      {71, "open_brace", header("{"), {kType}},
      {71, "trailing_comma", header("{" + t + ",}"), {kType}},
      {71, "nan", header("{\"t\":NaN}"), {kType}},
      {71, "comment", header("{/* c */" + t + "}"), {kType}},
      {71, "bom", header("\xef\xbb\xbf{" + t + "}"), {kType}},
      {71, "no_colon", header("{\"t\" 1}"), {kType}},
      {71, "single_quotes", header("{'t':1}"), {kType}},
      {71, "control_byte", header("{\"a\nb\":1}"), {kType}},
      {71, "bad_escape", header("{\"\\x41\":1}"), {kType}},
      {71, "short_escape", header("{\"\\u12"), {kType}},
      {71, "lone_surrogate", header("{\"\\ud800\":1}"), {kUtf8}},
      {71, "wrong_surrogate", header("{\"\\ud800\\u0041\":1}"), {kUtf8}},
      {71, "nul_in_name", header("{\"\\u0000\":1}"), {kUtf8}},
      {72, "nul_after", header("{" + t + "}" + std::string(3, '\0')), {kType}},
      {72, "newline_after", header("{" + t + "}\n"), {kType}},
      {72, "second_object", header("{" + t + "}{}"), {kType}},
      {73, "dup_name", header("{" + t + "," + t + "}"), {kDup}},
      {73,
       "dup_escaped",
       header("{" + t + "," + tensor_json("\\u0074", "U8", "[0]", "[0,0]") + "}"),
       {kDup}},
      {73, "dup_member", header("{\"t\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}"), {kDup}},
      {74, "two_metadata", header("{\"__metadata__\":{},\"__metadata__\":{}}"), {kDup}},
      {74, "dup_in_metadata", header("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}"), {kDup}},
      {74, "metadata_number", header("{\"__metadata__\":{\"a\":1}}"), {kType}},
      {74, "metadata_object", header("{\"__metadata__\":{\"a\":{}}}"), {kType}},
      {74, "metadata_is_text", header("{\"__metadata__\":\"a\"}"), {kType}},
      {88, "deep_metadata", header("{\"__metadata__\":{\"a\":" + deep + "}}"), {kDepth}},
      {88,
       "deep_metadata_object",
       header("{\"__metadata__\":{\"a\":" + deep_object + "}}"),
       {kDepth}},
      {88, "deep_shape", header("{\"t\":{\"dtype\":\"U8\",\"shape\":[" + deep + "]}}"), {kDepth}},
      {88, "deep_tensor", header("{\"t\":" + deep + "}"), {kDepth}},
      {109,
       "lfs_pointer",
       [] { return std::string("version https://git-lfs.github.com/spec/v1\noid x\n"); },
       {kMagic}},
      {110, "web_page", [] { return std::string("<!doctype html><html>"); }, {kMagic}},
      {110, "json_error", [] { return std::string("{\"message\": \"forbidden\"}"); }, {kMagic}},
  };
  for (size_t size = 0; size < 8; ++size) {
    rows.push_back({65,
                    "bytes_" + std::to_string(size),
                    [size] { return std::string(size, '\1'); },
                    {kTrunc}});
  }
  return rows;
}

std::vector<Row> tensor_rows() {
  using enum Refusal;
  const auto tensor = [](std::string dtype, std::string shape, std::string span, uint64_t data) {
    return [=] { return one(dtype, shape, span, data); };
  };
  const auto body = [](std::string text) {
    return [text = std::move(text)] { return header_only("{\"t\":" + text + "}"); };
  };
  const auto pair = [](std::string a, uint64_t an, std::string b, uint64_t bn, uint64_t data) {
    return [=] { return two(a, an, b, bn, data); };
  };
  std::string many_dims = "[1";
  for (int i = 0; i < 64; ++i) many_dims += ",1";
  return {
      {74,
       "unknown_member",
       body("{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":1}"),
       {kType}},
      {74, "member_missing", body("{\"dtype\":\"U8\",\"shape\":[0]}"), {kType}},
      {74, "empty_tensor", body("{}"), {kType}},
      {74, "tensor_is_null", body("null"), {kType}},
      {75, "f31", tensor("F31", "[1]", "[0,4]", 4), {kType}},
      {75, "lower_case", tensor("f32", "[1]", "[0,4]", 4), {kType}},
      {75, "dtype_number", body("{\"dtype\":32,\"shape\":[0],\"data_offsets\":[0,0]}"), {kType}},
      {76, "dim_negative", tensor("U8", "[-4]", "[0,4]", 4), {kRange}},
      {76, "dim_fraction", tensor("U8", "[1.5]", "[0,4]", 4), {kType}},
      {76, "dim_exponent", tensor("U8", "[1e3]", "[0,4]", 4), {kType}},
      {76, "dim_2_64", tensor("U8", "[18446744073709551616]", "[0,4]", 4), {kRange}},
      {76, "dim_2_63", tensor("U8", "[9223372036854775808]", "[0,4]", 4), {kRange}},
      {76, "dim_text", tensor("U8", "[\"4\"]", "[0,4]", 4), {kType}},
      {76, "dim_leading_zero", tensor("U8", "[04]", "[0,4]", 4), {kType}},
      {76, "dim_true", tensor("U8", "[true]", "[0,4]", 4), {kType}},
      {76, "dim_missing", tensor("U8", "[4,]", "[0,4]", 4), {kType}},
      {76, "shape_number", tensor("U8", "4", "[0,4]", 4), {kType}},
      {76, "dims_65", tensor("U8", many_dims, "[0,1]", 1), {kLimit}},
      {76, "offset_negative", tensor("U8", "[4]", "[-4,0]", 4), {kRange}},
      {76, "offset_fraction", tensor("U8", "[4]", "[0,4.0]", 4), {kType}},
      {76, "offset_2_64", tensor("U8", "[4]", "[0,18446744073709551616]", 4), {kRange}},
      {76, "offset_text", tensor("U8", "[4]", "[0,\"4\"]", 4), {kType}},
      {77, "offsets_none", tensor("U8", "[4]", "[]", 4), {kType}},
      {77, "offsets_one", tensor("U8", "[4]", "[4]", 4), {kType}},
      {77, "offsets_three", tensor("U8", "[4]", "[0,4,4]", 4), {kType}},
      {78, "end_before_start", tensor("U8", "[4]", "[4,0]", 4), {kRange}},
      {79, "overlap", pair("[0,4]", 4, "[3,8]", 5, 8), {kOverlap}},
      {79, "same_span", pair("[0,4]", 4, "[0,4]", 4, 4), {kOverlap}},
      {80, "hole", pair("[0,4]", 4, "[5,8]", 3, 8), {kHole}},
      {81, "first_not_at_0", tensor("U8", "[4]", "[1,5]", 5), {kHole}},
      {82, "trailing_byte", tensor("U8", "[4]", "[0,4]", 5), {kBounds}},
      {82,
       "data_without_tensors",
       [] {
         return SafetensorsBytes{"{}", 1, {}}.build();
       },
       {kBounds}},
      {83, "cut", tensor("U8", "[4]", "[0,4]", 3), {kTrunc}},
      {84, "span_too_short", tensor("F32", "[1000,1000]", "[0,4]", 4), {kRange}},
      {84, "span_too_long", tensor("F32", "[]", "[0,8]", 8), {kRange}},
      {85, "product_wraps", tensor("F32", "[4294967296,4294967296,4]", "[0,4]", 4), {kOverflow}},
      {85, "bits_wrap", tensor("F64", "[288230376151711744]", "[0,0]", 0), {kOverflow}},
      {86, "odd_f4", tensor("F4", "[3]", "[0,2]", 2), {kRange}},
      {86, "odd_f6", tensor("F6_E2M3", "[3]", "[0,3]", 3), {kRange}},
  };
}

std::vector<Row> all_rows() {
  std::vector<Row> rows = header_rows();
  for (Row& row : tensor_rows()) rows.push_back(std::move(row));
  return rows;
}

class SafetensorsRefuses : public testing::TestWithParam<Row> {};

TEST_P(SafetensorsRefuses, WithTheSameVerdictFromEverySource) {
  const TempFolder folder;
  const std::string bytes = GetParam().make();
  std::optional<uint64_t> offset;
  for (const auto& [name, source] : back_ends(folder, bytes)) {
    SCOPED_TRACE(name);
    const auto file = read_safetensors(source);
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
INSTANTIATE_TEST_SUITE_P(Rows, SafetensorsRefuses, testing::ValuesIn(all_rows()),
                         [](const auto& row) {
                           return std::to_string(row.param.number) + "_" + row.param.name;
                         });

TEST(Safetensors, ReadsTensorsByOffset) {
  const TempFolder folder;
  for (const auto& [name, source] : back_ends(folder, valid_safetensors().build())) {
    SCOPED_TRACE(name);
    const auto file = read_safetensors(source);
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    EXPECT_EQ(file->metadata, (std::map<std::string, std::string>{{"format", "pt"}}));
    ASSERT_EQ(file->entries.size(), 4u);
    EXPECT_EQ(file->entries[0].name, "a");
    EXPECT_EQ(file->entries[0].shape, (Shape{2, 3}));
    EXPECT_EQ(file->entries[1].name, "empty");
    EXPECT_EQ(file->entries[1].bytes, 0u);
    EXPECT_EQ(file->entries[2].dtype, DType::kBF16);
    EXPECT_EQ(file->entries[3].shape, Shape{});
    for (const SafetensorsEntry& entry : file->entries) {
      const auto tensor = load_tensor(*file, entry);
      ASSERT_TRUE(tensor.ok()) << tensor.status().to_string();
      EXPECT_EQ(tensor->shape(), entry.shape);
      ASSERT_EQ(tensor->bytes().size(), entry.bytes);
      const uint64_t start = entry.offset - file->entries[0].offset;
      for (size_t i = 0; i < entry.bytes; ++i) {
        EXPECT_EQ(tensor->bytes()[i], std::byte(0x30 + start + i));
      }
    }
  }
}

TEST(Safetensors, LoadsTensorsThatAreNotAligned) {
  for (size_t pad = 0; pad < 8; ++pad) {
    const auto file = read(SafetensorsBytes{
        "{" + tensor_json("u", "U8", "[3]", "[0,3]") + "," +
            tensor_json("t", "F32", "[4]", "[3,19]") + "}" + std::string(pad, ' '),
        19,
        {}}.build());
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    const auto tensor = load_tensor(*file, file->entries[1]);
    ASSERT_TRUE(tensor.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->bytes().data()) % 4, 0u);
    EXPECT_EQ(tensor->bytes()[0], std::byte(0x33));
    EXPECT_EQ(tensor->f32().size(), 4u);
  }
}

TEST(Safetensors, RefusesEveryPrefix) {
  const TempFolder folder;
  const std::string whole = valid_safetensors().build();
  for (size_t size = 0; size < whole.size(); ++size) {
    std::optional<Status> first;
    for (const auto& [name, source] : back_ends(folder, whole.substr(0, size))) {
      const auto file = read_safetensors(source);
      ASSERT_FALSE(file.ok()) << name << " " << size;
      const Refusal refusal = file.status().refusal();
      EXPECT_TRUE(refusal == Refusal::kTrunc || refusal == Refusal::kBounds)
          << size << ": " << file.status().to_string();
      if (!first) first = file.status();
      EXPECT_EQ(refusal, first->refusal()) << name << " " << size;
      EXPECT_EQ(file.status().offset(), first->offset()) << name << " " << size;
    }
  }
}

TEST(Safetensors, NamesDTypesThatItDoesNotRead) {
  const auto file = read(one("F4", "[4]", "[0,2]", 2));
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(file.status().refusal(), Refusal::kType);
  EXPECT_NE(file.status().message().find("F4"), std::string::npos);
}

TEST(Safetensors, SpeaksTheSameDTypeNamesBothWays) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    const std::string_view name = safetensors_dtype_name(dtype);
    EXPECT_EQ(name.empty(), bits_of(dtype) < 8) << to_string(dtype);
    if (name.empty()) continue;
    const uint64_t bytes = static_cast<uint64_t>(bits_of(dtype)) / 8 * 6;
    const auto file = read(one(name, "[2,3]", "[0," + std::to_string(bytes) + "]", bytes));
    ASSERT_TRUE(file.ok()) << name << file.status().to_string();
    EXPECT_EQ(file->entries[0].dtype, dtype);
  }
}

TEST(Safetensors, AcceptsAnEmptyFileAndEscapedNames) {
  EXPECT_TRUE(read(header_only("{}")).ok());
  EXPECT_TRUE(read(header_only("{\"__metadata__\":{}}  ")).ok());
  const auto file = read(header_only(
      "{" + tensor_json("\\u00e9\\ud83d\\ude00\\n\\\"\\/\\\\", "U8", "[0]", "[0,0]") + "}"));
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ(file->entries[0].name, "\xc3\xa9\xf0\x9f\x98\x80\n\"/\\");
}

TEST(Safetensors, RefusesHugeHeadersAtOnce) {  // rows 67 and 87
  for (const uint64_t n : {100000001ull, 700000000ull}) {
    const auto file =
        read_safetensors(std::make_shared<SparseSource>(le<uint64_t>(n) + "{", n + 100));
    ASSERT_FALSE(file.ok());
    EXPECT_EQ(file.status().refusal(), Refusal::kLimit);
  }
}

std::string many_tensors(size_t count, bool duplicate) {
  std::string header = "{";
  for (size_t i = 0; i < count; ++i) {
    const size_t name = duplicate && i + 1 == count ? 0 : i;
    if (i > 0) header += ',';
    header += tensor_json("layer." + std::to_string(name) + ".weight", "U8", "[1]",
                          "[" + std::to_string(i) + "," + std::to_string(i + 1) + "]");
  }
  return SafetensorsBytes{header + "}", count, {}}.build();
}

TEST(Safetensors, ManyTensorsTakeLinearTime) {
  const std::string good = many_tensors(100000, false), bad = many_tensors(100000, true);
  const std::clock_t start = std::clock();  // processor time: other load does not count
  const auto file = read(good);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ(file->entries.size(), 100000u);
  const auto refused = read(bad);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().refusal(), Refusal::kDup);
  EXPECT_LT(std::clock() - start, 2 * CLOCKS_PER_SEC);
}

TEST(Safetensors, AFileCutWhileOpenIsAnErrorNotASignal) {  // row 90
  const TempFolder folder;
  SafetensorsBytes bytes{"{" + tensor_json("t", "U8", "[100000]", "[0,100000]") + "}", 100000, {}};
  const std::string path = folder.write("t.safetensors", bytes.build());
  const auto source = open_mapped(path);
  ASSERT_TRUE(source.ok());
  const auto file = read_safetensors(*source);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  std::filesystem::resize_file(path, 4096);
  const auto tensor = load_tensor(*file, file->entries[0]);
  ASSERT_FALSE(tensor.ok());
  EXPECT_EQ(tensor.status().refusal(), Refusal::kTrunc);
  EXPECT_FALSE(read_safetensors(*source).ok());
}

void* read_all_rows(void*) {
  for (const Row& row : all_rows()) EXPECT_FALSE(read(row.make()).ok()) << row.name;
  EXPECT_TRUE(read(valid_safetensors().build()).ok());
  return nullptr;
}

TEST(Safetensors, NeedsLittleStack) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, read_all_rows, nullptr), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

// ---- writer ------------------------------------------------------------------------------------

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(SafetensorsWriter, WritesTheBytesOfTheFormat) {
  const TempFolder folder;
  const std::string path = folder.file("out.safetensors");
  ASSERT_TRUE(write_safetensors(path, {{"b\"\n", Tensor::from_f32({1, 2}, {1, 2})},
                                       {"a", Tensor::from_i32({}, {7})}})
                  .ok());
  std::string header = R"({"b\"\n":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
                       R"("a":{"dtype":"I32","shape":[],"data_offsets":[8,12]}})";
  while (header.size() % 8 != 0) header += ' ';
  EXPECT_EQ(contents(path), le<uint64_t>(header.size()) + header + le(1.0f) + le(2.0f) + le(7));
}

TEST(SafetensorsWriter, RoundTripsWithMetadata) {
  const TempFolder folder;
  const std::string path = folder.file("out.safetensors");
  auto writer = SafetensorsWriter::create(
      path, {{"x", DType::kBF16, {3}}, {"none", DType::kF64, {0}}, {"y", DType::kF8E4M3, {2, 2}}},
      {{"format", "pt"}, {"a\"b", "\xc3\xa9"}});
  ASSERT_TRUE(writer.ok()) << writer.status().to_string();
  const std::string data = "0123456789";
  for (const char& c : data) ASSERT_TRUE((*writer)->write(std::as_bytes(std::span(&c, 1))).ok());
  ASSERT_TRUE((*writer)->finish().ok());
  const auto source = open_mapped(path);
  ASSERT_TRUE(source.ok());
  const auto file = read_safetensors(*source);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ(file->metadata.at("a\"b"), "\xc3\xa9");
  ASSERT_EQ(file->entries.size(), 3u);
  EXPECT_EQ(file->entries[0].offset % 8, 0u);
  EXPECT_EQ(load_tensor(*file, file->entries[2])->bytes()[3], std::byte('9'));
}

TEST(SafetensorsWriter, RefusesWhatTheFormatCannotHold) {
  const TempFolder folder;
  const std::string path = folder.file("out.safetensors");
  const auto refusal = [&](std::vector<SafetensorsWriter::Declared> tensors,
                           const std::map<std::string, std::string>& metadata = {}) {
    const auto writer = SafetensorsWriter::create(path, std::move(tensors), metadata);
    EXPECT_FALSE(writer.ok());
    EXPECT_FALSE(std::filesystem::exists(path));
    return writer.status().refusal();
  };
  EXPECT_EQ(refusal({{"a", DType::kU8, {1}}, {"a", DType::kU8, {2}}}), Refusal::kDup);
  EXPECT_EQ(refusal({{"__metadata__", DType::kU8, {1}}}), Refusal::kRange);
  EXPECT_EQ(refusal({{"\xff", DType::kU8, {1}}}), Refusal::kUtf8);
  EXPECT_EQ(refusal({}, {{"k", "\xff"}}), Refusal::kUtf8);
  EXPECT_EQ(refusal({{"a", DType::kU8, {-1}}}), Refusal::kOverflow);
  EXPECT_EQ(SafetensorsWriter::create(path, {{"a", DType::kU4, {2}}}).status().code(),
            StatusCode::kUnsupported);
}

TEST(SafetensorsWriter, HoldsTheCallerToWhatWasDeclared) {
  const TempFolder folder;
  auto writer = SafetensorsWriter::create(folder.file("out.safetensors"), {{"a", DType::kU8, {4}}});
  ASSERT_TRUE(writer.ok());
  const std::vector<std::byte> bytes(5);
  EXPECT_FALSE((*writer)->write(bytes).ok());
  EXPECT_TRUE((*writer)->write(std::span(bytes).first(3)).ok());
  EXPECT_FALSE((*writer)->finish().ok());
  EXPECT_TRUE((*writer)->write(std::span(bytes).first(1)).ok());
  EXPECT_TRUE((*writer)->finish().ok());
}

}  // namespace
}  // namespace pome
