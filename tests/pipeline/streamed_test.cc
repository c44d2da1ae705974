#include "pipeline/streamed.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "base/io.h"
#include "base/temp_folder.h"
#include "engine/engine.h"
#include "pipeline/convert.h"
#include "pipeline/part_store.h"
#include "quantize/gguf_types.h"
#include "quantize/transform.h"
#include "support/graphs.h"
#include "support/zoo.h"

namespace pome {
namespace {

using namespace test;

constexpr int64_t kContext = 128;

Graph rounded(const Graph& graph, const std::string& scheme) {
  auto recipe = parse_recipe(scheme);
  EXPECT_TRUE(recipe.ok());
  auto made = quantize(graph, *recipe);
  EXPECT_TRUE(made.ok()) << made.status().to_string();
  return std::move(made->graph);
}
std::vector<float> logits_of(const Graph& graph, const std::vector<int32_t>& ids) {
  const auto plan = compile(graph, {});
  EXPECT_TRUE(plan.ok()) << plan.status().to_string();
  const auto session = (*plan)->new_session();
  EXPECT_TRUE(session.ok());
  std::vector<float> out(ids.size() * static_cast<size_t>(graph.info.vocab_size));
  EXPECT_TRUE((*session)->prefill(ids, LogitsOf::kAll, out).ok());
  return out;
}
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}
std::map<std::string, Digest> digests_of(const Graph& graph) {
  std::map<std::string, Digest> out;
  for (const Constant& constant : graph.constants) {
    const auto digest = digest_of(*constant.data, nullptr);
    EXPECT_TRUE(digest.ok()) << constant.name << digest.status().to_string();
    out[constant.name] = *digest;
  }
  return out;
}

// Interrupts the work when so many stages are done.
class Interrupter final : public Progress {
 public:
  explicit Interrupter(uint64_t at) : at_(at) {}
  void begin(std::string_view, uint64_t, std::string_view) override {}
  void advance(uint64_t done) override {
    if (done >= at_) token.cancel();
  }
  void end() override {}
  CancelToken token;

 private:
  uint64_t at_;
};

class Streamed : public ::testing::Test {
 protected:
  Result<StreamResult> run(const Graph& graph, Graph* quantised, bool best, int threads = 2,
                           uint64_t interrupt_at = 0, const std::string& name = "work") {
    StreamOptions options;
    options.window = 32;
    options.behind_quantised = best;
    options.folder = folder_ / name;
    options.key = best ? "best" : "good";
    Interrupter interrupter(interrupt_at);
    WorkContext work;
    work.threads = threads;
    if (interrupt_at > 0) {
      work.progress = &interrupter;
      work.cancel = &interrupter.token;
    }
    const std::vector<int32_t> ids = some_ids(graph, 160);
    return round_streamed(graph, quantised, ids, options, work);
  }
  TempFolder folder_{true};
};

TEST_F(Streamed, AHeadInPartsIsRoundedPartByPart) {
  // Tied, so that all parts are there before the first layer runs.
  ThreadPool pool(2);
  auto split = split_weights(graph_of(kZoo + "gpt2", kContext), &pool);
  ASSERT_TRUE(split.ok()) << split.status().to_string();
  const Graph& graph = split->graph;
  const std::vector<int32_t> ids = some_ids(graph, 32);
  const std::vector<float> wanted = logits_of(graph, ids);
  const double nearest = distance(logits_of(rounded(graph, "int4"), ids), wanted);
  std::map<std::string, Digest> first;
  for (const int threads : {1, 2}) {
    Graph made = rounded(graph, "int4");
    const auto done = run(graph, &made, true, threads, 0, "parts" + std::to_string(threads));
    ASSERT_TRUE(done.ok()) << done.status().to_string();
    EXPECT_LT(distance(logits_of(made, ids), wanted), 0.4 * nearest);
    if (first.empty()) first = digests_of(made);
    EXPECT_EQ(digests_of(made), first);
  }
}

TEST_F(Streamed, EveryFamilyComesCloserToItsOriginalThanRoundingToTheNearest) {
  double sum[2] = {};
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kZoo)) {
    if (!entry.is_directory()) continue;
    const std::string model = entry.path().filename().string();
    const Graph graph = graph_of(kZoo + model, kContext);
    const std::vector<int32_t> ids = some_ids(graph, 32);
    const std::vector<float> wanted = logits_of(graph, ids);
    const double nearest = distance(logits_of(rounded(graph, "int4"), ids), wanted);
    for (const bool best : {false, true}) {
      Graph made = rounded(graph, "int4");
      const auto done = run(graph, &made, best, 2, 0,
                            entry.path().filename().string() + (best ? ".best" : ".good"));
      ASSERT_TRUE(done.ok()) << model << done.status().to_string();
      EXPECT_EQ(done->tokens, 160);
      const double ratio = distance(logits_of(made, ids), wanted) / nearest;
      EXPECT_LT(ratio, 1.2) << model << best;  // experts see few of these tokens
      sum[best] += ratio;
    }
    ++models;
  }
  EXPECT_GT(models, 20);
  EXPECT_LT(sum[0] / models, 0.7);
  EXPECT_LT(sum[1] / models, 0.3);
}

