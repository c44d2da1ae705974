// The embedded model as a Core ML package, run from disk, against recorded logits.
#include <chrono>
#include <cmath>
#include <memory>

#include "export/coreml.h"
#include "export/tiny_graph.h"
#include "interp/graph_eval.h"
#include "interp/mil_eval.h"
#include "models/models.h"
#include "support/zoo.h"

namespace pome {
namespace {

const std::string kTales = test::kModels + "tales";

// Mean over rows of KL(p || q) of the softmaxes, and the largest difference of logits.
struct Distance {
  double kl = 0, largest = 0, agreement = 0;
};
Distance distance(const std::vector<float>& p, const std::vector<float>& q, size_t vocab) {
  Distance out;
  const size_t rows = p.size() / vocab;
  for (size_t r = 0; r < rows; ++r) {
    const float* a = p.data() + r * vocab;
    const float* b = q.data() + r * vocab;
    double sum_a = 0, sum_b = 0;
    const float top_a = *std::max_element(a, a + vocab), top_b = *std::max_element(b, b + vocab);
    for (size_t i = 0; i < vocab; ++i) {
      sum_a += std::exp(static_cast<double>(a[i] - top_a));
      sum_b += std::exp(static_cast<double>(b[i] - top_b));
      out.largest = std::max(out.largest, static_cast<double>(std::abs(a[i] - b[i])));
    }
    for (size_t i = 0; i < vocab; ++i) {
      const double log_a = a[i] - top_a - std::log(sum_a), log_b = b[i] - top_b - std::log(sum_b);
      out.kl += std::exp(log_a) * (log_a - log_b) / static_cast<double>(rows);
    }
    const bool same = std::max_element(a, a + vocab) - a == std::max_element(b, b + vocab) - b;
    out.agreement += same ? 1.0 / static_cast<double>(rows) : 0;
  }
  return out;
}

std::vector<float> run_package(const std::string& path, const std::vector<int32_t>& ids,
                               bool round_f16) {
  MilOptions options;
  options.round_f16 = round_f16;
  options.threads = 2;
  auto program = MilProgram::open(path, options);
  EXPECT_TRUE(program.ok()) << program.status().to_string();
  if (!program.ok()) return {};
  auto runner = package_runner(std::shared_ptr<MilProgram>(std::move(*program)));
  EXPECT_TRUE(runner.ok()) << runner.status().to_string();
  if (!runner.ok()) return {};
  const size_t vocab = static_cast<size_t>((*runner)->info().vocab_size);
  std::vector<float> out(ids.size() * vocab);
  // All but three tokens as a prompt, three step by step: both functions speak.
  const size_t prompt = ids.size() - 3;
  EXPECT_TRUE((*runner)
                  ->prefill(std::span(ids).first(prompt), LogitsOf::kAll,
                            std::span(out).first(prompt * vocab))
                  .ok());
  for (size_t i = prompt; i < ids.size(); ++i) {
    EXPECT_TRUE((*runner)->decode(ids[i], std::span(out).subspan(i * vocab, vocab)).ok());
  }
  return out;
}

TEST(CoremlGolden, Tales) {
  const auto checkpoint = open_checkpoint(kTales);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  const auto graph = build_graph(*checkpoint);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  const std::vector<int32_t> ids = test::read_ids(kTales + "/golden/ids.txt");
  const std::vector<float> wanted = test::read_floats(kTales + "/golden/logits.npy");
  const size_t vocab = static_cast<size_t>(graph->info.vocab_size);
  ASSERT_EQ(wanted.size(), ids.size() * vocab);
  struct Case {
    const char* scheme;
    double kl;        // of the package, rounded to fp16 after every op, against the recorded logits
    double faithful;  // of the package against the evaluation of the same quantised graph
  };
  const Case cases[] = {{"f16", 1e-5, 1e-5},  {"int8", 2e-3, 1e-5}, {"int4", 0.1, 1e-5},
                        {"lut8", 2e-4, 1e-5}, {"lut6", 5e-3, 1e-5}, {"lut4", 0.1, 1e-5},
                        {"lut3", 1, 1e-5},    {"lut2", 5, 1e-5}};
  for (const Case& each : cases) {
    const auto recipe = parse_recipe(each.scheme);
    ASSERT_TRUE(recipe.ok()) << recipe.status().to_string();
    const auto quantized = quantize(*graph, *recipe);
    ASSERT_TRUE(quantized.ok()) << quantized.status().to_string();
    CoremlOptions options;
    options.context = 128;
    options.chunk = 32;
    options.scheme = each.scheme;
    const std::string path = export_folder(std::string("tales_") + each.scheme);
    WorkContext work;
    work.threads = 2;
    const auto start = std::chrono::steady_clock::now();
    const auto report = export_coreml(quantized->graph, options, path, work);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const auto rounded = run_package(path, ids, true);
    auto reference = reference_runner({quantized->graph}, {2, 128});
    ASSERT_TRUE(reference.ok()) << reference.status().to_string();
    std::vector<float> own(ids.size() * vocab);
    ASSERT_TRUE((*reference)->prefill(ids, LogitsOf::kAll, own).ok());
    const Distance original = distance(wanted, rounded, vocab);
    const Distance same = distance(own, rounded, vocab);
    EXPECT_LT(original.kl, each.kl) << each.scheme;
    EXPECT_LT(same.kl, each.faithful) << each.scheme;
    std::printf(
        "  %-5s %.3f bits, %.1f s; rounded to fp16: KL to recorded logits %.3g (top-1 %.3f), to "
        "the "
        "graph %.3g (largest difference %.3g)\n",
        each.scheme, report->bits_per_weight, seconds, original.kl, original.agreement, same.kl,
        same.largest);
    std::filesystem::remove_all(std::filesystem::path(path).parent_path());
  }
}

}  // namespace
}  // namespace pome
