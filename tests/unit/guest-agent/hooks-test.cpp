#include "guest-agent/power/hooks.h"

#include <signal.h>

#include "tests/unit/guest-agent/broker-fixture.h"

namespace postern::guest::test {
namespace {

constexpr auto SHUTDOWN = PowerAction::SHUTDOWN;

kj::String listed(BrokerLab& lab) {
  return kj::strArray(listHooks(lab.hooks), " ");
}

kj::String textOf(kj::StringPtr path) {
  kj::AutoCloseFd fd(open(path.cStr(), O_RDONLY | O_CLOEXEC));
  KJ_REQUIRE(fd.get() >= 0, path);
  return kj::FdInputStream(fd.get()).readAllText();
}

TEST_CASE("hooks run in the order of their names, with the action and the caller") {
  BrokerLab lab;
  auto log = lab.folder.path("log");
  for (auto name : {"50-db", "10-web", "90.last_one"}) {
    lab.addHook(
        name,
        kj::str("echo \"$0 $# $1 $POSTERN_ACTION $POSTERN_CALLER $(pwd) $(env | sort | cut -d= -f1 | tr '\\n' ,)\" >> ",
                log));
  }
  auto client = lab.client();
  auto names = lab.wait(client->hooks(SHUTDOWN));
  CHECK((kj::strArray(names, " ") == "10-web 50-db 90.last_one"));
  CHECK(lab.wait(client->runHook(SHUTDOWN, names[0], "user:alice/group:ops")) == nullptr);
  // PWD and _ are the shell's own.
  CHECK(
      (textOf(log) ==
           kj::str(lab.hooks, "/10-web 1 shutdown shutdown user:alice / PATH,POSTERN_ACTION,POSTERN_CALLER,PWD,_,\n") ||
       textOf(log) ==
           kj::str(lab.hooks, "/10-web 1 shutdown shutdown user:alice / PATH,POSTERN_ACTION,POSTERN_CALLER,PWD,\n")));
}

// T62
TEST_CASE("hooks of every bad kind are left out, and are not run when they are asked for by name") {
  BrokerLab lab;
  auto mark = kj::str("touch ", lab.folder.path("ran"));
  lab.addHook("good", "exit 0");
  lab.addHook("group-writable", mark, 0775);
  lab.addHook("world-writable", mark, 0757);
  lab.addHook("not-executable", mark, 0644);
  lab.addHook(".hidden", mark);
  lab.addHook("name with space", mark);
  lab.addHook("semi;colon", mark);
  KJ_SYSCALL(mkdir(kj::str(lab.hooks, "/folder").cStr(), 0755));
  KJ_SYSCALL(mkfifo(kj::str(lab.hooks, "/fifo").cStr(), 0755));
  KJ_SYSCALL(symlink("good", kj::str(lab.hooks, "/link").cStr()));
  KJ_SYSCALL(symlink("/bin/true", kj::str(lab.hooks, "/link-out").cStr()));
  if (geteuid() == 0) {
    lab.addHook("of-somebody", mark);
    KJ_SYSCALL(chown(kj::str(lab.hooks, "/of-somebody").cStr(), 65534, 65534));
  }
  CHECK((listed(lab) == "good"));
  auto client = lab.client();
  for (auto name :
       {"group-writable", "world-writable", "not-executable", "folder", "fifo", "link", "of-somebody", "gone"}) {
    CHECK(lab.wait(client->runHook(SHUTDOWN, name, "user:alice")) == nullptr);  // as a hook that fails
  }
  for (auto name : {"../../../bin/true", "", ".hidden", "a/b"}) {
    CHECK(lab.wait(client->runHook(SHUTDOWN, name, "user:alice")) != nullptr);
  }
  CHECK_FALSE(exists(lab.folder.path("ran")));
}

TEST_CASE("a folder that others can write to has no hooks, and neither has one that is not there") {
  BrokerLab lab;
  lab.addHook("good", "exit 0");
  KJ_SYSCALL(chmod(lab.hooks.cStr(), 0777));
  CHECK((listed(lab) == ""));
  KJ_SYSCALL(chmod(lab.hooks.cStr(), 0755));
  CHECK((listed(lab) == "good"));
  KJ_SYSCALL(rename(lab.hooks.cStr(), lab.folder.path("elsewhere").cStr()));
  CHECK((listed(lab) == ""));
  KJ_SYSCALL(symlink("elsewhere", lab.hooks.cStr()));
  CHECK((listed(lab) == ""));
}

TEST_CASE("status 75 is a veto, with the first line of the output as its reason; any other failure is none") {
  BrokerLab lab;
  lab.addHook("veto", "echo 'a backup \033[1mruns'; echo more; exit 75");
  lab.addHook("veto-silent", "exit 75");
  lab.addHook("fails", "exit 1");
  lab.addHook("crashes", "kill -SEGV $$");
  writeFile(kj::str(lab.hooks, "/no-interpreter"), "#!/nonexistent/interpreter\n", 0755);
  auto client = lab.client();
  auto run = [&](kj::StringPtr name) { return lab.wait(client->runHook(SHUTDOWN, name, "user:alice")); };
  CHECK((KJ_REQUIRE_NONNULL(run("veto")).text == "hook veto vetoes it: a backup ?[1mruns"));
  CHECK((KJ_REQUIRE_NONNULL(run("veto-silent")).text == "hook veto-silent vetoes it"));
  for (auto name : {"fails", "crashes", "no-interpreter"}) CHECK(run(name) == nullptr);
}

TEST_CASE("a hook that hangs is ended at the limit, with what it had started, and the action goes on") {
  BrokerLab lab(shell("exit 3"), 2 * kj::SECONDS);
  lab.addHook("hangs", kj::str("sleep 60 & echo $! > ", lab.folder.path("pid"), "; wait"));
  auto client = lab.client();
  auto begin = kj::systemPreciseMonotonicClock().now();
  CHECK(lab.wait(client->runHook(SHUTDOWN, "hangs", "user:alice")) == nullptr);
  CHECK(kj::systemPreciseMonotonicClock().now() - begin < 20 * kj::SECONDS);
  lab.turn(1500 * kj::MILLISECONDS);
  auto program = kj::str("/proc/", pidIn(lab.folder.path("pid")), "/exe");
  CHECK_FALSE(exists(program));
}

TEST_CASE("of more than 64 hooks the first 64 run") {
  BrokerLab lab;
  for (int i = 100; i < 170; ++i) lab.addHook(kj::str("hook-", i), "exit 0");
  auto names = listHooks(lab.hooks);
  REQUIRE(names.size() == MAX_HOOKS);
  CHECK((names[63] == "hook-163"));
}

}  // namespace
}  // namespace postern::guest::test
