// GuestCalls.file over a session: what is refused, what ends a session, and what ends a transfer and its opener.

#include <signal.h>

#include "tests/support/sanitized.h"
#include "tests/unit/guest-agent/every-channel.h"
#include "tests/unit/guest-agent/file-stage.h"

namespace postern::guest::test {
namespace {

using postern::test::SANITIZED;

constexpr kj::StringPtr RULES = R"(
[[allow]]
id = "files"
call = ["file.*"]
args = { path = ["@", "@/**"] }
%
)"_kj;

struct Service : FileStage {
  explicit Service(kj::Maybe<kj::Array<kj::String>> opener = nullptr) : FileStage(RULES, kj::mv(opener)) {}

  // One that waits for its host: its opener has counted and offers what there is.
  Called waiting(schema::GuestCalls::Client calls) {
    auto called = call(calls, order(FileCall::GET, root));
    auto response = wait(kj::mv(called.response));
    KJ_REQUIRE(!response.hasRefusal(), response.getRefusal());
    return {kj::mv(response), kj::mv(called.channel)};
  }
  bool opensSettleAt(size_t count) {
    for (int i = 0; i < 400; ++i) {
      if (openersAlive() == count) return true;
      turn(10 * kj::MILLISECONDS);
    }
    return false;
  }
  template <typename Change>
  kj::String refused(Change&& change, bool withChannel = true) {
    auto calls = callsFor("alice");
    auto request = calls.fileRequest();
    transfer::write(order(FileCall::GET, root), request.initOrder());
    auto opened = KJ_ASSERT_NONNULL(host->bulk().open());
    if (withChannel) {
      request.setChannel(opened.offer.channel);
      request.setCredit(opened.offer.credit);
    }
    change(request.getOrder());
    auto response = wait(request.send());
    return response.hasRefusal() ? kj::str(response.getRefusal().getReason()) : kj::str("taken");
  }
};

// T72
TEST_CASE("an order that makes no sense is refused before anything is done") {
  Service stage;
  using Order = schema::FileOrder::Builder;
  for (auto path : {"", "srv", "/srv/", "/srv//x", "/srv/../etc", "/srv/./x", "//", "/srv/.."}) {
    CHECK((stage.refused([&](Order order) { order.setPath(kj::StringPtr(path).asBytes()); }) == "invalid"));
  }
  auto withNul = kj::heapString("/srv/x");
  withNul[3] = 0;
  CHECK((stage.refused([&](Order order) { order.setPath(withNul.asBytes()); }) == "invalid"));
  auto tooLong = kj::heapArray<kj::byte>(5000);
  memset(tooLong.begin(), 'x', tooLong.size());
  tooLong[0] = '/';
  CHECK((stage.refused([&](Order order) { order.setPath(tooLong); }) == "invalid"));
  CHECK((stage.refused([&](Order order) { order.setCall(schema::FileOrder::Call(6)); }) == "invalid"));
  CHECK((stage.refused([&](Order order) { order.setSparse(schema::FileOrder::Sparse(3)); }) == "invalid"));
  CHECK((stage.refused([&](Order order) { order.setCall(FileCall::MKDIR); }) == "invalid"));
  CHECK((stage.refused([](Order) {}, false) == "invalid"));
  CHECK(openersAlive() == 0);
  CHECK_FALSE(stage.guest->isOver());
}

TEST_CASE(
    "what the guest's policy does not allow is refused with what would allow it, also when the caller is nobody") {
  Service stage;
  auto called = stage.call(stage.callsFor("alice"), stage.order(FileCall::PUT, "/etc/passwd"));
  auto response = stage.wait(kj::mv(called.response));
  REQUIRE(response.hasRefusal());
  CHECK((response.getRefusal().getReason() == schema::Refusal::Reason::DENIED));
  CHECK(response.getRefusal().getSuggestion().size() > 0);
  auto nobody = stage.call(stage.callsFor("a/b"), stage.order(FileCall::GET, stage.root));
  CHECK((stage.wait(kj::mv(nobody.response)).getRefusal().getReason() == schema::Refusal::Reason::DENIED));
}

TEST_CASE("what the broker refuses is told: a run-as that it cannot become, a policy that has changed meanwhile") {
  Service stage;
  stage.planFiles = [](const FileOrder&, kj::StringPtr) {
    return FilesRefusal{FilesRefusal::Kind::FAILED, kj::str("there is no user 'www-data'"), kj::String()};
  };
  CHECK((stage.refusalOf(stage.order(FileCall::GET, stage.root)) == "failed: there is no user 'www-data'"));
  stage.planFiles = [](const FileOrder&, kj::StringPtr) {
    return FilesRefusal{FilesRefusal::Kind::DENIED, kj::str("no more"), kj::str("rule-7")};
  };
  auto called = stage.call(stage.callsFor("alice"), stage.order(FileCall::MKDIR, stage.root));
  auto response = stage.wait(kj::mv(called.response));
  CHECK((response.getRefusal().getReason() == schema::Refusal::Reason::DENIED));
  CHECK((response.getRefusal().getRule() == "rule-7"));
  CHECK(stage.files.running() == 0);
}

// T72
TEST_CASE("an offer that breaks the rules of bulk channels ends the session") {
  Service stage;
  auto calls = stage.callsFor("alice");
  auto request = calls.fileRequest();
  transfer::write(stage.order(FileCall::GET, stage.root), request.initOrder());
  request.setChannel(1);  // the guest's own numbers are odd
  request.setCredit(65536);
  auto sent = request.send().ignoreResult().catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr);
  auto end = stage.wait(stage.guest->onEnd());
  CHECK((end.reason == EndReason::PROTOCOL_ERROR));
  stage.wait(kj::mv(sent));
}

