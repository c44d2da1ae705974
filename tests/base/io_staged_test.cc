#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <thread>
#include <vector>

#include "base/io.h"
#include "base/io_system.h"
#include "base/temp_folder.h"

namespace pome::io {
namespace {

using Kind = Staged::Kind;

// A small artefact with a recognisable version in each of its files.
Status produce(Staged& staged, Kind kind, const std::string& version) {
  if (kind == Kind::kFile) return write_file(staged.path(), "file " + version);
  POME_RETURN_IF_ERROR(write_file(staged.path() + "/one", "one " + version));
  POME_RETURN_IF_ERROR(make_folder(staged.path() + "/sub"));
  return write_file(staged.path() + "/sub/two", "two " + version);
}
Status publish(const std::string& path, Kind kind, const std::string& version, bool force) {
  POME_ASSIGN_OR_RETURN(const auto staged, Staged::create(path, kind, force));
  POME_RETURN_IF_ERROR(produce(*staged, kind, version));
  return staged->commit();
}
// "" when absent, the version when complete, "broken" otherwise.
std::string version_at(const std::string& path) {
  namespace fs = std::filesystem;
  if (!fs::exists(fs::symlink_status(path))) return "";
  if (fs::is_regular_file(path)) {
    const std::string text = slurp(path);
    return text.rfind("file ", 0) == 0 ? text.substr(5) : "broken";
  }
  if (!fs::exists(path + "/one") || !fs::exists(path + "/sub/two")) return "broken";
  const std::string one = slurp(path + "/one"), two = slurp(path + "/sub/two");
  if (one.rfind("one ", 0) != 0 || two != "two " + one.substr(4)) return "broken";
  return one.substr(4);
}
bool has_staging(const TempFolder& folder) {
  for (const std::string& name : folder.names())
    if (name.find(".pome-") != std::string::npos) return true;
  return false;
}

// Every test runs twice: with the kernel's renameat2 and with what plain POSIX offers.
class StagedTest : public testing::TestWithParam<std::tuple<Kind, bool>> {
 protected:
  void SetUp() override {
    system::pretend_plain_posix(plain_posix());
    clear_fault_plan();
  }
  void TearDown() override {
    clear_fault_plan();
    system::pretend_plain_posix(false);
  }
  Kind kind() const { return std::get<0>(GetParam()); }
  bool plain_posix() const { return std::get<1>(GetParam()); }
  TempFolder folder_{true};  // hundreds of fsyncs
  const std::string out_ = folder_ / "out";
};

TEST_P(StagedTest, InvisibleUntilCommitted) {
  auto staged = Staged::create(out_, kind(), false);
  ASSERT_TRUE(staged.ok()) << staged.status().to_string();
  EXPECT_EQ((*staged)->path().rfind(folder_ / ".out.pome-", 0), 0u) << (*staged)->path();
  ASSERT_TRUE(produce(**staged, kind(), "1").ok());
  EXPECT_EQ(version_at(out_), "");
  const Status status = (*staged)->commit();
  ASSERT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(version_at(out_), "1");
  staged->reset();
  EXPECT_EQ(version_at(out_), "1");
  EXPECT_EQ(folder_.names(), std::set<std::string>{"out"});
}

TEST_P(StagedTest, AbandonedLeavesNothing) {
  {
    auto staged = Staged::create(out_, kind(), false);
    ASSERT_TRUE(staged.ok());
    ASSERT_TRUE(produce(**staged, kind(), "1").ok());
    EXPECT_TRUE(has_staging(folder_));
  }
  EXPECT_TRUE(folder_.names().empty());
}

TEST_P(StagedTest, ExistingOutputNeedsForce) {
  ASSERT_TRUE(publish(out_, kind(), "1", false).ok());
  const auto refused = Staged::create(out_, kind(), false);
  EXPECT_EQ(refused.status().code(), StatusCode::kExists);
  EXPECT_EQ(refused.status().file(), out_);
  EXPECT_FALSE(has_staging(folder_));
  ASSERT_TRUE(publish(out_, kind(), "2", true).ok());
  EXPECT_EQ(version_at(out_), "2");
  ASSERT_TRUE(publish(out_ + "///", kind(), "3", true).ok());
  EXPECT_EQ(version_at(out_), "3");
  EXPECT_EQ(folder_.names(), std::set<std::string>{"out"});
  EXPECT_TRUE(publish(folder_ / "other", kind(), "1", true).ok()) << "force without an old output";
}

TEST_P(StagedTest, ReplacesWhateverKindIsThere) {
  ASSERT_TRUE(publish(out_, Kind::kFile, "file", false).ok());
  ASSERT_TRUE(publish(out_, kind(), "2", true).ok());
  EXPECT_EQ(version_at(out_), "2");
  ASSERT_TRUE(remove_tree(out_).ok());
  ASSERT_TRUE(publish(out_, Kind::kFolder, "folder", false).ok());
  ASSERT_TRUE(publish(out_, kind(), "3", true).ok());
  EXPECT_EQ(version_at(out_), "3");
  // A link is replaced itself; what it points to is not touched.
  ASSERT_TRUE(remove_tree(out_).ok());
  ASSERT_TRUE(make_folder(folder_ / "elsewhere").ok());
  spit(folder_ / "elsewhere/precious", "x");
  ASSERT_EQ(::symlink("elsewhere", out_.c_str()), 0);
  EXPECT_EQ(Staged::create(out_, kind(), false).status().code(), StatusCode::kExists);
  ASSERT_TRUE(publish(out_, kind(), "4", true).ok());
  EXPECT_EQ(version_at(out_), "4");
  EXPECT_EQ(slurp(folder_ / "elsewhere/precious"), "x");
  EXPECT_EQ(folder_.names(), (std::set<std::string>{"out", "elsewhere"}));
}

TEST_P(StagedTest, OutputThatAppearsMeanwhileIsKept) {
  auto staged = Staged::create(out_, kind(), false);
  ASSERT_TRUE(staged.ok());
  ASSERT_TRUE(produce(**staged, kind(), "mine").ok());
  ASSERT_TRUE(publish(out_, kind(), "theirs", false).ok());
  const Status status = (*staged)->commit();
  EXPECT_EQ(status.code(), StatusCode::kExists) << status.to_string();
  staged->reset();
  EXPECT_EQ(version_at(out_), "theirs");
  EXPECT_FALSE(has_staging(folder_));
}

TEST_P(StagedTest, OutputThatVanishesMeanwhile) {
  ASSERT_TRUE(publish(out_, kind(), "old", false).ok());
  auto staged = Staged::create(out_, kind(), true);
  ASSERT_TRUE(staged.ok());
  ASSERT_TRUE(produce(**staged, kind(), "new").ok());
  ASSERT_TRUE(remove_tree(out_).ok());
  EXPECT_TRUE((*staged)->commit().ok());
  EXPECT_EQ(version_at(out_), "new");
}

TEST_P(StagedTest, ConcurrentWritersOfOneName) {
  std::atomic<int> won{0}, refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      const Status status = publish(out_, kind(), "writer " + std::to_string(t), false);
      if (status.ok()) ++won;
      if (status.code() == StatusCode::kExists) ++refused;
      if (!status.ok() && status.code() != StatusCode::kExists) ADD_FAILURE() << status.to_string();
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(won, 1);
  EXPECT_EQ(refused, 7);
  EXPECT_EQ(version_at(out_).rfind("writer ", 0), 0u);
  EXPECT_FALSE(has_staging(folder_));
}

TEST_P(StagedTest, ConcurrentForcedWriters) {
  if (plain_posix() && kind() == Kind::kFolder)
    GTEST_SKIP() << "without exchange a folder is away for a moment, and writers may collide";
  ASSERT_TRUE(publish(out_, kind(), "first", false).ok());
  std::atomic<bool> done{false};
  std::atomic<int> absent{0};
  std::thread reader([&] {
    while (!done)
      if (::access(out_.c_str(), F_OK) != 0) ++absent;
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        const Status status = publish(out_, kind(), "w" + std::to_string(t), true);
        EXPECT_TRUE(status.ok()) << status.to_string();
      }
    });
  for (auto& thread : threads) thread.join();
  done = true;
  reader.join();
  EXPECT_EQ(absent, 0) << "readers must see the old output or the new one at every moment";
  EXPECT_EQ(version_at(out_).front(), 'w');
  EXPECT_FALSE(has_staging(folder_));
}

TEST_P(StagedTest, LeftoversOfTheDeadGoAndThoseOfTheLivingStay) {
  auto living = Staged::create(out_, kind(), false);
  ASSERT_TRUE(living.ok());
  ASSERT_TRUE(produce(**living, kind(), "living").ok());
  spit(folder_ / ".out.pome-999999-0123456789abcdef", "dead file");
  ASSERT_TRUE(make_folder(folder_ / ".out.pome-999998-0123456789abcdef").ok());
  spit(folder_ / ".out.pome-999998-0123456789abcdef/part", "x");
  spit(folder_ / ".out2.pome-999999-0123456789abcdef", "of another name");
  spit(folder_ / ".out.pome", "not ours");
  ASSERT_TRUE(make_folder(folder_ / "kept").ok());
  ASSERT_EQ(::symlink("kept", (folder_ / ".out.pome-link").c_str()), 0);
  ASSERT_EQ(::mkfifo((folder_ / ".out.pome-fifo").c_str(), 0600), 0);
  ASSERT_TRUE(publish(out_, kind(), "second", false).ok());
  EXPECT_EQ(folder_.names(),
            (std::set<std::string>{std::filesystem::path((*living)->path()).filename().string(),
                                   ".out2.pome-999999-0123456789abcdef", ".out.pome", "kept",
                                   ".out.pome-link", ".out.pome-fifo", "out"}));
  EXPECT_EQ((*living)->commit().code(), StatusCode::kExists);
}

TEST_P(StagedTest, PreviousOutputIsPutBackAfterACrashBetweenTwoRenames) {
  ASSERT_TRUE(publish(out_, kind(), "old", false).ok());
  ASSERT_EQ(::rename(out_.c_str(), (folder_ / ".out.pome-old-77-0123456789abcdef").c_str()), 0);
  EXPECT_EQ(Staged::create(out_, kind(), false).status().code(), StatusCode::kExists);
  EXPECT_EQ(version_at(out_), "old");
  // With an output in place the same entry is rubbish.
  spit(folder_ / ".out.pome-old-78-0123456789abcdef", "x");
  ASSERT_TRUE(publish(out_, kind(), "new", true).ok());
  EXPECT_EQ(folder_.names(), std::set<std::string>{"out"});
}

// The heart of the matter: each system call of a run fails once, with and without an older output.
TEST_P(StagedTest, EveryFaultLeavesTheOldStateOrTheNewOne) {
  for (const bool force : {false, true}) {
    for (const int error : {EIO, ENOSPC, EACCES, EROFS, EINTR}) {
      uint64_t k = 1;
      for (;; ++k) {
        ASSERT_LT(k, 300u);
        ASSERT_TRUE(remove_tree(out_).ok());
        if (force) {
          ASSERT_TRUE(publish(out_, kind(), "old", false).ok());
        }
        set_fault_plan({k, error, false, false, ""});
        const Status status = publish(out_, kind(), "new", force);
        const bool reached = operation_count() >= k;
        clear_fault_plan();
        SCOPED_TRACE(testing::Message() << "operation " << k << " errno " << error << " force "
                                        << force << ": " << status.to_string());
        EXPECT_EQ(version_at(out_), status.ok() ? "new" : force ? "old" : "");
        EXPECT_FALSE(has_staging(folder_));
        if (error == EINTR) {
          EXPECT_TRUE(status.ok());
        }
        if (!status.ok()) {
          EXPECT_FALSE(status.file().empty());
        }
        if (HasFailure()) return;
        if (!reached) {
          EXPECT_TRUE(status.ok());
          break;
        }
      }
      EXPECT_GT(k, 12u);
    }
  }
}

TEST_P(StagedTest, FaultsThatStayLeaveSomethingComplete) {
  for (const bool force : {false, true}) {
    for (uint64_t k = 1;; ++k) {
      ASSERT_LT(k, 300u);
      ASSERT_TRUE(remove_tree(out_).ok());
      if (force) {
        ASSERT_TRUE(publish(out_, kind(), "old", false).ok());
      }
      set_fault_plan({k, EIO, true, false, ""});
      const Status status = publish(out_, kind(), "new", force);
      const bool reached = operation_count() >= k;
      clear_fault_plan();
      SCOPED_TRACE(testing::Message()
                   << "from operation " << k << " force " << force << ": " << status.to_string());
      const std::string found = version_at(out_);
      if (status.ok()) {
        EXPECT_EQ(found, "new");
      } else {
        // A power cut of the disk in the middle of the way back: old or new, never in between. The
        // plain way keeps the old one aside, where the next run finds it.
        EXPECT_NE(found, "broken");
      }
      // The disk is well again: the next run works and cleans up.
      ASSERT_TRUE(publish(out_, kind(), "next", true).ok());
      EXPECT_EQ(version_at(out_), "next");
      EXPECT_EQ(folder_.names(), std::set<std::string>{"out"});
      if (HasFailure()) return;
      if (!reached) break;
    }
  }
}

TEST_P(StagedTest, CrashAtEveryOperationIsRepairedByTheNextRun) {
  for (const bool force : {false, true}) {
    uint64_t k = 1;
    for (;; ++k) {
      ASSERT_LT(k, 300u);
      ASSERT_TRUE(remove_tree(out_).ok());
      if (force) {
        ASSERT_TRUE(publish(out_, kind(), "old", false).ok());
      }
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        set_fault_plan({k, 0, false, true, ""});
        const Status status = publish(out_, kind(), "new", force);
        ::_exit(status.ok() ? 0 : 1);
      }
      int result = 0;
      ASSERT_EQ(::waitpid(child, &result, 0), child);
      ASSERT_TRUE(WIFEXITED(result));
      SCOPED_TRACE(testing::Message() << "crash at " << k << " force " << force);
      const std::string found = version_at(out_);
      const bool between = force && plain_posix() && kind() == Kind::kFolder && found.empty();
      if (!between) {
        EXPECT_TRUE(found == "new" || found == (force ? "old" : "")) << found;
      }
      if (WEXITSTATUS(result) == 0) {
        EXPECT_EQ(found, "new");
        break;
      }
      ASSERT_EQ(WEXITSTATUS(result), 137);
      // Even a run that is refused cleans up, and puts an old output back that was on its way.
      if (force) {
        EXPECT_EQ(Staged::create(out_, kind(), false).status().code(), StatusCode::kExists);
        EXPECT_TRUE(version_at(out_) == "old" || version_at(out_) == "new");
        EXPECT_FALSE(has_staging(folder_));
      }
      ASSERT_TRUE(publish(out_, kind(), "next", true).ok());
      EXPECT_EQ(version_at(out_), "next");
      EXPECT_EQ(folder_.names(), std::set<std::string>{"out"});
      if (HasFailure()) return;
    }
    EXPECT_GT(k, 12u);
  }
}

