#include "pipeline/allocation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/temp_folder.h"
#include "pipeline/convert.h"
#include "pipeline/measure_costs.h"
#include "pipeline/report.h"

namespace pome {
namespace {

const std::string kTales = POME_SOURCE_DIR "/models/tales";

class AllocationTest : public ::testing::Test {
 protected:
  ConvertOptions options(const std::string& target, const std::string& weights,
                         const std::string& profile = {}) {
    ConvertOptions out;
    out.model = kTales;
    out.output = folder_ / "out";
    out.target = target;
    out.profile = profile;
    out.weights = weights;
    out.context = 128;
    out.force = true;
    return out;
  }
  static Result<ConvertReport> run(const ConvertOptions& options) {
    WorkContext work;
    work.threads = 2;
    return convert(options, work);
  }
  bool exists() const { return std::filesystem::exists(folder_ / "out"); }

  TempFolder folder_{true};
};

TEST_F(AllocationTest, BitsPerWeightAreReachedAndNotExceeded) {
  struct Case {
    const char *target, *profile;
    double bits;
  };
  for (const Case& c : {Case{"coreml", "", 4.6}, Case{"coreml", "", 3.5}, Case{"coreml", "gpu", 6},
                        Case{"onnx", "", 6.5}, Case{"onnx", "plain", 6.5}, Case{"gguf", "", 4.4}}) {
    SCOPED_TRACE(std::string(c.target) + " " + c.profile + " " + std::to_string(c.bits));
    const auto report = run(options(c.target, std::to_string(c.bits) + "bpw", c.profile));
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_LE(report->exported.bits_per_weight, c.bits);
    EXPECT_GT(report->exported.bits_per_weight, c.bits - 0.2);
    std::set<std::string> encodings;
    for (const auto& weight : report->allocation.weights) encodings.insert(weight.encoding);
    EXPECT_GT(encodings.size(), 1u);
    EXPECT_LE(report->allocation.lower_bound, report->allocation.loss * (1 + 1e-9));
    EXPECT_FALSE(report->allocation.is_divergence);
  }
}

TEST_F(AllocationTest, TheWholeArtefactStaysBelowTheSizeLimit) {
  for (const char* target : {"coreml", "onnx", "gguf"}) {
    ConvertOptions o = options(target, "");
    o.size_limit = 6'000'000;
    const auto report = run(o);
    ASSERT_TRUE(report.ok()) << target << report.status().to_string();
    EXPECT_LE(report->bytes, o.size_limit) << target;
    EXPECT_GT(report->bytes, o.size_limit * 8 / 10) << target;
  }
}

TEST_F(AllocationTest, NarrowPalettesAreTakenOnlyWhereTheLimitAsksForThem) {
  const auto has_narrow = [](const ConvertReport& report) {
    for (const auto& weight : report.allocation.weights)
      if (weight.encoding == "lut3/16" || weight.encoding == "lut2/16") return true;
    return false;
  };
  const auto wide = run(options("coreml", "4.5bpw")), narrow = run(options("coreml", "3.2bpw"));
  ASSERT_TRUE(wide.ok() && narrow.ok());
  EXPECT_FALSE(has_narrow(*wide));
  EXPECT_TRUE(has_narrow(*narrow));
  const auto says = [](const ConvertReport& report) {
    for (const std::string& note : report.notes)
      if (note.find("palettes of 3 and 2 bits") != std::string::npos) return true;
    return false;
  };
  EXPECT_FALSE(says(*wide));
  EXPECT_TRUE(says(*narrow));
}

TEST_F(AllocationTest, PartsOfWeightsGetBitsOfTheirOwn) {
  for (const char* target : {"coreml", "onnx"}) {
    ConvertOptions o = options(target, "5.5bpw");
    o.model = POME_SOURCE_DIR "/models/zoo/llama3";
    o.calibrate = POME_SOURCE_DIR "/data/held-out.txt";
    o.calibrate_tokens = 128;
    const auto whole = run(o);
    ASSERT_TRUE(whole.ok()) << whole.status().to_string();
    o.split = true;
    const auto parts = run(o);
    ASSERT_TRUE(parts.ok()) << parts.status().to_string();
    EXPECT_LE(parts->exported.bits_per_weight, 5.5);
    EXPECT_EQ(parts->split_networks, 4);
    EXPECT_EQ(parts->split_tables, 2);
    EXPECT_LT(parts->allocation.loss, whole->allocation.loss);
    EXPECT_EQ(parts->exported.hashes.source_hash, whole->exported.hashes.source_hash);
    size_t of_vocabulary = 0;
    for (const auto& weight : parts->allocation.weights)
      of_vocabulary += weight.name.starts_with("embedding.part");
    EXPECT_EQ(of_vocabulary, 4u);
  }
}

TEST_F(AllocationTest, Refuses) {
  const auto code = [&](const ConvertOptions& o) {
    const auto report = run(o);
    EXPECT_FALSE(report.ok());
    EXPECT_FALSE(exists());
    return report.ok() ? StatusCode::kOk : report.status().code();
  };
  EXPECT_EQ(code(options("mlc", "4bpw")), StatusCode::kUnsupported);
  EXPECT_EQ(code(options("coreml", "xbpw")), StatusCode::kUsage);
  EXPECT_EQ(code(options("coreml", "1bpw")), StatusCode::kDoesNotFit);
  ConvertOptions split = options("coreml", "lut4");
  split.split = true;
  EXPECT_EQ(code(split), StatusCode::kUsage);
  split = options("coreml", "4bpw");  // without a text
  split.split = true;
  EXPECT_EQ(code(split), StatusCode::kUsage);
  split = options("gguf", "4bpw");
  split.split = true;
  EXPECT_EQ(code(split), StatusCode::kUsage);
  ConvertOptions both = options("coreml", "lut4");
  both.size_limit = 5'000'000;
  EXPECT_EQ(code(both), StatusCode::kUsage);
  both.weights.clear();
  both.size_limit = 1000;
  EXPECT_EQ(code(both), StatusCode::kDoesNotFit);
}

TEST_F(AllocationTest, AFailedGateLeavesNothing) {
  ConvertOptions o = options("gguf", "q4_k_s");
  bool saw = false;
  o.gate = [&](const std::string& path, ConvertReport*) {
    saw = std::filesystem::exists(path);
    return gate_failed("no");
  };
  const auto report = run(o);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), StatusCode::kGateFailed);
  EXPECT_TRUE(saw);
  EXPECT_FALSE(exists());
}

