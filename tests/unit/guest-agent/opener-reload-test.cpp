// A reload of agent.toml while openers run.

#include <signal.h>

#include "tests/support/sanitized.h"
#include "tests/unit/guest-agent/file-stage.h"

namespace postern::guest::test {
namespace {

using postern::test::SANITIZED;

constexpr kj::StringPtr FILES = R"(
[[allow]]
id = "files"
call = ["file.*"]
args = { path = ["@", "@/**"] }
%
)"_kj;

struct Reload : FileStage {
  Reload() : FileStage(FILES) {}

  void reload(kj::StringPtr rules) {
    policy = policyOf(rules, root);
    broker->configurationChanged();
  }
  // One that waits for its host.
  kj::Own<BulkChannel> waiting(kj::StringPtr user) {
    auto calls = kj::heap(callsFor(user));
    auto called = call(*calls, order(FileCall::GET, root));
    auto response = wait(kj::mv(called.response));
    KJ_REQUIRE(!response.hasRefusal(), response.getRefusal());
    return KJ_ASSERT_NONNULL(kj::mv(called.channel)).attach(kj::mv(calls));
  }
  bool settlesAt(size_t count, kj::Duration within = 4 * kj::SECONDS) {
    for (auto end = port.getTimer().now() + within; port.getTimer().now() < end; turn(10 * kj::MILLISECONDS)) {
      if (openersAlive() == count && files.running() == count) return true;
    }
    return false;
  }
};

// T102
TEST_CASE("a reload ends the openers that it would not start, at once, and no others" * doctest::skip(SANITIZED)) {
  Reload stage;
  auto alice = stage.waiting("alice");
  auto bob = stage.waiting("bob");
  CHECK(openersAlive() == 2);

  stage.reload(kj::str(FILES, "[[allow]]\nid = \"more\"\ncall = [\"ping\"]\n"));
  stage.turn(300 * kj::MILLISECONDS);
  CHECK(openersAlive() == 2);
  CHECK(stage.files.running() == 2);

  // Well within OPENER_GRACE: they are cut off, not only ended.
  stage.reload(kj::str(FILES, "[[deny]]\nid = \"not-bob\"\nfrom = \"user:bob\"\ncall = [\"file.*\"]\n"));
  CHECK(stage.settlesAt(1));
  auto again = stage.waiting("alice");
  CHECK(openersAlive() == 2);
  stage.reload("");
  CHECK(stage.settlesAt(0));
  CHECK(stage.refusalOf(stage.order(FileCall::GET, stage.root)).startsWith("denied"));
}

// T102
TEST_CASE("an opener whose scope is another one by a new policy is ended, too" * doctest::skip(SANITIZED)) {
  Reload stage;
  auto alice = stage.waiting("alice");
  stage.reload(kj::str(FILES, "[[deny]]\nid = \"secrets\"\ncall = [\"file.*\"]\nargs = { path = \"@/secret/**\" }\n"));
  CHECK(stage.settlesAt(0));
}

// T102
TEST_CASE("an opener that does not heed its end is killed after its grace" * doctest::skip(SANITIZED)) {
  postern::test::TemporaryFolder folder;
  auto pidFile = folder.path("pid");
  BrokerLab lab(shell("exit 3"), 5 * kj::SECONDS, POWER_HAPPENS_WITHIN,
                shell(kj::str("echo $$ > ", pidFile, "; trap '' TERM; while true; do sleep 1; done")));
  bool allowed = true;
  lab.planFiles = [&](const transfer::FileOrder&, kj::StringPtr) -> kj::OneOf<OpenerPlan, FilesRefusal> {
    if (!allowed) return FilesRefusal{FilesRefusal::Kind::DENIED, kj::str("no more"), kj::String()};
    return OpenerPlan{FilePlace{transfer::PathScope(), kj::str("/srv"), kj::String()},
                      OpenerUser{kj::str("me"), nullptr, nullptr}};
  };
  auto client = lab.client();
  transfer::FileOrder order;
  order.call = FileCall::PUT;
  order.path = kj::str("/srv/x");
  auto opened = lab.wait(client->openFiles(order, "user:alice"));
  auto& files = opened.get<OpenedFiles>();
  for (int i = 0; i < 100 && !exists(pidFile); ++i) lab.turn();
  lab.turn(50 * kj::MILLISECONDS);
  pid_t opener = pidIn(pidFile);
  allowed = false;
  lab.broker->configurationChanged();
  lab.turn(200 * kj::MILLISECONDS);
  char byte;
  CHECK(recv(files.socket, &byte, 1, MSG_DONTWAIT) == 0);  // the mover is cut off already
  CHECK(kill(opener, 0) == 0);
  for (int i = 0; i < 120 && kill(opener, 0) == 0; ++i) lab.turn(100 * kj::MILLISECONDS);
  CHECK(kill(opener, 0) < 0);
}

}  // namespace
}  // namespace postern::guest::test
