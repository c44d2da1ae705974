#include "pipeline/calibrate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "base/temp_folder.h"
#include "engine/engine.h"
#include "formats/manifest.h"
#include "pipeline/convert.h"
#include "support/graphs.h"
#include "support/zoo.h"

namespace pome {
namespace {

using namespace test;

constexpr int64_t kContext = 128;

const std::string kText = POME_SOURCE_DIR "/data/held-out.txt";

Calibration calibration_of(const Graph& graph, size_t tokens, int threads = 2,
                           const CalibrationOptions& options = {}) {
  WorkContext work;
  work.threads = threads;
  auto made = calibrate(graph, some_ids(graph, tokens), options, work);
  EXPECT_TRUE(made.ok()) << made.status().to_string();
  return std::move(*made);
}
const std::vector<MomentsPtr>& of(const Calibration& calibration, const std::string& end) {
  for (const auto& [name, moments] : calibration.statistics)
    if (name.ends_with(end)) return moments;
  ADD_FAILURE() << "nothing ends in " << end;
  static const std::vector<MomentsPtr> none;
  return none;
}

TEST(Calibrate, WeightsThatReadOneValueShareItsMoments) {
  const Graph graph = graph_of(kModels + "tales", kContext);
  const Calibration made = calibration_of(graph, 150);
  EXPECT_EQ(made.tokens, 150);
  EXPECT_EQ(made.left_out, 0);
  const MomentsPtr q = of(made, "layers.0.attention.q.weight").at(0);
  EXPECT_EQ(q, of(made, "layers.0.attention.v.weight").at(0));
  EXPECT_EQ(of(made, "layers.0.mlp.gate.weight").at(0), of(made, "layers.0.mlp.up.weight").at(0));
  EXPECT_NE(q, of(made, "layers.0.attention.o.weight").at(0));
  EXPECT_NE(q, of(made, "layers.1.attention.q.weight").at(0));
  // The tied embedding, as a head.
  EXPECT_EQ(of(made, "embedding.weight").at(0)->tokens, 150);
  for (const auto& [name, moments] : made.statistics) {
    ASSERT_EQ(moments.size(), 1u) << name;
    const Moments& m = *moments[0];
    EXPECT_EQ(m.tokens, 150) << name;
    const auto k = static_cast<size_t>(m.columns);
    for (size_t i = 0; i < k; ++i) {
      ASSERT_GE(m.second[i * k + i], 0) << name;
      ASSERT_EQ(m.second[i * k], m.second[i]) << name;  // symmetric
    }
  }
}

// What the second moments are for: w H w' is the mean square of the product. Of the head that can
// be seen from outside.
TEST(Calibrate, MomentsForetellTheMeanSquareOfTheLogits) {
  const Graph graph = graph_of(kModels + "tales", kContext);
  const size_t tokens = 64;
  const Calibration made = calibration_of(graph, tokens);
  const Moments& head = *of(made, "embedding.weight").at(0);
  const auto plan = compile(graph, {});
  ASSERT_TRUE(plan.ok());
  const auto runner = (*plan)->new_session();
  const auto vocab = static_cast<size_t>(graph.info.vocab_size);
  std::vector<float> logits(tokens * vocab);
  ASSERT_TRUE((*runner)->prefill(some_ids(graph, tokens), LogitsOf::kAll, logits).ok());
  const auto constant =
      std::find_if(graph.constants.begin(), graph.constants.end(),
                   [](const Constant& c) { return c.name.ends_with("embedding.weight"); });
  ASSERT_NE(constant, graph.constants.end());
  const auto k = static_cast<size_t>(head.columns);
  std::vector<float> w(k);
  for (const int64_t row : {0, 17, 300}) {
    ASSERT_TRUE(constant->data->read_f32(row, 1, w.data()).ok());
    double form = 0, wanted = 0;
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < k; ++j)
        form += static_cast<double>(w[i]) * static_cast<double>(head.second[i * k + j]) *
                static_cast<double>(w[j]);
    for (size_t t = 0; t < tokens; ++t) {
      const double logit = logits[t * vocab + static_cast<size_t>(row)];
      wanted += logit * logit / static_cast<double>(tokens);
    }
    EXPECT_NEAR(form / wanted, 1, 1e-3) << row;
  }
}

TEST(Calibrate, ThreadsDoNotChangeABit) {
  const Graph graph = graph_of(kModels + "tales", kContext);
  const Calibration one = calibration_of(graph, 70, 1);
  for (const int threads : {1, 2, 8}) {
    const Calibration other = calibration_of(graph, 70, threads);
    for (const auto& [name, moments] : one.statistics) {
      EXPECT_EQ(moments[0]->second, other.statistics.at(name)[0]->second) << name;
    }
  }
}

TEST(Calibrate, ExpertsCountTheTokensThatAreTheirs) {
  const Graph graph = graph_of(kZoo + "mixtral", kContext);
  const Calibration made = calibration_of(graph, 40);
  int stacked = 0;
  for (const auto& [name, moments] : made.statistics) {
    if (moments.size() < 2) continue;
    ++stacked;
    int64_t tokens = 0;
    for (const MomentsPtr& m : moments) tokens += m ? m->tokens : 0;
    EXPECT_EQ(tokens, 40 * 2) << name;  // two experts per token
  }
  EXPECT_GT(stacked, 0);
}

TEST(Calibrate, WhatDoesNotFitIsLeftOutWidestFirst) {
  const Graph graph = graph_of(kModels + "tales", kContext);
  const Calibration made = calibration_of(graph, 20, 2, {512, uint64_t{8} << 20});
  EXPECT_GT(made.left_out, 0);
  EXPECT_EQ(made.statistics.count("layers.0.mlp.down.weight"), 0u);
  EXPECT_GT(made.statistics.size(), 0u);
}

TEST(Calibrate, ATextOfOneTokenIsRefused) {
  const Graph graph = graph_of(kModels + "tales", kContext);
  const int32_t ids[] = {5};
  const auto made = calibrate(graph, ids, {}, {});
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), StatusCode::kUsage);
}

