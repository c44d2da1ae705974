// convert is killed, crashes at chosen system calls, runs out of disk: what lies under the output
// name is always absent or whole, and the next run leaves nothing of the dead one behind.
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "cli/program.h"

namespace pome {
namespace {

using namespace test;

std::vector<std::string> convert_to(const std::string& out, const std::string& scheme,
                                    bool force = false, const std::string& target = "coreml") {
  std::vector<std::string> call = {"convert",   kTales, "-o",        out,  "--to", target,
                                   "--weights", scheme, "--context", "64", "-t",   "2"};
  if (force) call.push_back("--force");
  return call;
}
// The scheme of a whole artefact; "absent"; anything else is a failure.
std::string state_of(const std::string& out) {
  if (!exists(out)) return "absent";
  const Ended verified = pome({"verify", out, "--json"});
  EXPECT_EQ(verified.code, 0) << show(verified);
  const auto manifest = parse_json(slurp(out + "/manifest.json"), out);
  EXPECT_TRUE(manifest.ok());
  return manifest.ok() ? (*manifest)["scheme"].get<std::string>() : "broken";
}
void expect_only(const TempFolder& folder, const std::string& name) {
  EXPECT_EQ(folder.names(), std::set<std::string>{name});
}

TEST(Crash, KilledAtTwentyRandomMoments) {
  const TempFolder folder;
  const std::string out = folder / "out";
  const Ended whole = pome(convert_to(out, "lut4"));
  ASSERT_EQ(whole.code, 0) << show(whole);
  std::filesystem::remove_all(out);

  std::mt19937 random(20261121);
  std::uniform_real_distribution<double> moment(0, whole.ms * 1.1);
  int killed = 0;
  for (int i = 0; i < 20; ++i) {
    Child child(command(convert_to(out, "lut4")));
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(moment(random)));
    child.kill(SIGKILL);
    killed += child.finish().signal == SIGKILL;
    const std::string state = state_of(out);
    EXPECT_TRUE(state == "absent" || state == "lut4") << state;
    std::filesystem::remove_all(out);
  }
  EXPECT_GT(killed, 5);
  EXPECT_EQ(pome(convert_to(out, "lut4")).code, 0);
  expect_only(folder, "out");
  EXPECT_EQ(state_of(out), "lut4");
}

TEST(Crash, KilledWhileReplacingThereIsAlwaysOneOfBoth) {
  const TempFolder folder;
  const std::string out = folder / "out";
  const Ended whole = pome(convert_to(out, "f16"));
  ASSERT_EQ(whole.code, 0) << show(whole);
  std::mt19937 random(7);
  std::uniform_real_distribution<double> moment(0, whole.ms * 1.5);
  for (int i = 0; i < 10; ++i) {
    Child child(command(convert_to(out, i % 2 ? "f16" : "int8", true)));
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(moment(random)));
    child.kill(SIGKILL);
    child.finish();
    const std::string state = state_of(out);
    EXPECT_TRUE(state == "f16" || state == "int8") << state;
  }
  EXPECT_EQ(pome(convert_to(out, "int4", true)).code, 0);
  expect_only(folder, "out");
  EXPECT_EQ(state_of(out), "int4");
}

void empty(const TempFolder& folder) {
  for (const std::string& name : folder.names()) std::filesystem::remove_all(folder / name);
}
bool crash_at(int k, const std::string& out, bool force) {
  const Ended ended =
      pome(convert_to(out, "f16", force), "", {{"POME_IO_FAULT", std::to_string(k) + ":crash"}});
  EXPECT_TRUE(ended.code == 0 || ended.code == 137) << show(ended);
  return ended.code == 137;
}
// The last k at which a run that starts from `before` still makes a system call.
int last_operation(const TempFolder& folder, const std::function<void()>& before, bool force) {
  const auto crashes = [&](int k) {
    before();
    return crash_at(k, folder / "out", force);
  };
  int low = 0, high = 16;
  while (high < 65536 && crashes(high)) low = high, high *= 2;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (crashes(middle) ? low : high) = middle;
  }
  return low;
}

