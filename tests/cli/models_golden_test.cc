// The program against recorded values: logits, perplexity, conversations, and models in three
// formats.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "cli/program.h"
#include "support/npy.h"

namespace pome {
namespace {

using namespace test;

Json read_json(const std::string& path) {
  const auto json = parse_json(slurp(path), path);
  EXPECT_TRUE(json.ok()) << json.status().to_string();
  return json.ok() ? *json : Json();
}

// Logits of the given ids as a tensor [T, vocab_size].
Tensor logits_of(const std::string& model, const std::string& ids, const TempFolder& folder,
                 const std::vector<std::string>& more = {}) {
  const std::string out = folder / "logits.npy";
  std::vector<std::string> call = {"eval", model, "--ids", ids, "--logits", out, "--force"};
  call.insert(call.end(), more.begin(), more.end());
  const Ended ended = pome(call);
  EXPECT_EQ(ended.code, 0) << show(ended);
  EXPECT_EQ(ended.err, "");
  const auto tensor = read_npy(out);
  EXPECT_TRUE(tensor.has_value());
  return tensor ? *tensor : Tensor::zeros(DType::kF32, {1, 1});
}
double largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  EXPECT_EQ(a.dtype(), DType::kF32);
  if (a.shape() != b.shape()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.f32().size(); ++i)
    largest = std::max(
        largest, std::fabs(static_cast<double>(a.f32()[i]) - static_cast<double>(b.f32()[i])));
  return largest;
}
// Fraction of positions at which the best token is the same.
double agreement(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return 0;
  const int64_t rows = a.shape()[0], columns = a.shape()[1];
  int64_t same = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const auto best = [&](const Tensor& t) {
      const auto row =
          t.f32().subspan(static_cast<size_t>(r * columns), static_cast<size_t>(columns));
      return std::max_element(row.begin(), row.end()) - row.begin();
    };
    same += best(a) == best(b);
  }
  return static_cast<double>(same) / static_cast<double>(rows);
}

TEST(EvalGolden, LogitsOfTheEmbeddedModel) {
  const TempFolder folder;
  const auto expected = read_npy(kTales + "/golden/logits.npy");
  ASSERT_TRUE(expected.has_value());
  const std::string ids = kTales + "/golden/ids.txt";
  EXPECT_LT(largest_difference(logits_of(kTales, ids, folder), *expected), 1e-3);
  EXPECT_LT(largest_difference(logits_of(kTales, ids, folder, {"--reference"}), *expected), 1e-3);
  EXPECT_LT(largest_difference(logits_of(kTales, ids, folder, {"--context", "48"}), *expected),
            1e-3);
  // A package holds bf16 weights as fp16: near, not equal.
  ASSERT_EQ(pome({"convert", kTales, "-o", folder / "f16", "--weights", "f16"}).code, 0);
  const Tensor package = logits_of(folder / "f16", ids, folder);
  EXPECT_LT(largest_difference(package, *expected), 0.02);
  const Tensor rounded = logits_of(folder / "f16", ids, folder, {"--f16"});
  EXPECT_LT(largest_difference(rounded, *expected), 0.5);
  EXPECT_GT(largest_difference(rounded, package), 0);  // rounding to fp16 did happen
  EXPECT_GT(agreement(rounded, *expected), 0.9);

  if (!exists(kShared + "/models/tales/golden/logits.npy")) return;
  const auto original = read_npy(kShared + "/models/tales/golden/logits.npy");
  ASSERT_TRUE(original.has_value());
  EXPECT_EQ(largest_difference(*original, *expected), 0);
}

TEST(EvalGolden, PerplexityByBothRules) {
  const std::string text = kShared + "/data/text/tinystories/valid.txt";
  if (!exists(text)) GTEST_SKIP() << "needs " << text;
  const Json golden = read_json(kTales + "/golden/perplexity.json");
  const auto score = [&](const std::string& rule) {
    return pome_json({"eval", kTales, "--text", text, "--max-tokens", "16384", "--context", "512",
                      "--score", rule});
  };
  const Json all = score("all"), half = score("second-half");
  EXPECT_EQ(all["tokens"], golden["default_rule"]["tokens_scored"]);
  EXPECT_EQ(half["tokens"], golden["second_half_rule"]["tokens_scored"]);
  const auto near = [](const Json& mine, const Json& recorded) {
    EXPECT_NEAR(mine.get<double>() / recorded.get<double>(), 1, 1e-4);
  };
  near(all["perplexity"], golden["default_rule"]["perplexity"]);
  near(all["mean_nll"], golden["default_rule"]["mean_nll"]);
  near(half["perplexity"], golden["second_half_rule"]["perplexity"]);
  near(Json(all["perplexity_stderr"].get<double>() / all["perplexity"].get<double>()),
       golden["default_rule"]["mean_nll_stderr_iid"]);
}

TEST(RunGolden, ConversationsOfOneTurn) {
  int seen = 0;
  for (const Json& conversation : read_json(kTales + "/golden/chat.json")) {
    const Json& messages = conversation["messages"];
    if (messages.size() != 1) continue;
    const std::string reason = conversation["finish_reason"];
    const Json run = pome_json(
        {"run", kTales, "-p", messages[0]["content"], "--temp", "0", "-n",
         std::to_string(reason == "length" ? conversation["greedy_ids"].size() : size_t{400})});
    EXPECT_EQ(run["prompt_ids"], conversation["prompt_ids"]);
    EXPECT_EQ(run["ids"], conversation["greedy_ids"]);
    EXPECT_EQ(run["text"], conversation["text"]);
    EXPECT_EQ(run["finish_reason"], reason);
    ++seen;
  }
  EXPECT_GT(seen, 1);
}