class ConvertCalibrated : public ::testing::Test {
 protected:
  ConvertOptions options(const std::string& scheme, const std::string& name) {
    ConvertOptions out;
    out.model = kModels + "tales";
    out.output = folder_ / name;
    out.weights = scheme;
    out.context = 128;
    out.calibrate = kText;
    out.calibrate_tokens = 256;
    out.embedding = "f16";  // the table takes most of the time
    return out;
  }
  static Result<ConvertReport> run(const ConvertOptions& options, int threads = 2) {
    WorkContext work;
    work.threads = threads;
    return convert(options, work);
  }
  TempFolder folder_{true};
};

TEST_F(ConvertCalibrated, ThreadsDoNotChangeTheBytes) {
  for (const char* scheme : {"int4", "lut3"}) {
    std::string hash;
    for (const int threads : {1, 2, 8}) {
      const auto report =
          run(options(scheme, std::string(scheme) + std::to_string(threads)), threads);
      ASSERT_TRUE(report.ok()) << report.status().to_string();
      EXPECT_EQ(report->calibrated_tokens, 256);
      if (hash.empty()) hash = report->tree_hash;
      EXPECT_EQ(report->tree_hash, hash) << scheme;
    }
    const auto manifest = read_manifest(folder_ / (std::string(scheme) + "1/manifest.json"));
    ASSERT_TRUE(manifest.ok());
    EXPECT_EQ(manifest->scheme, std::string(scheme) + "+embedding:f16+good");
  }
}

TEST_F(ConvertCalibrated, BadTextsAreNamedAndLeaveNothing) {
  const auto refused = [&](ConvertOptions o, StatusCode code, const std::string& says) {
    const auto report = run(o);
    ASSERT_FALSE(report.ok());
    EXPECT_EQ(report.status().code(), code) << report.status().to_string();
    EXPECT_NE(report.status().to_string().find(says), std::string::npos)
        << report.status().to_string();
    EXPECT_FALSE(std::filesystem::exists(o.output));
  };
  ConvertOptions o = options("int4", "out");
  o.calibrate = folder_ / "nothing.txt";
  refused(o, StatusCode::kMissing, "nothing.txt");
  o.calibrate = folder_ / "empty.txt";
  std::ofstream(o.calibrate).close();
  refused(o, StatusCode::kUsage, "empty.txt");
  // What is there already is told before the text is read.
  o.calibrate = folder_ / "nothing.txt";
  o.output = folder_ / "there";
  std::filesystem::create_directory(o.output);
  std::ofstream(o.output + "/file").close();
  EXPECT_EQ(run(o).status().code(), StatusCode::kExists);
  o = options("int4", "out");
  o.calibrate_tokens = std::numeric_limits<int64_t>::max();
  o.calibrate = folder_ / "short.txt";
  std::ofstream(o.calibrate) << "Once upon a time";
  EXPECT_TRUE(run(o).ok());
}

// All that differs between two files is how they were rounded.
TEST_F(ConvertCalibrated, EveryTargetTakesIt) {
  for (const auto& [target, scheme] :
       {std::pair("gguf", "q4_k_m"), std::pair("gguf", "q8_0"), std::pair("mlc", "q4f16_1")}) {
    SCOPED_TRACE(std::string(target) + " " + scheme);
    ConvertOptions o = options(scheme, "out");
    o.target = target;
    o.chunk = 64;
    o.force = true;
    const auto calibrated = run(o);
    ASSERT_TRUE(calibrated.ok()) << calibrated.status().to_string();
    EXPECT_EQ(calibrated->calibrated_tokens, 256);
    o.calibrate.clear();
    const auto plain = run(o);
    ASSERT_TRUE(plain.ok()) << plain.status().to_string();
    EXPECT_EQ(plain->exported.weight_bytes, calibrated->exported.weight_bytes);
    ASSERT_EQ(plain->errors.size(), calibrated->errors.size());
    int other = 0;
    for (size_t i = 0; i < plain->errors.size(); ++i) {
      // Errors that weights of other columns make up for are larger, but not beyond measure.
      other += calibrated->errors[i].relative_error > plain->errors[i].relative_error;
      EXPECT_LE(calibrated->errors[i].relative_error, 3 * plain->errors[i].relative_error + 1e-9);
    }
    EXPECT_GT(other, 4);
  }
}

}  // namespace
}  // namespace pome
