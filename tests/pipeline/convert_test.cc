#include "pipeline/convert.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "base/json.h"
#include "base/temp_folder.h"
#include "formats/manifest.h"
#include "formats/mil.h"

namespace pome {
namespace {

const std::string kTales = POME_SOURCE_DIR "/models/tales";

std::map<std::string, std::string> contents_of(const std::string& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.is_regular_file())
      out[std::filesystem::relative(entry.path(), folder).string()] = slurp(entry.path().string());
  return out;
}

class ConvertTest : public ::testing::Test {
 protected:
  ConvertOptions options(const std::string& scheme, const std::string& name = "out") {
    ConvertOptions out;
    out.model = kTales;
    out.output = folder_ / name;
    out.weights = scheme;
    out.context = 128;
    return out;
  }
  static Result<ConvertReport> run(const ConvertOptions& options, int threads = 2) {
    WorkContext work;
    work.threads = threads;
    return convert(options, work);
  }

  TempFolder folder_{true};
};

TEST_F(ConvertTest, TwoRunsAndAnyNumberOfThreadsGiveTheSameBytes) {
  struct Case {
    const char *target, *profile, *scheme;
  };
  for (const auto& [target, profile, scheme] :
       {Case{"coreml", "", "f16"}, Case{"coreml", "", "int4"}, Case{"coreml", "", "lut4"},
        Case{"onnx", "", "f16"}, Case{"onnx", "", "int4"}, Case{"onnx", "plain", "f16"},
        Case{"onnx", "plain", "int8"}, Case{"gguf", "", "f16"}, Case{"gguf", "", "q5_k_s"}}) {
    SCOPED_TRACE(std::string(target) + " " + profile + " " + scheme);
    std::map<std::string, std::string> first;
    for (const int threads : {1, 1, 2, 8}) {
      ConvertOptions o = options(scheme);
      o.target = target;
      o.profile = profile;
      o.force = true;
      const auto report = run(o, threads);
      ASSERT_TRUE(report.ok()) << report.status().to_string();
      const auto contents = contents_of(o.output);
      EXPECT_GT(contents.size(), o.target == "gguf" ? 1u : 5u);
      if (first.empty()) first = contents;
      ASSERT_EQ(contents.size(), first.size());
      for (const auto& [name, bytes] : first)
        EXPECT_TRUE(contents.at(name) == bytes) << name << " with " << threads << " threads";
    }
  }
}

TEST_F(ConvertTest, TheNameOfTheOutputIsNotInTheBytes) {
  ASSERT_TRUE(run(options("f16", "a")).ok());
  ASSERT_TRUE(run(options("f16", "another name")).ok());
  EXPECT_TRUE(contents_of(folder_ / "a") == contents_of(folder_ / "another name"));
}

TEST_F(ConvertTest, TimeComesFromTheEnvironmentAndNeverFromTheClock) {
  ASSERT_TRUE(run(options("f16", "a")).ok());
  const std::string created = read_manifest(folder_ / "a/manifest.json")->created;
  EXPECT_EQ(created, "2026-01-01T00:00:00Z");
  ::setenv("SOURCE_DATE_EPOCH", "86400", 1);
  ASSERT_TRUE(run(options("f16", "b")).ok());
  for (const char* broken : {"x", "-1", "1x", "", "99999999999999"}) {
    ::setenv("SOURCE_DATE_EPOCH", broken, 1);
    EXPECT_EQ(build_time(), created) << broken;
  }
  ::unsetenv("SOURCE_DATE_EPOCH");
  EXPECT_EQ(read_manifest(folder_ / "b/manifest.json")->created, "1970-01-02T00:00:00Z");
}

TEST_F(ConvertTest, TheReportAndTheManifestSayWhatIsThere) {
  ConvertOptions o = options("int4");
  o.version = "2.10.3";
  o.license_id = "Apache-2.0";
  o.license_source = "README";
  const auto report = run(o);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto manifest = read_manifest(o.output + "/manifest.json");
  ASSERT_TRUE(manifest.ok()) << manifest.status().to_string();
  EXPECT_EQ(manifest->version, "2.10.3");
  EXPECT_EQ(manifest->license_id, "Apache-2.0");
  EXPECT_EQ(manifest->license_source, "README");
  EXPECT_EQ(manifest->target, "coreml");
  EXPECT_EQ(manifest->scheme, "int4");
  EXPECT_EQ(manifest->name, "tales");
  EXPECT_EQ(manifest->context, 128);
  EXPECT_EQ(manifest->chunk, 64);
  EXPECT_EQ(manifest->graph_hash, report->exported.hashes.graph_hash);
  EXPECT_EQ(manifest->tree_hash, report->tree_hash);
  EXPECT_EQ(manifest->tokenizer_digest.size(), 64u);
  EXPECT_EQ(manifest->parameters, 7344384);
  EXPECT_NEAR(manifest->bits_per_weight, 4.5, 0.05);
  EXPECT_TRUE(report->warnings.empty());

  uint64_t bytes = 0;
  std::set<std::string> files;
  for (const auto& [name, contents] : contents_of(o.output)) {
    bytes += contents.size();
    if (name != "manifest.json") files.insert(name);
  }
  EXPECT_EQ(report->bytes, bytes);
  std::set<std::string> listed;
  for (const ManifestFile& file : manifest->files) listed.insert(file.path);
  EXPECT_EQ(listed, files);
  EXPECT_TRUE(files.count("tokenizer.json") && files.count("tokenizer_config.json") &&
              files.count("config.json") && files.count("generation_config.json"));

  // The listed tensors cover weight.bin but for its records and paddings, without overlap.
  std::map<uint64_t, uint64_t> ranges;
  uint64_t covered = 0;
  for (const ManifestTensor& tensor : manifest->tensors) {
    EXPECT_TRUE(ranges.emplace(tensor.offset, tensor.size).second) << tensor.name;
    EXPECT_GT(tensor.size, 0u) << tensor.name;
    covered += tensor.size;
  }
  uint64_t end = 64;
  for (const auto& [offset, size] : ranges) {
    EXPECT_GE(offset, end + 64);
    EXPECT_LT(offset, end + 64 + 64);
    end = offset + size;
  }
  EXPECT_GE(covered, report->exported.weight_bytes * 99 / 100);
}

TEST_F(ConvertTest, TheSourceHashIsTheModelsAndTheGraphHashTheArtefacts) {
  const auto int4 = run(options("int4", "a")), lut4 = run(options("lut4", "b"));
  ConvertOptions shorter = options("int4", "c");
  shorter.context = 64;
  const auto other_context = run(shorter);
  ASSERT_TRUE(int4.ok() && lut4.ok() && other_context.ok());
  EXPECT_EQ(int4->exported.hashes.source_hash, lut4->exported.hashes.source_hash);
  EXPECT_NE(int4->exported.hashes.graph_hash, lut4->exported.hashes.graph_hash);
  EXPECT_EQ(int4->exported.hashes.graph_hash, other_context->exported.hashes.graph_hash);
  EXPECT_NE(int4->tree_hash, other_context->tree_hash);
}

TEST_F(ConvertTest, AnEmbeddingOfItsOwnScheme) {
  ConvertOptions o = options("lut4");
  o.embedding = "int8";
  const auto report = run(o);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(read_manifest(o.output + "/manifest.json")->scheme, "lut4+embedding:int8");
  const auto embedding =
      std::find_if(report->tensors.begin(), report->tensors.end(),
                   [](const TensorChoice& choice) { return choice.name == "embedding.weight"; });
  ASSERT_NE(embedding, report->tensors.end());
  EXPECT_NE(to_string(embedding->used).find("int8"), std::string::npos);
}

TEST_F(ConvertTest, ForceNeverReplacesWhatTheWorkStandsOn) {
  ConvertOptions o = options("lut2");
  o.force = true;
  o.model = folder_ / "models/tales";
  std::filesystem::create_directories(folder_ / "models");
  std::filesystem::copy(kTales, o.model, std::filesystem::copy_options::recursive);
  for (const std::string& output : {o.model, std::string(folder_ / "models"), std::string(".")}) {
    o.output = output;
    EXPECT_EQ(run(o).status().code(), StatusCode::kUsage) << output;
  }
  EXPECT_TRUE(std::filesystem::exists(o.model + "/config.json"));
  o.output = folder_ / "models/tales2";
  std::filesystem::create_directory(o.output);
  EXPECT_TRUE(run(o).ok()) << "a name that only begins alike";
}

TEST_F(ConvertTest, ContextAndChunk) {
  const auto packed = [&](int64_t context, int64_t chunk) {
    ConvertOptions o = options("f16");
    o.context = context;
    o.chunk = chunk;
    o.force = true;
    const auto report = run(o);
    if (!report.ok()) return "exit " + std::to_string(exit_code(report.status().code()));
    return std::to_string(report->context) + " in " + std::to_string(report->chunk);
  };
  EXPECT_EQ(packed(0, 64), "1024 in 64");
  EXPECT_EQ(packed(0, 100), "1000 in 100");  // whole chunks
  EXPECT_EQ(packed(0, 4096), "1024 in 1024");
  EXPECT_EQ(packed(32, 64), "32 in 32");
  EXPECT_EQ(packed(64, 1), "64 in 1");
  EXPECT_EQ(packed(1, 64), "exit 2");
  EXPECT_EQ(packed(100, 64), "exit 2");
  EXPECT_EQ(packed(1025, 1), "exit 2");
  EXPECT_EQ(packed(-64, 64), "exit 2");
  EXPECT_EQ(packed(64, 0), "64 in 64");  // the target's own
  EXPECT_EQ(packed(64, -1), "exit 2");
  EXPECT_EQ(packed(64, 4097), "exit 2");
}

TEST_F(ConvertTest, OnnxReportsWhatRoundingCostEachWeight) {
  for (const char* scheme : {"f32", "int8", "int4"}) {
    ConvertOptions o = options(scheme, scheme);
    o.target = "onnx";
    const auto report = run(o);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    uint64_t bytes = 0;
    for (const TensorError& tensor : report->errors) {
      bytes += tensor.bytes;
      const bool rounded = tensor.encoding.starts_with("int");
      EXPECT_EQ(tensor.relative_error > 0, rounded) << scheme << " " << tensor.name;
      EXPECT_LT(tensor.relative_error, tensor.encoding.starts_with("int8") ? 0.01 : 0.12)
          << tensor.name;
    }
    EXPECT_EQ(bytes,
              static_cast<uint64_t>(report->exported.bits_per_weight *
                                        static_cast<double>(report->exported.parameters) / 8 +
                                    0.5))
        << scheme;
  }
}

TEST_F(ConvertTest, RefusalsLeaveNothing) {
  const auto refused = [&](const std::function<void(ConvertOptions*)>& change, int code) {
    ConvertOptions o = options("int4");
    change(&o);
    const auto report = run(o);
    ASSERT_FALSE(report.ok());
    EXPECT_EQ(exit_code(report.status().code()), code) << report.status().to_string();
    EXPECT_TRUE(folder_.names().empty()) << report.status().to_string();
  };
  refused([](ConvertOptions* o) { o->target = "coreai"; }, 2);
  refused([](ConvertOptions* o) { o->weights = "q4"; }, 2);
  refused([](ConvertOptions* o) { o->embedding = "nothing"; }, 2);
  refused([](ConvertOptions* o) { o->model += "/none"; }, 3);
  refused([](ConvertOptions* o) { o->output += ".gguf"; }, 2);
  for (const char* version :
       {"", "1", "1.2", "1.2.3.4", "1..3", "1.2.x", "-1.2.3", "1.2.3 ", "9999999999.0.0"})
    refused([&](ConvertOptions* o) { o->version = version; }, 2);
  CancelToken cancel;
  cancel.cancel();
  WorkContext work;
  work.cancel = &cancel;
  const auto report = convert(options("int4"), work);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), StatusCode::kInterrupted);
  EXPECT_TRUE(folder_.names().empty());
}

