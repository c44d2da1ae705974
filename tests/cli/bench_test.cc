// pome bench on the embedded model: its keys, its gate, its refusals.
#include <gtest/gtest.h>

#include <fstream>

#include "cli/program.h"

namespace pome {
namespace {

using namespace test;

std::vector<std::string> short_bench(std::vector<std::string> more = {}) {
  std::vector<std::string> call = {"bench", kTales, "-p", "16", "-n", "4", "-r", "2", "-t", "1"};
  call.insert(call.end(), more.begin(), more.end());
  return call;
}
void write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

TEST(Bench, GivesEveryFigureOfTheContract) {
  const Json report = pome_json({"bench", kTales, "-p", "16", "-n", "4", "-r", "3", "-t", "1,2"});
  expect_keys(report, {"prefill_tokens_per_s", "decode_tokens_per_s", "ttft_ms", "load_ms",
                       "peak_memory_bytes", "bytes_per_token", "read_bandwidth_fraction",
                       "compute_roof_fraction", "isa", "machine", "file_bytes", "read_file_ms",
                       "tokenizer_ms", "first_token_ms", "sampling_us", "roofs", "runs"});
  ASSERT_EQ(report["runs"].size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const Json& run = report["runs"][static_cast<size_t>(i)];
    EXPECT_EQ(run["threads"], i + 1);
    for (const char* key : {"prefill_tokens_per_s", "decode_tokens_per_s", "ttft_ms", "load_ms",
                            "first_token_ms", "read_bandwidth_fraction", "compute_roof_fraction"})
      EXPECT_GT(run[key].get<double>(), 0) << key;
    EXPECT_LE(run["compute_roof_fraction"].get<double>(), 1.2);
    EXPECT_EQ(run["prefill"]["values"].size(), 3u);
    EXPECT_LE(run["decode"]["min"], run["decode"]["median"]);
    EXPECT_LE(run["decode"]["median"], run["decode"]["max"]);
    EXPECT_GT(run["peak_memory_bytes"], 7 << 20);
  }
  EXPECT_EQ(report["decode_tokens_per_s"], report["runs"][0]["decode_tokens_per_s"]);
  EXPECT_GT(report["file_bytes"], 14000000);
  // All weights in bf16, and one row of the table, and a short cache.
  EXPECT_GE(report["bytes_per_token"], 14680000);
  EXPECT_LE(report["bytes_per_token"], 14720000);
}

TEST(Bench, LeavesOutWhatIsNotAskedFor) {
  const Json report =
      pome_json({"bench", kTales, "-p", "0", "-n", "4", "-r", "2", "-t", "1", "--depth", "8"});
  EXPECT_TRUE(report["prefill_tokens_per_s"].is_null());
  EXPECT_TRUE(report["ttft_ms"].is_null());
  EXPECT_TRUE(report["compute_roof_fraction"].is_null());
  EXPECT_GT(report["decode_tokens_per_s"].get<double>(), 0);
  EXPECT_EQ(report["depth"], 8);
  EXPECT_FALSE(report.contains("decode_profile"));
}

TEST(Bench, TriesOtherCaches) {
  const auto with = [](const char* kv) {
    return pome_json({"bench", kTales, "-p", "0", "-n", "4", "-r", "1", "-t", "1", "--depth", "512",
                      "--kv", kv});
  };
  const Json f16 = with("f16"), q4 = with("q4");
  EXPECT_EQ(q4["kv"], "q4");
  EXPECT_LT(q4["bytes_per_token"].get<double>(), f16["bytes_per_token"].get<double>());
}

TEST(Bench, TriesOtherWeights) {
  const Json stored = pome_json(short_bench()),
             lut4 = pome_json(short_bench({"--weights", "lut4"}));
  EXPECT_EQ(stored["weights"], "");
  EXPECT_EQ(lut4["weights"], "lut4");
  EXPECT_LT(lut4["bytes_per_token"].get<double>(), 0.3 * stored["bytes_per_token"].get<double>());
}

TEST(Bench, ProfileNamesStepsOfBothPhases) {
  const Json report = pome_json(short_bench({"--profile", "--exact"}));
  for (const char* phase : {"prefill_profile", "decode_profile"}) {
    std::map<std::string, double> steps;
    double time = 0;
    for (const Json& row : report[phase]) {
      steps[row["kind"]] = row["steps"];
      time += row["us"].get<double>();
    }
    EXPECT_EQ(steps.count("linear"), 1u) << phase;
    EXPECT_EQ(steps["linear (logits)"], 1) << phase;
    EXPECT_EQ(steps["attention"], 8) << phase;
    EXPECT_GT(time, 0);
  }
}

TEST(Bench, ATableForReaders) {
  const Ended ended = pome(short_bench({"--profile"}));
  EXPECT_EQ(ended.code, 0) << show(ended);
  for (const char* word : {"machine", "1 thread,", "load", "prefill 16", "decode 4",
                           "of the read roof", "roofs", "attention", "linear (logits)"})
    EXPECT_NE(ended.out.find(word), std::string::npos) << word << "\n" << ended.out;
}

TEST(Bench, RunsArtefactsWithoutRoofs) {
  const Json report =
      pome_json({"bench", tales_artefact(), "-p", "4", "-n", "1", "-r", "1", "-t", "2"});
  EXPECT_EQ(report["runner"], "package");
  EXPECT_GT(report["decode_tokens_per_s"].get<double>(), 0);
  EXPECT_TRUE(report["read_bandwidth_fraction"].is_null());
  EXPECT_TRUE(report["isa"].is_null());
}

// ---- the gate

class BenchBaseline : public ::testing::Test {
 protected:
  BenchBaseline() { report_ = pome_json(short_bench()); }
  // The call with a baseline changed by `change`.
  template <typename Change>
  Ended against(const Change& change) {
    Json baseline = report_;
    change(baseline);
    write(folder_ / "base.json", dump_json(baseline));
    return pome(short_bench({"--baseline", folder_ / "base.json", "--json"}));
  }
  TempFolder folder_;
  Json report_;
};

TEST_F(BenchBaseline, FailsAndNamesWhatIsWorse) {
  const Ended ended = against([](Json& base) {
    Json& run = base["runs"][0];
    // Everything else may be as slow as it likes: this machine is not quiet.
    run["decode_tokens_per_s"] = run["prefill_tokens_per_s"] = 1e9;
    run["ttft_ms"] = run["load_ms"] = run["peak_memory_bytes"] = 1e12;
  });
  EXPECT_EQ(ended.code, 1) << show(ended);
  EXPECT_NE(ended.err.find("decode_tokens_per_s with 1 thread"), std::string::npos) << ended.err;
  EXPECT_NE(ended.err.find("prefill_tokens_per_s"), std::string::npos) << ended.err;
  EXPECT_EQ(ended.err.find("ttft_ms"), std::string::npos) << ended.err;
  const Json report = json_of(ended);
  EXPECT_EQ(report["baseline"]["ok"], false);
  EXPECT_EQ(report["baseline"]["figures"].size(), 5u);
}

TEST_F(BenchBaseline, PassesWhatIsBetter) {
  const Ended ended = against([](Json& base) {
    Json& run = base["runs"][0];
    run["decode_tokens_per_s"] = run["prefill_tokens_per_s"] = 1e-3;
    run["ttft_ms"] = run["load_ms"] = run["peak_memory_bytes"] = 1e12;
  });
  EXPECT_EQ(ended.code, 0) << show(ended);
  EXPECT_EQ(json_of(ended)["baseline"]["ok"], true);
}

TEST_F(BenchBaseline, RefusesFiguresOfOtherSettings) {
  const auto expect_bad = [&](const Ended& ended, const char* word) {
    EXPECT_EQ(ended.code, 3) << show(ended);
    EXPECT_NE(ended.err.find(word), std::string::npos) << ended.err;
    EXPECT_NE(ended.err.find("base.json"), std::string::npos) << ended.err;
  };
  expect_bad(against([](Json& base) { base["prompt_tokens"] = 17; }), "prompt_tokens");
  expect_bad(against([](Json& base) { base["exact"] = true; }), "exact");
  expect_bad(against([](Json& base) { base["runs"][0]["threads"] = 2; }), "1 threads");
  expect_bad(against([](Json& base) { base["runs"][0]["load_ms"] = "fast"; }), "load_ms");
  expect_bad(against([](Json& base) { base.erase("runs"); }), "not a report of bench");
  expect_bad(against([](Json& base) { base = Json::array(); }), "not a report of bench");
}

TEST(BenchRefusals, WhatCannotBeMeasured) {
  const TempFolder folder;
  write(folder / "broken.json", "{");
  expect_refused({"bench"}, 2, {"model"});
  expect_refused({"bench", folder / "nothing"}, 3, {"nothing"});
  expect_refused({"bench", kTales, "-p", "0", "-n", "0"}, 2, {"nothing to measure"});
  expect_refused({"bench", kTales, "-p", "4000"}, 2, {"1024 positions", "-p"});
  expect_refused({"bench", kTales, "--weights", "lut5"}, 2, {"lut5", "known are f16"});
  expect_refused({"bench", kTales, "-t", "0"}, 2, {"--threads"});
  expect_refused({"bench", kTales, "-r", "0"}, 2, {"--repetitions"});
  expect_refused({"bench", kTales, "--fail-over", "5%"}, 2, {"--baseline"});
  expect_refused(short_bench({"--baseline", folder / "absent.json"}), 3, {"absent.json"});
  expect_refused(short_bench({"--baseline", folder / "broken.json"}), 3, {"broken.json"});
  expect_refused(short_bench({"--baseline", folder / "broken.json", "--fail-over", "much"}), 2,
                 {"--fail-over", "much"});
}

}  // namespace
}  // namespace pome
