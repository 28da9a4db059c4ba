// write-session pair | enrolment
//
// Writes a whole session of this build as a sample: a frame a line, whose it is and its bytes. Keys and randomness are
// fixed (tests/support/sample-meeting.h), so that each run writes the same. README.md says what samples are for.

#include <kj/debug.h>
#include <kj/encoding.h>
#include <sodium.h>
#include <stdio.h>

#include "protocol/guest.capnp.h"
#include "protocol/rpc-system.h"
#include "protocol/wire-int.h"
#include "tests/support/sample-meeting.h"

namespace postern::test {
namespace {

void ignore(kj::StringPtr) {}

class Calls final : public schema::GuestCalls::Server {
 public:
  kj::Promise<void> ping(PingContext) override { return kj::READY_NOW; }
};

class Guest final : public schema::Guest::Server {
 public:
  kj::Promise<void> callsFor(CallsForContext context) override {
    context.getResults().setCalls(kj::heap<Calls>());
    return kj::READY_NOW;
  }
};

class Host final : public schema::Host::Server {
 public:
  kj::Promise<void> heartbeat(HeartbeatContext context) override {
    context.getResults().setIntervalMilliseconds(1500);
    return kj::READY_NOW;
  }
  kj::Promise<void> goodbye(GoodbyeContext) override { return kj::READY_NOW; }
};

void fill(schema::Heartbeat::Builder beat) {
  beat.setSequence(1);
  beat.setIntervalMilliseconds(1000);
  beat.setUptimeMilliseconds(60'000);
  beat.setMemoryTotalKiB(1 << 20);
  beat.setState(schema::Heartbeat::State::RUNNING);
  beat.setAgentVersion(POSTERN_VERSION);
}

// tests/unit/protocol/old-session-test.cpp plays each half of it.
void converse(SampleMeeting& meeting, SampleMeeting::Sessions& sessions) {
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<Guest>(), ignore);
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<Host>(), ignore);
  // Questions have numbers, which are free again once they are answered: each waits for the one before.
  guest.peer().whenResolved().wait(meeting.waitScope);
  host.peer().whenResolved().wait(meeting.waitScope);
  auto toHost = guest.peer().castAs<schema::Host>();
  auto beat = toHost.heartbeatRequest();
  fill(beat);
  beat.send().wait(meeting.waitScope);

  auto calls = host.peer().castAs<schema::Guest>().callsForRequest();
  calls.initCaller().initUser().setName("alice");
  calls.send().getCalls().pingRequest().send().wait(meeting.waitScope);
  sessions.guest->ping().wait(meeting.waitScope);

  auto goodbye = toHost.goodbyeRequest();
  goodbye.setWhy(schema::Goodbye::AGENT_STOPPED);
  goodbye.send().wait(meeting.waitScope);
  sessions.guest->close(CloseCode::GOODBYE).wait(meeting.waitScope);
}

void print(const char* who, kj::ArrayPtr<const kj::byte> sent) {
  while (sent.size() > 0) {
    size_t size = FRAME_HEADER_BYTES + getLittleEndian<uint16_t>(sent.begin());
    printf("%s %s\n", who, kj::encodeHex(sent.slice(0, size)).cStr());
    sent = sent.slice(size, sent.size());
  }
}

void write(GuestCredentials credentials) {
  kj::Vector<kj::byte> fromGuest, fromHost;
  bool enrolling = credentials.is<GuestEnrolment>();
  {
    SampleMeeting meeting(kj::mv(credentials));
    meeting.wire.toHost.tap = &fromGuest;
    meeting.wire.toGuest.tap = &fromHost;
    auto sessions = meeting.connect();
    if (enrolling) meeting.commit(sessions);
    converse(meeting, sessions);
  }
  print("guest", fromGuest);
  print("host", fromHost);
}

}  // namespace
}  // namespace postern::test

int main(int argc, char** argv) {
  using namespace postern::test;
  kj::StringPtr kind = argc == 2 ? argv[1] : "";
  if (sodium_init() < 0 || (kind != "pair" && kind != "enrolment")) return 2;
  write(kind == "pair" ? sample::identity() : sample::enrolment());
  return 0;
}
