// --kv explicit, --preset and --budget of convert: what is written, and what is refused.
#include "pipeline/kv_plan.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/json.h"
#include "base/temp_folder.h"
#include "formats/manifest.h"

namespace pome {
namespace {

const std::string kModels = POME_SOURCE_DIR "/models/";

class KvPlanTest : public testing::Test {
 protected:
  ConvertOptions options(const std::string& target = "onnx") {
    ConvertOptions out;
    out.model = kModels + "zoo/latent-kv";
    out.output = folder_ / "out";
    out.target = target;
    out.weights = target == "gguf" ? "q8_0" : "f16";
    out.force = true;
    return out;
  }
  Json summary() {
    const auto json = read_json_file(folder_ / "out/mobile_packager_summary.json");
    EXPECT_TRUE(json.ok()) << json.status().to_string();
    return json.ok() ? *json : Json();
  }
  TempFolder folder_{true};
};

TEST_F(KvPlanTest, PresetsDecideWhatFlagsLeaveOpen) {
  ConvertOptions made = options();
  made.preset = "mobile_2gb";
  made.page_len = 64;
  const auto report = convert(made, {});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->context, 512);  // all positions of the model
  const auto sidecars = read_kv_sidecars(made.output + "/model.onnx");
  ASSERT_TRUE(sidecars.ok()) << sidecars.status().to_string();
  EXPECT_EQ(sidecars->quantization->scheme, "nf4");
  EXPECT_EQ(sidecars->paging->page_len, 64);
  EXPECT_EQ(sidecars->paging->max_pages, 4);
  EXPECT_TRUE(sidecars->paging->paged);
  EXPECT_EQ(sidecars->paging->n_layers, 3);
  EXPECT_EQ(sidecars->paging->heads, 4);
  EXPECT_EQ(sidecars->paging->dl, 8);
  EXPECT_EQ(sidecars->paging->state_layout, "per-layer (k_lat, v_lat)");
  // 3 layers, K and V, 4 heads: 8 values as two bfloat16 and four bytes.
  EXPECT_EQ(report->packaging.kv_cache_bytes, 3u * 2 * 4 * (4 + 4) * 256);
  EXPECT_EQ(report->packaging.kv_step_bytes, 3u * 2 * 4 * 8 * 4 * 256 * 2);

