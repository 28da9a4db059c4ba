#pragma once
// Doorkeeper: lets the peers of one Listener in, within Admission's limits, before a byte of theirs is read.
// Guarantees:
//  - a connection is accepted only when it has a slot; until then it waits, unread, in the kernel's queue;
//  - its VM is picked by address alone, and it counts against that VM. A peer of no VM, and one over its VM's limits,
//    is closed unread, and reported;
//  - connections that their peers gave up while they waited are passed over within one turn, and cost no token:
//    otherwise a guest that is less patient than the queue is long would spend its turns on its own dead connections;
//  - one accept a turn of the loop, so that a flood at one door does not keep the links waiting.
//
// What comes out may be attended to in this process (reception.h) or passed on as a descriptor: then the attempt stays
// here until the other process says how it went, or the deadline has passed.
// Lives on its listener's loop, with a listener of its own; several share an Admission.

#include <kj/function.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "transport/admission.h"
#include "transport/listener.h"

namespace postern {

// A peer that was let in and has proved nothing yet.
struct Visitor {
  Connection connection;
  kj::String vm;
  kj::TimePoint deadline;                // for its CONFIRM: limits::HANDSHAKE_DEADLINE after accept
  kj::Own<Admission::HalfOpen> attempt;  // succeeded() at CONFIRM; dropped when the attempt fails
};

struct Stranger {};  // the peer's address is no VM's
struct TurnedAway {
  PeerAddress peer;
  kj::String vm;  // empty for a stranger
  kj::OneOf<Stranger, Refusal> why;
};

// The name or id of the VM that a peer belongs to, by where it comes from; null: nobody's.
using PickVm = kj::Function<kj::Maybe<kj::String>(const PeerAddress&)>;

class Doorkeeper {
 public:
  // All outlive this. `clock` is the admission's.
  Doorkeeper(Listener& listener, Admission& admission, const kj::MonotonicClock& clock, PickVm pickVm);
  KJ_DISALLOW_COPY(Doorkeeper);

  using Outcome = kj::OneOf<Visitor, TurnedAway>;
  // The next connection that was accepted, and what became of it. One such promise at a time; dropping it loses
  // nobody. Fails only by our bug (a listener that does not listen, a pickVm that throws).
  kj::Promise<Outcome> next();

 private:
  Listener& listener;
  Admission& admission;
  const kj::MonotonicClock& clock;
  PickVm pickVm;

  kj::Maybe<Connection> acceptLiving();
  Outcome decide(Connection connection, Admission::Slot slot);
};

}  // namespace postern
