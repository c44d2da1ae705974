// What the qualities of rounding are worth on a whole model, and beside ggml's quantiser with an
// importance matrix of the same text.
#include <gtest/gtest.h>

#include <fstream>
#include <iostream>
#include <map>

#include "base/io.h"
#include "cli/program.h"
#include "formats/gguf.h"
#include "formats/imatrix.h"
#include "support/ggml.h"

namespace pome {
namespace {

using namespace test;

// Few, but every difference below is several times its standard error.
constexpr const char* kTokens = "4096";

class QualityOracle : public testing::Test {
 protected:
  void SetUp() override {
    const std::string stories = kShared + "/data/text/tinystories/valid.txt";
    if (!exists(stories)) GTEST_SKIP() << "no " << stories;
    // Nothing of the held-out text, which is the beginning, lies behind the first 300,000 bytes.
    std::ifstream file(stories, std::ios::binary);
    file.seekg(300'000);
    std::string text(60'000, '\0');
    ASSERT_TRUE(file.read(text.data(), static_cast<std::streamsize>(text.size())));
    const size_t first = text.find(". ") + 2, last = text.rfind('.');  // whole sentences
    std::ofstream(text_, std::ios::binary) << text.substr(first, last - first + 1);
  }

  // The model as a file whose matrices, embedding included, are all of one type.
  std::string convert(const std::string& type, const std::string& quality) {
    const std::string out = folder_ / (type + "-" + quality + ".gguf");
    std::vector<std::string> call = {"convert", kTales,      "-o", out,         "--to",
                                     "gguf",    "--weights", type, "--quality", quality};
    if (quality != "fast")
      call.insert(call.end(), {"--calibrate", text_, "--calibrate-tokens", kTokens});
    call.push_back("--json");
    const Ended ended = pome(call);
    EXPECT_EQ(ended.code, 0) << show(ended);
    return out;
  }
  // Mean divergence from the model as it is.
  double divergence(const std::string& path) {
    const Json found =
        pome_json({"eval", path, "--against", kTales, "--text", kHeldOut, "--max-tokens", kTokens});
    EXPECT_LT(found["mean_kld_stderr"].get<double>(), 0.03 * found["mean_kld"].get<double>());
    const double mean = found["mean_kld"].get<double>();
    std::cout << path.substr(path.rfind('/') + 1) << ": " << mean << "\n";
    return mean;
  }
  static GgufFile open(const std::string& path) {
    auto source = open_for_reading(path);
    EXPECT_TRUE(source.ok()) << source.status().to_string();
    auto file = read_gguf(*source, {.strict = true});
    EXPECT_TRUE(file.ok()) << file.status().to_string();
    return std::move(file).value();
  }
  static std::map<std::string, uint64_t> bytes_of(const std::string& path) {
    std::map<std::string, uint64_t> out;
    for (const GgufTensor& tensor : open(path).tensors) out[tensor.name] = tensor.bytes;
    return out;
  }

  const std::string kHeldOut = POME_SOURCE_DIR "/data/held-out.txt";
  TempFolder folder_{true};
  const std::string text_ = folder_ / "text";
};

// The file of `plain` with what ggml makes of the weights in it, which `exact` holds.
void replace_with_ggml(const Ggml& ggml, const GgufFile& plain, const GgufFile& exact,
                       const ImportanceMatrix& matrix, const std::string& path) {
  std::map<std::string, const GgufTensor*> values;
  for (const GgufTensor& tensor : exact.tensors) values[tensor.name] = &tensor;
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  size_t replaced = 0;
  for (const GgufTensor& tensor : plain.tensors) {
    if (tensor.encoding != EncodingKind::kQ4_K) continue;
    const GgufTensor& from = *values.at(tensor.name);
    ASSERT_EQ(from.shape, tensor.shape) << tensor.name;
    ASSERT_EQ(from.encoding, EncodingKind::kF32);
    std::vector<float> weights(from.bytes / sizeof(float));
    ASSERT_TRUE(exact.source->read(from.offset, std::as_writable_bytes(std::span(weights))).ok());
    const auto entry = matrix.entries.find(tensor.name);
    ASSERT_NE(entry, matrix.entries.end()) << tensor.name;
    const auto& importance = entry->second.mean_squares;
    const int64_t columns = tensor.shape.back();
    ASSERT_EQ(importance.size(), static_cast<size_t>(columns));
    const auto blocks =
        ggml.quantize(traits(tensor.encoding).gguf_type, weights, columns, importance);
    ASSERT_EQ(blocks.size(), tensor.bytes);
    file.seekp(static_cast<std::streamoff>(tensor.offset));
    file.write(reinterpret_cast<const char*>(blocks.data()),
               static_cast<std::streamsize>(blocks.size()));
    ++replaced;
  }
  EXPECT_TRUE(file.flush());
  EXPECT_EQ(replaced, 8 * 7 + 1u);
}

TEST_F(QualityOracle, MoreWorkLosesLessInTheSameBytesAndGgmlWithAMatrixMore) {
  const std::string fast = convert("q4_k_pure", "fast"), good = convert("q4_k_pure", "good"),
                    best = convert("q4_k_pure", "best");
  EXPECT_EQ(bytes_of(good), bytes_of(fast));
  EXPECT_EQ(bytes_of(best), bytes_of(fast));
  const double of_fast = divergence(fast), of_good = divergence(good), of_best = divergence(best);
  EXPECT_LT(of_good, 0.75 * of_fast);
  EXPECT_LT(of_best, 0.95 * of_good);

  const Ggml* ggml = Ggml::load();
  if (ggml == nullptr) GTEST_SKIP() << Ggml::kMissing;
  const std::string matrix_file = folder_ / "matrix", theirs = folder_ / "ggml.gguf";
  pome_json({"calibrate", kTales, "-o", matrix_file, "--text", text_, "--tokens", kTokens});
  const auto matrix = read_imatrix(matrix_file);
  ASSERT_TRUE(matrix.ok()) << matrix.status().to_string();
  std::filesystem::copy_file(fast, theirs);
  replace_with_ggml(*ggml, open(fast), open(convert("f32", "fast")), *matrix, theirs);
  ASSERT_EQ(bytes_of(theirs), bytes_of(fast));
  const double of_ggml = divergence(theirs);
  EXPECT_LT(of_ggml, 1.1 * of_fast);  // and it is no straw man
  EXPECT_LT(of_good, 0.75 * of_ggml);
  EXPECT_LT(of_best, 0.6 * of_ggml);
}

}  // namespace
}  // namespace pome
