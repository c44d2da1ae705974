#include "formats/manifest.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/json.h"
#include "base/sha256.h"
#include "base/temp_folder.h"

namespace pome {
namespace {

class ManifestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_ / "sub/deep");
    spit(folder_ / "b.bin", std::string(3000000, 'x') + "tail");
    spit(folder_ / "sub/a.txt", "a");
    spit(folder_ / "sub/deep/empty", "");
    manifest_.name = "name \"quoted\" \xc3\xa9";
    manifest_.target = "coreml";
    manifest_.scheme = "int4";
    manifest_.model = "sub";
    manifest_.created = build_time();
    manifest_.context = 64;
    manifest_.chunk = 8;
    manifest_.parameters = 123456789012;
    manifest_.bits_per_weight = 4.5;
    manifest_.tensors = {{"head", "b.bin", 0, 10, ""},
                         {"middle", "b.bin", 1048570, 1048590, ""},
                         {"tail", "b.bin", 3000000, 4, ""},
                         {"nothing", "sub/deep/empty", 0, 0, ""}};
    ASSERT_TRUE(fill_digests(folder_.path(), &manifest_, {}).ok());
    save(to_json(manifest_));
  }
  void save(const std::string& text) { spit(folder_ / kManifestName, text); }
  Result<Manifest> read() { return read_manifest(folder_ / kManifestName); }
  std::vector<std::string> findings(const Manifest& manifest) {
    const auto found = check_integrity(folder_.path(), manifest, {});
    EXPECT_TRUE(found.ok()) << found.status().to_string();
    std::vector<std::string> out;
    if (found.ok())
      for (const IntegrityFinding& f : *found)
        out.push_back(f.file + "|" + f.tensor + "|" + f.problem);
    return out;
  }

  TempFolder folder_;
  Manifest manifest_;
};

TEST_F(ManifestTest, ThereAndBack) {
  const auto read_back = read();
  ASSERT_TRUE(read_back.ok()) << read_back.status().to_string();
  EXPECT_EQ(to_json(*read_back), to_json(manifest_));
  EXPECT_EQ(read_back->parameters, 123456789012);
  ASSERT_EQ(read_back->files.size(), 3u);
  EXPECT_EQ(read_back->files[0].path, "b.bin");
  EXPECT_EQ(read_back->files[1].path, "sub/a.txt");
  EXPECT_EQ(read_back->files[2].path, "sub/deep/empty");
  EXPECT_EQ(read_back->files[1].sha256, to_hex(sha256("a")));
  EXPECT_EQ(read_back->tensors[2].sha256, to_hex(sha256("tail")));
  EXPECT_EQ(
      read_back->tree_hash,
      to_hex(sha256("b.bin 3000004 " + manifest_.files[0].sha256 + "\nsub/a.txt 1 " +
                    to_hex(sha256("a")) + "\nsub/deep/empty 0 " + to_hex(sha256("")) + "\n")));
  EXPECT_TRUE(findings(*read_back).empty());
}

TEST_F(ManifestTest, FindingsNameFileAndTensor) {
  using Lines = std::vector<std::string>;
  const auto damage = [&](size_t at) {
    std::string bytes = std::string(3000000, 'x') + "tail";
    bytes[at] = '!';
    spit(folder_ / "b.bin", bytes);
    return findings(manifest_);
  };
  EXPECT_EQ(damage(0), Lines{"b.bin|head|SHA-256 differs"});
  EXPECT_EQ(damage(9), Lines{"b.bin|head|SHA-256 differs"});
  EXPECT_EQ(damage(10), Lines{"b.bin||SHA-256 differs"});
  EXPECT_EQ(damage(1048569), Lines{"b.bin||SHA-256 differs"});
  EXPECT_EQ(damage(1048570), Lines{"b.bin|middle|SHA-256 differs"});
  EXPECT_EQ(damage(2097159), Lines{"b.bin|middle|SHA-256 differs"});
  EXPECT_EQ(damage(2097160), Lines{"b.bin||SHA-256 differs"});
  EXPECT_EQ(damage(3000003), Lines{"b.bin|tail|SHA-256 differs"});

  spit(folder_ / "b.bin", "short");
  std::filesystem::remove(folder_ / "sub/a.txt");
  spit(folder_ / "sub/new", "?");
  EXPECT_EQ(findings(manifest_),
            (Lines{"b.bin||has 5 bytes, the manifest says 3000004", "sub/a.txt||is missing",
                   "sub/new||is not listed in the manifest"}));
}

TEST_F(ManifestTest, ATreeHashThatDoesNotBelong) {
  Manifest changed = manifest_;
  changed.files[1].size += 1;
  EXPECT_EQ(findings(changed).size(), 2u);  // the tree hash and the size
}

TEST_F(ManifestTest, TheOrderOfTheFilesDoesNotMatter) {
  Manifest changed = manifest_;
  std::swap(changed.files[0], changed.files[2]);
  EXPECT_TRUE(findings(changed).empty());
}

