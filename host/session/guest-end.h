#pragma once
// GuestEnd: one authenticated guest that is connected: its session, the RPC over it, and the calls that it may make of
// the host (protocol/guest.capnp's Host). What it says is confined (report.h) before anyone else sees it.
//
// A guest that calls in the wrong order or too often costs itself: heartbeats that come faster than it may send them
// are answered and not passed on. Owned by the Hub, which it tells what happens; it is silent once destroyed or
// detached.

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/string.h>

#include "host/session/report.h"
#include "protocol/establish.h"
#include "protocol/guest.capnp.h"
#include "protocol/rpc-system.h"

namespace postern::host {

// The shortest time between two heartbeats that are passed on: half of the shortest interval.
constexpr auto HEARTBEAT_SPACING = MIN_HEARTBEAT_MILLISECONDS / 2 * kj::MILLISECONDS;

// Host.connect: names that are names.
struct ServiceQuestion {
  kj::String to;  // a VM, or "host"
  kj::String service;
  BulkOffer untrustedOffer;
};

class GuestEnd {
 public:
  // Called from the loop. May destroy the GuestEnd in ended() only, and not at once.
  class Handler {
   public:
    virtual void heartbeat(GuestEnd& guest, Report report) = 0;
    virtual void goodbye(GuestEnd& guest, postern::schema::Goodbye why) = 0;
    virtual void ended(GuestEnd& guest, const SessionEnd& how) = 0;
    // For the log: an exception left as public text.
    virtual void misfortune(kj::StringPtr text) = 0;
    // Resolves when it is to be answered: whether its channel is open. Null: a question that cannot be read. The guest
    // outlives the promise, and whether the one who asked still waits makes no difference to it.
    virtual kj::Promise<bool> connect(GuestEnd& guest, kj::Maybe<ServiceQuestion> question) = 0;
    virtual uint32_t heartbeatMilliseconds() = 0;
  };

  // References outlive this.
  GuestEnd(kj::Own<Session> session, const Confirmation& confirmation, kj::String peer, kj::Timer& timer,
           Handler& handler);
  ~GuestEnd() noexcept(false);
  KJ_DISALLOW_COPY(GuestEnd);

  // Starts RPC. After COMMIT, if this is an enrolment.
  void start();
  Session& session() { return *sessionOwn; }
  // What the guest offers; start() was called.
  postern::schema::Guest::Client guest();

  const Confirmation& confirmation() const { return confirmed; }
  kj::StringPtr peer() const { return peerText; }
  kj::Maybe<postern::schema::Goodbye> saidGoodbye() const { return goodbyeSaid; }
  bool isStopping() const { return stopping; }

  // The handler hears no more. For one that was replaced and is being closed.
  void detach() { handler = nullptr; }

 private:
  class Server;

  kj::Own<Session> sessionOwn;
  const Confirmation confirmed;
  const kj::String peerText;
  kj::Timer& timer;
  kj::Maybe<Handler&> handler;
  kj::Maybe<kj::Own<RpcConnection>> rpc;  // after the session: destroyed before it
  kj::Maybe<postern::schema::Goodbye> goodbyeSaid;
  bool stopping = false;
  kj::Maybe<kj::TimePoint> passedOnAt;
  kj::Promise<void> watching;
  kj::Promise<void> watchingRpc = nullptr;
  struct Failures;
  kj::Own<Failures> failures;
  kj::TaskSet questions;

  void receive(postern::schema::Heartbeat::Reader beat);
  void receive(postern::schema::Goodbye why);
  kj::Promise<bool> ask(kj::Maybe<ServiceQuestion> question);
};

}  // namespace postern::host
