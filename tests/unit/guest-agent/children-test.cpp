#include "transport/children/children.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/guest-agent/broker-fixture.h"
#include "transport/children/process-group.h"

namespace postern::guest::test {
namespace {

struct ChildLab {
  postern::test::TemporaryFolder folder;
  kj::UnixEventPort port;
  kj::EventLoop loop{port};
  kj::WaitScope scope{loop};
  Children children{port, [](kj::StringPtr) {}};

  ChildDescription describe(kj::StringPtr script, kj::Duration limit = 10 * kj::SECONDS) {
    return {shell(script), kj::arr(kj::str(CHILD_PATH), kj::str("FOLDER=", folder.path("."))), nullptr, kj::String(),
            limit};
  }
  ChildEnd end(ChildDescription description) {
    return port.getTimer().timeoutAfter(30 * kj::SECONDS, children.run(kj::mv(description))).wait(scope);
  }
  kj::String output(ChildDescription description) {
    auto ended = end(kj::mv(description));
    REQUIRE(ended.is<ChildExited>());
    CHECK(ended.get<ChildExited>().status == 0);
    return kj::heapString(ended.get<ChildExited>().output.asChars());
  }
  void turn(kj::Duration time) { port.getTimer().afterDelay(time).wait(scope); }
  void waitFor(kj::StringPtr file) {
    for (int i = 0; i < 200 && !exists(folder.path(file)); ++i) turn(10 * kj::MILLISECONDS);
    turn(20 * kj::MILLISECONDS);
  }
};

// T61
TEST_CASE("a child has descriptors 0 to 2, the environment it was given and nothing else, in the root folder") {
  ChildLab lab;
  int inherited;  // as a careless library would leave one
  KJ_SYSCALL(inherited = open("/dev/null", O_RDONLY));
  kj::AutoCloseFd owned(inherited);
  ChildDescription list{kj::arr(kj::str("/bin/ls"), kj::str("/proc/self/fd")), kj::arr(kj::str("LC_ALL=C")), nullptr,
                        kj::String(), 5 * kj::SECONDS};
  // ls itself has the folder open.
  CHECK((lab.output(kj::mv(list)) == "0\n1\n2\n3\n"));
  ChildDescription environment{kj::arr(kj::str("/usr/bin/env")), kj::arr(kj::str("ONLY=this")), nullptr, kj::String(),
                               5 * kj::SECONDS};
  CHECK((lab.output(kj::mv(environment)) == "ONLY=this\n"));
  CHECK((lab.output(lab.describe("pwd")) == "/\n"));
}

// T61
TEST_CASE("arguments reach the program as they are: no shell looks at them") {
  ChildLab lab;
  ChildDescription echo{kj::arr(kj::str("/bin/echo"), kj::str("$(id); `id` | * ' \"")), nullptr, nullptr, kj::String(),
                        5 * kj::SECONDS};
  CHECK((lab.output(kj::mv(echo)) == "$(id); `id` | * ' \"\n"));
}

TEST_CASE("standard input is what was given, and then its end") {
  ChildLab lab;
  auto description = lab.describe("cat; echo end");
  description.input = kj::str("first\nsecond\n");
  CHECK((lab.output(kj::mv(description)) == "first\nsecond\nend\n"));
}

TEST_CASE("input of any size and any bytes arrives whole, and cannot be changed by the child") {
  ChildLab lab;
  auto text = kj::heapString(size_t(3) << 20);
  for (size_t i = 0; i < text.size(); ++i) text[i] = char(i * 7);
  auto description = lab.describe("cksum; { echo x >> /proc/self/fd/0; } 2>/dev/null || echo sealed; cat | wc -c");
  description.input = kj::mv(text);
  auto output = lab.output(kj::mv(description));
  CHECK(strstr(output.cStr(), " 3145728\nsealed\n") != nullptr);
}

// T61
TEST_CASE("a child that is given a socket has it as its descriptor 3, and no other") {
  ChildLab lab;
  int pair[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  kj::AutoCloseFd ours(pair[0]);
  ChildDescription list{kj::arr(kj::str("/bin/sh"), kj::str("-c"), kj::str("ls /proc/self/fd; echo hello >&3")),
                        kj::arr(kj::str("LC_ALL=C"), kj::str(CHILD_PATH)), nullptr, kj::String(), 5 * kj::SECONDS};
  list.socket = kj::AutoCloseFd(pair[1]);
  CHECK((lab.output(kj::mv(list)) == "0\n1\n2\n3\n4\n"));
  char bytes[16];
  CHECK(read(ours, bytes, sizeof(bytes)) == 6);
  CHECK(read(ours, bytes, sizeof(bytes)) == 0);  // the end: nobody else has it
}

// T61
TEST_CASE("a child that is given a socket as its standard input and output has it there, blocking, and no other") {
  ChildLab lab;
  int pair[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
  kj::AutoCloseFd ours(pair[0]);
  KJ_SYSCALL(fcntl(ours, F_SETFL, 0));
  // A reader that cannot wait would end at once.
  auto description = lab.describe("ls -x /proc/self/fd; cat; echo bye; exit 3");
  description.stdio = kj::AutoCloseFd(pair[1]);
  auto ending = lab.children.run(kj::mv(description));
  lab.turn(200 * kj::MILLISECONDS);
  CHECK(write(ours, "echo\n", 5) == 5);
  KJ_SYSCALL(shutdown(ours, SHUT_WR));
  auto ended = lab.port.getTimer().timeoutAfter(30 * kj::SECONDS, kj::mv(ending)).wait(lab.scope);
  CHECK(ended.get<ChildExited>().status == 3);
  CHECK(ended.get<ChildExited>().output.size() == 0);
  std::string said;
  char bytes[64];
  for (ssize_t got; (got = read(ours, bytes, sizeof(bytes))) > 0;) said.append(bytes, size_t(got));
  CHECK(said == "0  1  2  3\necho\nbye\n");
}

TEST_CASE("of children that have a bound of their own no more run at once") {
  ChildLab lab;
  Children few(
      lab.port, [](kj::StringPtr) {}, 2);
  auto first = few.run(lab.describe("sleep 60")), second = few.run(lab.describe("exit 0"));
  CHECK(few.run(lab.describe("exit 0")).wait(lab.scope).get<ChildNotStarted>().text == "too many programs run already");
  CHECK(second.wait(lab.scope).get<ChildExited>().status == 0);
  lab.turn(100 * kj::MILLISECONDS);
  CHECK(few.run(lab.describe("exit 4")).wait(lab.scope).get<ChildExited>().status == 4);
}

// T61
TEST_CASE("programs are started beside threads that allocate and take locks, and none hangs before its program") {
  ChildLab lab;
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&stop] {
      while (!stop) free(malloc(100000));
    });
  }
  for (int i = 0; i < 200; ++i) {
    auto description = lab.describe("exit 7");
    description.identity = Identity{geteuid(), getegid()};
    CHECK(lab.end(kj::mv(description)).get<ChildExited>().status == 7);
  }
  stop = true;
  for (auto& thread : threads) thread.join();
}

TEST_CASE("a child without a limit lives until nobody waits for it, and then has its grace to end by itself") {
  ChildLab lab;
  for (bool endsByItself : {true, false}) {
    auto description = lab.describe(
        "echo $$ > $FOLDER/pid; while ! test -e $FOLDER/left; do sleep 0.02; done; sleep $NAP; touch $FOLDER/ended");
    description.environment = kj::arr(kj::str(CHILD_PATH), kj::str("FOLDER=", lab.folder.path(".")),
                                      kj::str("NAP=", endsByItself ? "0.2" : "60"));
    description.limit = nullptr;
    description.grace = 1 * kj::SECONDS;
    {
      auto waiting = lab.children.run(kj::mv(description));
      lab.waitFor("pid");
      CHECK_FALSE(waiting.poll(lab.scope));
    }
    writeFile(lab.folder.path("left"), "", 0600);
    lab.turn(600 * kj::MILLISECONDS);
    CHECK(exists(lab.folder.path("ended")) == endsByItself);
    CHECK(lab.children.running() == (endsByItself ? 0 : 1));
    lab.turn(2 * kj::SECONDS);
    CHECK(lab.children.running() == 0);
    for (auto name : {"pid", "left", "ended"}) unlink(lab.folder.path(name).cStr());
  }
}

TEST_CASE("status and signal of an end are told apart, and a program that is not there is not started") {
  ChildLab lab;
  CHECK(lab.end(lab.describe("exit 42")).get<ChildExited>().status == 42);
  CHECK(lab.end(lab.describe("kill -ABRT $$")).get<ChildKilled>().signal == SIGABRT);
  ChildDescription none{kj::arr(kj::str("/nonexistent")), nullptr, nullptr, kj::String(), 5 * kj::SECONDS};
  CHECK((lab.end(kj::mv(none)).get<ChildNotStarted>().text ==
         "cannot start /nonexistent: the program: No such file or directory"));
  lab.turn(20 * kj::MILLISECONDS);
  CHECK(lab.children.running() == 0);
}

TEST_CASE("ignored signals and a blocked mask are not passed on") {
  ChildLab lab;
  signal(SIGUSR2, SIG_IGN);
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &before);
  auto text = lab.output(lab.describe("grep -E 'SigBlk|SigIgn' /proc/self/status"));
  sigprocmask(SIG_SETMASK, &before, nullptr);
  signal(SIGUSR2, SIG_DFL);
  CHECK((text == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"));
}

TEST_CASE("a child with an identity is that user alone, without groups, capabilities or a way back") {
  if (geteuid() != 0) return;  // nothing to give up
  ChildLab lab;
  auto description = lab.describe("id -u; id -g; id -G; grep -E 'CapPrm|CapEff|NoNewPrivs' /proc/self/status");
  description.identity = Identity{65534, 65534};
  CHECK((lab.output(kj::mv(description)) ==
         "65534\n65534\n65534\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n"));
}

TEST_CASE("a child that is root may have others gain rights, as an sshd does, and who is not root may not") {
  if (geteuid() != 0) return;
  ChildLab lab;
  auto asRoot = lab.describe("grep NoNewPrivs /proc/self/status");
  asRoot.identity = Identity{0, 0};
  CHECK((lab.output(kj::mv(asRoot)) == "NoNewPrivs:\t0\n"));
}

TEST_CASE("a child has the usual number of descriptors, however many its parent may have") {
  struct rlimit before;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &before));
  struct rlimit more {
    before.rlim_max, before.rlim_max
  };
  KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &more));
  KJ_DEFER(setrlimit(RLIMIT_NOFILE, &before));
  ChildLab lab;
  auto limit = lab.output(lab.describe("ulimit -Sn"));
  CHECK(atol(limit.cStr()) == long(kj::min(more.rlim_cur, rlim_t(1024))));
}

