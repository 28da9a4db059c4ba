#pragma once
// Relay: moves the bytes of one channel between a bulk channel of a session and a RelayEnd, both ways at once. The same
// at both ends of the link: in the guest between link and program, on the host between link and program, or between
// link and another session.
//
// Guarantees:
//  - bytes arrive exact, in order, and once; a direction ends behind its last byte; the other goes on (half-close);
//  - a reset of either side resets the other, at once; so does the end of the session, and so does the relay's;
//  - a side that does not read holds up its own direction of its own channel: the relay keeps what the channel's credit
//    has let in, and at most one piece that its meter lets wait;
//  - a busy relay leaves the loop to others after each piece.
// One loop.

#include <kj/async.h>
#include <kj/memory.h>

#include "protocol/bulk-channel.h"
#include "transport/relay/relay-end.h"

namespace postern {

// Of a relay's two.
enum class RelayWay : uint8_t {
  OUT,  // from the RelayEnd into the link
  IN,   // out of the link to the RelayEnd
};

// Counts, limits and mirrors. Null at an end that does none of it. Every piece that admit() was asked about is told
// once as passed or as dropped, by the relay's end at the latest.
class RelayMeter {
 public:
  // A piece has come in and wants to go on. Null: at once; else when it may. One at a time for each way.
  virtual kj::Maybe<kj::Promise<void>> admit(RelayWay way, size_t bytes) = 0;
  // It has been taken by the other side, with its bytes.
  virtual void passed(RelayWay way, kj::ArrayPtr<const kj::byte> bytes) = 0;
  // It will not pass, or only its beginning did: the channel was reset.
  virtual void dropped(RelayWay way, size_t bytes) = 0;
};

enum class RelayOutcome : uint8_t {
  FINISHED,  // both directions, in order
  RESET,     // by either side
  SESSION_ENDED,
};

class Relay {
 public:
  // `meter` outlives the relay.
  Relay(kj::Own<BulkChannel> channel, kj::Own<RelayEnd> end, kj::Maybe<RelayMeter&> meter = nullptr);
  // Resets what has not ended.
  ~Relay() noexcept(false);
  KJ_DISALLOW_COPY(Relay);

  // Once. Dropping the promise stops the relay and resets nothing before the destructor.
  kj::Promise<RelayOutcome> run();

 private:
  struct State;
  kj::Own<State> state;
};

}  // namespace postern
