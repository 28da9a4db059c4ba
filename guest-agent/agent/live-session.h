#pragma once
// LiveSession: a session with the host, with RPC both ways, heartbeats, and the channels of this guest's consumers.
//
// A heartbeat goes out at once and then once per interval, which the host's answers set; at most one is unanswered. The
// loop's timer wakes the process for it, and its answer does, and nothing else while the link is idle; that the answer
// was used up is told along with the next heartbeat, so that the host's end is woken once an interval. One that is not
// answered within
// limits::PING_DEADLINE ends the session: the host is gone, or does not keep up.
//
// Owned by the agent; its loop. Destroying it ends the session without CLOSE.

#include <kj/async.h>
#include <kj/function.h>
#include <kj/timer.h>

#include "guest-agent/agent/vitals.h"
#include "guest-agent/services/consumers.h"
#include "protocol/guest.capnp.h"
#include "protocol/rpc-system.h"
#include "protocol/session.h"

namespace postern::guest {

constexpr auto MIN_HEARTBEAT = 200 * kj::MILLISECONDS;
constexpr auto MAX_HEARTBEAT = 60 * kj::SECONDS;
// The detail of a session's end when the host did not answer one.
constexpr kj::StringPtr HEARTBEAT_LOST = "a heartbeat was not answered"_kj;

// What heartbeats of all sessions of one agent share. All that it refers to outlives the sessions.
struct HeartbeatSource {
  const Vitals& vitals;
  const Clocks& clocks;
  GapWatch& gaps;
  kj::Duration interval;  // the host's last word
  uint64_t sequence = 0;  // of the last one that was sent
  std::array<kj::byte, 32> policyHash{};
  kj::Function<schema::Heartbeat::State()> state;  // running, or stopping
};

class LiveSession {
 public:
  // `timer` goes by CLOCK_MONOTONIC. `bootstrap` is a schema::Guest. Channels of `consumers` go over this session.
  LiveSession(kj::Own<Session> session, schema::Guest::Client bootstrap, HeartbeatSource& source, Consumers& consumers,
              kj::Timer& timer);
  ~LiveSession() noexcept(false);
  KJ_DISALLOW_COPY(LiveSession);

  // Once: the session is over. A line for the log is describe(SessionEnd)'s.
  kj::Promise<SessionEnd> onEnd();
  bool isOver() const { return session->isOver(); }
  // Fresh keys are due, or were.
  kj::Promise<void> onRenewalDue() { return renewalDue.addBranch(); }
  // Says goodbye to the host and closes with CLOSE. At most limits::CLOSE_LINGER for each of the two.
  kj::Promise<void> stop(schema::Goodbye why);
  // The same without the close: the guest is about to go down, and says so while it can.
  kj::Promise<void> sayGoodbye(schema::Goodbye why);
  kj::Promise<void> close(CloseCode code) { return session->close(code); }

 private:
  HeartbeatSource& source;
  kj::Timer& timer;
  kj::Own<Session> session;
  RpcConnection rpc;
  schema::Host::Client host;
  kj::Own<void> uplink;
  kj::Maybe<capnp::Response<schema::Host::HeartbeatResults>> lastAnswer;
  kj::Own<kj::PromiseFulfiller<void>> renewalFulfiller;
  kj::ForkedPromise<void> renewalDue;
  kj::TimePoint next;
  kj::Promise<void> beating;

  kj::Promise<void> beat();
  kj::Promise<void> sendHeartbeat();
  void answered(uint32_t intervalMilliseconds);
};

}  // namespace postern::guest
