#pragma once
// LimitGate: what all that passes one rule of the host's policy, or one VM's port, share: how many may be open at a
// time and begun in an hour, how many bytes may have come in and not have been taken, and how fast they go on. Rate,
// burst, peak and bytes delay; only `open`, `calls` and a bound of 0 refuse.
//
// Its numbers may change at any time and count from then on, for what waits as well. It outlives what passes it, so
// that a new channel does not begin with a full burst again. One loop.

#include <kj/common.h>
#include <kj/refcount.h>
#include <kj/string.h>
#include <kj/time.h>

#include <list>

#include "host/session/session-control.capnp.h"
#include "host/session/token-bucket.h"

namespace postern::host {

// schema::Limit's; null: no bound.
struct LimitNumbers {
  kj::Maybe<uint64_t> rate, burst, peak, open, calls, bytes;

  static LimitNumbers of(schema::Limit::Reader limit);
  bool operator==(const LimitNumbers& other) const;
};

// Which bound keeps one more from being opened.
enum class LimitBound : uint8_t { OPEN, CALLS, ZERO };

class LimitGate final : public kj::Refcounted {
 public:
  LimitGate() = default;
  ~LimitGate() noexcept(false);
  KJ_DISALLOW_COPY(LimitGate);

  const LimitNumbers& numbers() const { return now_; }
  void set(const LimitNumbers& numbers, kj::TimePoint now);

  // Opening. ---------------------------------------------------------------------------------------------------

  kj::Maybe<LimitBound> refusal(kj::TimePoint now);
  // One is open from now on, until leave(). refusal() was null.
  void enter(kj::TimePoint now);
  void leave();

  // Pacing. ----------------------------------------------------------------------------------------------------

  struct Turn {
    TokenBucket::Turn rate, peak;
  };
  Turn take(uint64_t bytes, kj::TimePoint now);
  kj::Duration waitFor(const Turn& turn, kj::TimePoint now);

  // Room for bytes that have come in. --------------------------------------------------------------------------

  // A piece that waits for room, in the order of coming. It leaves the queue before it is destroyed.
  class Waiter {
   public:
    virtual size_t bytes() const = 0;
    // There may be room: it is out of the queue, and takes its room at once or waits again.
    virtual void tryAgain() = 0;
  };
  // Nobody waits, and there is room. A piece that is larger than all the room goes alone.
  bool hasRoom(size_t bytes) const { return waiting.empty() && fits(bytes); }
  bool fits(size_t bytes) const;
  void takeRoom(size_t bytes) { inside += bytes; }
  void giveRoom(size_t bytes);
  void wait(Waiter& waiter) { waiting.push_back(&waiter); }
  void stopWaiting(Waiter& waiter);

  // Forgotten without a loss: as a new one would be.
  bool isIdle(kj::TimePoint now);

 private:
  LimitNumbers now_;
  TokenBucket rate, peak;
  TokenBucket calls;
  uint64_t open = 0;
  uint64_t inside = 0;
  std::list<Waiter*> waiting;

  void letIn();
};

// For a person: "the VM's port has room for 4 channels at a time, ...".
kj::String describeRefusal(LimitBound bound, const LimitGate& gate, kj::StringPtr whose, kj::StringPtr what);

}  // namespace postern::host
