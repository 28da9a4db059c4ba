#include "host/session/hub.h"

#include <capnp/rpc.capnp.h>
#include <poll.h>

#include "protocol/limits.h"
#include "tests/unit/host/hub-fixture.h"

namespace postern::host {
namespace {

using test::HubLab;
using test::LabGuest;
using Kind = Hub::EventKind;
namespace wire = postern::schema;

TEST_CASE("a guest enrols: it is connected once it has committed, and not before") {
  HubLab lab;
  auto agent = lab.newAgent();
  LabGuest guest;
  lab.connect(guest, agent, agent.enrolment());
  REQUIRE(guest.isIn());
  CHECK(agent.linkSecret != nullptr);
  CHECK_FALSE(lab.keys->isEnrolled());
  CHECK((lab.hub->connected() == nullptr));
  REQUIRE(lab.commit(guest, agent));
  CHECK(lab.keys->isEnrolled());
  CHECK((lab.hub->connected() != nullptr));
  CHECK(lab.log.count(Kind::ENROLLED) == 1);
  CHECK(lab.log.count(Kind::CONNECTED) == 1);
  CHECK(lab.beat(guest, agent) == DEFAULT_HEARTBEAT_MILLISECONDS);
  CHECK(lab.log.reports.size() == 1);
}

TEST_CASE("a guest that has its secret and lost COMMITTED connects with it: that is the commit") {
  HubLab lab;
  auto agent = lab.newAgent();
  {
    LabGuest guest;
    lab.connect(guest, agent, agent.enrolment());
    REQUIRE(guest.isIn());
    lab.kill(guest);
  }
  CHECK_FALSE(lab.keys->isEnrolled());
  LabGuest guest;
  lab.connect(guest, agent);
  REQUIRE(guest.isIn());
  CHECK(lab.keys->isEnrolled());
  CHECK(lab.log.count(Kind::ENROLLED) == 1);
  CHECK((lab.hub->connected() != nullptr));
}

TEST_CASE("an enrolment that is not committed in time is closed") {
  HubLab lab;
  auto agent = lab.newAgent();
  LabGuest guest;
  lab.connect(guest, agent, agent.enrolment());
  REQUIRE(guest.isIn());
  lab.advance(ENROLMENT_DEADLINE - 1 * kj::SECONDS);
  CHECK(guest.isIn());
  lab.advance(2 * kj::SECONDS);
  REQUIRE(guest.isOut());
  CHECK((KJ_REQUIRE_NONNULL(guest.closeCode()) == CloseCode::TIMED_OUT));
  CHECK(lab.log.count(Kind::REFUSED) == 1);
  CHECK_FALSE(lab.keys->isEnrolled());
}

// T43
TEST_CASE("a second key with the same token is refused, and that is told") {
  HubLab lab;
  auto issued = lab.keys->issue(DEFAULT_TOKEN_SECONDS);
  auto owner = lab.agentFor(issued.get<VmKeys::Issued>());
  auto thief = lab.agentFor(issued.get<VmKeys::Issued>());
  LabGuest first, second;
  lab.connect(first, owner, owner.enrolment());
  REQUIRE(first.isIn());
  lab.connect(second, thief, thief.enrolment());
  CHECK(second.isOut());
  CHECK(lab.log.count(Kind::TOKEN_REUSE) == 1);
  REQUIRE(lab.commit(first, owner));
  CHECK(lab.keys->isEnrolled());
}

// T43
TEST_CASE("a token that is replaced while its handshake is under way binds nothing") {
  HubLab lab;
  auto old = lab.newAgent();
  LabGuest late;
  lab.begin(late, old, old.enrolment());
  // The host has read HELLO and found the old token; the guest's CONFIRM comes after the new bundle was made.
  auto fresh = lab.newAgent();
  lab.settle();
  CHECK(late.isOut());
  CHECK_FALSE(lab.keys->isPending(old.own.publicKey()));
  LabGuest rightful;
  lab.connect(rightful, fresh, fresh.enrolment());
  REQUIRE(rightful.isIn());
  REQUIRE(lab.commit(rightful, fresh));
  CHECK(lab.keys->isEnrolled());
}

TEST_CASE("an enrolled guest connects by its pair; an unknown key is refused without a word") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest guest;
  lab.connect(guest, agent);
  CHECK(guest.isIn());
  CHECK(guest.outcome.wait(lab.io.waitScope).proved);
  (void)lab.enrolled();  // with another key: the earlier pair is void
  LabGuest late;
  lab.connect(late, agent);
  CHECK(late.isOut());
  CHECK((late.closeCode() == nullptr));
  CHECK_FALSE(late.outcome.wait(lab.io.waitScope).proved);
  REQUIRE(lab.log.count(Kind::REFUSED) == 1);
  CHECK(lab.log.last(Kind::REFUSED).code == static_cast<uint16_t>(schema::SessionObserver::Refused::KEYS));
}

TEST_CASE("a new session replaces the old one, which hears why") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest old, young;
  lab.connect(old, agent);
  lab.connect(young, agent);
  CHECK(young.isIn());
  REQUIRE(old.isOut());
  CHECK((KJ_REQUIRE_NONNULL(old.closeCode()) == CloseCode::REPLACED));
  CHECK(lab.log.count(Kind::LOST) == 0);  // a VM that is replaced was not lost
  CHECK(lab.log.count(Kind::CONNECTED) == 2);
  CHECK(lab.beat(young, agent) != 0);
}

