#include "formats/imatrix.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "../malformed/back_ends.h"
#include "formats/gguf.h"

namespace pome {
namespace {

using malformed::TempFolder;

template <typename T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

// One entry, "blk.0.ffn_up.weight": two calls, sums 2 and 4.
struct Dat {
  int32_t entries = 1, length = 19, calls = 2, values = 2;
  std::string name = "blk.0.ffn_up.weight";
  float first = 2;
  std::string bytes() const {
    std::string out;
    put(out, entries);
    put(out, length);
    out += name;
    put(out, calls);
    put(out, values);
    put(out, first);
    put(out, 4.0f);
    return out;
  }
};

Refusal refusal_of(const std::string& bytes) {
  const TempFolder folder;
  std::optional<Refusal> out;
  for (const auto& [what, source] : malformed::back_ends(folder, bytes)) {
    const auto matrix = read_imatrix(source);
    const Refusal refusal = matrix.ok() ? Refusal::kNone : matrix.status().refusal();
    if (!out) out = refusal;
    EXPECT_EQ(refusal, *out) << what;
  }
  return *out;
}

TEST(Imatrix, ReadsTheOldForm) {
  std::string bytes = Dat().bytes();
  put(bytes, int32_t{7});  // last chunk
  put(bytes, int32_t{3});
  bytes += "txt";
  const TempFolder folder;
  for (const auto& [what, source] : malformed::back_ends(folder, bytes)) {
    const auto matrix = read_imatrix(source);
    ASSERT_TRUE(matrix.ok()) << what << matrix.status().to_string();
    const ImportanceEntry& entry = matrix->entries.at("blk.0.ffn_up.weight");
    EXPECT_EQ(entry.calls, 2);
    EXPECT_EQ(entry.mean_squares, (std::vector<float>{1, 2}));
  }
}

TEST(Imatrix, RefusesWhatIsWrongWithTheOldForm) {
  const auto with = [](auto change) {
    Dat dat;
    change(dat);
    return refusal_of(dat.bytes());
  };
  EXPECT_EQ(with([](Dat&) {}), Refusal::kNone);
  EXPECT_EQ(refusal_of(""), Refusal::kTrunc);
  EXPECT_EQ(with([](Dat& d) { d.entries = 0; }), Refusal::kRange);
  EXPECT_EQ(with([](Dat& d) { d.entries = -1; }), Refusal::kRange);
  EXPECT_EQ(with([](Dat& d) { d.entries = 1 << 30; }), Refusal::kRange);
  EXPECT_EQ(with([](Dat& d) { d.entries = 2; }), Refusal::kTrunc);
  EXPECT_EQ(with([](Dat& d) { d.length = -5; }), Refusal::kRange);
  EXPECT_EQ(with([](Dat& d) { d.length = 1 << 30; }), Refusal::kBounds);
  EXPECT_EQ(with([](Dat& d) { d.calls = -1; }), Refusal::kRange);
  EXPECT_EQ(with([](Dat& d) { d.values = 0; }), Refusal::kRange);
  EXPECT_EQ(with([](Dat& d) { d.values = std::numeric_limits<int32_t>::max(); }), Refusal::kBounds);
  EXPECT_EQ(with([](Dat& d) { d.name[0] = '\xFF'; }), Refusal::kUtf8);
  EXPECT_EQ(with([](Dat& d) { d.first = std::numeric_limits<float>::quiet_NaN(); }),
            Refusal::kRange);
  EXPECT_EQ(with([](Dat& d) { d.first = -1; }), Refusal::kRange);
  std::string twice = Dat().bytes();
  twice += twice.substr(4);
  twice[0] = 2;
  EXPECT_EQ(refusal_of(twice), Refusal::kDup);
}

struct Tensor {
  std::string name;
  Shape shape;
  std::vector<float> values;
};
std::string gguf_bytes(const std::string& type, const std::vector<Tensor>& tensors) {
  const TempFolder folder;
  std::vector<GgufWriter::Declared> declared;
  for (const Tensor& tensor : tensors)
    declared.push_back({tensor.name, tensor.shape, EncodingKind::kF32});
  const std::string path = folder.file("m.gguf");
  auto writer = GgufWriter::create(path, {{"general.type", GgufValue::string(type)}}, declared);
  EXPECT_TRUE(writer.ok());
  for (const Tensor& tensor : tensors) {
    EXPECT_TRUE((*writer)->begin_tensor().ok());
    EXPECT_TRUE((*writer)->write(std::as_bytes(std::span(tensor.values))).ok());
  }
  EXPECT_TRUE((*writer)->finish().ok());
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(Imatrix, ReadsTheGgufForm) {
  // Two experts of three columns; the second was never chosen.
  const std::string bytes = gguf_bytes(
      "imatrix",
      {{"a.weight.in_sum2", {2, 3}, {4, 8, 12, 0, 0, 0}}, {"a.weight.counts", {2, 1}, {4, 0}}});
  const TempFolder folder;
  for (const auto& [what, source] : malformed::back_ends(folder, bytes)) {
    const auto matrix = read_imatrix(source);
    ASSERT_TRUE(matrix.ok()) << what << matrix.status().to_string();
    EXPECT_EQ(matrix->entries.at("a.weight").mean_squares, (std::vector<float>{1, 2, 3, 0, 0, 0}));
    EXPECT_EQ(matrix->entries.at("a.weight").calls, 4);
  }
}

TEST(Imatrix, RefusesWhatIsWrongWithTheGgufForm) {
  const Tensor sums = {"a.in_sum2", {1, 2}, {1, 2}}, counts = {"a.counts", {1, 1}, {1}};
  EXPECT_EQ(refusal_of(gguf_bytes("imatrix", {sums, counts})), Refusal::kNone);
  EXPECT_EQ(refusal_of(gguf_bytes("model", {sums, counts})), Refusal::kType);
  EXPECT_EQ(refusal_of(gguf_bytes("imatrix", {sums})), Refusal::kRange);
  EXPECT_EQ(refusal_of(gguf_bytes("imatrix", {counts})), Refusal::kRange);
  EXPECT_EQ(refusal_of(gguf_bytes("imatrix", {sums, {"a.counts", {3, 1}, {1, 1, 1}}})),
            Refusal::kRange);
  EXPECT_EQ(refusal_of(gguf_bytes("imatrix", {{"a.in_sum2", {1, 2}, {1, -2}}, counts})),
            Refusal::kRange);
  EXPECT_NE(refusal_of(gguf_bytes("imatrix", {sums, counts}).substr(0, 60)), Refusal::kNone);
}

TEST(Imatrix, WrittenAndReadAgain) {
  ImportanceMatrix matrix;
  matrix.entries["a.weight"] = {{1, 2, 0.5f}, 10, {}};
  matrix.entries["experts.weight"] = {{1, 2, 3, 0, 0, 0}, 4, {4, 0}};
  const TempFolder folder;
  for (const ImatrixForm form : {ImatrixForm::kGguf, ImatrixForm::kDat}) {
    const std::string path = folder.file("m");
    ASSERT_TRUE(write_imatrix(matrix, {"text.txt", 3, 512}, form, path).ok());
    const auto read = read_imatrix(path);
    ASSERT_TRUE(read.ok()) << read.status().to_string();
    EXPECT_EQ(read->entries.at("a.weight").mean_squares, (std::vector<float>{1, 2, 0.5f}));
    // The old form knows no counts: what nothing met counts like all else.
    const float unmet = form == ImatrixForm::kGguf ? 0.0f : 1.0f;
    EXPECT_EQ(read->entries.at("experts.weight").mean_squares,
              (std::vector<float>{1, 2, 3, unmet, unmet, unmet}));
    EXPECT_EQ(read->entries.at("a.weight").calls, form == ImatrixForm::kGguf ? 10 : 3);
    const std::vector<float> counts = read->entries.at("experts.weight").counts;
    EXPECT_EQ(counts,
              form == ImatrixForm::kGguf ? std::vector<float>({4, 0}) : std::vector<float>());
  }
}

}  // namespace
}  // namespace pome
