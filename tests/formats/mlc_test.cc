#include "formats/mlc.h"

#include <gtest/gtest.h>

#include <map>

#include "base/md5.h"
#include "base/temp_folder.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "malformed/mlc_text.h"

namespace pome {
namespace {

using malformed::valid_mlc_cache;

std::string changed(const std::string& from, const std::string& to) {
  std::string text = valid_mlc_cache();
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}
std::string repeated(std::string text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(MlcCacheTest, ReadsWhatIsThere) {
  const auto cache = parse_mlc_cache(valid_mlc_cache(), "cache");
  ASSERT_TRUE(cache.ok()) << cache.status().to_string();
  ASSERT_EQ(cache->shards.size(), 1u);
  EXPECT_EQ(cache->shards[0].file, "params_shard_0.bin");
  EXPECT_EQ(cache->shards[0].bytes, 20u);
  ASSERT_EQ(cache->tensors.size(), 2u);
  EXPECT_EQ(cache->tensors[0].name, "a");
  EXPECT_EQ(cache->tensors[0].shape, (Shape{2, 3}));
  EXPECT_EQ(cache->tensors[0].encoding, EncodingKind::kF16);
  EXPECT_EQ(cache->tensors[1].offset, 12u);
  EXPECT_EQ(cache->tensors[1].encoding, EncodingKind::kF32);
  EXPECT_EQ(cache->metadata["ParamSize"], 2);
}

TEST(MlcCacheTest, FloatsMayBeStoredAsBfloat16) {
  std::string text =
      changed(R"("format": "f32", "nbytes": 8)", R"("format": "f32-to-bf16", "nbytes": 4)");
  const auto cache = parse_mlc_cache(text, "cache");
  ASSERT_TRUE(cache.ok()) << cache.status().to_string();
  EXPECT_EQ(cache->tensors[1].encoding, EncodingKind::kBF16);
  // It says so of float32 alone.
  text = changed(R"("dtype": "float16", "format": "raw")",
                 R"("dtype": "float16", "format": "f32-to-bf16")");
  const auto same = parse_mlc_cache(text, "cache");
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(same->tensors[0].encoding, EncodingKind::kF16);
}

TEST(MlcCacheTest, RefusesByName) {
  struct Case {
    std::string text;
    Refusal refusal;
    StatusCode code = StatusCode::kBadInput;
  };
  const std::vector<Case> cases = {
      {"", Refusal::kType},
      {"[]", Refusal::kType},
      {"{}", Refusal::kType},
      {repeated("[", 200) + repeated("]", 200), Refusal::kDepth},
      {changed(R"("metadata": {)", R"("metadata": 1, "x": {)"), Refusal::kType},
      {changed(R"("records": [{)", R"("records": [1, {)"), Refusal::kType},
      {changed(R"("params_shard_0.bin")", "7"), Refusal::kType},
      {changed("params_shard_0.bin", "../weights.bin"), Refusal::kPath},
      {changed("params_shard_0.bin", "/etc/passwd"), Refusal::kPath},
      {changed("raw-shard", "zip"), Refusal::kType, StatusCode::kUnsupported},
      {changed(R"("nbytes": 20)", R"("nbytes": -20)"), Refusal::kType},
      {changed(R"("nbytes": 20)", R"("nbytes": 2e1)"), Refusal::kType},
      {changed(R"("nbytes": 20)", R"("nbytes": 19)"), Refusal::kBounds},
      {changed("00000000000000000000000000000000", "12"), Refusal::kRange},
      {changed(R"("name": "b")", R"("name": "a")"), Refusal::kDup},
      {changed(R"("name": "b")", R"("nom": "b")"), Refusal::kType},
      {changed("[2, 3]", "[2, -3]"), Refusal::kType},
      {changed("[2, 3]", "[2, 3.5]"), Refusal::kType},
      {changed("[2, 3]", "[1, 1, 1, 1, 1, 1, 1, 2, 3]"), Refusal::kLimit},
      {changed("[2, 3]", "[4000000000, 4000000000]"), Refusal::kOverflow},
      {changed("[2, 3]", "[18446744073709551615, 3]"), Refusal::kType},
      {changed("[2, 3]", "[2, 4]"), Refusal::kRange},
      {changed("float16", "float8_e4m3fn"), Refusal::kType, StatusCode::kUnsupported},
      {changed(R"("byteOffset": 12)", R"("byteOffset": 13)"), Refusal::kBounds},
      {changed(R"("byteOffset": 12)", R"("byteOffset": 18446744073709551615)"), Refusal::kBounds},
      {changed(R"("byteOffset": 12)", R"("byteOffset": 10)"), Refusal::kOverlap},
      {valid_mlc_cache() + "x", Refusal::kType},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto cache = parse_mlc_cache(cases[i].text, "cache");
    ASSERT_FALSE(cache.ok()) << i;
    EXPECT_EQ(cache.status().refusal(), cases[i].refusal) << i << cache.status().to_string();
    EXPECT_EQ(cache.status().code(), cases[i].code) << i << cache.status().to_string();
    EXPECT_EQ(cache.status().file(), "cache") << i;
  }
}

class MlcWriterTest : public testing::Test {
 protected:
  std::unique_ptr<MlcWriter> make(const std::vector<MlcWriter::Declared>& tensors) {
    auto writer = MlcWriter::create(folder_.path(), tensors);
    EXPECT_TRUE(writer.ok()) << writer.status().to_string();
    return std::move(*writer);
  }
  TempFolder folder_{true};
};

// Sizes in MiB, by the rule of TVM's writer.
TEST_F(MlcWriterTest, GathersTensorsInShards) {
  const auto sharding = [&](const std::vector<int64_t>& sizes) {
    std::vector<MlcWriter::Declared> declared;
    for (size_t i = 0; i < sizes.size(); ++i)
      declared.push_back({std::to_string(i), {sizes[i], 1 << 18}, EncodingKind::kF32});
    std::string out;
    const auto writer = make(declared);
    for (const MlcTensor& tensor : writer->cache().tensors)
      out += std::to_string(tensor.shard) + "+" + std::to_string(tensor.offset >> 20) + " ";
    return out;
  };
  EXPECT_EQ(sharding({10, 10, 10}), "0+0 0+10 0+20 ");
  EXPECT_EQ(sharding({10, 10, 12}), "0+0 0+10 1+0 ");  // 32 is full
  EXPECT_EQ(sharding({10, 20, 5}), "0+0 0+10 1+0 ");
  EXPECT_EQ(sharding({10, 40, 10}), "1+0 0+0 1+10 ");  // alone, and first complete
  EXPECT_EQ(sharding({20, 16, 10}), "1+0 0+0 1+20 ");  // half of the limit is enough
  EXPECT_EQ(sharding({20, 15, 10}), "0+0 1+0 1+15 ");
  EXPECT_EQ(sharding({20}), "0+0 ");
  EXPECT_EQ(sharding({40, 40}), "0+0 1+0 ");
}

TEST_F(MlcWriterTest, WhatIsWrittenIsReadBack) {
  const auto writer = make({{"a.q_weight", {2, 2}, EncodingKind::kI32},
                            {"a.q_scale", {2, 1}, EncodingKind::kF16},
                            {"b", {3}, EncodingKind::kF32},
                            {"empty", {0, 4}, EncodingKind::kF16}});
  std::vector<std::byte> bytes(16);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i + 1);
  const std::span<const std::byte> all(bytes);
  // In any order.
  ASSERT_TRUE(writer->write(2, 4, all.first(8)).ok());
  ASSERT_TRUE(writer->write(0, 8, all.subspan(8)).ok());
  ASSERT_TRUE(writer->write(1, 0, all.first(4)).ok());
  ASSERT_TRUE(writer->write(0, 0, all.first(8)).ok());
  ASSERT_TRUE(writer->write(2, 0, all.subspan(12)).ok());
  ThreadPool pool(2);
  ASSERT_TRUE(writer->finish(16, &pool).ok());
  EXPECT_EQ(folder_.names(), (std::set<std::string>{"params_shard_0.bin", "tensor-cache.json",
                                                    "ndarray-cache.json"}));
  const std::string shard = slurp(folder_ / "params_shard_0.bin");
  const unsigned char expected[] = {1, 2, 3, 4, 5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16,
                                    1, 2, 3, 4, 13, 14, 15, 16, 1, 2,  3,  4,  5,  6,  7,  8};
  EXPECT_EQ(shard, std::string(reinterpret_cast<const char*>(expected), sizeof expected));
  const auto cache = read_mlc_cache(folder_.path());
  ASSERT_TRUE(cache.ok()) << cache.status().to_string();
  Md5 sum;
  sum.update(std::as_bytes(std::span(shard)));
  EXPECT_EQ(cache->shards[0].md5, sum.finish());
  EXPECT_EQ(cache->metadata["ParamSize"], 4);
  EXPECT_EQ(cache->metadata["ParamBytes"], 32.0);
  EXPECT_EQ(cache->metadata["BitsPerParam"], 16.0);
  EXPECT_EQ(slurp(folder_ / "tensor-cache.json"), slurp(folder_ / "ndarray-cache.json"));
  EXPECT_TRUE(check_mlc_sums(folder_.path(), *cache, nullptr).ok());
}

class MlcFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string shard(20, 'x');
    spit(folder_ / "params_shard_0.bin", shard);
    Md5 sum;
    sum.update(std::as_bytes(std::span(shard)));
    spit(folder_ / "tensor-cache.json", changed("00000000000000000000000000000000", sum.finish()));
    spit(folder_ / "mlc-chat-config.json", R"({"model_type": "llama", "quantization": "q0f16"})");
  }
  Status opened(bool checksums = true) {
    OpenOptions options;
    options.checksums = checksums;
    return open_checkpoint(folder_.path(), options).status();
  }
  TempFolder folder_{true};
};