// T44
TEST_CASE("two agents with one identity: after three replacements in a minute the one that is there stays") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest guests[6];
  for (unsigned i = 0; i <= MAX_REPLACEMENTS; ++i) {
    agent.confirmation.agentInstance = {i % 2, 5};
    lab.connect(guests[i], agent);
    CHECK(guests[i].isIn());
  }
  agent.confirmation.agentInstance = {(MAX_REPLACEMENTS + 1) % 2, 5};
  lab.connect(guests[4], agent);
  CHECK(guests[3].isIn());
  REQUIRE(guests[4].isOut());
  CHECK((KJ_REQUIRE_NONNULL(guests[4].closeCode()) == CloseCode::DUPLICATE_IDENTITY));
  CHECK(lab.log.count(Kind::DUPLICATE_IDENTITY) == 1);
  CHECK(lab.log.last(Kind::REFUSED).code == static_cast<uint16_t>(schema::SessionObserver::Refused::CLONED_IDENTITY));
  lab.advance(DUPLICATE_REFUSAL - 1 * kj::SECONDS);
  LabGuest again;
  lab.connect(again, agent);
  CHECK(again.isOut());
  CHECK(lab.log.count(Kind::DUPLICATE_IDENTITY) == 1);  // said once
  lab.advance(2 * kj::SECONDS);
  lab.connect(guests[5], agent);
  CHECK(guests[5].isIn());
}

TEST_CASE("one agent that reconnects often is nobody's duplicate") {
  HubLab lab;
  auto agent = lab.enrolled();
  for (unsigned i = 0; i < 3 * MAX_REPLACEMENTS; ++i) {
    LabGuest guest;
    lab.connect(guest, agent);
    CHECK(guest.isIn());
  }
  CHECK(lab.log.count(Kind::DUPLICATE_IDENTITY) == 0);
}

