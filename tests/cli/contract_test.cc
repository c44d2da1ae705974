// The contract of the command line: keys, exit codes, streams, refusals.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "cli/program.h"
#include "formats/safetensors.h"
#include "support/npy.h"
#include "tensor/tensor.h"

namespace pome {
namespace {

using namespace test;

const std::string kText = POME_SOURCE_DIR "/data/held-out.txt";

// ---- keys of --json

TEST(JsonContract, ConvertSaysWhatItWrote) {
  const TempFolder folder;
  const std::string out = folder / "out";
  const Json report = pome_json({"convert", kTales, "-o", out, "--to", "coreml", "--weights",
                                 "lut4", "--context", "256", "-t", "1"});
  expect_keys(report, {"graph_hash", "output", "bytes", "bits_per_weight", "seconds",
                       "peak_memory_bytes", "context", "tree_hash", "source_hash", "warnings"});
  EXPECT_EQ(report["output"], out);
  EXPECT_EQ(report["context"], 256);
  EXPECT_EQ(report["graph_hash"].get<std::string>().size(), 64u);
  uint64_t bytes = 0;
  for (const auto& [name, contents] : contents_of(out)) bytes += contents.size();
  EXPECT_EQ(report["bytes"], bytes);
  EXPECT_NEAR(report["bits_per_weight"].get<double>(), 4.06, 0.05);
  EXPECT_GT(report["peak_memory_bytes"], 1 << 20);
  EXPECT_EQ(folder.names(), std::set<std::string>{"out"});

  const Json again = pome_json({"inspect", out});
  EXPECT_EQ(again["tree_hash"], report["tree_hash"]);
  EXPECT_EQ(again["metadata"]["pome.graph_hash"], report["graph_hash"]);
}

TEST(JsonContract, VerifyGivesBothAnswers) {
  const Json report =
      pome_json({"verify", tales_artefact(), "--against", kTales, "--max-tokens", "64", "-t", "2"});
  expect_keys(report, {"ok", "integrity", "perplexity", "perplexity_original", "mean_kld",
                       "top1_agreement", "max_abs_error", "first_difference", "functions",
                       "problems", "graph_hash", "source_hash"});
  EXPECT_EQ(report["ok"], true);
  EXPECT_TRUE(report["integrity"].empty() && report["integrity"].is_array());
  EXPECT_TRUE(report["first_difference"].is_null());
  ASSERT_EQ(report["functions"].size(), 2u);
  for (const Json& function : report["functions"])
    expect_keys(function, {"name", "ok", "tokens", "max_abs_error", "mean_kld", "top1_agreement"});
  EXPECT_GT(report["perplexity"], report["perplexity_original"]);

  const Json files_only = pome_json({"verify", tales_artefact()});
  EXPECT_EQ(files_only["ok"], true);
  EXPECT_TRUE(files_only["perplexity"].is_null());
  EXPECT_TRUE(files_only["functions"].empty());
}

TEST(JsonContract, VerifyOfTwoArtefacts) {
  const Json report =
      pome_json({"verify", tales_artefact(), "--against", tales_artefact(), "--max-tokens", "20"});
  EXPECT_TRUE(report["ok"].get<bool>());
  EXPECT_EQ(report["against_graph_hash"], report["graph_hash"]);
  EXPECT_EQ(report["mean_kld"].get<double>(), 0);
}

TEST(JsonContract, EvalOfAText) {
  const Json report = pome_json({"eval", kTales, "--text", kText, "--max-tokens", "100"});
  expect_keys(report, {"tokens", "perplexity", "perplexity_stderr"});
  EXPECT_EQ(report["tokens"], 99);
  EXPECT_GT(report["perplexity_stderr"], 0);

  const Json against = pome_json({"eval", tales_artefact(), "--text", kText, "--max-tokens", "100",
                                  "--context", "50", "--against", kTales});
  expect_keys(against, {"tokens", "perplexity", "perplexity_stderr", "mean_kld", "mean_kld_stderr",
                        "top1_agreement", "ppl_increase_percent"});
  EXPECT_EQ(against["tokens"], 98);  // two windows of 50, whose first tokens are not scored
  EXPECT_GT(against["mean_kld"], 0);
}

TEST(JsonContract, RunTokenizeInspectGraph) {
  const Json run = pome_json({"run", kTales, "-p", "Tell me a story.", "-n", "5", "--temp", "0"});
  expect_keys(run, {"prompt_ids", "ids", "text", "finish_reason", "ttft_ms", "prefill_tokens_per_s",
                    "decode_tokens_per_s", "seed"});
  EXPECT_EQ(run["ids"].size(), 5u);
  EXPECT_EQ(run["finish_reason"], "length");
  EXPECT_GT(run["ttft_ms"], 0);

  EXPECT_EQ(pome_json({"tokenize", kTales}, "One day")["ids"].at(0), 0);
  EXPECT_EQ(pome_json({"tokenize", kTales, "--decode"}, "506 487")["text"], "Once upon");

  for (const std::string& path : {kTales, tales_artefact()}) {
    const Json inspect = pome_json({"inspect", path});
    expect_keys(inspect, {"format", "family", "parameters", "tensors", "dtypes", "config",
                          "tokenizer", "chat_template", "estimated_memory"});
    EXPECT_EQ(inspect["family"], "llama") << path;
    EXPECT_EQ(inspect["parameters"], 7344384) << path;
    EXPECT_EQ(inspect["config"]["hidden_size"], 256) << path;
    EXPECT_EQ(inspect["tokenizer"]["vocab_size"], 4096) << path;
    EXPECT_FALSE(inspect["dtypes"].empty()) << path;
    EXPECT_GT(inspect["estimated_memory"]["total_bytes"], 1000000) << path;
    EXPECT_FALSE(inspect["tensors"].empty());
  }
  const Json bare = pome_json({"inspect", tales_artefact() + "/model.mlpackage"});
  EXPECT_EQ(bare["family"], "llama");

  const Json graph = pome_json({"graph", kTales, "--hash"});
  expect_keys(graph, {"family", "nodes", "constants", "output", "source_hash"});
  EXPECT_EQ(graph["source_hash"],
            pome_json({"inspect", tales_artefact()})["metadata"]["pome.source_hash"]);
  EXPECT_GT(pome_json({"graph", kTales, "--decomposed"})["nodes"].size(), graph["nodes"].size());
}

TEST(JsonContract, AnErrorIsOneObjectOnStderr) {
  const Ended ended = pome({"inspect", "/no/such/model", "--json"});
  EXPECT_EQ(ended.code, 3);
  EXPECT_EQ(ended.out, "");
  const auto error = parse_json(ended.err, "stderr");
  ASSERT_TRUE(error.ok()) << ended.err;
  EXPECT_EQ((*error)["error"]["code"], 3);
  EXPECT_EQ((*error)["error"]["file"], "/no/such/model");
  EXPECT_NE((*error)["error"]["message"].get<std::string>().find("no such file"),
            std::string::npos);
}

// ---- text for people

TEST(Streams, AllIsQuietOnStderrWhenAllIsWell) {
  const TempFolder folder;
  const std::vector<std::vector<std::string>> calls = {
      {"--version"},
      {"--help"},
      {"convert", "--help"},
      {"convert", kTales, "-o", folder / "a", "--weights", "f16"},
      {"verify", tales_artefact()},
      {"eval", kTales, "--text", kText, "--max-tokens", "20"},
      {"run", kTales, "-p", "Hi", "-n", "3", "--temp", "0"},
      {"tokenize", kTales, "--text", kTales + "/golden/ids.txt"},
      {"inspect", kTales, "--tensors"},
      {"inspect", tales_artefact(), "--tensors"},
      {"graph", kTales}};
  for (const auto& call : calls) {
    const Ended ended = pome(call);
    EXPECT_EQ(ended.code, 0) << call[0] << show(ended);
    EXPECT_EQ(ended.err, "") << call[0];
    EXPECT_NE(ended.out, "") << call[0];
    EXPECT_EQ(ended.out.find('\x1b'), std::string::npos) << call[0];
  }
}

TEST(Streams, AReaderThatLeavesIsNoError) {
  for (const std::vector<std::string>& call :
       {std::vector<std::string>{"run", kTales, "--raw", "-p", "Once", "-n", "900", "--temp", "0"},
        std::vector<std::string>{"graph", kTales, "--json"}}) {
    Child child(command(call));
    child.close_output();
    const Ended ended = child.finish();
    EXPECT_EQ(ended.signal, 0);
    EXPECT_EQ(ended.code, 0) << show(ended);
    EXPECT_EQ(ended.err, "");
  }
}

TEST(Streams, AFullDiskBehindStdoutIsAnError) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  const Ended ended = run_program(
      {"/bin/sh", "-c", "exec \"$0\" \"$@\" >/dev/full", POME_PROGRAM, "graph", kTales, "--json"});
  EXPECT_EQ(ended.code, 4) << show(ended);
  EXPECT_NE(ended.err.find("stdout"), std::string::npos) << ended.err;
}

// ---- refusals

TEST(Refusals, WrongCallsAreUsage) {
  const TempFolder folder;
  expect_refused({}, 2, {"--help"});
  expect_refused({"nosuch"}, 2, {"nosuch", "--help"});
  expect_refused({"nosuch", "--json"}, 2, {"nosuch"});
  expect_refused({"--bogus"}, 2, {"bogus"});
  expect_refused({"run", kTales, "--bogus"}, 2, {"--bogus"});
  expect_refused({"run"}, 2, {"model"});
  expect_refused({"run", kTales, "-p", "x", "-n", "0"}, 2, {"max-tokens", "at least 1"});
  expect_refused({"run", kTales, "-p", "x", "-n", "99999999999999999999"}, 2, {"max-tokens"});
  expect_refused({"run", kTales, "-p", "x", "--temp", "-1"}, 2, {"--temp"});
  expect_refused({"run", kTales, "-p", "x", "-t", "0"}, 2, {"--threads"});
  expect_refused({"run", kTales, "-p", ""}, 2, {"-p"});
  expect_refused({"eval", kTales}, 2, {"--text"});
  expect_refused({"eval", kTales, "--ids", kText}, 2, {"--logits"});
  expect_refused({"eval", kTales, "--text", kText, "--logits", "x.npy"}, 2, {"--ids"});
  expect_refused({"eval", kTales, "--text", kText, "--max-ppl-increase", "3%"}, 2, {"--against"});
  expect_refused({"eval", kTales, "--text", kText, "--against", kTales, "--max-ppl-increase", "x"},
                 2, {"percentage"});
  expect_refused({"eval", kTales, "--text", kText, "--context", "2000"}, 2, {"2000", "1024"});
  expect_refused({"verify", tales_artefact(), "--max-kld", "0.1"}, 2, {"--against"});
  expect_refused({"exec", tales_artefact(), "--inputs", kText, "-o", folder / "o"}, 2,
                 {"--function"});
  expect_refused(
      {"exec", tales_artefact(), "--function", "main", "--inputs", kText, "-o", folder / "o"}, 2,
      {"main", "decode, prefill"});

  const std::vector<std::pair<std::vector<std::string>, std::vector<std::string>>> converts = {
      {{"--weights", "int5"}, {"int5", "lut4"}},
      {{"--to", "coreai"}, {"coreai", "coreml"}},
      {{"--profile", "npu"}, {"--profile npu"}},
      {{"--profile", "ane"}, {"--profile ane", "--size-limit"}},
      {{"--context", "100"}, {"100", "64"}},
      {{"--context", "2048"}, {"2048", "1024"}},
      {{"--chunk", "0"}, {"chunk", "at least 1"}},
      {{"--chunk", "5000"}, {"5000"}},
      {{"--functions", "three"}, {"one or two"}},
      {{"--artefact-version", "1.0"}, {"1.0"}},
      {{"--preset", "big"}, {"big", "mobile_4gb"}},
      {{"--budget", "much"}, {"much", "3GB"}},
      {{"--kvq", "u8"}, {"--kv explicit"}},
      {{"--kv", "explicit", "--to", "gguf"}, {"gguf", "coreml onnx"}}};
  for (const auto& [flags, words] : converts) {
    std::vector<std::string> call = {"convert", kTales, "-o", folder / "x"};
    call.insert(call.end(), flags.begin(), flags.end());
    expect_refused(call, 2, words);
  }
  expect_refused({"convert", kTales, "-o", folder / "x.gguf"}, 2, {"x.gguf", "folder"});
  expect_refused({"convert", kTales, "-o", folder / "x", "--budget", "1MB"}, 4,
                 {"budget of 1.00 MB", "more than"});
  expect_refused({"convert", kTales, "-o", ""}, 2, {"output"});
  expect_refused({"convert", kTales, "-o", "/"}, 2, {"output"});
  EXPECT_TRUE(folder.names().empty());
}

TEST(Refusals, MissingAndMalformedInputsNameTheFile) {
  const TempFolder folder;
  const std::string none = folder / "none", binary = folder / "binary", empty = folder / "empty";
  spit(binary, std::string("\0\x01\xff\xfe not a model", 16));
  spit(empty, "");
  for (const std::string command :
       {"run", "eval", "inspect", "tokenize", "graph", "verify", "exec", "convert"})
    for (const std::string& model : {none, binary, empty, folder.path()}) {
      std::vector<std::string> call = {command, model};
      const std::map<std::string, std::vector<std::string>> more = {
          {"run", {"-p", "x"}},
          {"eval", {"--text", kText}},
          {"exec", {"--inputs", kText, "-o", folder / "o"}},
          {"convert", {"-o", folder / "o"}}};
      if (const auto found = more.find(command); found != more.end())
        call.insert(call.end(), found->second.begin(), found->second.end());
      const bool takes_artefacts = command == "verify" || command == "exec";
      expect_refused(call, takes_artefacts && model != none ? 5 : 3, {"pome: " + model});
    }
  expect_refused({"eval", kTales, "--text", none}, 3, {none});
  expect_refused({"eval", kTales, "--text", folder.path()}, 3, {folder.path(), "folder"});
  expect_refused({"eval", kTales, "--text", empty}, 3, {empty, "tokens"});
  expect_refused({"verify", tales_artefact(), "--against", kTales, "--text", empty}, 3,
                 {empty, "tokens"});
  expect_refused({"verify", tales_artefact(), "--against", none}, 3, {none});
  expect_refused({"run", kTales, "-f", none}, 3, {none});
  expect_refused({"tokenize", kTales, "--text", none}, 3, {none});
  expect_refused({"eval", kTales, "--ids", kText, "--logits", folder / "l.npy"}, 3,
                 {kText, "token ids"});
  expect_refused(
      {"exec", tales_artefact(), "--function", "decode", "--inputs", none, "-o", folder / "o"}, 3,
      {none});
  expect_refused({"convert", kTales, "-o", folder / "no/such/out"}, 3, {"no/such"});
  EXPECT_EQ(folder.names(), (std::set<std::string>{"binary", "empty"}));
}

TEST(Refusals, ArtefactsWhereModelsAreMeantAndTheReverse) {
  const TempFolder folder;
  expect_refused({"convert", tales_artefact(), "-o", folder / "x"}, 5, {"artefact", "convert"});
  expect_refused({"graph", tales_artefact()}, 5, {"artefact"});
  expect_refused({"verify", kTales}, 5, {"artefact"});
  // A package inside its folder finds the tokenizer beside it; alone it has none.
  const std::string package = tales_artefact() + "/model.mlpackage";
  EXPECT_EQ(pome({"run", package, "-p", "x", "-n", "1"}).code, 0);
  std::filesystem::copy(package, folder / "p", std::filesystem::copy_options::recursive);
  expect_refused({"run", folder / "p", "-p", "x"}, 3, {"tokenizer"});
  expect_refused({"tokenize", folder / "p"}, 3, {"tokenizer"});
  EXPECT_EQ(pome({"verify", folder / "p"}).code, 0);
}

TEST(Refusals, AnArtefactWithoutOrWithABrokenManifest) {
  const TempFolder folder;
  const std::string path = folder / "artefact";
  std::filesystem::copy(tales_artefact(), path, std::filesystem::copy_options::recursive);
  const std::string manifest = path + "/manifest.json", good = slurp(manifest);
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"", {"manifest.json"}},
      {"{", {"manifest.json"}},
      {"[]", {"manifest.json", "object"}},
      {good.substr(0, good.size() / 2), {"manifest.json"}},
      {edited("\"schema\": 1", "\"schema\": 2"), {"manifest.json", "/schema", "2"}},
      {edited("\"schema\": 1,", ""), {"manifest.json", "/schema"}},
      {edited("\"model\": \"model.mlpackage\"", "\"model\": \"../elsewhere.mlpackage\""),
       {"/model", "leaves"}},
      {edited("\"path\": \"config.json\"", "\"path\": \"../config.json\""), {"leaves"}},
      {edited("\"path\": \"config.json\"", "\"path\": \"/etc/passwd\""), {"leaves"}},
      {edited("\"path\": \"config.json\"", "\"path\": \"tokenizer.json\""), {"twice"}},
      {edited("\"files\": [", "\"files\": [7,"), {"/files"}},
      {edited("\"sha256\": \"", "\"sha256\": \"X"), {"sha256"}}};
  for (const auto& [text, words] : cases) {
    spit(manifest, text);
    expect_refused({"verify", path}, 3, words);
    expect_refused({"run", path, "-p", "x", "-n", "1"}, 3, words);
  }
  spit(manifest, edited("\"target\": \"coreml\"", "\"target\": \"quill\""));
  expect_refused({"verify", path}, 5, {"quill", "coreml onnx gguf"});
  std::filesystem::remove(manifest);
  for (const char* name : {"verify", "run", "inspect", "tokenize"})
    expect_refused({name, path}, 3, {path, "manifest.json"}, "some input");
}

