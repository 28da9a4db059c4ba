// Whole sessions that earlier versions have put on the wire (tests/samples): each half is played to this build's other
// end, which must take it. And what a later version may add to the records before RPC; to RPC itself:
// tests/integration/skew-test.py.

#include <doctest/doctest.h>
#include <kj/encoding.h>

#include <string.h>

#include <fstream>
#include <string>
#include <vector>

#include "protocol/confirmation.h"
#include "protocol/guest.capnp.h"
#include "protocol/rpc-system.h"
#include "protocol/wire-int.h"
#include "tests/support/sample-meeting.h"

namespace postern {
namespace {

using test::SampleMeeting;

struct Recorded {
  const char* file;
  bool isEnrolment;
  const char* version;
};
constexpr Recorded RECORDED[] = {{"tests/samples/0.1-pair.txt", false, "0.1.0"},
                                 {"tests/samples/0.1-enrolment.txt", true, "0.1.0"}};

std::vector<kj::Array<kj::byte>> framesOf(const char* file, const std::string& who) {
  std::vector<kj::Array<kj::byte>> frames;
  std::ifstream in(file);
  for (std::string sender, hex; in >> sender >> hex;) {
    if (sender == who) frames.push_back(kj::decodeHex(kj::arrayPtr(hex.data(), hex.size())));
  }
  REQUIRE(frames.size() > 4);
  return frames;
}

// One end's frames, for the other end that is live.
class Replay {
 public:
  SampleMeeting meeting;

  Replay(const Recorded& recorded, Role absent)
      : meeting(recorded.isEnrolment ? test::sample::enrolment() : test::sample::identity()),
        frames(framesOf(recorded.file, absent == Role::GUEST ? "guest" : "host")),
        direction(absent == Role::GUEST ? meeting.wire.toHost : meeting.wire.toGuest) {}

  // Plays on, a frame at a time, until it is there.
  template <typename T>
  T until(kj::Promise<T> promise) {
    while (!promise.poll(meeting.waitScope)) playNext();
    return promise.wait(meeting.waitScope);
  }
  void untilTrue(const bool& flag) {
    for (;;) {
      meeting.waitScope.poll();
      if (flag) return;
      playNext();
    }
  }
  bool isOver() const { return next == frames.size(); }

 private:
  const std::vector<kj::Array<kj::byte>> frames;
  test::FakeDirection& direction;
  size_t next = 0;

  void playNext() {
    REQUIRE(next < frames.size());
    direction.inject(frames[next++]);
  }
};

class Calls final : public schema::GuestCalls::Server {
 public:
  explicit Calls(bool& pinged) : pinged(pinged) {}
  kj::Promise<void> ping(PingContext) override {
    pinged = true;
    return kj::READY_NOW;
  }

 private:
  bool& pinged;
};

class Guest final : public schema::Guest::Server {
 public:
  explicit Guest(bool& pinged) : pinged(pinged) {}
  kj::Promise<void> callsFor(CallsForContext context) override {
    CHECK(context.getParams().getCaller().getUser().getName() == "alice");
    context.getResults().setCalls(kj::heap<Calls>(pinged));
    return kj::READY_NOW;
  }