// T45
TEST_CASE("a session counter that goes back is told, and refused where that is the rule") {
  HubLab lab;
  auto agent = lab.enrolled();
  agent.confirmation.sessionCounter = 50;
  {
    LabGuest guest;
    lab.connect(guest, agent);
    REQUIRE(guest.isIn());
  }
  lab.settle();
  agent.confirmation.sessionCounter = 20;
  {
    LabGuest guest;
    lab.connect(guest, agent);
    CHECK(guest.isIn());
  }
  CHECK(lab.log.count(Kind::ROLLBACK) == 1);
  lab.hub->setRollback(schema::Rollback::DENY);
  LabGuest denied;
  lab.connect(denied, agent);
  REQUIRE(denied.isOut());
  CHECK((KJ_REQUIRE_NONNULL(denied.closeCode()) == CloseCode::POLICY));
  CHECK(lab.log.last(Kind::REFUSED).code == static_cast<uint16_t>(schema::SessionObserver::Refused::ROLLED_BACK));
  agent.confirmation.sessionCounter = 60;
  LabGuest forward;
  lab.connect(forward, agent);
  CHECK(forward.isIn());
}

TEST_CASE("a connection for a transfer that nobody began is refused") {
  HubLab lab;
  auto agent = lab.enrolled();
  agent.confirmation.bulk = BulkPurpose{1, {2, 3}};
  LabGuest guest;
  lab.connect(guest, agent);
  CHECK(guest.isOut());
  CHECK((lab.hub->connected() == nullptr));
}

TEST_CASE("a peer that says nothing is closed at the deadline, and keys that were replaced are kept until then") {
  HubLab lab;
  auto pair = newSocketPair(SOCK_STREAM);
  auto outcome = lab.hub->link({TransportKind::UNIX, DescriptorKind::SOCKET, UnknownPeer(), kj::mv(pair.first)},
                               kj::str("silent"));
  lab.settle();
  CHECK_FALSE(outcome.poll(lab.io.waitScope));
  lab.advance(limits::HANDSHAKE_DEADLINE);
  REQUIRE(outcome.poll(lab.io.waitScope));
  CHECK_FALSE(outcome.wait(lab.io.waitScope).proved);
  // What was sent to the peer, its HELLO, and then the end: a thread closes it.
  kj::byte bytes[512];
  ssize_t got = -1, total = 0;
  pollfd asked{pair.second, POLLIN, 0};
  while (poll(&asked, 1, 5000) > 0 && (got = recv(pair.second, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) total += got;
  CHECK(got == 0);
  CHECK(total == HELLO_FRAME_BYTES);
}

TEST_CASE("heartbeats that come faster than any may are answered and not passed on") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest guest;
  lab.connect(guest, agent);
  for (int i = 0; i < 50; ++i) CHECK(lab.beat(guest, agent) == DEFAULT_HEARTBEAT_MILLISECONDS);
  CHECK(lab.log.reports.size() == 1);
  lab.advance(HEARTBEAT_SPACING);
  CHECK(lab.beat(guest, agent) != 0);
  CHECK(lab.log.reports.size() == 2);
  CHECK(lab.log.reports[1].heartbeats == 2);
  CHECK(lab.log.reports[1].session == lab.hub->sessionsMade());
}

TEST_CASE("gone: when the guest has said goodbye and its session is over, and not for one alone") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest guest;
  lab.connect(guest, agent);
  auto gone = lab.hub->whenGone();
  lab.sayGoodbye(guest, wire::Goodbye::SHUTDOWN);
  CHECK_FALSE(gone.poll(lab.io.waitScope));
  lab.kill(guest);
  REQUIRE(gone.poll(lab.io.waitScope));
  CHECK_FALSE(gone.wait(lab.io.waitScope).failed);
  CHECK((KJ_REQUIRE_NONNULL(lab.hub->lastGoodbye()) == wire::Goodbye::SHUTDOWN));

  LabGuest cut;
  lab.connect(cut, agent);
  auto notGone = lab.hub->whenGone();
  lab.kill(cut);
  CHECK_FALSE(notGone.poll(lab.io.waitScope));  // cut without a word
  LabGuest stopping;
  lab.connect(stopping, agent);
  lab.beat(stopping, agent, wire::Heartbeat::State::STOPPING);
  lab.kill(stopping);
  CHECK(notGone.poll(lab.io.waitScope));
}