TEST_F(MlcFolderTest, OpensAsACheckpoint) {
  const auto checkpoint = open_checkpoint(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  EXPECT_EQ(checkpoint->format, "mlc");
  EXPECT_EQ(checkpoint->tensors.size(), 2u);
  EXPECT_EQ(checkpoint->mlc["quantization"], "q0f16");
  EXPECT_TRUE(opened().ok());
  // Packages of older writers have the list under its old name only.
  std::filesystem::rename(folder_ / "tensor-cache.json", folder_ / "ndarray-cache.json");
  EXPECT_TRUE(opened().ok());
}

TEST_F(MlcFolderTest, NamesTheDamagedFile) {
  const auto expect = [&](Refusal refusal, const std::string& file) {
    const Status status = opened();
    EXPECT_EQ(status.refusal(), refusal) << status.to_string();
    EXPECT_EQ(status.file(), folder_ / file) << status.to_string();
    EXPECT_FALSE(status.hint().empty()) << status.to_string();
  };
  spit(folder_ / "params_shard_0.bin", std::string(19, 'x'));
  expect(Refusal::kTrunc, "params_shard_0.bin");
  spit(folder_ / "params_shard_0.bin", std::string(21, 'x'));
  expect(Refusal::kRange, "params_shard_0.bin");
  spit(folder_ / "params_shard_0.bin", std::string(19, 'x') + "y");
  expect(Refusal::kIntegrity, "params_shard_0.bin");
  EXPECT_TRUE(opened(false).ok()) << "sums are read when they are asked for";
}

TEST_F(MlcFolderTest, NamesTheFileThatIsMissing) {
  for (const char* file : {"params_shard_0.bin", "tensor-cache.json", "mlc-chat-config.json"}) {
    std::filesystem::rename(folder_ / file, folder_ / "away");
    const Status status = opened();
    EXPECT_EQ(status.code(), StatusCode::kMissing) << status.to_string();
    EXPECT_EQ(status.file(), folder_ / file) << status.to_string();
    std::filesystem::rename(folder_ / "away", folder_ / file);
  }
}

TEST_F(MlcFolderTest, RefusesConfigurationsThatSayNothing) {
  for (const char* text : {"[]", "{}", R"({"model_type": 3, "quantization": "q0f16"})", "{"}) {
    spit(folder_ / "mlc-chat-config.json", text);
    EXPECT_EQ(opened().refusal(), Refusal::kType) << text;
  }
}

TEST_F(MlcFolderTest, FollowsNoLinkOutOfTheFolder) {
  const TempFolder other(true);
  spit(other / "weights", std::string(20, 'x'));
  std::filesystem::remove(folder_ / "params_shard_0.bin");
  std::filesystem::create_symlink(other / "weights", folder_ / "params_shard_0.bin");
  EXPECT_EQ(opened().refusal(), Refusal::kLink);
}

}  // namespace
}  // namespace pome
