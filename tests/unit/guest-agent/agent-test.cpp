#include "guest-agent/agent/agent.h"

#include <doctest/doctest.h>

#include "protocol/limits.h"
#include "tests/unit/guest-agent/agent-stage.h"

using namespace postern;
using namespace postern::guest;
using namespace postern::guest::test;

namespace {

kj::Array<kj::Own<Bundle>> one(kj::Own<Bundle> bundle) {
  auto list = kj::heapArrayBuilder<kj::Own<Bundle>>(1);
  list.add(kj::mv(bundle));
  return list.finish();
}

struct WorkingStage : AgentStage {
  WorkingStage() {
    REQUIRE(start(one(ownHost->offer())));
    REQUIRE(isWorking());
  }
  schema::Heartbeat::Reader heartbeat() { return ownHost->lastHeartbeat->getRoot<schema::Heartbeat>().asReader(); }
  void pass(kj::Duration time) {
    until([]() { return false; }, time);
  }
};

}  // namespace

TEST_CASE("heartbeats come once per interval, which the host sets and this end bounds") {
  WorkingStage stage;
  auto count = [&](kj::Duration time) {
    auto before = stage.ownHost->heartbeats;
    stage.pass(time);
    return stage.ownHost->heartbeats - before;
  };
  CHECK(count(10 * kj::SECONDS) == 10);
  stage.ownHost->interval = 5000;
  stage.pass(2 * kj::SECONDS);
  CHECK(count(50 * kj::SECONDS) == 10);
  stage.ownHost->interval = 0;
  stage.pass(6 * kj::SECONDS);
  CHECK(count(10 * kj::SECONDS) == 50);
  stage.ownHost->interval = 0xffffffff;
  stage.pass(2 * kj::SECONDS);
  CHECK(count(600 * kj::SECONDS) == 10);
}

TEST_CASE("a heartbeat says who the agent is and counts on over sessions") {
  WorkingStage stage;
  CHECK(stage.heartbeat().getBootIdHigh() == 1);
  CHECK(stage.heartbeat().getBootIdLow() == 2);
  CHECK((stage.heartbeat().getAgentVersion() == POSTERN_VERSION));
  CHECK(stage.heartbeat().getPolicyHash().size() == 32);
  CHECK(stage.heartbeat().getState() == schema::Heartbeat::State::RUNNING);
  auto before = stage.heartbeat().getSequence();
  stage.ownHost->drop();
  REQUIRE(stage.isWorking());
  CHECK(stage.heartbeat().getSequence() > before);
}

TEST_CASE("a host that answers no heartbeat for the deadline is left, and found again soon") {
  WorkingStage stage;
  stage.ownHost->answersHeartbeats = false;
  auto sessions = stage.ownHost->sessions;
  CHECK(stage.until([&]() { return stage.ownHost->sessions > sessions; },
                    2 * kj::SECONDS + limits::PING_DEADLINE + limits::CONNECT_RETRY_MAX));
}

TEST_CASE("a host that is away is tried every two seconds at least, and one that refuses every thirty") {
  WorkingStage stage;
  stage.host = nullptr;
  stage.ownHost->drop();
  stage.pass(300 * kj::SECONDS);
  stage.host = *stage.ownHost;
  CHECK(stage.until([&]() { return stage.ownHost->isConnected(); }, 3 * kj::SECONDS));

  stage.pass(20 * kj::SECONDS);
  stage.ownHost->refuses = true;
  stage.ownHost->drop();
  stage.pass(300 * kj::SECONDS);
  stage.ownHost->refuses = false;
  CHECK(stage.until([&]() { return stage.ownHost->isConnected(); }, 31 * kj::SECONDS));
}

TEST_CASE("an agent whose identity another one uses backs off instead of fighting") {
  WorkingStage stage;
  stage.ownHost->interval = 60000;
  unsigned before = stage.ownHost->sessions;
  auto end = stage.timer.now() + 300 * kj::SECONDS;
  while (stage.timer.now() < end) {
    stage.ownHost->drop(CloseCode::REPLACED);
    stage.pass(1 * kj::SECONDS);
  }
  CHECK(stage.ownHost->sessions - before < 30);
  CHECK(stage.ownHost->sessions - before > 5);
}

TEST_CASE("a new handshake is made when the old keys are due, beside the session that there is") {
  WorkingStage stage;
  stage.ownHost->interval = 60000;
  auto sessions = stage.ownHost->sessions;
  stage.pass(2 * kj::SECONDS);
  // In larger steps: a day.
  auto end = stage.timer.now() + limits::RENEW_AFTER - 10 * kj::MINUTES;
  while (stage.timer.now() < end) {
    stage.timer.advanceTo(stage.timer.now() + 30 * kj::SECONDS);
    for (unsigned i = 0; i < 10; ++i) stage.waitScope.poll();
  }
  CHECK(stage.ownHost->sessions == sessions);
  end += 15 * kj::MINUTES;
  while (stage.timer.now() < end) {
    stage.timer.advanceTo(stage.timer.now() + 30 * kj::SECONDS);
    for (unsigned i = 0; i < 10; ++i) stage.waitScope.poll();
  }
  CHECK(stage.ownHost->sessions == sessions + 1);
  CHECK(stage.ownHost->isConnected());
}