TEST_CASE("rebooted: a heartbeat with a new boot id; the same one after an interruption is a failure") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest guest;
  lab.connect(guest, agent);
  lab.beat(guest, agent);
  auto rebooted = lab.hub->whenRebooted();
  lab.advance(1 * kj::SECONDS);
  lab.beat(guest, agent);
  CHECK_FALSE(rebooted.poll(lab.io.waitScope));  // it has not gone yet
  lab.kill(guest);
  LabGuest same;
  lab.connect(same, agent);
  lab.advance(1 * kj::SECONDS);
  lab.beat(same, agent);
  REQUIRE(rebooted.poll(lab.io.waitScope));
  CHECK(rebooted.wait(lab.io.waitScope).failed);

  auto again = lab.hub->whenRebooted();
  lab.kill(same);
  agent.confirmation.bootId = {1, 2};
  LabGuest fresh;
  lab.connect(fresh, agent);
  lab.advance(1 * kj::SECONDS);
  lab.beat(fresh, agent);
  REQUIRE(again.poll(lab.io.waitScope));
  CHECK_FALSE(again.wait(lab.io.waitScope).failed);
  CHECK(lab.log.count(Kind::BOOTED) == 1);
}

TEST_CASE("a guest that breaks its RPC loses its session, and may make a new one") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest guest;
  lab.connect(guest, agent);
  // The agent's RPC system gives up, its session does not.
  capnp::MallocMessageBuilder message;
  message.initRoot<capnp::rpc::Message>().initAbort().setReason("no more");
  auto& stream = static_cast<capnp::MessageStream&>(KJ_REQUIRE_NONNULL(guest.session)->rpcStream());
  auto written = stream.writeMessage(message).eagerlyEvaluate([](kj::Exception&&) {});
  lab.settle();
  CHECK(guest.isOut());
  CHECK((lab.hub->connected() == nullptr));
  CHECK(lab.log.count(Kind::LOST) == 1);
  LabGuest next;
  lab.connect(next, agent);
  CHECK(next.isIn());
}

TEST_CASE("a full disk refuses the enrolment and keeps who is connected") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest guest;
  lab.connect(guest, agent);
  auto fresh = lab.newAgent();
  test::DiskFull full;
  LabGuest enrols;
  lab.connect(enrols, fresh, fresh.enrolment());
  CHECK(enrols.isOut());
  CHECK(lab.log.count(Kind::TROUBLE) == 1);
  CHECK(guest.isIn());
  lab.advance(1 * kj::SECONDS);
  CHECK(lab.beat(guest, agent) != 0);
  // Nor is a session let in whose counter could not be kept.
  LabGuest uncounted;
  lab.connect(uncounted, agent);
  CHECK(uncounted.isOut());
  CHECK(guest.isIn());
}

TEST_CASE("closing says goodbye to the guest") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest guest;
  lab.connect(guest, agent);
  auto closed = lab.hub->close();
  lab.settle();
  CHECK(closed.poll(lab.io.waitScope));
  CHECK((KJ_REQUIRE_NONNULL(guest.closeCode()) == CloseCode::GOODBYE));
}

TEST_CASE("a hub may be destroyed while guests are connected, enrolling and shaking hands") {
  HubLab lab;
  auto agent = lab.enrolled();
  LabGuest guest, enrols, half;
  lab.connect(guest, agent);
  auto fresh = lab.newAgent();
  lab.connect(enrols, fresh, fresh.enrolment());
  lab.begin(half, agent, agent.identity());
  half.outcome = nullptr;
  lab.hub = nullptr;
  lab.settle();
  CHECK(guest.isOut());
  CHECK(enrols.isOut());
  CHECK(half.isOut());
}