// A parent folder that cannot be synced: nothing is certain after a power loss, so the commit fails
// and the way back is taken.
TEST_P(StagedTest, FailedSyncOfTheParentTakesTheOutputBack) {
  for (const bool force : {false, true}) {
    ASSERT_TRUE(remove_tree(out_).ok());
    if (force) {
      ASSERT_TRUE(publish(out_, kind(), "old", false).ok());
    }
    set_fault_plan({});
    ASSERT_TRUE(publish(folder_ / "probe", kind(), "x", false).ok());
    // The parent's is the last fsync of a run.
    clear_fault_plan();
    set_fault_plan({1000, EIO, false, false, "fsync"});
    ASSERT_TRUE(publish(folder_ / "probe", kind(), "x", true).ok());
    const uint64_t last = operation_count();
    set_fault_plan({last, EIO, false, false, "fsync"});
    const Status status = publish(out_, kind(), "new", force);
    clear_fault_plan();
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(version_at(out_), force ? "old" : "");
    EXPECT_FALSE(has_staging(folder_));
    ASSERT_TRUE(remove_tree(folder_ / "probe").ok());
  }
}

TEST_P(StagedTest, SyncsEveryFileEveryFolderAndTheParent) {
  auto staged = Staged::create(out_, kind(), false);
  ASSERT_TRUE(staged.ok());
  ASSERT_TRUE(produce(**staged, kind(), "1").ok());
  set_fault_plan({0, 0, false, false, "fsync"});
  ASSERT_TRUE((*staged)->commit().ok());
  EXPECT_EQ(operation_count(), kind() == Kind::kFile ? 2u : 5u);
}

