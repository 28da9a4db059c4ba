// The administrator's own command, with real programs, and what systemd's way learns of locks. To start either of the
// other two ways would end the machine that they run on.

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <sstream>
#include <string>

#include "guest-agent/power/power-way.h"
#include "tests/unit/guest-agent/broker-fixture.h"

namespace postern::guest::test {
namespace {

struct CommandLab {
  postern::test::TemporaryFolder folder;
  kj::UnixEventPort port;
  kj::EventLoop loop{port};
  kj::WaitScope scope{loop};
  kj::Own<Children> children = kj::heap<Children>(port, [](kj::StringPtr) {});

  kj::Maybe<kj::String> start(kj::Array<kj::String> argv, PowerAction action) {
    auto way = newCommandPower(kj::mv(argv));
    return port.getTimer().timeoutAfter(20 * kj::SECONDS, way->start(action, *children)).wait(scope);
  }
};

TEST_CASE("the command gets the action as its last argument, and its end with status 0 is a start") {
  CommandLab lab;
  auto log = lab.folder.path("log");
  for (auto action : {PowerAction::SHUTDOWN, PowerAction::RESTART, PowerAction::SUSPEND}) {
    CHECK(lab.start(shell(kj::str("echo $0 $# >> ", log)), action) == nullptr);
  }
  kj::AutoCloseFd in(open(log.cStr(), O_RDONLY | O_CLOEXEC));
  CHECK((kj::FdInputStream(in.get()).readAllText() == "shutdown 0\nrestart 0\nsuspend 0\n"));
}

TEST_CASE("a command that fails, or is not there, is a failure with a line") {
  CommandLab lab;
  CHECK((KJ_REQUIRE_NONNULL(lab.start(shell("exit 4"), PowerAction::SHUTDOWN)) == "/bin/sh failed with status 4"));
  CHECK((KJ_REQUIRE_NONNULL(lab.start(kj::arr(kj::str("/nonexistent")), PowerAction::SHUTDOWN)) ==
         "cannot start /nonexistent: the program: No such file or directory"));
}

TEST_CASE("a command that is at work goes on when whoever waited for it, and all children, are gone") {
  CommandLab lab;
  auto way = newCommandPower(shell(kj::str("sleep 0.5; touch ", lab.folder.path("done"))));
  {
    auto dropped = way->start(PowerAction::SHUTDOWN, *lab.children).eagerlyEvaluate(nullptr);
    lab.port.getTimer().afterDelay(100 * kj::MILLISECONDS).wait(lab.scope);
  }
  lab.children = nullptr;
  for (int i = 0; i < 300 && !exists(lab.folder.path("done")); ++i) usleep(10000);
  CHECK(exists(lab.folder.path("done")));
}

TEST_CASE("a command without an absolute path is our own bug, and is not searched for") {
  CHECK_THROWS(newCommandPower(kj::arr(kj::str("poweroff"))));
  CHECK_THROWS(newCommandPower(nullptr));
}

// The lines that are logged while it lives.
class Lines {
 public:
  Lines() {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("lines", std::make_shared<spdlog::sinks::ostream_sink_st>(lines)));
  }
  ~Lines() { spdlog::set_default_logger(kj::mv(earlier)); }
  KJ_DISALLOW_COPY(Lines);
  std::string text() const { return lines.str(); }

 private:
  std::ostringstream lines;
  std::shared_ptr<spdlog::logger> earlier = spdlog::default_logger();
};

TEST_CASE("of inhibitors that nobody answers for, the log says that they are not known") {
  CommandLab lab;
  Lines lines;
  auto locksBy = [&](kj::StringPtr probe) {
    auto answer = newSystemdPower(shell(probe), nullptr)->inhibitors(PowerAction::SHUTDOWN, *lab.children);
    return lab.port.getTimer().timeoutAfter(20 * kj::SECONDS, kj::mv(answer)).wait(lab.scope);
  };
  auto locks = locksBy("printf 'shutdown\\tbackup\\thalf done\\n'");
  REQUIRE(locks.size() == 1);
  CHECK((locks[0] == "backup (half done)"));
  CHECK(lines.text().empty());
  CHECK(locksBy("exit 1").size() == 0);
  CHECK(lines.text().find("inhibitors-unknown") != std::string::npos);
}

}  // namespace
}  // namespace postern::guest::test
