// pome convert --to mlc, and every command on what it wrote.
#include <filesystem>

#include "cli/program.h"

namespace pome {
namespace {

using namespace test;

const std::string kText = POME_SOURCE_DIR "/data/held-out.txt";

TEST(MlcCommand, EveryCommandTakesThePackage) {
  const TempFolder folder;
  const std::string out = folder / "tales-mlc";
  const Json report = pome_json({"convert", kTales, "-o", out, "--to", "mlc", "-t", "2"});
  expect_keys(report, {"graph_hash", "output", "bytes", "bits_per_weight", "seconds",
                       "peak_memory_bytes", "context", "tree_hash", "notes"});
  EXPECT_NEAR(report["bits_per_weight"].get<double>(), 4.5, 0.1);
  const std::string notes = report["notes"].dump();
  for (const char* word :
       {"mlc_llm compile", "--device iphone", "mlc-package-config.json", "bundle_weight", "TVM"})
    EXPECT_NE(notes.find(word), std::string::npos) << word;
  for (const char* name :
       {"params_shard_0.bin", "tensor-cache.json", "ndarray-cache.json", "mlc-chat-config.json",
        "config.json", "tokenizer.json", "manifest.json"})
    EXPECT_TRUE(exists(out + "/" + name)) << name;

  const Json verified =
      pome_json({"verify", out, "--against", kTales, "--max-tokens", "256", "-t", "2"});
  EXPECT_EQ(verified["ok"], true);
  EXPECT_EQ(verified["graph_hash"], report["graph_hash"]);
  EXPECT_LT(verified["mean_kld"], 0.05);
  const Json scored = pome_json({"eval", out, "--text", kText, "--max-tokens", "256"});
  EXPECT_GT(scored["perplexity"], 1);
  const Json ran = pome_json({"run", out, "-p", "Once upon a time", "-n", "8", "--temp", "0"});
  EXPECT_EQ(ran["ids"].size(), 8u);
  const Json inspected = pome_json({"inspect", out});
  EXPECT_EQ(inspected["format"], "mlc");
  EXPECT_EQ(inspected["family"], "llama");
  EXPECT_EQ(inspected["metadata"]["pome.graph_hash"], report["graph_hash"]);

  // Any two artefacts of one model.
  const std::string gguf = folder / "tales.gguf";
  pome_json({"convert", kTales, "-o", gguf, "--to", "gguf", "--weights", "q8_0"});
  for (const auto& [one, other] : {std::pair(out, gguf), std::pair(gguf, out)}) {
    const Json pair = pome_json({"verify", one, "--against", other, "--max-tokens", "128"});
    EXPECT_EQ(pair["ok"], true) << one;
    EXPECT_LT(pair["mean_kld"], 0.05);
  }

  // One byte of a weight.
  std::string shard = slurp(out + "/params_shard_0.bin");
  shard[shard.size() / 2] = static_cast<char>(shard[shard.size() / 2] ^ 1);
  spit(out + "/params_shard_0.bin", shard);
  const Ended spoilt = pome({"verify", out});
  EXPECT_EQ(spoilt.code, 1) << show(spoilt);
  EXPECT_NE((spoilt.out + spoilt.err).find("params_shard_0.bin"), std::string::npos)
      << show(spoilt);
  spit(out + "/params_shard_0.bin", shard.substr(0, shard.size() - 1));
  expect_refused({"eval", out, "--text", kText}, 3, {"params_shard_0.bin"});
}

// A package that lost a file is told which.
TEST(MlcCommand, NamesTheFileThatIsMissing) {
  const TempFolder folder;
  const std::string out = folder / "package";
  pome_json({"convert", kTales, "-o", out, "--to", "mlc"});
  const auto without = [&](const std::vector<std::string>& names) {
    const std::string copy = folder / "copy";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(out, copy);
    for (const std::string& name : names) std::filesystem::remove(copy + "/" + name);
    return copy;
  };
  for (const char* name : {"params_shard_0.bin", "mlc-chat-config.json"}) {
    const std::string copy = without({name});
    expect_refused({"run", copy, "-p", "Once", "-n", "2"}, 3, {name});
    expect_refused({"verify", copy}, 3, {name});
  }
  const std::string copy = without({"tensor-cache.json", "ndarray-cache.json"});
  expect_refused({"eval", copy, "--text", kText}, 3, {"tensor-cache.json"});
}

TEST(MlcCommand, NamesTheFamilyThatMlcDoesNotHave) {
  const TempFolder folder;
  const std::string zoo = POME_SOURCE_DIR "/models/zoo/";
  expect_refused({"convert", zoo + "gptneo", "-o", folder / "out", "--to", "mlc"}, 5,
                 {"MLC has no model of the family gpt_neo"});
  expect_refused({"convert", zoo + "deepseek-v2-lite", "-o", folder / "out", "--to", "mlc"}, 5,
                 {"self_attn.w_uk", "mlc_llm convert_weight"});
  expect_refused({"convert", zoo + "gpt-oss", "-o", folder / "out", "--to", "mlc"}, 5, {"gpt_oss"});
  expect_refused({"convert", kTales, "-o", folder / "out", "--to", "mlc", "--weights", "lut4"}, 2,
                 {"q4f16_1"});
  EXPECT_TRUE(folder.names().empty());
}

}  // namespace
}  // namespace pome