TEST_P(StagedTest, AbandoningSurvivesSingleFaults) {
  for (uint64_t k = 1;; ++k) {
    ASSERT_LT(k, 100u);
    auto staged = Staged::create(out_, kind(), false);
    ASSERT_TRUE(staged.ok());
    ASSERT_TRUE(produce(**staged, kind(), "1").ok());
    set_fault_plan({k, EIO, false, false, ""});
    staged->reset();
    const bool reached = operation_count() >= k;
    clear_fault_plan();
    ASSERT_TRUE(folder_.names().empty()) << "operation " << k;
    if (!reached) break;
  }
}

TEST_P(StagedTest, BadTargets) {
  for (const std::string& path : {std::string(""), std::string("/"), std::string("."),
                                  folder_ / "..", folder_ / ".", std::string("a\0b", 3)})
    EXPECT_EQ(Staged::create(path, kind(), true).status().code(), StatusCode::kUsage) << path;
  const auto missing = Staged::create(folder_ / "no/such/out", kind(), false);
  EXPECT_EQ(missing.status().code(), StatusCode::kMissing);
  EXPECT_NE(missing.status().to_string().find(folder_ / "no/such"), std::string::npos);
  EXPECT_FALSE(missing.status().hint().empty());
  spit(folder_ / "file", "x");
  EXPECT_EQ(Staged::create(folder_ / "file/out", kind(), false).status().code(),
            StatusCode::kMissing);
}

