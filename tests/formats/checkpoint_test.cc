#include "formats/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "formats/gguf.h"
#include "malformed/back_ends.h"
#include "malformed/pytorch_bytes.h"
#include "malformed/safetensors_bytes.h"

namespace pome {
namespace {

using namespace malformed;  // NOLINT: builders of the test

constexpr const char* kConfig = R"({"model_type":"llama","hidden_size":4})";

std::string shard(const std::string& name, uint64_t elements) {
  const std::string n = std::to_string(elements);
  return SafetensorsBytes{
      "{" + tensor_json(name, "I8", "[" + n + "]", "[0," + n + "]") + "}", elements, {}}
      .build();
}
std::string index_of(const std::string& map, const std::string& total) {
  return "{\"metadata\":{\"total_size\":" + total + "},\"weight_map\":{" + map + "}}";
}
const std::string kTwoShards =
    R"("a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors")";

void write_two_shards(const TempFolder& folder, const std::string& index) {
  folder.write("config.json", kConfig);
  folder.write("model-00001-of-00002.safetensors", shard("a", 3));
  folder.write("model-00002-of-00002.safetensors", shard("b", 5));
  folder.write("model.safetensors.index.json", index);
}
bool warns_of(const Checkpoint& checkpoint, std::string_view text) {
  for (const std::string& warning : checkpoint.warnings) {
    if (warning.find(text) != std::string::npos) return true;
  }
  return false;
}

TEST(Checkpoint, OpensAFolderOrTheFileInIt) {
  const TempFolder folder;
  folder.write("config.json", kConfig);
  folder.write("generation_config.json", R"({"do_sample":true})");
  folder.write("chat_template.jinja", "x");
  folder.write("notes.txt", "x");
  const std::string file = folder.write("model.safetensors", valid_safetensors().build());
  for (const std::string& path : {folder.path(), folder.path() + "/", file}) {
    for (const bool mapped : {true, false}) {
      OpenOptions options;
      options.mapped = mapped;
      const auto checkpoint = open_checkpoint(path, options);
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
      EXPECT_EQ(checkpoint->format, "safetensors");
      EXPECT_EQ(checkpoint->path, path);
      EXPECT_EQ(checkpoint->config["hidden_size"], 4);
      EXPECT_EQ(checkpoint->generation_config["do_sample"], true);
      EXPECT_TRUE(checkpoint->gguf.is_null());
      EXPECT_EQ(checkpoint->tensors.size(), 4u);
      const CheckpointTensor* a = checkpoint->find("a");
      ASSERT_NE(a, nullptr);
      EXPECT_EQ(a->shape, (Shape{2, 3}));
      EXPECT_EQ(a->encoding, Encoding::plain(EncodingKind::kF32));
      EXPECT_EQ(a->bytes, 24u);
      std::byte first;
      ASSERT_TRUE(a->source->read(a->offset, {&first, 1}).ok());
      EXPECT_EQ(first, std::byte{0x30});
      EXPECT_EQ(checkpoint->find("c"), nullptr);
      EXPECT_EQ(checkpoint->sidecars.size(), 3u);
      EXPECT_TRUE(checkpoint->sidecars.contains("chat_template.jinja"));
      EXPECT_TRUE(warns_of(*checkpoint, "tokenizer"));
    }
  }
}

TEST(Checkpoint, KeepsBuffersOfOtherTypesAndRefusesUnknownFloats) {
  const TempFolder folder;
  const auto with = [&](const std::string& dtype, int bytes) {
    const std::string span = "[0," + std::to_string(bytes) + "]";
    return open_checkpoint(folder.write(
        "t.safetensors",
        SafetensorsBytes{
            "{" + tensor_json("t", dtype, "[1]", span) + "}", static_cast<uint64_t>(bytes), {}}
            .build()));
  };
  const std::tuple<std::string, int, EncodingKind> cases[] = {
      {"I64", 8, EncodingKind::kI64},        {"U64", 8, EncodingKind::kI64},
      {"BOOL", 1, EncodingKind::kI8},        {"U8", 1, EncodingKind::kI8},
      {"U16", 2, EncodingKind::kI16},        {"U32", 4, EncodingKind::kI32},
      {"BF16", 2, EncodingKind::kBF16},      {"F64", 8, EncodingKind::kF64},
      {"F8_E4M3", 1, EncodingKind::kF8E4M3}, {"F8_E5M2", 1, EncodingKind::kF8E5M2}};
  for (const auto& [dtype, bytes, kind] : cases) {
    const auto checkpoint = with(dtype, bytes);
    ASSERT_TRUE(checkpoint.ok()) << dtype << checkpoint.status().to_string();
    EXPECT_EQ(checkpoint->tensors[0].encoding, Encoding::plain(kind)) << dtype;
    EXPECT_TRUE(warns_of(*checkpoint, "config.json")) << dtype;
  }
  const auto small = with("F8_E8M0", 1);
  ASSERT_FALSE(small.ok());
  EXPECT_EQ(small.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(small.status().message().find("F8_E8M0"), std::string::npos);
}

TEST(Checkpoint, OpensShardsByTheirIndex) {
  const TempFolder folder;
  write_two_shards(folder, index_of(kTwoShards, "8"));
  for (const std::string& path : {folder.path(), folder.file("model-00002-of-00002.safetensors"),
                                  folder.file("model.safetensors.index.json")}) {
    OpenOptions options;
    options.strict = true;
    const auto checkpoint = open_checkpoint(path, options);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    ASSERT_EQ(checkpoint->tensors.size(), 2u);
    EXPECT_EQ(checkpoint->find("b")->bytes, 5u);
    EXPECT_EQ(checkpoint->config["hidden_size"], 4);
  }
  std::filesystem::remove(folder.file("model.safetensors.index.json"));
  EXPECT_TRUE(open_checkpoint(folder.path()).ok());  // all shards are there
  std::filesystem::remove(folder.file("model-00001-of-00002.safetensors"));
  folder.write("model-00003-of-00002.safetensors", shard("c", 1));
  EXPECT_EQ(open_checkpoint(folder.path()).status().code(), StatusCode::kMissing);
}

TEST(Checkpoint, RefusesABadIndex) {  // row 89
  struct Case {
    std::string name, map, total;
    Refusal refusal;
    StatusCode code = StatusCode::kBadInput;
  };
  const std::string second = R"(,"b":"model-00002-of-00002.safetensors")";
  const Case cases[] = {
      {"shard missing", R"("a":"model-00001-of-00002.safetensors","b":"gone.safetensors")", "8",
       Refusal::kRange, StatusCode::kMissing},
      {"outside", "\"a\":\"../x.safetensors\"" + second, "8", Refusal::kPath},
      {"outside later", "\"a\":\"x/../../y.safetensors\"" + second, "8", Refusal::kPath},
      {"absolute", "\"a\":\"/etc/x.safetensors\"" + second, "8", Refusal::kPath},
      {"backslash", "\"a\":\"..\\\\x.safetensors\"" + second, "8", Refusal::kPath},
      {"empty", "\"a\":\"\"" + second, "8", Refusal::kPath},
      {"not in shard", "\"z\":\"model-00001-of-00002.safetensors\"" + second, "8", Refusal::kRange},
      {"duplicate", kTwoShards + "," + kTwoShards, "8", Refusal::kDup},
      {"number", R"("a":1)", "8", Refusal::kType},
      {"total is text", kTwoShards, "\"8\"", Refusal::kType},
  };
  for (const Case& c : cases) {
    const TempFolder folder;
    write_two_shards(folder, index_of(c.map, c.total));
    const auto checkpoint = open_checkpoint(folder.path());
    ASSERT_FALSE(checkpoint.ok()) << c.name;
    EXPECT_EQ(checkpoint.status().refusal(), c.refusal) << checkpoint.status().to_string();
    EXPECT_EQ(checkpoint.status().code(), c.code) << c.name;
    EXPECT_FALSE(checkpoint.status().file().empty()) << c.name;
    EXPECT_FALSE(checkpoint.status().to_string().empty());
  }
  const TempFolder folder;
  write_two_shards(folder, index_of(kTwoShards, "8"));
  folder.write("model-00002-of-00002.safetensors",
               SafetensorsBytes{"{" + tensor_json("a", "I8", "[1]", "[0,1]") + "," +
                                    tensor_json("b", "I8", "[1]", "[1,2]") + "}",
                                2,
                                {}}
                   .build());
  EXPECT_EQ(open_checkpoint(folder.path()).status().refusal(), Refusal::kRange);  // a in both
  folder.write("model.safetensors.index.json", "{}");
  EXPECT_EQ(open_checkpoint(folder.path()).status().refusal(), Refusal::kType);
}

TEST(Checkpoint, AWrongTotalSizeIsAWarningUnlessStrict) {
  const TempFolder folder;
  write_two_shards(folder, index_of(kTwoShards, "9"));
  const auto checkpoint = open_checkpoint(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  EXPECT_TRUE(warns_of(*checkpoint, "total_size"));
  OpenOptions options;
  options.strict = true;
  EXPECT_EQ(open_checkpoint(folder.path(), options).status().refusal(), Refusal::kRange);
  write_two_shards(folder, index_of(R"("a":"model-00001-of-00002.safetensors")", "3"));
  EXPECT_EQ(open_checkpoint(folder.path())->tensors.size(), 1u);
}

TEST(Checkpoint, FollowsLinksOfALocalCache) {  // row 128
  const TempFolder blobs, folder;
  blobs.write("0123", valid_safetensors().build());
  blobs.write("4567", kConfig);
  std::filesystem::create_symlink(blobs.file("0123"), folder.file("model.safetensors"));
  std::filesystem::create_symlink(blobs.file("4567"), folder.file("config.json"));
  const auto checkpoint = open_checkpoint(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  EXPECT_EQ(checkpoint->config["hidden_size"], 4);
}

TEST(Checkpoint, RefusesOddConfigs) {  // row 127
  const TempFolder folder;
  folder.write("model.safetensors", valid_safetensors().build());
  ASSERT_EQ(::mkfifo(folder.file("config.json").c_str(), 0600), 0);
  EXPECT_EQ(open_checkpoint(folder.path()).status().refusal(), Refusal::kType);
  std::filesystem::remove(folder.file("config.json"));
  folder.write("config.json", "{}");
  std::filesystem::resize_file(folder.file("config.json"), 10000000000ull);
  EXPECT_EQ(open_checkpoint(folder.path()).status().refusal(), Refusal::kLimit);
  std::filesystem::resize_file(folder.file("config.json"), 0);
  folder.write("config.json", "[]");
  EXPECT_EQ(open_checkpoint(folder.path()).status().refusal(), Refusal::kType);
  folder.write("config.json", std::string(100000, '['));
  EXPECT_EQ(open_checkpoint(folder.path()).status().refusal(), Refusal::kDepth);
}

TEST(Checkpoint, SaysWhatAFolderHolds) {
  const auto status_of = [](const TempFolder& folder) {
    const auto checkpoint = open_checkpoint(folder.path());
    EXPECT_FALSE(checkpoint.ok());
    return checkpoint.status();
  };
  const TempFolder empty;
  EXPECT_EQ(status_of(empty).code(), StatusCode::kMissing);
  EXPECT_EQ(open_checkpoint(empty.file("absent")).status().code(), StatusCode::kMissing);

  const TempFolder pickles;
  pickles.write("pytorch_model.bin", "x");
  EXPECT_EQ(status_of(pickles).refusal(), Refusal::kTrunc);
  const std::string zip = pickles.write("model.pth", std::string("PK\3\4") + std::string(40, '\0'));
  EXPECT_EQ(open_checkpoint(zip).status().refusal(), Refusal::kTrunc);
  const std::string noise = pickles.write("noise", std::string(40, '\x05'));
  EXPECT_EQ(open_checkpoint(noise).status().refusal(), Refusal::kMagic);

  const TempFolder several;
  several.write("one.gguf", valid_gguf().build());
  EXPECT_TRUE(open_checkpoint(several.path()).ok());
  several.write("two.gguf", valid_gguf().build());
  EXPECT_EQ(status_of(several).code(), StatusCode::kUsage);
  EXPECT_NE(status_of(several).message().find("two.gguf"), std::string_view::npos);
  several.write("x.safetensors", shard("x", 1));
  several.write("y.safetensors", shard("y", 1));
  EXPECT_EQ(status_of(several).code(), StatusCode::kUsage);
}

TEST(Checkpoint, TellsTheFormatFromTheContent) {
  const TempFolder folder;
  const std::string gguf = folder.write("weights.bin", valid_gguf().build());
  EXPECT_EQ(open_checkpoint(gguf)->format, "gguf");
  const std::string tensors = folder.write("weights.dat", valid_safetensors().build());
  EXPECT_EQ(open_checkpoint(tensors)->format, "safetensors");
  const std::string pointer = folder.write(
      "weights.x", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  EXPECT_NE(open_checkpoint(pointer).status().message().find("Git LFS"), std::string::npos);
  EXPECT_EQ(open_checkpoint(folder.write("empty.gguf", "")).status().refusal(), Refusal::kTrunc);
  EXPECT_EQ(open_checkpoint(folder.write("e.safetensors", "")).status().refusal(), Refusal::kTrunc);
}

TEST(Checkpoint, SaysWhereATensorIsThatTheIndexMisplaces) {
  const TempFolder folder;
  write_two_shards(folder, index_of(R"("b":"model-00001-of-00002.safetensors",)"
                                    R"("a":"model-00002-of-00002.safetensors")",
                                    "8"));
  const Status status = open_checkpoint(folder.path()).status();
  EXPECT_EQ(status.refusal(), Refusal::kRange);
  EXPECT_NE(status.message().find("but it is in \"model-0000"), std::string_view::npos)
      << status.to_string();
}

TEST(Checkpoint, NamesAllMissingShardsAndTensorsThatTheIndexDoesNotKnow) {
  const TempFolder folder;
  write_two_shards(folder, index_of(kTwoShards, "8"));
  std::filesystem::remove(folder.file("model-00001-of-00002.safetensors"));
  std::filesystem::remove(folder.file("model-00002-of-00002.safetensors"));
  const Status missing = open_checkpoint(folder.path()).status();
  EXPECT_EQ(missing.code(), StatusCode::kMissing);
  EXPECT_NE(missing.message().find("00001-of"), std::string_view::npos) << missing.to_string();
  EXPECT_NE(missing.message().find("00002-of"), std::string_view::npos) << missing.to_string();

  write_two_shards(folder, index_of(kTwoShards, "10"));
  folder.write("model-00002-of-00002.safetensors",
               SafetensorsBytes{"{" + tensor_json("b", "I8", "[5]", "[0,5]") + "," +
                                    tensor_json("extra", "I8", "[2]", "[5,7]") + "}",
                                7,
                                {}}
                   .build());
  const auto checkpoint = open_checkpoint(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  EXPECT_TRUE(warns_of(*checkpoint, "\"extra\""));
  OpenOptions options;
  options.strict = true;
  EXPECT_EQ(open_checkpoint(folder.path(), options).status().refusal(), Refusal::kRange);
}

TEST(Checkpoint, NeedsAllShardsAlsoWithoutAnIndex) {
  const TempFolder folder;
  write_two_shards(folder, "");
  std::filesystem::remove(folder.file("model.safetensors.index.json"));
  const std::string second = folder.file("model-00002-of-00002.safetensors");
  EXPECT_EQ(open_checkpoint(second)->tensors.size(), 2u);
  std::filesystem::remove(folder.file("model-00001-of-00002.safetensors"));
  for (const std::string& path : {second, folder.path()}) {
    const Status status = open_checkpoint(path).status();
    EXPECT_EQ(status.code(), StatusCode::kMissing);
    EXPECT_NE(status.message().find("model-00001-of-00002"), std::string_view::npos)
        << status.to_string();
  }
}

// ---- PyTorch -----------------------------------------------------------------------------------

std::string pytorch_shard(const std::string& name, int64_t elements) {
  return torch_archive(
             pickle_of(py_dict({py_text(name), py_tensor(py_storage("CharStorage", "0", elements),
                                                         0, {elements}, {1})})),
             {counting_bytes(static_cast<size_t>(elements))})
      .build();
}

TEST(Checkpoint, OpensPytorchFilesAndFoldersOfThem) {
  const TempFolder folder;
  folder.write("config.json", kConfig);
  folder.write("training_args.bin", "not a model");
  folder.write("optimizer.pt", "not a model");
  const std::string file = folder.write("pytorch_model.bin", valid_pytorch().build());
  for (const std::string& path : {folder.path(), file}) {
    for (const bool mapped : {true, false}) {
      OpenOptions options;
      options.strict = options.checksums = true;
      options.mapped = mapped;
      const auto checkpoint = open_checkpoint(path, options);
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
      EXPECT_EQ(checkpoint->format, "pytorch");
      EXPECT_EQ(checkpoint->config["hidden_size"], 4);
      ASSERT_EQ(checkpoint->tensors.size(), 5u);
      EXPECT_EQ(checkpoint->find("a")->encoding, Encoding::plain(EncodingKind::kF32));
      EXPECT_EQ(checkpoint->find("b")->encoding, Encoding::plain(EncodingKind::kBF16));
      EXPECT_EQ(checkpoint->find("t")->shape, (Shape{3, 2}));
    }
  }
  // Told by its content, and behind safetensors where a folder has both.
  EXPECT_EQ(open_checkpoint(folder.write("weights", valid_pytorch().build()))->format, "pytorch");
  folder.write("model.safetensors", valid_safetensors().build());
  EXPECT_EQ(open_checkpoint(folder.path())->format, "safetensors");
}

TEST(Checkpoint, OpensPytorchShards) {
  const std::string map =
      R"("a":"pytorch_model-00001-of-00002.bin","b":"pytorch_model-00002-of-00002.bin")";
  const TempFolder folder;
  folder.write("config.json", kConfig);
  folder.write("pytorch_model-00001-of-00002.bin", pytorch_shard("a", 3));
  const std::string second =
      folder.write("pytorch_model-00002-of-00002.bin", pytorch_shard("b", 5));
  const std::string index = folder.write("pytorch_model.bin.index.json", index_of(map, "8"));
  OpenOptions options;
  options.strict = true;
  for (const std::string& path : {folder.path(), second, index}) {
    const auto checkpoint = open_checkpoint(path, options);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    EXPECT_EQ(checkpoint->format, "pytorch");
    ASSERT_EQ(checkpoint->tensors.size(), 2u);
    EXPECT_EQ(checkpoint->find("b")->bytes, 5u);
  }
  folder.write("pytorch_model-00002-of-00002.bin", pytorch_shard("a", 5));
  EXPECT_EQ(open_checkpoint(folder.path()).status().refusal(), Refusal::kRange);
  std::filesystem::remove(second);
  EXPECT_EQ(open_checkpoint(folder.path()).status().code(), StatusCode::kMissing);
  std::filesystem::remove(index);
  EXPECT_EQ(open_checkpoint(folder.path()).status().code(), StatusCode::kMissing);
  const TempFolder several;
  several.write("one.pth", pytorch_shard("a", 3));
  several.write("two.pth", pytorch_shard("a", 3));
  EXPECT_EQ(open_checkpoint(several.path()).status().code(), StatusCode::kUsage);
}

// ---- GGUF --------------------------------------------------------------------------------------

TEST(Checkpoint, KeepsGgufMetadataAsJson) {
  const TempFolder folder;
  GgufBytes bytes = valid_gguf();
  bytes.pairs.push_back(pair_of("tokenizer.ggml.scores", kArray, array_of(kF32, 1, le(1.0f))));
  bytes.pairs.push_back(pair_of("a.long", kArray, array_of(kU8, 4097, std::string(4097, 'x'))));
  bytes.pairs.push_back(pair_of("a.short", kArray, array_of(kU8, 4096, std::string(4096, 'x'))));
  const auto checkpoint = open_checkpoint(folder.write("m.gguf", bytes.build()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  const Json& json = checkpoint->gguf;
  EXPECT_TRUE(checkpoint->config.is_null());
  EXPECT_EQ(json["general.architecture"], "llama");
  EXPECT_EQ(json["t.u64"], 1ull << 63);
  EXPECT_EQ(json["t.i8"], -3);
  EXPECT_EQ(json["t.f32"], 1.5);
  EXPECT_EQ(json["t.bool"], true);
  EXPECT_EQ(json["a.i32"], (Json::array({1, -2, 3})));
  EXPECT_EQ(json["a.bool"], (Json::array({true, false, true})));
  EXPECT_EQ(json["a.string"], (Json::array({"x", ""})));
  EXPECT_EQ(json["a.short"].size(), 4096u);
  EXPECT_FALSE(json.contains("a.long"));
  EXPECT_FALSE(json.contains("tokenizer.ggml.scores"));
  EXPECT_EQ(checkpoint->find("b.weight")->encoding, Encoding::plain(EncodingKind::kQ8_0));
}

struct Part {
  uint64_t number, count;
  std::string tensor;
  std::string architecture;
};
std::string part_bytes(const Part& part) {
  GgufBytes file;
  if (!part.architecture.empty()) {
    file.pairs.push_back(pair_of("general.architecture", kString, gguf_string(part.architecture)));
  }
  file.pairs.push_back(pair_of("split.no", kU16, le(static_cast<uint16_t>(part.number))));
  file.pairs.push_back(pair_of("split.count", kU16, le(static_cast<uint16_t>(part.count))));
  file.pairs.push_back(pair_of("split.tensors.count", kI32, le<int32_t>(3)));
  file.tensors = {{part.tensor, {8}, 0, 32, {}, {}, {}}};
  return file.build();
}
void write_parts(const TempFolder& folder, const std::vector<Part>& parts) {
  for (size_t i = 0; i < parts.size(); ++i) {
    folder.write("m-0000" + std::to_string(i + 1) + "-of-00003.gguf", part_bytes(parts[i]));
  }
}
const std::vector<Part> kParts = {{0, 3, "a", "llama"}, {1, 3, "b", ""}, {2, 3, "c", ""}};

TEST(Checkpoint, OpensSplitGguf) {
  const TempFolder folder;
  write_parts(folder, kParts);
  for (const std::string& path : {folder.path(), folder.file("m-00001-of-00003.gguf"),
                                  folder.file("m-00003-of-00003.gguf")}) {
    const auto checkpoint = open_checkpoint(path);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    ASSERT_EQ(checkpoint->tensors.size(), 3u);
    EXPECT_EQ(checkpoint->tensors[2].name, "c");
    EXPECT_EQ(checkpoint->gguf["general.architecture"], "llama");
  }
}

TEST(Checkpoint, RefusesBrokenSplits) {  // rows 47 and 48
  const auto refusal_with = [](size_t index, const Part& part, size_t named = 0) {
    const TempFolder folder;
    std::vector<Part> parts = kParts;
    parts[index] = part;
    write_parts(folder, parts);
    const auto checkpoint =
        open_checkpoint(folder.file("m-0000" + std::to_string(named + 1) + "-of-00003.gguf"));
    EXPECT_FALSE(checkpoint.ok());
    EXPECT_FALSE(checkpoint.status().file().empty());
    return checkpoint.status().refusal();
  };
  EXPECT_EQ(refusal_with(0, {3, 3, "a", "llama"}), Refusal::kRange);      // no >= count
  EXPECT_EQ(refusal_with(0, {0, 65535, "a", "llama"}), Refusal::kRange);  // count != name
  EXPECT_EQ(refusal_with(1, {1, 2, "b", ""}), Refusal::kRange);
  EXPECT_EQ(refusal_with(1, {0, 3, "b", ""}), Refusal::kRange);  // a number twice
  EXPECT_EQ(refusal_with(1, {1, 3, "b", "phi2"}), Refusal::kRange);
  EXPECT_EQ(refusal_with(2, {2, 3, "a", ""}), Refusal::kDup);
  EXPECT_EQ(refusal_with(0, {2, 1, "a", "llama"}), Refusal::kRange);  // not split, but number 2

  const TempFolder folder;
  write_parts(folder, kParts);
  std::filesystem::remove(folder.file("m-00002-of-00003.gguf"));
  const auto missing_part = open_checkpoint(folder.file("m-00001-of-00003.gguf"));
  ASSERT_FALSE(missing_part.ok());
  EXPECT_EQ(missing_part.status().code(), StatusCode::kMissing);
  EXPECT_NE(missing_part.status().message().find("missing shard 2"), std::string::npos);
  // A folder with some of the parts holds one model, not several.
  const Status in_folder = open_checkpoint(folder.path()).status();
  EXPECT_EQ(in_folder.code(), StatusCode::kMissing) << in_folder.to_string();
  std::filesystem::remove(folder.file("m-00001-of-00003.gguf"));
  EXPECT_NE(open_checkpoint(folder.path()).status().message().find("missing shard 1, 2 of 3"),
            std::string_view::npos);

  GgufBytes text = valid_gguf();
  text.pairs.push_back(pair_of("split.count", kString, gguf_string("3")));
  EXPECT_EQ(open_checkpoint(folder.write("t.gguf", text.build())).status().refusal(),
            Refusal::kType);
}

TEST(Checkpoint, TakesAMergedGguf) {  // split.count 0 is what merging leaves behind
  const TempFolder folder;
  const std::string path = folder.write("m.gguf", part_bytes({0, 0, "a", "llama"}));
  EXPECT_TRUE(open_checkpoint(path).ok());
  OpenOptions options;
  options.strict = true;
  EXPECT_EQ(open_checkpoint(path, options).status().refusal(), Refusal::kRange);
}

TEST(Checkpoint, ATokenizerCanBeRequired) {
  const TempFolder folder;
  folder.write("config.json", kConfig);
  folder.write("model.safetensors", valid_safetensors().build());
  OpenOptions options;
  options.need_tokenizer = true;
  EXPECT_EQ(open_checkpoint(folder.path(), options).status().code(), StatusCode::kMissing);
  folder.write("tokenizer.json", "{");
  EXPECT_EQ(open_checkpoint(folder.path(), options).status().code(), StatusCode::kBadInput);
  const auto without = open_checkpoint(folder.path());
  ASSERT_TRUE(without.ok());
  EXPECT_TRUE(warns_of(*without, "tokenizer"));
  const std::string gguf = folder.write("m.gguf", valid_gguf().build());
  EXPECT_EQ(open_checkpoint(gguf, options).status().code(), StatusCode::kMissing);
}

// ---- real files --------------------------------------------------------------------------------

TEST(Checkpoint, OpensTheModelOfTheRepository) {
  OpenOptions options;
  options.strict = true;
  options.need_tokenizer = true;
  const auto checkpoint = open_checkpoint(std::string(POME_SOURCE_DIR) + "/models/tales", options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  EXPECT_TRUE(checkpoint->config.is_object());
  EXPECT_NE(checkpoint->find("model.embed_tokens.weight"), nullptr);
  EXPECT_TRUE(checkpoint->sidecars.contains("tokenizer.json"));
  EXPECT_FALSE(checkpoint->tokenizer.tokens.empty());
  EXPECT_TRUE(checkpoint->warnings.empty());
}

TEST(Checkpoint, OpensModelsOfOtherTools) {
  const std::string root = std::string(POME_SOURCE_DIR) + "/../shared/data/models/";
  if (!std::filesystem::exists(root)) GTEST_SKIP() << "the models of shared/data are not here";
  const std::tuple<std::string, std::string, size_t> cases[] = {
      {"stories260K-gguf", "gguf", 48},
      {"tinystories-656k-gguf/TinyStories-656K-Q2_K.gguf", "gguf", 20},
      {"tinystories-656k-gguf/TinyStories-656K-Q8_0.gguf", "gguf", 20},
      {"tinystories-656k-hf", "safetensors", 20},
      {"gguf-controlvector", "gguf", 31},
      {"toy-transformers-safetensors/model_2digit_241K.safetensors", "safetensors", 17},
      {"toy-transformers-safetensors/reverse_model_1.6M.safetensors", "safetensors", 38}};
  OpenOptions options;
  options.strict = true;
  for (const auto& [path, format, tensors] : cases) {
    const auto checkpoint = open_checkpoint(root + path, options);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    EXPECT_EQ(checkpoint->format, format) << path;
    EXPECT_EQ(checkpoint->tensors.size(), tensors) << path;
  }
}

}  // namespace
}  // namespace pome