TEST_CASE("an order whose channel is one above what the session has room for is busy, and the session goes on") {
  Service stage;
  auto full = test::openEveryChannel(*stage.guest);
  CHECK(stage.refusalOf(stage.order(FileCall::GET, stage.root)).startsWith("busy: "));
  full.clear();
  CHECK(stage.refused([](schema::FileOrder::Builder order) { order.setCall(FileCall::MKDIR); }) == "invalid");
}

// T75
TEST_CASE("a ninth transfer is refused as busy, and goes when one of the eight has ended" * doctest::skip(SANITIZED)) {
  Service stage;
  auto calls = stage.callsFor("alice");
  kj::Vector<FileStage::Called> eight;
  for (unsigned i = 0; i < transfer::MAX_TRANSFERS; ++i) eight.add(stage.waiting(calls));
  CHECK(stage.refusalOf(stage.order(FileCall::GET, stage.root)).startsWith("busy"));
  CHECK(stage.refusalOf(stage.order(FileCall::MKDIR, stage.inGuest("x"))).startsWith("busy"));
  CHECK(openersAlive() == transfer::MAX_TRANSFERS);
  eight[3].channel = nullptr;
  CHECK(stage.opensSettleAt(transfer::MAX_TRANSFERS - 1));
  eight.add(stage.waiting(stage.callsFor("bob")));
  CHECK(stage.files.running() == transfer::MAX_TRANSFERS);
}

// T75
TEST_CASE("a channel that is reset, a caller that goes and a session that ends end the transfer and its opener" *
          doctest::skip(SANITIZED)) {
  Service stage;
  {
    auto calls = stage.callsFor("alice");
    auto reset = stage.waiting(calls);
    CHECK(openersAlive() == 1);
    KJ_ASSERT_NONNULL(reset.channel)->reset();
    CHECK(stage.opensSettleAt(0));
    CHECK(stage.files.running() == 0);
  }
  kj::Maybe<FileStage::Called> left;
  {
    auto calls = stage.callsFor("bob");
    left = stage.waiting(calls);
    CHECK(openersAlive() == 1);
  }
  CHECK(stage.opensSettleAt(0));
  auto calls = stage.callsFor("carol");
  auto last = stage.waiting(calls);
  CHECK(openersAlive() == 1);
  auto closed = stage.host->close(CloseCode::GOODBYE);
  CHECK(stage.opensSettleAt(0));
  CHECK(stage.files.running() == 0);
}

TEST_CASE("a caller that goes while his order is on its way to the broker leaves nothing" * doctest::skip(SANITIZED)) {
  Service stage;
  for (int turns = 0; turns < 12; ++turns) {
    auto called = stage.call(stage.callsFor("alice"), stage.order(FileCall::GET, stage.root));
    stage.turn(turns * kj::MILLISECONDS);
  }
  // There may be no opener yet.
  stage.waitUntilIdle();
  CHECK(stage.opensSettleAt(0));
}

// T75
TEST_CASE("an opener that does not end when its transfer has is killed" * doctest::skip(SANITIZED)) {
  postern::test::TemporaryFolder folder;
  auto pid = folder.path("pid");
  Service stage(shell(kj::str("echo $$ > ", pid, "; trap '' TERM; while true; do sleep 1; done")));
  {
    auto calls = stage.callsFor("alice");
    auto stuck = stage.call(calls, stage.order(FileCall::GET, stage.root));
    CHECK_FALSE(stage.wait(kj::mv(stuck.response)).hasRefusal());
    for (int i = 0; i < 100 && !exists(pid); ++i) stage.turn();
  }
  stage.turn(50 * kj::MILLISECONDS);
  pid_t opener = pidIn(pid);
  CHECK(kill(opener, 0) == 0);  // its grace
  for (int i = 0; i < 90 && kill(opener, 0) == 0; ++i) stage.turn(100 * kj::MILLISECONDS);
  CHECK(kill(opener, 0) < 0);
}

}  // namespace
}  // namespace postern::guest::test
