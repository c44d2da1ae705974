// Every model of the collection as a Core ML package: executed from disk against the logits that
// transformers gives, and verified in 16 and in 4 bits.
#include "base/temp_folder.h"
#include "support/zoo.h"
#include "verify/model.h"
#include "verify/tampered.h"
#include "verify/verify.h"

namespace pome {
namespace {

using namespace test;

// Positions of the packages: the recorded prompt fits, and rope factors are those it was made with.
constexpr int64_t kContext = 128;

class ZooCoreml : public testing::TestWithParam<std::string> {
 protected:
  std::string model() const { return kZoo + GetParam(); }
  std::string artefact(const std::string& scheme) {
    const std::string path = folder_ / scheme;
    const Status status = make_artefact(path, scheme, kContext, 2, model());
    EXPECT_TRUE(status.ok()) << status.to_string();
    return path;
  }
  // Mean KL of the package from the recorded logits. Most ids as a prompt, some step by step, so
  // that both functions speak.
  double divergence(const std::string& path, bool round_f16) const {
    LoadOptions options;
    options.threads = 2;
    options.round_f16 = round_f16;
    const auto loaded = load_model(path, options, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
    if (!loaded.ok()) return HUGE_VAL;
    Runner& runner = *loaded->runner;
    const auto ids = read_ids(model() + "/golden/ids.txt");
    const size_t vocab = static_cast<size_t>(runner.info().vocab_size), prompt = ids.size() - 5;
    std::vector<float> logits(ids.size() * vocab);
    EXPECT_TRUE(runner
                    .prefill(std::span(ids).first(prompt), LogitsOf::kAll,
                             std::span(logits).first(prompt * vocab))
                    .ok());
    for (size_t i = prompt; i < ids.size(); ++i)
      EXPECT_TRUE(runner.decode(ids[i], std::span(logits).subspan(i * vocab, vocab)).ok());
    return mean_kl(read_floats(model() + "/golden/logits.npy"), logits, vocab);
  }
  VerifyReport verified(const std::string& path) const {
    VerifyOptions options;
    options.artefact = path;
    options.original = model();
    options.text = slurp(POME_SOURCE_DIR "/data/held-out.txt").substr(0, 1500);
    options.max_tokens = 254;  // two windows
    options.threads = 2;
    const auto report = verify(options, {});
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    if (!report.ok()) return {};
    EXPECT_TRUE(report->ok);
    for (const std::string& problem : report->problems) ADD_FAILURE() << path << ": " << problem;
    EXPECT_TRUE(report->has_semantics && report->has_comparison);
    EXPECT_EQ(report->functions.size(), 2u);
    return *report;
  }

  TempFolder folder_{true};
};

TEST_P(ZooCoreml, HalfPrecisionIsTheModel) {
  const std::string path = artefact("f16");
  const double exact = divergence(path, false), rounded = divergence(path, true);
  EXPECT_LE(exact, 1e-4);
  EXPECT_LE(rounded, 1e-3);  // every intermediate value in fp16, as an accelerator may hold it
  EXPECT_GT(rounded, 0);
  EXPECT_LE(verified(path).against_original.mean_kld, 1e-4);
  record(GetParam(), "coreml f16", exact);
  record(GetParam(), "coreml f16 rounded", rounded);
}

TEST_P(ZooCoreml, FourBitsVerify) {
  for (const char* scheme : {"int4", "lut4"}) {
    SCOPED_TRACE(scheme);
    const double kld = verified(artefact(scheme)).against_original.mean_kld;
    EXPECT_LE(kld, 0.1);
    EXPECT_GT(kld, 1e-6);
    record(GetParam(), std::string("coreml ") + scheme, kld);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ZooCoreml, testing::ValuesIn(zoo_names()), name_of_parameter);

}  // namespace
}  // namespace pome
