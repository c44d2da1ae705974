#include "formats/kv_sidecars.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "base/temp_folder.h"

namespace pome {
namespace {

TEST(KvSidecars, WrittenAndReadBack) {
  TempFolder folder;
  KvQuantization quantization{"nf4", 32, {}};
  for (int i = 0; i < 16; ++i) quantization.codebook.push_back(i / 15.0);
  const std::string model = folder / "model.onnx";
  EXPECT_EQ(kvq_path(model), folder / "model.kvq.json");
  EXPECT_EQ(kv_paging_path("out/model.mlpackage"), "out/model.kv_paging.json");
  EXPECT_EQ(kv_paging_path("a.b/model"), "a.b/model.kv_paging.json");
  auto none = read_kv_sidecars(model);
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->any());

  spit(kvq_path(model), to_json(quantization));
  KvPaging paging;
  paging.page_len = 128;
  paging.max_pages = 3;
  paging.sink_tokens = 4;
  paging.n_layers = 2;
  paging.heads = 4;
  paging.dl = 8;
  paging.dl_per_layer = {8, 8};
  paging.element_bytes = 1.5;
  paging.bytes_per_page = 999;
  paging.state_layout = "per-layer (k_lat, v_lat)";
  spit(kv_paging_path(model), to_json(paging));
  const auto both = read_kv_sidecars(model);
  ASSERT_TRUE(both.ok()) << both.status().to_string();
  EXPECT_TRUE(both->any());
  EXPECT_EQ(both->quantization->scheme, "nf4");
  EXPECT_EQ(both->quantization->group_size, 32);
  EXPECT_EQ(both->quantization->codebook, quantization.codebook);
  EXPECT_EQ(both->paging->kept(), 4 + 3 * 128);
  EXPECT_EQ(both->paging->state_layout, paging.state_layout);
  EXPECT_EQ(both->paging->dl, 8);
  EXPECT_EQ(to_json(*both->quantization), slurp(kvq_path(model)));
}

// Files that are in use have no schema, and the calibration that is copied over model.kvq.json says
// "group".
TEST(KvSidecars, ReadsPublicFiles) {
  TempFolder folder;
  const std::string file = folder / "f.json";
  spit(file, R"({"scheme": "u8", "group": 32, "layers": {"0": {"u8_npz": "a.npz"}}})");
  const auto calibration = read_kv_quantization(file);
  ASSERT_TRUE(calibration.ok()) << calibration.status().to_string();
  EXPECT_EQ(calibration->group_size, 32);
  spit(file, R"({"scheme": "nf4", "group_size": 16, "note": "x"})");
  EXPECT_EQ(read_kv_quantization(file)->group_size, 16);
  spit(file, R"json({"paged": true, "page_len": 256, "n_layers": 2, "heads": 4, "dl": 8,
                     "state_layout": "per-layer (k_lat, v_lat)", "dl_per_layer": [8, 8]})json");
  EXPECT_EQ(read_kv_paging(file)->kept(), 4 * 256);
  spit(file, R"({"paged": false, "page_len": 256})");
  EXPECT_EQ(read_kv_paging(file)->kept(), 0);
}

TEST(KvSidecars, RefusesByName) {
  TempFolder folder;
  const std::string file = folder / "f.json";
  struct Case {
    const char* text;
    bool paging;
    StatusCode code;
    Refusal refusal;
    const char* word;
  };
  using C = StatusCode;
  using R = Refusal;
  const Case cases[] = {
      {"{", true, C::kBadInput, R::kType, "f.json"},
      {"[]", true, C::kBadInput, R::kType, "object"},
      {R"({"schema": 2})", true, C::kBadInput, R::kVersion, "schema"},
      {R"({"schema": "1"})", true, C::kBadInput, R::kType, "schema"},
      {R"({"page_len": 0})", true, C::kBadInput, R::kRange, "/page_len"},
      {R"({"page_len": "256"})", true, C::kBadInput, R::kType, "page_len"},
      {R"({"page_len": 99999999999})", true, C::kBadInput, R::kRange, "/page_len"},
      {R"({"max_pages": -1})", true, C::kBadInput, R::kRange, "/max_pages"},
      {R"({"sink_tokens": -1})", true, C::kBadInput, R::kRange, "/sink_tokens"},
      {R"({"positions": "implicit"})", true, C::kUnsupported, R::kNone, "/positions"},
      {R"({"page_len": 1, "page_len": 2})", true, C::kBadInput, R::kDup, "f.json"},
      {R"({})", false, C::kBadInput, R::kType, "/scheme"},
      {R"({"scheme": 8})", false, C::kBadInput, R::kType, "scheme"},
      {R"({"scheme": "int3"})", false, C::kUnsupported, R::kNone, "int3"},
      {R"({"scheme": "u8", "group_size": 0})", false, C::kBadInput, R::kRange, "/group_size"},
      {R"({"scheme": "u8", "graph_native": true})", false, C::kUnsupported, R::kNone, "graph"},
      {R"({"scheme": "u8", "axis": "heads"})", false, C::kUnsupported, R::kNone, "/axis"},
      {R"({"scheme": "nf4", "codebook": [1, 2]})", false, C::kBadInput, R::kType, "/codebook"},
      {R"({"scheme": "nf4", "codebook": "x"})", false, C::kBadInput, R::kType, "/codebook"},
      {R"({"schema": 1, "scheme": "u8", "layers": [{"scheme": "nf4"}]})", false, C::kUnsupported,
       R::kNone, "/layers"},
  };
  for (const Case& c : cases) {
    spit(file, c.text);
    const Status status =
        c.paging ? read_kv_paging(file).status() : read_kv_quantization(file).status();
    EXPECT_EQ(status.code(), c.code) << c.text << status.to_string();
    EXPECT_EQ(status.refusal(), c.refusal) << c.text << status.to_string();
    EXPECT_NE(status.to_string().find(c.word), std::string::npos) << status.to_string();
    EXPECT_NE(status.to_string().find("f.json"), std::string::npos) << status.to_string();
  }
}

TEST(KvSidecars, SummaryAddsUp) {
  PackagingSummary summary;
  summary.preset = "mobile_4gb";
  summary.files = {{"model.onnx", 1000}, {"model.onnx.data", 500}};
  summary.kv_tokens = 64;
  summary.kv_cache_bytes = 40;
  summary.kv_step_bytes = 60;
  summary.budget_bytes = 4'000'000'000;
  const auto json = parse_json(to_json(summary), "summary");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["weights_bytes"], 1500);
  EXPECT_EQ((*json)["total_bytes"], 1600);
  EXPECT_EQ((*json)["bytes_source"], "measured");
  EXPECT_EQ((*json)["human"]["weights"], "1.50 kB");
  EXPECT_EQ((*json)["files"][1]["bytes"], 500);
}

}  // namespace
}  // namespace pome
