#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <random>
#include <thread>
#include <vector>

#include "base/io.h"
#include "base/io_system.h"
#include "base/temp_folder.h"

namespace pome::io {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

class OutputFileTest : public testing::Test {
 protected:
  void TearDown() override { clear_fault_plan(); }
  std::unique_ptr<OutputFile> create(const std::string& name) {
    auto result = OutputFile::create(folder_ / name);
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    return std::move(*result);
  }
  TempFolder folder_;
};

TEST_F(OutputFileTest, AppendsAndPads) {
  const auto file = create("f");
  EXPECT_EQ(file->size(), 0u);
  ASSERT_TRUE(file->pad_to(64).ok());
  EXPECT_EQ(file->size(), 0u);
  ASSERT_TRUE(file->write("abc").ok());
  ASSERT_TRUE(file->pad_to(8).ok());
  EXPECT_EQ(file->size(), 8u);
  ASSERT_TRUE(file->pad_to(8).ok());
  ASSERT_TRUE(file->write("d").ok());
  ASSERT_TRUE(file->pad_to(5000).ok());
  EXPECT_EQ(file->size(), 5000u);
  ASSERT_TRUE(file->close().ok());
  std::string expected(5000, '\0');
  expected.replace(0, 3, "abc");
  expected[8] = 'd';
  EXPECT_EQ(slurp(folder_ / "f"), expected);
}

TEST_F(OutputFileTest, TruncatesWhatWasThere) {
  spit(folder_ / "f", "a longer old text");
  const auto file = create("f");
  ASSERT_TRUE(file->write("new").ok());
  ASSERT_TRUE(file->close().ok());
  EXPECT_EQ(slurp(folder_ / "f"), "new");
}

// Random appends, patches and flushes against a string that does the same: the last writer of a
// byte wins, whether the bytes under it are in the buffer, in the file or in both.
TEST_F(OutputFileTest, PatchesAndAppendsInAnyOrder) {
  std::mt19937 random(5);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 12; ++round) {
    const auto file = create("f");
    std::string model;
    size_t end = 0;
    const size_t largest = round % 3 == 0 ? 3 << 20 : 300'000;
    for (int step = 0; step < 25; ++step) {
      const std::string data(below(largest) + 1, static_cast<char>('a' + step));
      const size_t kind = below(10);
      if (kind < 5) {
        ASSERT_TRUE(file->write(data).ok());
        model.resize(std::max(model.size(), end + data.size()));
        model.replace(end, data.size(), data);
        end += data.size();
      } else if (kind < 9) {
        const size_t at = below(end + 1000);
        ASSERT_TRUE(file->write_at(at, bytes_of(data)).ok());
        model.resize(std::max(model.size(), at + data.size()));
        model.replace(at, data.size(), data);
      } else {
        ASSERT_TRUE(file->flush_behind().ok());
      }
      ASSERT_EQ(file->size(), end);
    }
    ASSERT_TRUE(file->close().ok());
    ASSERT_TRUE(slurp(folder_ / "f") == model) << "round " << round;
  }
}

TEST_F(OutputFileTest, ManyThreadsFillOneFile) {
  const auto file = create("f");
  constexpr size_t kTile = 10007, kTiles = 64;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (size_t i = t; i < kTiles; i += 4) {
        const std::string tile(kTile, static_cast<char>('A' + i % 26));
        EXPECT_TRUE(file->write_at(i * kTile, bytes_of(tile)).ok());
      }
    });
  for (auto& thread : threads) thread.join();
  ASSERT_TRUE(file->flush_behind().ok());
  ASSERT_TRUE(file->flush_behind().ok());
  ASSERT_TRUE(file->close().ok());
  std::string expected;
  for (size_t i = 0; i < kTiles; ++i) expected.append(kTile, static_cast<char>('A' + i % 26));
  EXPECT_TRUE(slurp(folder_ / "f") == expected);
}