TEST_P(StagedTest, RelativePathsAndLongNames) {
  const std::string here = std::filesystem::current_path();
  ASSERT_EQ(::chdir(folder_.path().c_str()), 0);
  EXPECT_TRUE(publish("relative", kind(), "1", false).ok());
  ASSERT_EQ(::chdir(here.c_str()), 0);
  EXPECT_EQ(version_at(folder_ / "relative"), "1");
  // 255 bytes is what file systems allow; the staging name must not be longer.
  std::string longest;
  while (longest.size() + 3 <= 255) longest += "\xE2\x82\xAC";
  ASSERT_EQ(longest.size(), 255u);
  ASSERT_TRUE(publish(folder_ / longest, kind(), "1", false).ok());
  ASSERT_TRUE(publish(folder_ / longest, kind(), "2", true).ok());
  EXPECT_EQ(version_at(folder_ / longest), "2");
  EXPECT_FALSE(has_staging(folder_));
}

TEST_P(StagedTest, NoTraceOfStagingInTheOutput) {
  ::umask(022);
  ASSERT_TRUE(publish(out_, kind(), "1", false).ok());
  struct stat info;
  ASSERT_EQ(::stat(out_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, kind() == Kind::kFile ? 0644u : 0755u);
  if (kind() == Kind::kFile) {
    EXPECT_EQ(info.st_nlink, 1u);
  }
  // The lock went with the commit.
  const int fd = ::open(out_.c_str(), O_RDONLY);
  EXPECT_EQ(::flock(fd, LOCK_EX | LOCK_NB), 0);
  ::close(fd);
}

TEST_P(StagedTest, DiskFullForReal) {
  if (plain_posix()) GTEST_SKIP() << "once is enough";
  const std::string mount = folder_ / "disk";
  ASSERT_TRUE(make_folder(mount).ok());
  if (::mount("tmpfs", mount.c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "mounting a tmpfs needs privileges";
  ASSERT_TRUE(publish(mount + "/out", kind(), "old", false).ok());
  {
    auto staged = Staged::create(mount + "/out", kind(), true);
    ASSERT_TRUE(staged.ok());
    ASSERT_TRUE(kind() == Kind::kFile || write_file((*staged)->path() + "/a", "a").ok());
    const std::string path = kind() == Kind::kFile ? (*staged)->path() : (*staged)->path() + "/big";
    const auto file = OutputFile::create(path);
    ASSERT_TRUE(file.ok());
    Status status;
    for (int i = 0; i < 20 && status.ok(); ++i) status = (*file)->write(std::string(100'000, 'x'));
    if (status.ok()) status = (*file)->close();
    EXPECT_EQ(status.code(), StatusCode::kDoesNotFit) << status.to_string();
    EXPECT_NE(status.message().find("bytes were needed so far"), std::string_view::npos);
    EXPECT_NE(status.message().find("bytes are free"), std::string_view::npos);
  }
  EXPECT_EQ(version_at(mount + "/out"), "old");
  EXPECT_TRUE(publish(mount + "/out", kind(), "new", true).ok()) << "the room is free again";
  EXPECT_EQ(version_at(mount + "/out"), "new");
  EXPECT_EQ(::umount(mount.c_str()), 0);
}

INSTANTIATE_TEST_SUITE_P(
    , StagedTest, testing::Combine(testing::Values(Kind::kFile, Kind::kFolder), testing::Bool()),
    [](const auto& tested) {
      return std::string(std::get<0>(tested.param) == Kind::kFile ? "File" : "Folder") +
             (std::get<1>(tested.param) ? "PlainPosix" : "Renameat2");
    });

}  // namespace
}  // namespace pome::io