TEST_CASE("a serial pipe is free when it has ended, and another one takes its place") {
  HubLab lab;
  auto first = newSocketPair(SOCK_STREAM);
  auto second = newSocketPair(SOCK_STREAM);
  auto serial = [](kj::AutoCloseFd fd) {
    return Connection{TransportKind::SERIAL, DescriptorKind::SOCKET, UnknownPeer(), kj::mv(fd)};
  };
  CHECK(lab.hub->whenSerialFree().poll(lab.io.waitScope));
  auto one = lab.hub->link(serial(kj::mv(first.first)), kj::str("vmm"));
  auto free = lab.hub->whenSerialFree();
  lab.settle();
  CHECK_FALSE(free.poll(lab.io.waitScope));
  auto two = lab.hub->link(serial(kj::mv(second.first)), kj::str("vmm"));
  lab.settle();
  REQUIRE(one.poll(lab.io.waitScope));
  CHECK_FALSE(one.wait(lab.io.waitScope).proved);
  CHECK_FALSE(free.poll(lab.io.waitScope));  // the second one is in use
  second.second = nullptr;
  lab.settle();
  CHECK(two.poll(lab.io.waitScope));
  CHECK(free.poll(lab.io.waitScope));
}

// Takes new keys, or does not.
struct RekeyedGuest final : public wire::Guest::Server {
  explicit RekeyedGuest(kj::Vector<kj::Array<kj::byte>>& asked) : asked(asked) {}
  kj::Vector<kj::Array<kj::byte>>& asked;
  kj::Promise<void> rekey(RekeyContext context) override {
    asked.add(kj::heapArray<kj::byte>(context.getParams().getHostPublicKey()));
    asked.add(kj::heapArray<kj::byte>(context.getParams().getToken()));
    return kj::READY_NOW;
  }
};

// T122
TEST_CASE("a guest with keys that another host had is asked for new ones when it comes, and the old are nothing then") {
  HubLab lab;
  auto agent = lab.enrolled();
  lab.inherit();
  CHECK(lab.keys->isInherited());
  kj::Vector<kj::Array<kj::byte>> asked;
  agent.bootstrap = [&]() { return wire::Guest::Client(kj::heap<RekeyedGuest>(asked)); };
  LabGuest first, old;
  lab.connect(first, agent);
  lab.settle();
  REQUIRE(asked.size() == 2);
  // One that went without them is asked again, and the token before is void.
  lab.kill(first);
  lab.connect(old, agent);
  lab.settle();
  REQUIRE(asked.size() == 4);
  CHECK_FALSE(asked[1].asPtr() == asked[3].asPtr());

  VmKeys::Issued issued{HostPublicKey(), {Secret<32>(asked[3])}};
  memcpy(issued.host.bytes.data(), asked[2].begin(), issued.host.bytes.size());
  auto fresh = lab.agentFor(issued);
  LabGuest enrolling, again, stale;
  lab.connect(enrolling, fresh, fresh.enrolment());
  REQUIRE(enrolling.isIn());
  REQUIRE(lab.commit(enrolling, fresh));
  CHECK_FALSE(lab.keys->isInherited());
  lab.connect(stale, agent);
  CHECK(stale.isOut());
  lab.connect(again, fresh);
  CHECK(again.isIn());
  CHECK(asked.size() == 4);
}

// T122
TEST_CASE("an agent that cannot take new keys stays connected, and that is told; a person's bundle stays good") {
  HubLab lab;
  auto agent = lab.enrolled();
  lab.inherit();
  LabGuest guest;
  lab.connect(guest, agent);
  lab.settle();
  CHECK(guest.isIn());
  CHECK(lab.log.count(Kind::TROUBLE) == 1);
  auto issued = lab.keys->issue(DEFAULT_TOKEN_SECONDS);
  CHECK_FALSE(lab.keys->wantsRekeying());
  LabGuest next;
  lab.connect(next, agent);
  lab.settle();
  CHECK(lab.keys->enrolmentFor(tokenHint(issued.get<VmKeys::Issued>().token)) != nullptr);
}

}  // namespace
}  // namespace postern::host