TEST_F(OutputFileTest, FlushBehindKeepsTheContents) {
  const auto file = create("f");
  std::string expected;
  for (int i = 0; i < 20; ++i) {
    const std::string piece(300'000, static_cast<char>('a' + i));
    ASSERT_TRUE(file->write(piece).ok());
    ASSERT_TRUE(file->flush_behind().ok());
    expected += piece;
  }
  ASSERT_TRUE(file->write_at(5, bytes_of("PATCH")).ok());
  expected.replace(5, 5, "PATCH");
  ASSERT_TRUE(file->close().ok());
  EXPECT_TRUE(slurp(folder_ / "f") == expected);
}

TEST_F(OutputFileTest, ErrorsOfOpening) {
  EXPECT_EQ(OutputFile::create(folder_ / "no/such").status().code(), StatusCode::kMissing);
  EXPECT_EQ(OutputFile::create(folder_.path()).status().code(), StatusCode::kUsage);
  EXPECT_EQ(OutputFile::create("").status().code(), StatusCode::kUsage);
  EXPECT_EQ(OutputFile::create(std::string("a\0b", 3)).status().code(), StatusCode::kUsage);
  // Writing through a link would change a file that nobody named.
  spit(folder_ / "target", "old");
  ASSERT_EQ(::symlink("target", (folder_ / "link").c_str()), 0);
  EXPECT_EQ(OutputFile::create(folder_ / "link").status().code(), StatusCode::kUsage);
  EXPECT_EQ(slurp(folder_ / "target"), "old");
}

TEST_F(OutputFileTest, OffsetsBeyondAnyFileAreRefused) {
  const auto file = create("f");
  EXPECT_EQ(file->write_at(UINT64_MAX, bytes_of("x")).code(), StatusCode::kDoesNotFit);
  EXPECT_EQ(file->write_at(static_cast<uint64_t>(INT64_MAX), bytes_of("x")).code(),
            StatusCode::kDoesNotFit);
}

// A spoiled file stays spoiled: later calls and close() repeat the first error.
TEST_F(OutputFileTest, FirstErrorIsKept) {
  for (const int error : {ENOSPC, EDQUOT, EFBIG, EIO, EROFS}) {
    clear_fault_plan();
    const auto file = create("f");
    set_fault_plan({1, error, false, false, "write"});
    ASSERT_TRUE(file->write("buffered").ok());
    const std::string large(2 << 20, 'x');
    const Status status = file->write(large);
    ASSERT_FALSE(status.ok());
    const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
    EXPECT_EQ(status.code(), full             ? StatusCode::kDoesNotFit
                             : error == EROFS ? StatusCode::kUsage
                                              : StatusCode::kUnavailable);
    EXPECT_EQ(status.file(), folder_ / "f");
    EXPECT_NE(status.message().find("write"), std::string_view::npos);
    EXPECT_EQ(status.message().find("needed") != std::string_view::npos, full);
    EXPECT_FALSE(file->write("more").ok());
    EXPECT_FALSE(file->write_at(0, bytes_of("more")).ok());
    EXPECT_FALSE(file->flush_behind().ok());
    EXPECT_EQ(file->close().message(), status.message());
  }
}

TEST_F(OutputFileTest, EverySingleFaultIsReported) {
  for (const int error : {EIO, ENOSPC}) {
    uint64_t k = 1;
    for (;; ++k) {
      ASSERT_LT(k, 100u);
      set_fault_plan({k, error, false, false, ""});
      auto file = OutputFile::create(folder_ / "f");
      Status status = file.status();
      if (file.ok()) {
        for (int i = 0; i < 3; ++i) (void)(*file)->write(std::string(700'000, 'x'));
        (void)(*file)->write_at(100, bytes_of("yy"));
        status = (*file)->close();
      }
      if (operation_count() < k) {
        EXPECT_TRUE(status.ok());
        break;
      }
      EXPECT_FALSE(status.ok()) << "operation " << k << " failed and nobody said so";
    }
    EXPECT_GE(k, 6u);  // open, three writes or more, fsync, close
  }
}

TEST_F(OutputFileTest, InterruptedCallsAreRepeated) {
  for (const std::string op : {"open", "write", "fsync", "close"}) {
    set_fault_plan({1, EINTR, false, false, op});
    auto file = OutputFile::create(folder_ / "f");
    ASSERT_TRUE(file.ok()) << op;
    EXPECT_TRUE((*file)->write("text").ok());
    EXPECT_TRUE((*file)->close().ok()) << op;
    EXPECT_EQ(slurp(folder_ / "f"), "text");
  }
  // Interrupted for ever: an error, not a loop without end.
  set_fault_plan({1, EINTR, true, false, "write"});
  auto file = OutputFile::create(folder_ / "f");
  ASSERT_TRUE(file.ok());
  (void)(*file)->write("text");
  EXPECT_FALSE((*file)->close().ok());
}

TEST_F(OutputFileTest, FullDeviceIsNoticed) {
  struct stat info;
  if (::stat("/dev/full", &info) != 0) GTEST_SKIP() << "no /dev/full here";
  auto file = OutputFile::create("/dev/full");
  ASSERT_TRUE(file.ok());
  (void)(*file)->write("text");
  const Status status = (*file)->close();
  EXPECT_EQ(status.code(), StatusCode::kDoesNotFit) << status.to_string();
}

TEST_F(OutputFileTest, FreeBytes) {
  const auto free = free_bytes(folder_.path());
  ASSERT_TRUE(free.ok());
  EXPECT_GT(*free, 0u);
  EXPECT_EQ(free_bytes(folder_ / "absent").status().code(), StatusCode::kMissing);
}

TEST_F(OutputFileTest, CopyAndWriteFile) {
  std::string contents(3'000'001, '\0');
  for (size_t i = 0; i < contents.size(); ++i) contents[i] = static_cast<char>(i * 13 + i / 999);
  ASSERT_TRUE(write_file(folder_ / "a", contents).ok());
  ASSERT_TRUE(copy_file(folder_ / "a", folder_ / "b").ok());
  EXPECT_TRUE(slurp(folder_ / "b") == contents);
  ASSERT_TRUE(write_file(folder_ / "empty", "").ok());
  ASSERT_TRUE(copy_file(folder_ / "empty", folder_ / "empty2").ok());
  EXPECT_EQ(slurp(folder_ / "empty2"), "");
  EXPECT_EQ(copy_file(folder_ / "absent", folder_ / "c").code(), StatusCode::kMissing);
  EXPECT_EQ(folder_.names().count("c"), 0u);
  EXPECT_EQ(copy_file(folder_.path(), folder_ / "c").refusal(), Refusal::kType);
}

TEST_F(OutputFileTest, MakeFolder) {
  EXPECT_TRUE(make_folder(folder_ / "d").ok());
  EXPECT_TRUE(make_folder(folder_ / "d").ok());
  EXPECT_EQ(make_folder(folder_ / "x/y").code(), StatusCode::kMissing);
  spit(folder_ / "file", "");
  EXPECT_FALSE(make_folder(folder_ / "file").ok());
}

TEST_F(OutputFileTest, RemoveTree) {
  EXPECT_TRUE(remove_tree(folder_ / "absent").ok());
  spit(folder_ / "file", "x");
  EXPECT_TRUE(remove_tree(folder_ / "file").ok());
  ASSERT_TRUE(make_folder(folder_ / "keep").ok());
  spit(folder_ / "keep/precious", "x");
  std::string deep = folder_ / "tree";
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(make_folder(deep).ok());
    spit(deep + "/f", "x");
    ASSERT_EQ(::symlink((folder_ / "keep").c_str(), (deep + "/link").c_str()), 0);
    ASSERT_EQ(::mkfifo((deep + "/fifo").c_str(), 0600), 0);
    deep += "/d";
  }
  EXPECT_TRUE(remove_tree(folder_ / "tree").ok());
  ASSERT_EQ(::symlink("keep", (folder_ / "link").c_str()), 0);
  EXPECT_TRUE(remove_tree(folder_ / "link/").ok());
  EXPECT_EQ(folder_.names(), std::set<std::string>{"keep"});
  EXPECT_EQ(slurp(folder_ / "keep/precious"), "x");
}

TEST_F(OutputFileTest, RemoveTreeGoesOnAfterAnError) {
  ASSERT_TRUE(make_folder(folder_ / "t").ok());
  for (const char* name : {"t/a", "t/b", "t/c"}) spit(folder_ / name, "x");
  set_fault_plan({2, EIO, false, false, "unlink"});
  const Status status = remove_tree(folder_ / "t");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.file(), folder_ / "t/b");
  clear_fault_plan();
  EXPECT_EQ(slurp(folder_ / "t/b"), "x");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "t/c"));
  EXPECT_TRUE(remove_tree(folder_ / "t").ok());
}