// The beginning and the end, where names change, one by one; the long middle in steps.
int next_point(int k, int last, int dense, int steps) {
  if (k < 8 || k + dense >= last) return k + 1;
  return std::min(k + std::max(1, last / steps), last - dense);
}

TEST(Crash, AtChosenSystemCallsNothingHalfWrittenIsVisible) {
  const TempFolder folder(true);
  const std::string out = folder / "out";
  const int last = last_operation(
      folder, [&] { empty(folder); }, false);
  ASSERT_GT(last, 20);
  bool complete_seen = false, leftover_seen = false;
  for (int k = 1; k <= last; k = next_point(k, last, 10, 12)) {
    empty(folder);
    ASSERT_TRUE(crash_at(k, out, false)) << k;
    const std::string state = state_of(out);
    EXPECT_TRUE(state == "absent" || state == "f16") << k << " " << state;
    complete_seen |= state == "f16";
    EXPECT_FALSE(complete_seen && state == "absent") << k;
    leftover_seen |= folder.names().size() > (state == "absent" ? 0u : 1u);
    const Ended next = pome(convert_to(out, "f16", true));
    EXPECT_EQ(next.code, 0) << k << show(next);
    expect_only(folder, "out");
  }
  EXPECT_TRUE(leftover_seen);
  EXPECT_TRUE(complete_seen);  // the last calls come after the rename
  EXPECT_EQ(state_of(out), "f16");
}

// The same where no package is written: a few points spread over the whole run.
TEST(Crash, AtSystemCallsOfOtherTargetsNothingHalfWrittenIsVisible) {
  const TempFolder folder(true);
  for (const auto& [name, target] :
       {std::pair("out", "onnx"), std::pair("out", "gguf"), std::pair("out.gguf", "gguf")}) {
    SCOPED_TRACE(std::string(name) + " " + target);
    const std::string out = folder / name;
    bool complete_seen = false;
    for (int k = 1; !complete_seen; k += k < 4 ? 1 : 1 + k / 3) {
      const Ended ended = pome(convert_to(out, "f16", false, target), "",
                               {{"POME_IO_FAULT", std::to_string(k) + ":crash"}});
      ASSERT_TRUE(ended.code == 0 || ended.code == 137) << k << show(ended);
      complete_seen = ended.code == 0;
      if (exists(out)) {
        EXPECT_EQ(pome({"verify", out}).code, 0) << k;
      }
    }
    expect_only(folder, name);  // the whole run removed what the dead ones left
    empty(folder);
  }
}

TEST(Crash, AtChosenSystemCallsOfAReplacementThereIsAlwaysOneOfBoth) {
  const TempFolder folder(true), other(true);
  const std::string out = folder / "out", old = other / "old";
  ASSERT_EQ(pome(convert_to(old, "int8")).code, 0);
  const auto before = [&] {
    empty(folder);
    std::filesystem::copy(old, out, std::filesystem::copy_options::recursive);
  };
  const int last = last_operation(folder, before, true);
  bool old_seen = false, new_seen = false;
  for (int k = 1; k <= last; k = next_point(k, last, 24, 6)) {
    before();
    ASSERT_TRUE(crash_at(k, out, true)) << k;
    const std::string state = state_of(out);
    EXPECT_TRUE(state == "int8" || state == "f16") << k << " " << state;
    old_seen |= state == "int8";
    new_seen |= state == "f16";
    EXPECT_FALSE(new_seen && state == "int8") << k;
    const Ended next = pome(convert_to(out, "f16", true));
    EXPECT_EQ(next.code, 0) << k << show(next);
    expect_only(folder, "out");
  }
  EXPECT_TRUE(old_seen && new_seen);
}