TEST(Refusals, VerifyUsesTheGateCodeAndSaysItOnBothStreams) {
  const TempFolder folder;
  const std::string path = folder / "artefact";
  std::filesystem::copy(tales_artefact(), path, std::filesystem::copy_options::recursive);
  const std::string weights = path + "/model.mlpackage/Data/com.apple.CoreML/weights/weight.bin";
  std::string bytes = slurp(weights);
  const std::string good = bytes;
  bytes[bytes.size() - 20] ^= 0x10;
  spit(weights, bytes);
  for (const bool json : {false, true}) {
    std::vector<std::string> call = {"verify", path};
    if (json) call.push_back("--json");
    const Ended ended = pome(call);
    EXPECT_EQ(ended.code, 1) << show(ended);
    EXPECT_NE(ended.out.find("weight.bin"), std::string::npos) << show(ended);
    EXPECT_NE(ended.err.find("weight.bin"), std::string::npos) << show(ended);
    if (json) {
      const Json report = json_of(ended);
      EXPECT_EQ(report["ok"], false);
      ASSERT_EQ(report["integrity"].size(), 1u);
      EXPECT_TRUE(report["integrity"][0]["tensor"].is_string());
    }
  }
  spit(weights, good.substr(0, good.size() - 1));
  expect_refused({"verify", path}, 3, {"weight.bin"});
  std::filesystem::remove(weights);
  expect_refused({"verify", path, "--against", kTales}, 3, {"weight.bin"});
  expect_refused({"run", path, "-p", "x"}, 3, {"weight.bin"});

  const Ended gate = pome({"verify", tales_artefact(), "--against", kTales, "--max-tokens", "64",
                           "--max-ppl-increase", "-50%"});
  EXPECT_EQ(gate.code, 1) << show(gate);
  const Ended eval = pome({"eval", tales_artefact(), "--text", kText, "--max-tokens", "64",
                           "--against", kTales, "--max-ppl-increase", "-50%"});
  EXPECT_EQ(eval.code, 1) << show(eval);
  EXPECT_NE(eval.err.find("perplexity"), std::string::npos);
}

