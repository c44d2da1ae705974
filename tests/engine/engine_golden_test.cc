// The engine against Hugging Face transformers (fp32 on the stored weights): recorded logits,
// losses and greedy paths of the models beside the tree.
#include "engine/sessions.h"
#include "formats/checkpoint.h"
#include "models/models.h"
#include "quantize/quantize.h"
#include "support/zoo.h"

namespace pome {
namespace {

using namespace test;

// The embedded model and every model of the collection.
std::vector<std::string> models() {
  std::vector<std::string> found = {"tales"};
  for (const std::string& name : zoo_names()) found.push_back("zoo/" + name);
  return found;
}

class EngineGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    folder_ = kModels + GetParam();
    name_ = std::filesystem::path(folder_).filename().string();
    auto checkpoint = open_checkpoint(folder_);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    // Rope factors are chosen by the length that a test declares, as recorded.
    const std::string test = testing::UnitTest::GetInstance()->current_test_info()->name();
    BuildOptions options;
    options.context = test.rfind("LossesOfALongText", 0) == 0 ? 300 : 80;
    auto graph = build_graph(*checkpoint, options);
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    graph_ = std::move(*graph);
  }

  std::unique_ptr<Runner> session(const PlanOptions& options) {
    return pome::session(graph_, options);
  }
  int64_t vocab() const { return graph_.info.vocab_size; }

  std::string folder_, name_;
  Graph graph_;
};

TEST_P(EngineGolden, LogitsOnEveryIsa) {
  const auto ids = read_ids(folder_ + "/golden/ids.txt");
  const auto expected = read_floats(folder_ + "/golden/logits.npy");
  std::vector<float> logits(ids.size() * static_cast<size_t>(vocab()));
  double worst = 0;
  for (const Isa isa : available_isas()) {
    PlanOptions options;
    options.isa = isa;
    const auto runner = session(options);
    ASSERT_TRUE(runner);
    const Status status = runner->prefill(ids, LogitsOf::kAll, logits);
    ASSERT_TRUE(status.ok()) << status.to_string();
    const double difference = largest_difference(logits, expected);
    EXPECT_LT(difference, kGoldenTolerance) << to_string(isa);
    worst = std::max(worst, difference);
  }
  record(name_, "engine", worst);
}

// The distance of plans that are not exact from those that are, on the same quantised weights.
// A palette is rounded to 16 bits, int4 is multiplied as it is stored.
TEST_P(EngineGolden, FastPlansStayCloseOnEveryIsa) {
  const auto ids = read_ids(folder_ + "/golden/ids.txt");
  const auto width = static_cast<size_t>(vocab());
  const Graph stored = graph_;
  // The products alone stay below 1e-8; binary16 caches and bfloat16 scores add the rest.
  for (const auto& [scheme, bound] : {std::pair{"int4", 3e-5}, std::pair{"lut4", 5e-5}}) {
    const auto quantized = quantize(stored, *parse_recipe(scheme));
    ASSERT_TRUE(quantized.ok()) << quantized.status().to_string();
    graph_ = quantized->graph;
    std::vector<float> exact(ids.size() * width), fast = exact;
    ASSERT_TRUE(session({})->prefill(ids, LogitsOf::kAll, exact).ok());
    double worst = 0;
    for (const Isa isa : available_isas()) {
      if (isa == Isa::kPortable) continue;  // has no kernels for packed weights
      PlanOptions options;
      options.isa = isa;
      options.exact = false;
      const auto runner = session(options);
      ASSERT_TRUE(runner);
      ASSERT_TRUE(runner->prefill(ids, LogitsOf::kAll, fast).ok());
      const double kl = mean_kl(exact, fast, width);
      EXPECT_LT(kl, bound) << scheme << " " << to_string(isa);
      worst = std::max(worst, kl);
    }
    std::printf("%s %s: largest mean KL of a fast plan %.2g\n", name_.c_str(), scheme, worst);
  }
}