TEST_CASE("a child has the supplementary groups that it was given, and no others") {
  if (geteuid() != 0) return;
  ChildLab lab;
  auto description = lab.describe("id -G");
  description.identity = Identity{65534, 65534};
  description.groups = kj::arr(gid_t(20), gid_t(24));
  CHECK((lab.output(kj::mv(description)) == "65534 20 24\n"));
}

TEST_CASE("at its limit a child gets SIGTERM, and may end in order") {
  ChildLab lab;
  auto ended =
      lab.end(lab.describe("trap 'touch $FOLDER/tidy; exit 0' TERM; while :; do sleep 0.05; done", 2 * kj::SECONDS));
  CHECK(ended.is<ChildTimedOut>());
  lab.waitFor("tidy");
  CHECK(exists(lab.folder.path("tidy")));
  CHECK(lab.children.running() == 0);
}

TEST_CASE("a child that ignores SIGTERM is killed a second later, its whole group with it") {
  ChildLab lab;
  auto ended = lab.end(
      lab.describe("trap '' TERM; sleep 61 & echo $! > $FOLDER/pid; while :; do sleep 0.1; done", 2 * kj::SECONDS));
  CHECK(ended.is<ChildTimedOut>());
  pid_t grandchild = pidIn(lab.folder.path("pid"));
  CHECK(lab.children.running() == 1);  // the answer does not wait for the death
  for (int i = 0; i < 100 && lab.children.running() > 0; ++i) lab.turn(50 * kj::MILLISECONDS);
  CHECK(lab.children.running() == 0);
  CHECK(lab.children.leftBehind() == 0);
  CHECK_FALSE(groupRuns(grandchild));
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/exe", grandchild);
  CHECK_FALSE(exists(path));  // gone, or a dead entry that nobody has collected
}