TEST_CASE("an agent that is told to stop says goodbye and closes") {
  WorkingStage stage;
  auto& agent = *KJ_ASSERT_NONNULL(KJ_ASSERT_NONNULL(stage.life)->agent);
  agent.stop().wait(stage.waitScope);
  stage.until([&]() { return !stage.ownHost->isConnected(); }, 100 * kj::MILLISECONDS);
  REQUIRE(stage.ownHost->goodbyes.size() == 1);
  CHECK(stage.ownHost->goodbyes[0] == schema::Goodbye::AGENT_STOPPED);
  CHECK((stage.ownHost->lastEnd == "closed by the peer (goodbye)"));
}

TEST_CASE("calls are decided by the guest's policy when they are made, and a denial says what would allow it") {
  WorkingStage stage;
  auto& life = *KJ_ASSERT_NONNULL(stage.life);
  auto request = stage.ownHost->guest().callsForRequest();
  auto user = request.initCaller().initUser();
  user.setName("alice");
  auto calls = request.send().getCalls();
  auto ping = [&]() { return calls.pingRequest().send().wait(stage.waitScope); };

  auto denied = ping();
  REQUIRE(denied.hasRefusal());
  CHECK(denied.getRefusal().getReason() == schema::Refusal::Reason::DENIED);
  CHECK(denied.getRefusal().getSuggestion().size() > 0);

  auto suggested = kj::str("policy = 1\n", denied.getRefusal().getSuggestion());
  auto parsed = GuestPolicy::parse("agent.toml", suggested);
  REQUIRE((parsed.is<kj::Own<const GuestPolicy>>()));
  life.policy = kj::mv(parsed.get<kj::Own<const GuestPolicy>>());
  CHECK(!ping().hasRefusal());

  life.policy = GuestPolicy::denyAll();
  CHECK(ping().hasRefusal());
}

TEST_CASE("a caller who cannot be is denied everything, whatever the policy") {
  WorkingStage stage;
  auto& life = *KJ_ASSERT_NONNULL(stage.life);
  auto all = GuestPolicy::parse("agent.toml", "policy = 1\n[[allow]]\nid = \"a\"\ncall = [\"ping\"]\n");
  REQUIRE((all.is<kj::Own<const GuestPolicy>>()));
  life.policy = kj::mv(all.get<kj::Own<const GuestPolicy>>());
  for (auto* name : {"a/b", "a:b", "a\nb", "\xff"}) {
    auto request = stage.ownHost->guest().callsForRequest();
    request.initCaller().initUser().setName(name);
    auto answer = request.send().getCalls().pingRequest().send().wait(stage.waitScope);
    REQUIRE(answer.hasRefusal());
    CHECK(answer.getRefusal().getReason() == schema::Refusal::Reason::DENIED);
  }
  auto request = stage.ownHost->guest().callsForRequest();
  request.initCaller().initUser().setName(kj::heapString(100000));
  CHECK(request.send().getCalls().pingRequest().send().wait(stage.waitScope).hasRefusal());
}

TEST_CASE("over a serial line: enrolment, sessions one after the other on one device, and a new life of the agent") {
  AgentStage stage;
  stage.transport = TransportKind::SERIAL;
  auto bundles = one(stage.ownHost->offer());
  REQUIRE(stage.start(bundles));
  REQUIRE(stage.isWorking());
  CHECK(stage.ownHost->enrolments == 1);
  for (unsigned i = 0; i < 3; ++i) {
    stage.ownHost->drop();
    CHECK(stage.isWorking());
  }
  CHECK(stage.broker().connects == 1);
  stage.kill();
  REQUIRE(stage.start(nullptr));
  CHECK(stage.isWorking());
}

// T122
TEST_CASE("a host that asks for new keys over its session gets them in the next one, whatever the transport") {
  for (auto transport : {TransportKind::UNIX, TransportKind::SERIAL}) {
    AgentStage stage;
    stage.transport = transport;
    REQUIRE(stage.start(one(stage.ownHost->offer())));
    REQUIRE(stage.isWorking());
    auto bundle = stage.ownHost->offer();
    auto request = stage.ownHost->guest().rekeyRequest();
    request.setHostPublicKey(kj::arrayPtr(bundle->host.bytes.data(), 31));
    request.setToken(bundle->token.bytes.asPtr());
    CHECK(request.send().wait(stage.waitScope).getRefusal().getReason() == schema::Refusal::Reason::INVALID);
    request = stage.ownHost->guest().rekeyRequest();
    request.setHostPublicKey(kj::arrayPtr(bundle->host.bytes.data(), 32));
    request.setToken(bundle->token.bytes.asPtr());
    CHECK_FALSE(request.send().wait(stage.waitScope).hasRefusal());
    CHECK(stage.until([&]() { return stage.ownHost->enrolments == 2; }));
    CHECK(stage.isWorking());
    stage.kill();
    REQUIRE(stage.start(nullptr));
    CHECK(stage.isWorking());
    CHECK(stage.ownHost->enrolments == 2);
  }
}

TEST_CASE("over a serial line a new bundle is enrolled by closing the session that there is") {
  AgentStage stage;
  stage.transport = TransportKind::SERIAL;
  REQUIRE(stage.start(one(stage.ownHost->offer())));
  REQUIRE(stage.isWorking());
  stage.give(one(stage.ownHost->offer()));
  CHECK(stage.until([&]() { return stage.ownHost->enrolments == 2; }));
  CHECK(stage.isWorking());
  CHECK(stage.broker().connects == 1);
}