  const Json written = summary();
  EXPECT_EQ(written["preset"], "mobile_2gb");
  EXPECT_EQ(written["kv_cache_bytes_seq_len"], 256);
  EXPECT_EQ(written["budget_bytes"], 2'000'000'000);
  const auto manifest = read_manifest(made.output + "/manifest.json");
  ASSERT_TRUE(manifest.ok());
  uint64_t weights = 0;
  int listed = 0;
  for (const ManifestFile& file : manifest->files) {
    if (file.path.starts_with("model.onnx")) weights += file.size;
    listed += file.path == "model.kvq.json" || file.path == "model.kv_paging.json" ||
              file.path == "mobile_packager_summary.json" || file.path == "genai_config.json";
  }
  EXPECT_EQ(listed, 3);  // and no configuration of genai, which has another interface
  EXPECT_EQ(written["weights_bytes"], weights);
}

TEST_F(KvPlanTest, PagesNeverHoldMoreThanTheContext) {
  ConvertOptions made = options("coreml");
  made.kv = "explicit";
  made.context = 100;
  made.page_len = 64;
  const auto report = convert(made, {});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto paging = read_kv_paging(made.output + "/model.kv_paging.json");
  ASSERT_TRUE(paging.ok());
  EXPECT_FALSE(paging->paged);
  EXPECT_EQ(paging->max_pages, 2);
  EXPECT_EQ(report->packaging.kv_tokens, 100);
  EXPECT_FALSE(read_kv_sidecars(made.output + "/model.mlpackage")->quantization.has_value());

  made.max_pages = 1;
  made.sink_tokens = 3;
  const auto fewer = convert(made, {});
  ASSERT_TRUE(fewer.ok());
  EXPECT_EQ(fewer->packaging.kv_tokens, 67);
  EXPECT_EQ(fewer->packaging.kv_cache_bytes, 3u * 2 * 4 * 8 * 2 * 67);
}

TEST_F(KvPlanTest, BudgetIsHeldToTheByte) {
  for (const char* target : {"coreml", "onnx", "gguf"}) {
    ConvertOptions made = options(target);
    if (made.target == "gguf") made.model = kModels + "zoo/qwen3";
    made.kv = made.target == "gguf" ? "" : "explicit";
    made.context = 128;
    const auto first = convert(made, {});
    ASSERT_TRUE(first.ok()) << first.status().to_string();
    const uint64_t total = first->packaging.total_bytes();
    ASSERT_GT(total, 100'000u);
    made.budget = total;
    EXPECT_TRUE(convert(made, {}).ok()) << target;

    std::filesystem::remove_all(made.output);
    for (const uint64_t budget : {total - 1, total / 2}) {
      made.budget = budget;
      const auto report = convert(made, {});
      ASSERT_FALSE(report.ok()) << target;
      EXPECT_EQ(report.status().code(), StatusCode::kDoesNotFit);
      const std::string message = report.status().to_string();
      EXPECT_NE(message.find("more than the budget"), std::string::npos) << message;
      if (budget == total - 1) {
        EXPECT_NE(message.find("(1 bytes)"), std::string::npos) << message;
      }
      EXPECT_TRUE(folder_.names().empty()) << "something was left";
    }
  }
}

TEST_F(KvPlanTest, RefusesBeforeAnythingIsWritten) {
  struct Case {
    std::function<void(ConvertOptions*)> change;
    std::vector<const char*> words;
  };
  const Case cases[] = {
      {[](ConvertOptions* o) { o->preset = "mobile_9gb"; },
       {"mobile_9gb", "mobile_4gb mobile_2gb"}},
      {[](ConvertOptions* o) { o->kv = "states"; }, {"states", "explicit"}},
      {[](ConvertOptions* o) { o->kv = "explicit", o->target = "gguf"; }, {"gguf", "coreml onnx"}},
      {[](ConvertOptions* o) { o->preset = "mobile_4gb", o->target = "gguf"; }, {"coreml onnx"}},
      {[](ConvertOptions* o) { o->kv = "explicit", o->cache = "fixed"; }, {"fixed", "dynamic"}},
      {[](ConvertOptions* o) { o->kv = "explicit", o->graph = "logits-only"; }, {"logits-only"}},
      {[](ConvertOptions* o) { o->kv = "explicit", o->kvq = "u4"; }, {"u4", "u8 nf4"}},
      {[](ConvertOptions* o) { o->kv = "explicit", o->kvq = "u8", o->kvq_group = 48; },
       {"--kvq-group", "64"}},
      {[](ConvertOptions* o) { o->kv = "explicit", o->page_len = -1; }, {"--page-len"}},
      {[](ConvertOptions* o) { o->kv = "explicit", o->sink_tokens = 2; },
       {"--sink-tokens", "--page-len"}},
      {[](ConvertOptions* o) { o->kvq = "u8"; }, {"--kvq", "--kv explicit"}},
      {[](ConvertOptions* o) { o->page_len = 8; }, {"--page-len", "--kv explicit"}},
      {[](ConvertOptions* o) { o->cache = "fixed"; }, {"--cache", "--kv explicit"}},
  };
  for (const Case& c : cases) {
    ConvertOptions made = options();
    c.change(&made);
    const auto report = convert(made, {});
    ASSERT_FALSE(report.ok()) << c.words[0];
    EXPECT_EQ(report.status().code(), StatusCode::kUsage) << report.status().to_string();
    for (const char* word : c.words)
      EXPECT_NE(report.status().to_string().find(word), std::string::npos)
          << report.status().to_string();
    EXPECT_TRUE(folder_.names().empty());
  }
}

// The same flags give the same bytes, sidecars included.
TEST_F(KvPlanTest, SameBytesTwice) {
  std::string hashes[2];
  for (std::string& hash : hashes) {
    ConvertOptions made = options("coreml");
    made.preset = "mobile_4gb";
    WorkContext work;
    work.threads = &hash == &hashes[0] ? 1 : 2;
    const auto report = convert(made, work);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    hash = report->tree_hash;
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

}  // namespace
}  // namespace pome