TEST(Refusals, AFamilyThatPomeDoesNotKnow) {
  const TempFolder folder;
  std::filesystem::copy(kTales, folder / "m");
  std::string config = slurp(folder / "m/config.json");
  for (const char* name : {"\"llama\"", "\"LlamaForCausalLM\""}) {
    const size_t at = config.find(name);
    ASSERT_NE(at, std::string::npos);
    config.replace(at, std::string(name).size(), "\"mamba9\"");
  }
  spit(folder / "m/config.json", config);
  expect_refused({"run", folder / "m", "-p", "x"}, 5, {"mamba9", "llama"});
  expect_refused({"convert", folder / "m", "-o", folder / "out"}, 5, {"mamba9"});
  const Json inspect = pome_json({"inspect", folder / "m"});
  EXPECT_TRUE(inspect["family"].is_null());
  EXPECT_FALSE(inspect["warnings"].empty());
}

TEST(Refusals, AnOutputIsNotOverwrittenWithoutForce) {
  const TempFolder folder;
  const std::string ids = folder / "ids", npy = folder / "l.npy", out = folder / "out";
  spit(ids, "1 2 3");
  spit(npy, "mine");
  expect_refused({"eval", kTales, "--ids", ids, "--logits", npy}, 2, {npy, "--force"});
  EXPECT_EQ(slurp(npy), "mine");
  EXPECT_EQ(pome({"eval", kTales, "--ids", ids, "--logits", npy, "--force"}).code, 0);
  EXPECT_TRUE(read_npy(npy).has_value());

  std::filesystem::create_directory(out);
  spit(out + "/notes", "mine");
  expect_refused({"convert", kTales, "-o", out}, 2, {out, "--force"});
  EXPECT_EQ(slurp(out + "/notes"), "mine");
  const Ended forced = pome({"convert", kTales, "-o", out, "--force", "--context", "64"});
  EXPECT_EQ(forced.code, 0) << show(forced);
  EXPECT_FALSE(exists(out + "/notes"));
  EXPECT_EQ(pome({"verify", out}).code, 0);
  EXPECT_EQ(folder.names(), (std::set<std::string>{"ids", "l.npy", "out"}));
}