TEST_F(Streamed, ThreadsAndInterruptionsDoNotChangeABit) {
  for (const bool best : {false, true}) {
    const Graph graph = graph_of(kZoo + "gpt2", kContext);  // tied, with biases
    Graph plain = rounded(graph, "lut4");
    const auto whole = run(graph, &plain, best, 1, 0, best ? "best" : "good");
    ASSERT_TRUE(whole.ok()) << whole.status().to_string();
    EXPECT_EQ(whole->resumed, 0);
    const auto wanted = digests_of(plain);
    for (int64_t at = 1; at < whole->parts; ++at) {
      const std::string name = (best ? "best" : "good") + std::to_string(at);
      Graph cut = rounded(graph, "lut4");
      const auto stopped = run(graph, &cut, best, 2, static_cast<uint64_t>(at), name);
      ASSERT_FALSE(stopped.ok());
      EXPECT_EQ(stopped.status().code(), StatusCode::kInterrupted);
      Graph resumed = rounded(graph, "lut4");
      const auto done = run(graph, &resumed, best, 2, 0, name);
      ASSERT_TRUE(done.ok()) << done.status().to_string();
      EXPECT_EQ(done->resumed, at);
      EXPECT_EQ(digests_of(resumed), wanted) << at;
    }
  }
}

TEST_F(Streamed, WhatIsNotRoundedStaysAsItIs) {
  const Graph graph = graph_of(kZoo + "llama3", kContext);
  Graph made = rounded(graph, "f16");
  const auto before = digests_of(made);
  ASSERT_TRUE(run(graph, &made, true).ok());
  EXPECT_EQ(digests_of(made), before);
}

// The file's weights are multiplied by a factor; the layers that are run are not.
TEST_F(Streamed, FactorsOfAFileAreTakenOut) {
  const Graph graph = graph_of(kZoo + "gemma2", kContext);
  auto quantised = quantize_for_gguf(graph, "q8_0", std::nullopt, {});
  ASSERT_TRUE(quantised.ok()) << quantised.status().to_string();
  Graph made = quantised->quantized.graph;
  StreamOptions options;
  options.window = 32;
  options.behind_quantised = true;
  options.scaled = true;
  options.folder = folder_ / "work";
  const std::vector<int32_t> ids = some_ids(graph, 96);
  ASSERT_TRUE(round_streamed(graph, &made, ids, options, {}).ok());
  for (Constant& constant : made.constants)
    if (constant.gguf_place.factor != 1)
      constant.data = multiply_scalar(constant.data, 1 / constant.gguf_place.factor);
  const std::vector<float> wanted = logits_of(graph, ids);
  EXPECT_LT(distance(logits_of(made, ids), wanted),
            1e-3 * distance(std::vector<float>(wanted.size(), 0.0f), wanted));
}

TEST_F(Streamed, LittleMemoryTakesMorePassesAndThenTheDiagonal) {
  const Graph graph = graph_of(kZoo + "mixtral", kContext);
  const std::vector<int32_t> ids = some_ids(graph, 96);
  std::map<std::string, Digest> wanted;
  for (const uint64_t most : {uint64_t{1} << 30, uint64_t{1} << 18, uint64_t{1} << 10}) {
    Graph made = rounded(graph, "int4");
    StreamOptions options;
    options.window = 32;
    options.most_bytes = most;
    options.folder = folder_ / ("work" + std::to_string(most));
    const auto done = round_streamed(graph, &made, ids, options, {});
    ASSERT_TRUE(done.ok()) << done.status().to_string();
    EXPECT_EQ(done->diagonal > 0, most == uint64_t{1} << 10) << done->diagonal;
    if (wanted.empty()) wanted = digests_of(made);
    EXPECT_EQ(digests_of(made) == wanted, most != uint64_t{1} << 10) << most;
  }
}