TEST(Crash, EveryKindOfFailingCallIsReportedAndCleanedUp) {
  const TempFolder folder(true);
  const std::string out = folder / "out";
  for (const char* fault :
       {"1:EIO:write:sticky", "3:ENOSPC:write:sticky", "2:EIO:fsync", "1:EIO:rename:sticky",
        "4:EIO:open", "2:EACCES:mkdir", "1:ENOSPC:mkdir", "3:EDQUOT:write"}) {
    const std::string text = fault;
    const bool disk =
        text.find("ENOSPC") != std::string::npos || text.find("EDQUOT") != std::string::npos;
    for (const char* target : {"coreml", "onnx", "gguf"}) {
      SCOPED_TRACE(text + " " + target);
      const Ended ended =
          pome(convert_to(out, "f16", false, target), "", {{"POME_IO_FAULT", fault}});
      // A target may make fewer calls of a kind than the one that is to fail.
      if (ended.code == 0 && std::string(target) != "coreml") {
        std::filesystem::remove_all(out);
        continue;
      }
      if (disk) {
        EXPECT_EQ(ended.code, 4) << show(ended);
      } else {
        EXPECT_TRUE(ended.code == 2 || ended.code == 6) << show(ended);
      }
      EXPECT_NE(ended.err.find(folder.path()), std::string::npos) << show(ended);
      EXPECT_EQ(ended.out, "");
      EXPECT_TRUE(folder.names().empty());
    }
  }
}

TEST(Crash, InterruptedConversionLeavesNothing) {
  const TempFolder folder;
  const std::string out = folder / "out";
  Child child(command(convert_to(out, "lut6")));
  std::this_thread::sleep_for(std::chrono::milliseconds(80));
  child.kill(SIGINT);
  const Ended ended = child.finish();
  if (ended.code == 0) GTEST_SKIP() << "the conversion was faster than the signal";
  // Before the handler is in place, the signal ends the program by itself.
  EXPECT_TRUE(ended.code == 130 || ended.signal == SIGINT) << show(ended);
  EXPECT_TRUE(folder.names().empty());
}

TEST(Crash, AFullDiskIsToldBeforeTheWorkAndLeavesNothing) {
  const TempFolder folder;
  const std::string disk = folder / "disk";
  std::filesystem::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=2m") != 0)
    GTEST_SKIP() << "mounting a small tmpfs is not permitted here";
  struct Unmount {
    const std::string& path;
    ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
  } unmount{disk};
  const std::string out = disk + "/out";
  for (const auto& [name, target] : {std::pair("out", "coreml"), std::pair("out", "onnx"),
                                     std::pair("out", "gguf"), std::pair("out.gguf", "gguf")}) {
    const Ended ended = pome(convert_to(disk + "/" + name, "f16", false, target));
    EXPECT_EQ(ended.code, 4) << show(ended);
    EXPECT_NE(ended.err.find("bytes"), std::string::npos) << ended.err;
    EXPECT_NE(ended.err.find(disk), std::string::npos) << ended.err;
    EXPECT_TRUE(std::filesystem::is_empty(disk));
  }

  const Ended json = pome({"convert", kTales, "-o", out, "--json"});
  EXPECT_EQ(json.code, 4);
  const auto error = parse_json(json.err, "stderr");
  ASSERT_TRUE(error.ok()) << json.err;
  const std::string message = (*error)["error"]["message"];
  // Needed and free, both in bytes.
  EXPECT_NE(message.find("needs "), std::string::npos) << message;
  EXPECT_NE(message.find(" are free"), std::string::npos) << message;

  // A disk that fills up in the middle of a file.
  std::string ids;
  for (int i = 1; i <= 140; ++i) ids += std::to_string(i) + " ";
  spit(folder / "ids", ids);
  const Ended logits =
      pome({"eval", kTales, "--ids", folder / "ids", "--logits", disk + "/logits.npy"});
  EXPECT_EQ(logits.code, 4) << show(logits);
  EXPECT_NE(logits.err.find("free"), std::string::npos) << logits.err;
  EXPECT_TRUE(std::filesystem::is_empty(disk));
}

}  // namespace
}  // namespace pome