TEST(FaultPlan, CountsOnlyItsOperation) {
  const TempFolder folder;
  clear_fault_plan();
  EXPECT_EQ(operation_count(), 0u);
  ASSERT_TRUE(write_file(folder / "f", "x").ok());
  EXPECT_EQ(operation_count(), 4u);  // open, write, fsync, close
  set_fault_plan({3, EIO, false, false, "open"});
  EXPECT_TRUE(write_file(folder / "f", "x").ok());
  EXPECT_TRUE(write_file(folder / "f", "x").ok());
  EXPECT_EQ(operation_count(), 2u);
  EXPECT_FALSE(write_file(folder / "f", "x").ok());
  EXPECT_TRUE(write_file(folder / "f", "x").ok()) << "not sticky";
  set_fault_plan({2, EIO, true, false, "open"});
  EXPECT_TRUE(write_file(folder / "f", "x").ok());
  EXPECT_FALSE(write_file(folder / "f", "x").ok());
  EXPECT_FALSE(write_file(folder / "f", "x").ok()) << "sticky";
  clear_fault_plan();
  EXPECT_TRUE(write_file(folder / "f", "x").ok());
}

// The environment is read once per process, so each plan gets a process of its own.
int exit_code_under(const char* plan, const std::string& path) {
  ::setenv("POME_IO_FAULT", plan, 1);
  const std::string command = "\"" + std::filesystem::read_symlink("/proc/self/exe").string() +
                              "\" --gtest_also_run_disabled_tests"
                              " --gtest_filter=FaultPlan.DISABLED_Child >/dev/null 2>&1";
  ::setenv("POME_TEST_PATH", path.c_str(), 1);
  const int status = std::system(command.c_str());
  ::unsetenv("POME_IO_FAULT");
  ::unsetenv("POME_TEST_PATH");
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(FaultPlan, DISABLED_Child) {
  const char* path = std::getenv("POME_TEST_PATH");
  ASSERT_NE(path, nullptr);
  const Status first = write_file(path, "x"), second = write_file(path, "x");
  std::_Exit((first.ok() ? 0 : 1) + (second.ok() ? 0 : 2) +
             (first.code() == StatusCode::kDoesNotFit ? 4 : 0));
}

TEST(FaultPlan, FromTheEnvironment) {
  if (!std::filesystem::exists("/proc/self/exe")) GTEST_SKIP() << "needs /proc/self/exe";
  const TempFolder folder;
  const std::string path = folder / "f";
  EXPECT_EQ(exit_code_under("", path), 0);
  EXPECT_EQ(exit_code_under("0", path), 0);
  EXPECT_EQ(exit_code_under("2", path), 1);
  EXPECT_EQ(exit_code_under("2:ENOSPC", path), 5);
  EXPECT_EQ(exit_code_under("2:28", path), 5);
  EXPECT_EQ(exit_code_under("6", path), 2);
  EXPECT_EQ(exit_code_under("1:EIO:fsync:sticky", path), 3);
  EXPECT_EQ(exit_code_under("2:EIO:write", path), 2);
  EXPECT_EQ(exit_code_under("3:crash", path), 137);
  EXPECT_EQ(exit_code_under("2:crash:close", path), 137);
  // What cannot be read must not pass for a run without faults.
  for (const char* bad : {"x", "1:", "1:EWHAT", "1:EIO:chew", "1:EIO:write:often",
                          "1:2:write:sticky:", "99999999999999999999"})
    EXPECT_EQ(exit_code_under(bad, path), 3) << bad;
}

}  // namespace
}  // namespace pome::io