TEST(OddInputs, NamesThatShellsDislike) {
  const TempFolder folder;
  for (const std::string name : {"with space", "-dash", "qu'ote\"s", "\xc3\xa9\xe2\x80\xae",
                                 "not\xff\xfeutf8", "new\nline", ".hidden", "percent%s%n"}) {
    const std::string out = folder / name;
    const Ended made = pome({"convert", kTales, "-o", out, "--context", "64", "--json"});
    ASSERT_EQ(made.code, 0) << name << show(made);
    EXPECT_EQ(made.out.find('\n'), made.out.size() - 1);
    EXPECT_EQ(pome({"verify", out}).code, 0) << name;
    const Ended refused = pome({"convert", kTales, "-o", out});
    EXPECT_EQ(refused.code, 2);
    EXPECT_EQ(refused.err.find('\n'), refused.err.size() - 1) << refused.err;
    std::filesystem::remove_all(out);
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(OddInputs, TextsThatAreNoText) {
  const TempFolder folder;
  std::string bytes;
  for (int i = 0; i < 4000; ++i) bytes += static_cast<char>(i * 7 + i / 256);
  spit(folder / "binary", bytes);
  const Json eval = pome_json({"eval", kTales, "--text", folder / "binary", "--max-tokens", "50"});
  EXPECT_EQ(eval["tokens"], 49);
  const Json ids = pome_json({"tokenize", kTales, "--text", folder / "binary"});
  std::string list;
  for (const Json& id : ids["ids"]) list += std::to_string(id.get<int>()) + " ";
  EXPECT_FALSE(list.empty());
  const Json run =
      pome_json({"run", kTales, "-p", "bad \xff\xfe bytes \xc3", "-n", "3", "--temp", "0"});
  EXPECT_EQ(run["ids"].size(), 3u);
}

}  // namespace
}  // namespace pome