// Attention in the space of a latent, with the rounding of caches and scores left out: the recorded
// logits, as plans give that expand keys and values.
TEST_P(EngineGolden, LogitsFromLatentsOnEveryIsa) {
  const auto ids = read_ids(folder_ + "/golden/ids.txt");
  const auto expected = read_floats(folder_ + "/golden/logits.npy");
  std::vector<float> logits(ids.size() * static_cast<size_t>(vocab()));
  for (const Isa isa : available_isas()) {
    PlanOptions options;
    options.isa = isa;
    options.exact = false;
    options.kv = KvKind::kF32;
    const auto plan = compile(graph_, options);
    ASSERT_TRUE(plan.ok()) << plan.status().to_string();
    const bool latents = (*plan)->describe().find("of latents") != std::string::npos;
    EXPECT_EQ(latents, name_.rfind("deepseek", 0) == 0);
    if (!latents || isa == Isa::kAvx512Bf16 || isa == Isa::kAmx) continue;
    const auto runner = session_of(**plan);
    ASSERT_TRUE(runner && runner->prefill(ids, LogitsOf::kAll, logits).ok());
    EXPECT_LT(largest_difference(logits, expected), kGoldenTolerance) << to_string(isa);
  }
}

TEST_P(EngineGolden, LossesOfALongText) {
  const auto ids = read_ids(folder_ + "/golden/long_ids.txt");
  const auto expected = read_floats(folder_ + "/golden/long_nll.npy");
  const auto rows = read_floats(folder_ + "/golden/long_rows.npy");
  PlanOptions options;
  options.chunk = 64;
  const auto runner = session(options);
  ASSERT_TRUE(runner);
  const auto width = static_cast<size_t>(vocab());
  std::vector<float> logits(ids.size() * width);
  ASSERT_TRUE(runner->prefill(ids, LogitsOf::kAll, logits).ok());
  ASSERT_EQ(expected.size(), ids.size() - 1);
  const auto row = [&](size_t t) {
    return std::span<const float>(logits).subspan(t * width, width);
  };
  double worst = 0;
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    const double nll = log_sum(row(t)) - row(t)[static_cast<size_t>(ids[t + 1])];
    worst = std::max(worst, std::fabs(nll - static_cast<double>(expected[t])));
  }
  EXPECT_LT(worst, kGoldenTolerance);
  const size_t at[] = {99, 199, 255, ids.size() - 1};
  double difference = 0;
  for (size_t i = 0; i < 4; ++i)
    difference =
        std::max(difference, largest_difference(row(at[i]), {rows.data() + i * width, width}));
  EXPECT_LT(difference, kGoldenTolerance);
  record(name_, "engine", difference);
}

TEST_P(EngineGolden, GreedyPath) {
  const auto runner = session({});
  ASSERT_TRUE(runner);
  expect_greedy_path(*runner, read_ids(folder_ + "/golden/greedy.txt"));
}

// Every family on packed weights, whatever it is made of, against the exact plan of the same
// weights: KL divergence of the recorded text, on one thread and two.
bool runs_bf16(Isa isa) { return isa == Isa::kAvx512Bf16 || isa == Isa::kAmx; }

TEST_P(EngineGolden, FastPlansOfQuantisedWeightsStayNearTheExactOnes) {
  const auto ids = read_ids(folder_ + "/golden/ids.txt");
  const auto width = static_cast<size_t>(vocab());
  const auto recipe = parse_recipe("int8");
  ASSERT_TRUE(recipe.ok());
  // Experts that are stored with few bits are taken as they are.
  if (name_.find("mxfp4") == std::string::npos) {
    auto quantised = quantize(graph_, *recipe);
    ASSERT_TRUE(quantised.ok()) << quantised.status().to_string();
    graph_ = std::move(quantised->graph);
  }
  const auto logits = [&](bool exact, int threads, bool rounds = true) {
    PlanOptions options;
    options.exact = exact;
    options.threads = threads;
    // Without what rounds keys and values: binary16 in the cache, bfloat16 in attention.
    const std::vector<Isa> isas = available_isas();
    if (!rounds) options.kv = KvKind::kF32;
    if (!rounds && runs_bf16(isas.back())) options.isa = Isa::kAvx512Vnni;
    std::vector<float> out(ids.size() * width);
    const auto runner = session(options);
    EXPECT_TRUE(runner);
    if (runner) {
      EXPECT_TRUE(runner->prefill(ids, LogitsOf::kAll, out).ok());
    }
    return out;
  };
  const auto exact = logits(true, 1), fast = logits(false, 1);
  EXPECT_LT(mean_kl(exact, logits(false, 1, false), width), 1e-6);
  EXPECT_LT(mean_kl(exact, fast, width), 2e-5);
  EXPECT_EQ(logits(false, 2), fast);
}

INSTANTIATE_TEST_SUITE_P(Models, EngineGolden, testing::ValuesIn(models()), name_of_parameter);

}  // namespace
}  // namespace pome