// A weight that is not a number is found while the file is being written.
TEST_F(ConvertTest, ABadWeightLeavesNothing) {
  const TempFolder elsewhere(true);
  const std::string model = elsewhere / "m";
  std::filesystem::copy(kTales, model, std::filesystem::copy_options::recursive);
  std::string bytes = slurp(model + "/model.safetensors");
  // The last value of the last tensor; the file is bf16 or f32, NaN in both.
  for (size_t i = bytes.size() - 4; i < bytes.size(); ++i) bytes[i] = '\xFF';
  spit(model + "/model.safetensors", bytes);
  for (const auto& [target, scheme] :
       {std::pair("coreml", "int8"), std::pair("onnx", "f16"), std::pair("onnx", "int4"),
        std::pair("gguf", "f16"), std::pair("gguf", "q4_k_m")}) {
    SCOPED_TRACE(std::string(target) + " " + scheme);
    ConvertOptions o = options(scheme);
    o.model = model;
    o.target = target;
    for (const char* name : {"out", "out.gguf"}) {
      o.output = folder_ / name;
      if (o.output.ends_with(".gguf") && o.target != "gguf") continue;
      const auto report = run(o);
      ASSERT_FALSE(report.ok());
      EXPECT_EQ(report.status().code(), StatusCode::kBadInput) << report.status().to_string();
      EXPECT_NE(report.status().to_string().find("finite"), std::string::npos);
      EXPECT_TRUE(folder_.names().empty());
    }
  }
}

TEST_F(ConvertTest, AModelWithoutATokenizerIsConvertedWithAWarning) {
  std::filesystem::create_directory(folder_ / "m");
  for (const char* name : {"config.json", "model.safetensors"})
    std::filesystem::copy(kTales + "/" + name, (folder_ / "m/") + name);
  ConvertOptions o = options("int8");
  o.model = folder_ / "m";
  const auto report = run(o);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  ASSERT_FALSE(report->warnings.empty());
  EXPECT_NE(report->warnings.back().find("tokenizer"), std::string::npos);
  EXPECT_EQ(read_manifest(o.output + "/manifest.json")->tokenizer_digest, "");
}

}  // namespace
}  // namespace pome