TEST_F(AllocationTest, MeasuresWithATextTheSameForEveryNumberOfThreads) {
  const std::string text = folder_ / "text";
  std::ofstream(text) << "Once upon a time there was a little dog. He liked to play in the park. "
                         "One day he found a big red ball and he was very happy. The end.";
  ConvertOptions o = options("coreml", "5.5bpw", "gpu");
  o.calibrate = text;
  o.describe_weights = true;
  std::vector<std::string> first;
  for (const int threads : {1, 3}) {
    WorkContext work;
    work.threads = threads;
    const auto report = convert(o, work);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_TRUE(report->allocation.is_divergence) << report->allocation.measured;
    EXPECT_LE(report->exported.bits_per_weight, 5.5);
    std::vector<std::string> found = {report->tree_hash};
    for (const auto& weight : report->allocation.weights) {
      found.push_back(weight.encoding);
      EXPECT_GE(weight.loss, 0) << weight.name;
      EXPECT_TRUE(std::isfinite(weight.loss)) << weight.name;
    }
    if (first.empty()) first = found;
    EXPECT_EQ(found, first);
    ASSERT_EQ(report->weight_figures.size(), report->allocation.weights.size());
    double gained = 0;
    for (const WeightFigures& weight : report->weight_figures) {
      EXPECT_TRUE(weight.of_output) << weight.name;
      EXPECT_LE(weight.error, weight.nearest_error * 1.05) << weight.name;
      EXPECT_LE(weight.saturation, 0.05) << weight.name;
      gained += weight.nearest_error > 1.2 * weight.error;
    }
    EXPECT_GT(gained, static_cast<double>(report->weight_figures.size()) / 2);
  }
}

TEST_F(AllocationTest, TheReportHasItsThreeFiles) {
  auto report = run(options("coreml", "4.6bpw"));
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  report->figures.tokens = 10;
  report->figures.mean_kld = 0.01;
  ReportFrame frame;
  frame.model = "tales";
  const std::string path = folder_ / "report.md";
  ASSERT_TRUE(check_report(path, false).ok());
  const Status written = write_report(path, false, *report, frame);
  ASSERT_TRUE(written.ok()) << written.to_string();
  EXPECT_EQ(check_report(path, false).code(), StatusCode::kExists);
  EXPECT_NE(slurp(path).find("## Bit allocation"), std::string::npos);
  const Json json = Json::parse(slurp(folder_ / "report.json"));
  EXPECT_EQ(json["allocation"]["weights"].size(), report->allocation.weights.size());
  EXPECT_GT(json["allocation"]["curve"].size(), 10u);
  EXPECT_NE(slurp(folder_ / "report.svg").find("measured"), std::string::npos);
}

}  // namespace
}  // namespace pome