 private:
  bool& pinged;
};

struct Heard {
  bool heartbeat = false;
  bool goodbye = false;
};

class Host final : public schema::Host::Server {
 public:
  Host(Heard& heard, const char* version) : heard(heard), version(version) {}
  kj::Promise<void> heartbeat(HeartbeatContext context) override {
    auto beat = context.getParams();
    CHECK(beat.getSequence() == 1);
    CHECK(beat.getUptimeMilliseconds() == 60'000);
    CHECK(beat.getState() == schema::Heartbeat::State::RUNNING);
    CHECK(beat.getAgentVersion() == version);
    heard.heartbeat = true;
    return kj::READY_NOW;
  }
  kj::Promise<void> goodbye(GoodbyeContext context) override {
    heard.goodbye = context.getParams().getWhy() == schema::Goodbye::AGENT_STOPPED;
    return kj::READY_NOW;
  }

 private:
  Heard& heard;
  kj::StringPtr version;
};

TEST_CASE("the host of this build takes the whole session of a guest of every version that was released") {
  for (auto& recorded : RECORDED) {
    INFO(std::string(recorded.file));
    Replay guest(recorded, Role::GUEST);
    auto session = guest.until(guest.meeting.startHost());
    if (recorded.isEnrolment) {
      guest.until(session->whenCommit());
      session->confirmCommit();
    }
    Heard heard;
    RpcConnection rpc(*session, Role::HOST, kj::heap<Host>(heard, recorded.version), [](kj::StringPtr) {});
    guest.until(rpc.peer().whenResolved());
    guest.untilTrue(heard.heartbeat);
    auto calls = rpc.peer().castAs<schema::Guest>().callsForRequest();
    calls.initCaller().initUser().setName("alice");
    auto pinged = calls.send().getCalls().pingRequest().send().then([](auto answer) { return answer.hasRefusal(); });
    CHECK_FALSE(guest.until(kj::mv(pinged)));
    guest.untilTrue(heard.goodbye);
    auto end = guest.until(session->onEnd());
    CHECK(KJ_REQUIRE_NONNULL(end.code) == CloseCode::GOODBYE);
    CHECK(guest.isOver());
  }
}

TEST_CASE("the guest of this build takes the whole session of a host of every version that was released") {
  for (auto& recorded : RECORDED) {
    INFO(std::string(recorded.file));
    Replay host(recorded, Role::HOST);
    auto session = host.until(host.meeting.startGuest());
    if (recorded.isEnrolment) host.until(session->commit());
    bool pinged = false;
    RpcConnection rpc(*session, Role::GUEST, kj::heap<Guest>(pinged), [](kj::StringPtr) {});
    host.until(rpc.peer().whenResolved());
    auto toHost = rpc.peer().castAs<schema::Host>();
    auto beat = toHost.heartbeatRequest().send().then([](auto answer) { return answer.getIntervalMilliseconds(); });
    CHECK(host.until(kj::mv(beat)) == 1500);
    host.untilTrue(pinged);
    host.until(session->ping());
    host.until(toHost.goodbyeRequest().send().ignoreResult());
    session->close(CloseCode::GOODBYE).wait(host.meeting.waitScope);
  }
}

// A message whose root has two words of data more: fields of a later version.
kj::Array<capnp::word> widened(kj::ArrayPtr<const kj::byte> message) {
  constexpr size_t MORE = 2;
  auto words = kj::heapArray<capnp::word>(message.size() / sizeof(capnp::word) + MORE);
  auto bytes = words.asBytes();
  memcpy(bytes.begin(), message.begin(), message.size());
  memset(bytes.begin() + message.size(), 0xff, bytes.size() - message.size());
  // The segment's size, and the root's, of whose words the last are these: it has no pointers.
  putLittleEndian<uint32_t>(getLittleEndian<uint32_t>(bytes.begin() + 4) + MORE, bytes.begin() + 4);
  putLittleEndian<uint16_t>(uint16_t(getLittleEndian<uint16_t>(bytes.begin() + 12) + MORE), bytes.begin() + 12);
  return words;
}

TEST_CASE("fields and features that a later version has in CONFIRM and ACCEPT change nothing for this one") {
  auto sent = test::sample::confirmation();
  sent.features = ~uint64_t(0);
  auto heard = KJ_REQUIRE_NONNULL(parseConfirmation(widened(encodeConfirmation(sent)).asBytes()));
  CHECK(heard.features == sent.features);
  CHECK(heard.sessionCounter == 7);
  CHECK(heard.agentInstance == sent.agentInstance);
  auto accepted =
      KJ_REQUIRE_NONNULL(parseAcceptance(widened(encodeAcceptance(test::sample::acceptance(true))).asBytes()));
  auto given = test::sample::linkSecret();
  CHECK(memcmp(KJ_REQUIRE_NONNULL(accepted.linkSecret).bytes.begin(), given.bytes.begin(), 32) == 0);
}

}  // namespace
}  // namespace postern