TEST(RunGolden, TheGreedyPathOfTheFixture) {
  // 16 ids of the prompt (BOS and 15 more), then 64 that were decoded.
  constexpr size_t kPrompt = 16;
  std::istringstream greedy(slurp(kTales + "/golden/greedy.txt"));
  Json path = Json::array();
  for (int id; greedy >> id;) path.push_back(id);
  ASSERT_EQ(path.size(), kPrompt + 64);
  std::string list;
  for (size_t i = 1; i < kPrompt; ++i) list += std::to_string(path[i].get<int>()) + " ";
  const std::string text = pome_json({"tokenize", kTales, "--decode"}, list)["text"];
  for (const char* kind : {"--raw", "--reference"}) {
    const Json run =
        pome_json({"run", kTales, "--raw", kind, "-p", text, "--temp", "0", "-n", "64"});
    Json whole = run["prompt_ids"];
    ASSERT_EQ(whole.size(), kPrompt);
    for (const Json& id : run["ids"]) whole.push_back(id);
    // The path was recorded through ends of documents; ours stops at the first.
    ASSERT_GT(whole.size(), kPrompt + 8);
    Json expected = path;
    expected.erase(expected.begin() + static_cast<ptrdiff_t>(whole.size()), expected.end());
    EXPECT_EQ(whole, expected);
  }
}

TEST(RunGolden, Stories260K) {
  const std::string folder = kShared + "/data/models/stories260K-gguf";
  if (!exists(folder)) GTEST_SKIP() << "needs " << folder;
  const Ended ended = pome({"run", folder + "/stories260K.gguf", "--raw", "-p", "Once upon a time",
                            "-n", "40", "--temp", "0"});
  EXPECT_EQ(ended.code, 0) << show(ended);
  EXPECT_EQ(ended.err, "");
  // The recording holds the prompt too.
  const auto trimmed = [](const std::string& text) {
    const size_t begin = text.find_first_not_of(" \n"), end = text.find_last_not_of(" \n");
    return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
  };
  EXPECT_EQ(trimmed("Once upon a time" + ended.out),
            trimmed(slurp(folder + "/stories260K_once.txt")));
}

TEST(EvalGolden, OneModelInThreeFormats) {
  const std::string base = kShared + "/data/models/tinystories-656k";
  if (!exists(base + "-hf") || !exists(base + "-gguf")) GTEST_SKIP() << "needs " << base << "-*";
  const TempFolder folder;
  const std::string hf = base + "-hf", q8 = base + "-gguf/TinyStories-656K-Q8_0.gguf",
                    q2 = base + "-gguf/TinyStories-656K-Q2_K.gguf";
  const std::string text =
      "Once upon a time, there was a little girl named Lily. She had a red ball.";
  const Json hf_ids = pome_json({"tokenize", hf}, text)["ids"];
  EXPECT_EQ(hf_ids, pome_json({"tokenize", q8}, text)["ids"]);
  std::string list;
  for (const Json& id : hf_ids) list += std::to_string(id.get<int>()) + " ";
  spit(folder / "ids", list);
  const Tensor exact = logits_of(hf, folder / "ids", folder),
               near = logits_of(q8, folder / "ids", folder),
               far = logits_of(q2, folder / "ids", folder);
  ASSERT_EQ(exact.shape(), near.shape());
  EXPECT_GT(agreement(exact, near), 0.9);
  EXPECT_LT(largest_difference(exact, near), 1.0);
  EXPECT_GT(largest_difference(exact, near), 0);
  EXPECT_GT(largest_difference(exact, far), largest_difference(exact, near));
  EXPECT_GT(agreement(exact, far), 0.3);
}

TEST(ConvertGolden, AGgufModelBecomesAnArtefact) {
  const std::string model =
      kShared + "/data/models/tinystories-656k-gguf/TinyStories-656K-Q8_0.gguf";
  if (!exists(model)) GTEST_SKIP() << "needs " << model;
  const TempFolder folder;
  const std::string out = folder / "out";
  const Json report = pome_json({"convert", model, "-o", out, "--weights", "int4"});
  EXPECT_GT(report["bits_per_weight"], 4);
  EXPECT_LT(report["bits_per_weight"], 6);
  const Json verified = pome_json({"verify", out, "--against", model, "--max-tokens", "200"});
  EXPECT_EQ(verified["ok"], true);
  EXPECT_GT(verified["top1_agreement"], 0.5);
  const std::string text = "Once upon a time";
  EXPECT_EQ(pome_json({"tokenize", out}, text)["ids"], pome_json({"tokenize", model}, text)["ids"]);
  const Json mine = pome_json({"run", out, "--raw", "-p", text, "-n", "12", "--temp", "0"});
  EXPECT_EQ(mine["ids"].size(), 12u);
  EXPECT_EQ(pome_json({"inspect", out})["tokenizer"]["vocab_size"], 2048);
}

}  // namespace
}  // namespace pome
