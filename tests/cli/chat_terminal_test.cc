// chat as a person sees it: in a terminal.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "cli/program.h"
#include "support/terminal.h"

#ifdef POME_HAVE_LIBEDIT
#define POME_NEED_EDITOR() (void)0
#else
#define POME_NEED_EDITOR() GTEST_SKIP() << "built without a line editor"
#endif

namespace pome {
namespace {

using namespace test;

class ChatTerminal : public ::testing::Test {
 protected:
  Terminal start(std::vector<std::string> more = {}, Terminal::Environment environment = {}) {
    if (more.empty()) more = {"--temp", "0", "-n", "6"};
    std::vector<std::string> call = {"chat", kTales};
    call.insert(call.end(), more.begin(), more.end());
    environment.insert(environment.begin(),
                       {{"XDG_STATE_HOME", folder / "state"}, {"HOME", folder / ""}});
    return Terminal(command(std::move(call)), environment);
  }
  const TempFolder folder;
};

TEST_F(ChatTerminal, AskAnswerLeave) {
  Terminal terminal = start();
  ASSERT_TRUE(terminal.wait_for("/help lists the commands"));
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("Tell me a story.\n");
  ASSERT_TRUE(terminal.wait_for("Once upon a time"));
  ASSERT_TRUE(terminal.wait_for("/set max_tokens allows more"));
  terminal.type("/stats\n");
  ASSERT_TRUE(terminal.wait_for("first token"));
  ASSERT_TRUE(terminal.wait_for("of 1024 tokens"));
  // A mistake is said and the chat goes on.
  terminal.type("/stts\n");
  ASSERT_TRUE(terminal.wait_for("did you mean /stats"));
  terminal.type("/set max_tokens 2\nMore.\n");
  ASSERT_TRUE(terminal.wait_for("after 2 tokens"));
  terminal.type("\"\"\"\nmany\n/lines\n\"\"\"\n/history\n");
  ASSERT_TRUE(terminal.wait_for("user: many\n/lines\n"));
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("\x04");
  EXPECT_EQ(terminal.finish(), 0);
  // No marker of the template ever shows.
  for (const char* marker : {"<|", "|>", "endoftext"})
    EXPECT_EQ(terminal.screen().find(marker), std::string::npos) << terminal.screen();
}

TEST_F(ChatTerminal, CtrlCStopsAnAnswerAndTwiceLeaves) {
  POME_NEED_EDITOR();
  Terminal terminal = start({"-n", "900", "--temp", "1.5", "--stop", "never", "--seed", "1"});
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("Tell me a story.\n");
  ASSERT_TRUE(terminal.wait_for("story.\n"));
  ASSERT_TRUE(terminal.wait_for(" "));
  ASSERT_TRUE(terminal.wait_for(" "));
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("what there is of the answer is kept"));
  terminal.type("/history\n");
  ASSERT_TRUE(terminal.wait_for("assistant: "));
  // A line that was begun is dropped; at an empty one the first Ctrl-C is a warning.
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("unfinished");
  ASSERT_TRUE(terminal.wait_for("unfinished"));
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("^C\n"));
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("Ctrl-C again leaves"));
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("\x03");
  EXPECT_EQ(terminal.finish(), 130);
}

TEST_F(ChatTerminal, LinesAreEditedCompletedAndRemembered) {
  POME_NEED_EDITOR();
  {
    Terminal terminal = start();
    ASSERT_TRUE(terminal.wait_for("> "));
    // Backwards over "x", to the begin of the line, and a letter of several bytes.
    terminal.type("/set tempx\x7f 0.25\x01\x05\n");
    terminal.type("/set\n");
    ASSERT_TRUE(terminal.wait_for("temp 0.25"));
    terminal.type("/conte\t\n");
    ASSERT_TRUE(terminal.wait_for("kept for the answer"));
    terminal.type("/system \xc3\xa4\xe4\xbd\xa0\x7f\xf0\x9f\x90\xb6\n");
    ASSERT_TRUE(terminal.wait_for("takes no system message"));
    terminal.type("/exit\n");
    EXPECT_EQ(terminal.finish(), 0);
  }
  const std::string file = folder / "state/pome/chat_history";
  EXPECT_EQ(slurp(file),
            "/set temp 0.25\n/set\n/context \n/system \xc3\xa4\xf0\x9f\x90\xb6\n/exit\n");
  struct stat info {};
  ASSERT_EQ(::stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  {
    Terminal terminal = start();
    ASSERT_TRUE(terminal.wait_for("> "));
    terminal.type("\x1b[A\x1b[A\x1b[A\n");  // three up
    ASSERT_TRUE(terminal.wait_for("kept for the answer"));
    terminal.type("\x04");
    EXPECT_EQ(terminal.finish(), 0);
  }
  const std::string before = slurp(file);
  {
    Terminal terminal = start({"--no-history", "-n", "6"});
    ASSERT_TRUE(terminal.wait_for("> "));
    terminal.type("\x1b[A\n/context\n");
    ASSERT_TRUE(terminal.wait_for("kept for the answer"));
    terminal.type("\x04");
    EXPECT_EQ(terminal.finish(), 0);
  }
  EXPECT_EQ(slurp(file), before);
}

TEST_F(ChatTerminal, AHistoryThatCannotBeWrittenIsSaidOnce) {
  POME_NEED_EDITOR();
  spit(folder / "state", "a file, not a folder");
  Terminal terminal = start();
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("/context\n");
  ASSERT_TRUE(terminal.wait_for("is not remembered"));
  terminal.type("/stats\n");
  ASSERT_TRUE(terminal.wait_for("no answer yet"));
  terminal.type("\x04");
  EXPECT_EQ(terminal.finish(), 0);
  const size_t first = terminal.screen().find("is not remembered");
  EXPECT_EQ(terminal.screen().find("is not remembered", first + 1), std::string::npos);
}

TEST_F(ChatTerminal, ColourOnlyWhereItIsWanted) {
  const auto screen = [&](Terminal::Environment environment) {
    Terminal terminal = start({}, std::move(environment));
    EXPECT_TRUE(terminal.wait_for("Ctrl-D leaves"));
    EXPECT_TRUE(terminal.wait_for("> "));
    terminal.type("/exit\n");
    EXPECT_EQ(terminal.finish(), 0);
    return terminal.screen();
  };
  EXPECT_NE(screen({}).find("\x1b[2m("), std::string::npos);
  EXPECT_EQ(screen({{"NO_COLOR", "1"}}).find("\x1b[2m"), std::string::npos);
  // Without an editor too.
  EXPECT_EQ(screen({{"TERM", "dumb"}}).find('\x1b'), std::string::npos);
}

TEST_F(ChatTerminal, NothingThatATerminalObeysGetsThrough) {
  spit(folder / "evil.json",
       R"([{"role": "user", "content": "a\u001b]0;title\u0007\u009b31mb\r\u007f"}])");
  Terminal terminal = start({}, {{"TERM", "dumb"}});
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("/load " + (folder / "evil.json") + "\n/history\n");
  ASSERT_TRUE(terminal.wait_for("31mb"));
  terminal.type("/exit\n");
  EXPECT_EQ(terminal.finish(), 0);
  for (const char* code : {"\x1b", "\a", "\xc2\x9b", "\x7f"})
    EXPECT_EQ(terminal.screen().find(code), std::string::npos);
}

}  // namespace
}  // namespace pome