TEST(PartStore, WhatWasOnlyNeededForWritingIsLetGo) {
  const TempFolder folder{true};
  ThreadPool pool(1);
  auto store = PartStore::open(folder / "work", "key");
  ASSERT_TRUE(store.ok());
  const auto source = inline_constant(Tensor::from_f32({16, 32}, std::vector<float>(512, 0.5f)));
  const auto nearest = encoded_constant(source, Encoding::lut(4, 16));
  std::vector<StoredPart> parts = {
      {"a", encoded_constant(source, Encoding::lut(4, 16)), nullptr, nearest}};
  const std::weak_ptr<const ConstantData> large = parts[0].data;
  ASSERT_TRUE(store->add(&parts, &pool, {}).ok());
  EXPECT_TRUE(large.expired());
  EXPECT_EQ(&parts[0].data->canonical(), source.get());
}

TEST(PartStore, KeepsWhatIsFinishedAndRefusesWhatIsDamaged) {
  const TempFolder folder{true};
  const std::string path = folder / "work";
  ThreadPool pool(2);
  const auto constants = [] {
    const auto source = inline_constant(Tensor::from_f32({16, 32}, std::vector<float>(512, 0.5f)));
    return std::vector<StoredPart>{
        {"a", encoded_constant(source, Encoding::lut(4, 16)), nullptr},
        {"b", encoded_constant(source, Encoding::int_blocks(4, 32)), nullptr}};
  };
  {
    auto store = PartStore::open(path, "key");
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    auto parts = constants();
    const Digest before = *digest_of(*parts[1].data, &pool);
    ASSERT_TRUE(store->add(&parts, &pool, {}).ok());
    EXPECT_EQ(*digest_of(*parts[1].data, &pool), before);
    const float rows[] = {1, 2, 3};
    ASSERT_TRUE(store->finish(rows).ok());
    ASSERT_TRUE(store->add(&parts, &pool, {}).ok());  // and then the power went
  }
  auto store = PartStore::open(path, "key");
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(store->finished(), 1);
  EXPECT_EQ(*store->rows(), (std::vector<float>{1, 2, 3}));
  auto parts = constants();
  ASSERT_TRUE(store->load(0, &parts).ok());
  EXPECT_EQ(*digest_of(*parts[0].data, &pool), *digest_of(*constants()[0].data, &pool));
  std::fstream file(path + "/part-000-0", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end);
  file.put('!');
  file.close();
  const Status damaged = store->load(0, &parts);
  EXPECT_EQ(damaged.code(), StatusCode::kBadInput) << damaged.to_string();
  EXPECT_NE(damaged.to_string().find("part-000-0"), std::string::npos);
  const auto other = PartStore::open(path, "another key");
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->finished(), 0);
}

TEST_F(Streamed, AConversionThatWasInterruptedGoesOn) {
  ConvertOptions options;
  options.model = kModels + "zoo/qwen2";
  options.quality = "best";
  options.calibrate_tokens = 128;
  options.context = 64;
  options.output = folder_ / "whole";
  const auto whole = convert(options, {});
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  EXPECT_EQ(whole->quality, "best");
  EXPECT_EQ(whole->calibrated_tokens, 128);
  EXPECT_FALSE(std::filesystem::exists(options.output + ".pome-work"));

  options.output = folder_ / "cut";
  std::vector<std::string> said;
  options.say = [&](const std::string& text) { said.push_back(text); };
  Interrupter interrupter(2);
  WorkContext work;
  work.progress = &interrupter;
  work.cancel = &interrupter.token;
  const auto stopped = convert(options, work);
  EXPECT_EQ(stopped.status().code(), StatusCode::kInterrupted);
  EXPECT_NE(stopped.status().to_string().find("cut.pome-work"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(options.output));
  EXPECT_TRUE(std::filesystem::exists(options.output + ".pome-work"));
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].find("best quality: 128 tokens"), std::string::npos) << said[0];
  const auto done = convert(options, {});
  ASSERT_TRUE(done.ok()) << done.status().to_string();
  EXPECT_EQ(done->tree_hash, whole->tree_hash);
  EXPECT_NE(said.back().find("an earlier run"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(options.output + ".pome-work"));
}

TEST(Quality, NamesAndTextsAreChecked) {
  ConvertOptions options;
  const TempFolder folder{true};
  options.model = kModels + "zoo/llama3";
  options.output = folder / "out";
  options.quality = "superb";
  EXPECT_EQ(convert(options, {}).status().code(), StatusCode::kUsage);
  options.quality = "fast";
  options.calibrate = kModels + "zoo/README.md";
  EXPECT_EQ(convert(options, {}).status().code(), StatusCode::kUsage);
  options.quality = "good";
  options.calibrate = kModels + "zoo/llama3/model.safetensors";
  const Status binary = convert(options, {}).status();
  EXPECT_EQ(binary.code(), StatusCode::kBadInput) << binary.to_string();
  EXPECT_FALSE(std::filesystem::exists(options.output));
}

}  // namespace
}  // namespace pome