TEST_CASE("what a child leaves in the background is killed at its end, and its hold on the output delays nothing") {
  ChildLab lab;
  auto begin = kj::systemPreciseMonotonicClock().now();
  CHECK((lab.output(lab.describe("sleep 61 & echo $! > $FOLDER/pid; echo done")) == "done\n"));
  CHECK(kj::systemPreciseMonotonicClock().now() - begin < 5 * kj::SECONDS);
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/exe", pidIn(lab.folder.path("pid")));
  for (int i = 0; i < 100 && exists(path); ++i) lab.turn(20 * kj::MILLISECONDS);
  CHECK_FALSE(exists(path));
}

TEST_CASE("dropping the promise kills the child") {
  ChildLab lab;
  {
    auto dropped = lab.children.run(lab.describe("echo $$ > $FOLDER/pid; exec sleep 60"));
    lab.waitFor("pid");
    CHECK(lab.children.running() == 1);
  }
  lab.turn(500 * kj::MILLISECONDS);
  CHECK(lab.children.running() == 0);
  // A kill is carried out when its process next runs.
  auto child = pidIn(lab.folder.path("pid"));
  for (int i = 0; i < 100 && groupRuns(child); ++i) lab.turn(20 * kj::MILLISECONDS);
  CHECK_FALSE(groupRuns(child));
}

