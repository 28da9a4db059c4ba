#pragma once
// CrowdGuest: one of many guests in one process, as far as the host can tell: enrolled keys, connections to its Unix
// socket with an agent's back-off, the real handshake and session, a heartbeat a second and answers to ping.

#include <kj/async-io.h>

#include "protocol/establish.h"
#include "protocol/guest.capnp.h"
#include "protocol/identity.h"
#include "protocol/read-scratch.h"
#include "protocol/rpc-system.h"
#include "transport/backoff.h"
#include "transport/connection.h"
#include "transport/random.h"

namespace postern::bench {

// What the guests of a process share. Outlives them.
struct CrowdLoop {
  explicit CrowdLoop(kj::AsyncIoContext& io);

  kj::UnixEventPort& port;
  kj::Timer& timer;
  SystemRandom random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;
};

class CrowdGuest {
 public:
  // Does nothing before start().
  CrowdGuest(CrowdLoop& loop, kj::StringPtr name, kj::StringPtr socketPath);
  ~CrowdGuest() noexcept(false);
  KJ_DISALLOW_COPY(CrowdGuest);

  kj::StringPtr name() const { return vmName; }
  // The host's half of the pair.
  const HostState& hostState() const { return hostHalf; }

  void start();
  // Ends the session as if the guest had lost its power; start() may follow.
  void cut();

  // A session is up, and its first heartbeat was answered.
  bool isIn() const { return in; }
  uint64_t heartbeats() const { return answered; }
  unsigned attempts() const { return tries; }
  kj::StringPtr lastFailure() const { return failure; }

 private:
  struct Live;

  CrowdLoop& loop;
  const kj::String vmName;
  const kj::String socketPath;
  HostState hostHalf;
  GuestCredentials credentials;
  Confirmation confirmation;
  Backoff backoff;
  kj::Maybe<kj::Own<Live>> live;
  bool in = false;
  uint64_t sequence = 0;
  uint64_t answered = 0;
  unsigned tries = 0;
  kj::String failure;
  kj::Promise<void> task = nullptr;

  kj::Promise<void> getIn();
  kj::Promise<void> tryAgain(kj::StringPtr why);
  kj::Promise<void> meet(Connection connection);
  kj::Promise<void> establish(kj::Own<FrameLink> link, kj::TimePoint deadline);
  kj::Promise<void> stay();
  kj::Promise<void> beat(kj::TimePoint due);
};

}  // namespace postern::bench
