// Random configurations of every family against Hugging Face transformers: the reference evaluator
// and the engine must give its logits, whole, in chunks and token by token, and a Core ML package
// of the model nearly so. tests/oracle/random_models.py draws the models. More of them, or others:
//   POME_FAMILIES=llama,phi3 POME_FAMILIES_COUNT=200 POME_FAMILIES_SEED=7 verify_oracle_test
//       --gtest_filter=Families.*
// POME_FAMILIES_KEEP=DIR leaves the models there; POME_FAMILIES_EXPORT=0 leaves packages out.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "base/json.h"
#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "interp/graph_eval.h"
#include "models/models.h"
#include "pipeline/convert.h"
#include "support/zoo.h"
#include "verify/model.h"

namespace pome {
namespace {

using namespace test;

constexpr double kTolerance = 1e-3;  // of logits whose deviation is about 3
// KL of the rows of a package, whose weights, cosines and sines are fp16, but for a quarter of
// them: a token that sits between two experts may choose the other one, and those that attend to it
// see that.
constexpr double kPackageTolerance = 1e-3;

std::string setting(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

struct Sample {
  std::string path;
  std::vector<int32_t> ids;
  std::vector<float> logits;
};

std::unique_ptr<Runner> engine(const Graph& graph, int64_t chunk) {
  PlanOptions options;
  options.chunk = chunk;
  auto plan = compile(graph, options);
  EXPECT_TRUE(plan.ok()) << plan.status().to_string();
  if (!plan.ok()) return nullptr;
  auto session = (*plan)->new_session();
  return session.ok() ? std::move(*session) : nullptr;
}

// The first `split` ids in one call, the others one by one.
double distance(Runner& runner, const Sample& sample, size_t split) {
  const size_t vocab = static_cast<size_t>(runner.info().vocab_size);
  std::vector<float> got(sample.ids.size() * vocab);
  if (got.size() != sample.logits.size()) return HUGE_VAL;
  const auto rows = [&](size_t first, size_t count) {
    return std::span(got).subspan(first * vocab, count * vocab);
  };
  Status status =
      runner.prefill(std::span(sample.ids).subspan(0, split), LogitsOf::kAll, rows(0, split));
  for (size_t i = split; i < sample.ids.size() && status.ok(); ++i)
    status = runner.decode(sample.ids[i], rows(i, 1));
  EXPECT_TRUE(status.ok()) << status.to_string();
  return largest_difference(got, sample.logits);
}

// KL of the f16 package of a model, the upper quartile of its rows, most ids as a prompt and some
// step by step; or what kept it from being made.
Result<double> package_divergence(const Sample& sample) {
  const int64_t length = static_cast<int64_t>(sample.ids.size());
  ConvertOptions options;
  options.model = sample.path;
  options.output = sample.path + "/package";
  options.weights = "f16";
  options.context = length;  // rope factors are those of the prompt
  options.chunk = length % 10 == 0 ? 10 : length;
  options.force = true;
  POME_ASSIGN_OR_RETURN(const ConvertReport report, convert(options, {}));
  LoadOptions load;
  load.need_tokenizer = false;
  POME_ASSIGN_OR_RETURN(const LoadedModel model, load_model(options.output, load, {}));
  Runner& runner = *model.runner;
  const size_t vocab = static_cast<size_t>(runner.info().vocab_size), last = sample.ids.size() - 3;
  std::vector<float> logits(sample.logits.size());
  POME_RETURN_IF_ERROR(runner.prefill(std::span(sample.ids).first(last), LogitsOf::kAll,
                                      std::span(logits).first(last * vocab)));
  for (size_t i = last; i < sample.ids.size(); ++i)
    POME_RETURN_IF_ERROR(runner.decode(sample.ids[i], std::span(logits).subspan(i * vocab, vocab)));
  std::vector<double> rows;
  for (size_t at = 0; at < logits.size(); at += vocab)
    rows.push_back(mean_kl(std::span(sample.logits).subspan(at, vocab),
                           std::span(logits).subspan(at, vocab), vocab));
  std::sort(rows.begin(), rows.end());
  return rows[rows.size() * 3 / 4];
}

struct Worst {
  double logits = 0, package = 0;
};

// What went wrong; empty when nothing did.
std::string check(const Sample& sample, bool exported, Worst* worst) {
  const auto checkpoint = open_checkpoint(sample.path);
  if (!checkpoint.ok()) return checkpoint.status().to_string();
  const auto graph = build_graph(*checkpoint, {static_cast<int64_t>(sample.ids.size())});
  if (!graph.ok()) return graph.status().to_string();
  const size_t all = sample.ids.size();
  std::string text;
  const auto compare = [&](const char* what, std::unique_ptr<Runner> runner, size_t split) {
    const double difference = runner ? distance(*runner, sample, split) : HUGE_VAL;
    worst->logits = std::max(worst->logits, difference);
    if (!(difference <= kTolerance))
      text += std::string(text.empty() ? "" : ", ") + what + " differs by " +
              std::to_string(difference);
  };
  auto reference = reference_runner({*graph}, {1, 0});
  if (!reference.ok()) return reference.status().to_string();
  compare("reference", std::move(*reference), all);
  compare("engine", engine(*graph, 128), all);
  compare("engine in chunks of 5", engine(*graph, 5), all);
  compare("engine by tokens", engine(*graph, 16), 7);
  if (auto steps = reference_runner({*graph}, {1, 0}); steps.ok())
    compare("reference by tokens", std::move(*steps), all - 3);
  if (!exported) return text;
  const auto divergence = package_divergence(sample);
  if (!divergence.ok()) return text + " package: " + divergence.status().to_string();
  worst->package = std::max(worst->package, *divergence);
  if (!(*divergence <= kPackageTolerance))
    text += " the package's KL is " + std::to_string(*divergence);
  return text;
}

class Families : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* package : {"torch", "transformers"})
      if (std::system(("python3 -c 'import " + std::string(package) + "' >/dev/null 2>&1").c_str()))
        GTEST_SKIP() << "no Python package " << package;
    folder_ = setting("POME_FAMILIES_KEEP",
                      testing::TempDir() + "pome_families_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override {
    if (!std::getenv("POME_FAMILIES_KEEP") && !folder_.empty())
      std::filesystem::remove_all(folder_);
  }
  std::string folder_;
};

TEST_F(Families, RandomConfigurationsGiveTheLogitsOfTransformers) {
  const std::string some = setting("POME_FAMILIES", "");
  const std::string command =
      "python3 " POME_SOURCE_DIR "/tests/oracle/random_models.py " + folder_ + " --count " +
      setting("POME_FAMILIES_COUNT", "1") + " --first " + setting("POME_FAMILIES_FIRST", "0") +
      " --seed " + setting("POME_FAMILIES_SEED", "1") + (some.empty() ? "" : " --families " + some);
  ASSERT_EQ(std::system(command.c_str()), 0);
  const auto index = read_json_file(folder_ + "/index.json");
  ASSERT_TRUE(index.ok()) << index.status().to_string();
  struct Count {
    int equal = 0, different = 0, rejected = 0;
    Worst worst;
  };
  const bool exported = setting("POME_FAMILIES_EXPORT", "1") != "0";
  std::map<std::string, Count> counts;
  for (const Json& entry : *index) {
    Count& count = counts[entry["family"].get<std::string>()];
    if (entry.contains("rejected")) {
      ++count.rejected;
      continue;
    }
    const std::string path = folder_ + "/" + entry["name"].get<std::string>();
    const Sample sample{path, read_ids(path + "/ids.txt"), read_floats(path + "/logits.npy")};
    const std::string wrong = check(sample, exported, &count.worst);
    EXPECT_TRUE(wrong.empty()) << entry["name"] << ": " << wrong;
    ++(wrong.empty() ? count.equal : count.different);
  }
  for (const auto& [family, count] : counts) {
    std::printf(
        "%-12s equal %3d  different %d  rejected by transformers %d  logits %.1e  KL %.1e\n",
        family.c_str(), count.equal, count.different, count.rejected, count.worst.logits,
        count.worst.package);
    EXPECT_GT(count.equal, 0) << family;
  }
}

}  // namespace
}  // namespace pome