TEST_F(ManifestTest, MalformedOnesAreRefused) {
  const Json good = *parse_json(to_json(manifest_), "");
  const auto refusal = [&](const std::function<void(Json*)>& change) {
    Json json = good;
    change(&json);
    save(json.dump());
    const auto manifest = read();
    EXPECT_FALSE(manifest.ok()) << json.dump().substr(0, 300);
    if (manifest.ok()) return Refusal::kNone;
    EXPECT_EQ(exit_code(manifest.status().code()), 3);
    EXPECT_NE(manifest.status().to_string().find(kManifestName), std::string::npos);
    return manifest.status().refusal();
  };
  EXPECT_EQ(refusal([](Json* j) { *j = Json::array(); }), Refusal::kType);
  EXPECT_EQ(refusal([](Json* j) { (*j)["schema"] = 2; }), Refusal::kVersion);
  EXPECT_EQ(refusal([](Json* j) { (*j)["schema"] = "1"; }), Refusal::kVersion);
  EXPECT_EQ(refusal([](Json* j) { (*j)["schema"] = 1.5; }), Refusal::kVersion);
  for (const char* key : {"name", "version", "target", "scheme", "model", "created", "graph_hash",
                          "tree_hash", "context", "chunk", "parameters", "files", "tensors"}) {
    EXPECT_EQ(refusal([&](Json* j) { j->erase(key); }), Refusal::kType) << key;
    EXPECT_EQ(refusal([&](Json* j) { (*j)[key] = nullptr; }), Refusal::kType) << key;
  }
  EXPECT_EQ(refusal([](Json* j) { (*j)["context"] = -1; }), Refusal::kType);
  EXPECT_EQ(refusal([](Json* j) { (*j)["license"]["id"] = 3; }), Refusal::kType);
  for (const char* path :
       {"", "/", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "./a", "a/.", "a\\b"}) {
    EXPECT_EQ(refusal([&](Json* j) { (*j)["model"] = path; }), Refusal::kPath) << path;
    EXPECT_EQ(refusal([&](Json* j) { (*j)["files"][0]["path"] = path; }), Refusal::kPath) << path;
  }
  EXPECT_EQ(refusal([](Json* j) { (*j)["model"] = std::string("a\0b", 3); }), Refusal::kPath);
  EXPECT_EQ(refusal([](Json* j) { (*j)["files"][1]["path"] = "b.bin"; }), Refusal::kDup);
  EXPECT_EQ(refusal([](Json* j) { (*j)["files"][0]["sha256"] = std::string(64, 'G'); }),
            Refusal::kRange);
  EXPECT_EQ(refusal([](Json* j) { (*j)["files"][0]["sha256"] = std::string(63, 'a'); }),
            Refusal::kRange);
  EXPECT_EQ(refusal([](Json* j) { (*j)["files"][0] = 1; }), Refusal::kType);
  EXPECT_EQ(refusal([](Json* j) { (*j)["tensors"][0] = "x"; }), Refusal::kType);
  EXPECT_EQ(refusal([](Json* j) { (*j)["tensors"][0]["file"] = "other"; }), Refusal::kPath);
  EXPECT_EQ(refusal([](Json* j) { (*j)["tensors"][0].erase("offset"); }), Refusal::kType);

  save("");
  EXPECT_FALSE(read().ok());
  std::filesystem::remove(folder_ / kManifestName);
  EXPECT_EQ(read().status().code(), StatusCode::kMissing);
}

TEST_F(ManifestTest, TensorsOutsideTheirFileDoNoHarm) {
  Json json = *parse_json(to_json(manifest_), "");
  json["tensors"][0]["offset"] = 18446744073709551615ull;
  json["tensors"][1]["size"] = 18446744073709551615ull;
  save(json.dump());
  const auto manifest = read();
  ASSERT_TRUE(manifest.ok()) << manifest.status().to_string();
  std::string bytes = slurp(folder_ / "b.bin");
  bytes[3000001] = '!';
  spit(folder_ / "b.bin", bytes);
  EXPECT_EQ(findings(*manifest), std::vector<std::string>{"b.bin|tail|SHA-256 differs"});
}

TEST_F(ManifestTest, LinksAndSpecialFilesAreRefused) {
  std::filesystem::create_symlink("b.bin", folder_ / "sub/link");
  const auto link = check_integrity(folder_.path(), manifest_, {});
  ASSERT_FALSE(link.ok());
  EXPECT_EQ(link.status().refusal(), Refusal::kLink);
  std::filesystem::remove(folder_ / "sub/link");
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(list_files(folder_.path()).status().refusal(), Refusal::kLink);
  EXPECT_EQ(list_files(folder_ / "none").status().code(), StatusCode::kMissing);
}

TEST_F(ManifestTest, Cancelled) {
  CancelToken cancel;
  cancel.cancel();
  WorkContext work;
  work.cancel = &cancel;
  EXPECT_EQ(check_integrity(folder_.path(), manifest_, work).status().code(),
            StatusCode::kInterrupted);
  EXPECT_EQ(fill_digests(folder_.path(), &manifest_, work).code(), StatusCode::kInterrupted);
}

}  // namespace
}  // namespace pome