TEST_CASE("a detached child is left alone by its limit and by the end of those who started it") {
  postern::test::TemporaryFolder folder;
  pid_t pid;
  {
    ChildLab lab;
    auto description = lab.describe(kj::str("echo $$ > ", folder.path("pid"), "; exec sleep 30"), 2 * kj::SECONDS);
    description.detached = true;
    CHECK(lab.end(kj::mv(description)).is<ChildTimedOut>());
    pid = pidIn(folder.path("pid"));
    lab.turn(1500 * kj::MILLISECONDS);
    CHECK(kill(pid, 0) == 0);
  }
  CHECK(kill(pid, 0) == 0);
  kill(pid, SIGKILL);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
}

TEST_CASE("no more than 32 children run at one time, and the next one runs when one has ended") {
  ChildLab lab;
  kj::Vector<kj::Promise<ChildEnd>> all;
  for (size_t i = 0; i < MAX_CHILDREN; ++i) all.add(lab.children.run(lab.describe("exec sleep 60")));
  auto refused = lab.end(lab.describe("true"));
  REQUIRE(refused.is<ChildNotStarted>());
  CHECK((refused.get<ChildNotStarted>().text == "too many programs run already"));
  all.removeLast();
  for (int i = 0; i < 500 && lab.children.running() == MAX_CHILDREN; ++i) lab.turn(10 * kj::MILLISECONDS);
  auto last = lab.end(lab.describe("true"));
  KJ_IF_MAYBE (why, last.tryGet<ChildNotStarted>()) MESSAGE(std::string(why->text.cStr()));
  CHECK(last.is<ChildExited>());
}

TEST_CASE("a child that floods its output without end does not hold up the loop") {
  ChildLab lab;
  auto flood = lab.children.run(lab.describe("exec yes", 2 * kj::SECONDS)).eagerlyEvaluate(nullptr);
  for (int i = 0; i < 20; ++i) {
    auto begin = kj::systemPreciseMonotonicClock().now();
    lab.turn(10 * kj::MILLISECONDS);
    CHECK(kj::systemPreciseMonotonicClock().now() - begin < 1 * kj::SECONDS);
  }
  CHECK(flood.wait(lab.scope).is<ChildTimedOut>());
}

TEST_CASE("a group counts as running while one of it lives, and not for its dead") {
  pid_t leader = fork();
  if (leader == 0) {
    setpgid(0, 0);
    for (;;) pause();
  }
  for (int i = 0; i < 100 && getpgid(leader) != leader; ++i) usleep(1000);
  CHECK(groupRuns(leader));
  kill(leader, SIGKILL);
  siginfo_t info;
  waitid(P_PID, id_t(leader), &info, WEXITED | WNOWAIT);
  CHECK(kill(-leader, 0) == 0);  // the kernel still knows the group of the dead
  CHECK_FALSE(groupRuns(leader));
  waitpid(leader, nullptr, 0);
  CHECK_FALSE(groupRuns(leader));
}

}  // namespace
}  // namespace postern::guest::test
