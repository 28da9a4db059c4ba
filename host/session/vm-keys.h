#pragma once
// VmKeys: everything that proves this VM to the host and the host to it: the current pair and the offer that is out
// (protocol/identity.h), on disk in the VM's state file. The session process is its only reader and writer, and ends
// before posternd moves the VM to another host.
//
// Guarantees, so that a crash at any moment is mended when the guest connects again:
//  - what a step rests on is on the disk before the step is taken: the binding and the link secret before ACCEPT, the
//  pair
//    before COMMITTED;
//  - a token serves one guest key, the first that proves it holds the token, and no other ever; the same key may come
//    again, and gets the same secret;
//  - a token is good until its lifetime is over, by the wall clock and by the monotonic one; a wall clock that was set
//    back ends it, too. A guest that has got its secret may commit later than that.
//  - an error of the disk changes nothing, here or there.
// Lives on one loop, which is blocked while the disk writes: 8 KiB, seldom.

#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "protocol/bundle.h"
#include "protocol/identity.h"
#include "protocol/state-file.h"

namespace postern::host {

constexpr uint32_t DEFAULT_TOKEN_SECONDS = 15 * 60;
constexpr uint32_t MAX_TOKEN_SECONDS = 7 * 24 * 3600;
// Of a token that goes to the guest over its session, and comes back at once.
constexpr uint32_t REKEY_TOKEN_SECONDS = 60;
// A wall clock that goes back by less since the token was issued was only corrected.
constexpr uint64_t CLOCK_CORRECTION_SECONDS = 60;

class VmKeys final : public HostKeyring {
 public:
  struct Clocks {
    const kj::Clock& wall;
    const kj::MonotonicClock& monotonic;
  };

  // `file` may be empty: a VM that is not enrolled yet. The error is a line for a person, without the file's name. What
  // is referred to outlives this.
  static kj::OneOf<kj::Own<VmKeys>, kj::StringPtr> open(StateFile file, const VmId& vm, Clocks clocks, Random& random);
  VmKeys(StateFile file, const VmId& vm, kj::Own<HostState> state, Clocks clocks, Random& random);
  KJ_DISALLOW_COPY(VmKeys);

  const VmId& vmId() const { return vm; }
  bool isEnrolled() const { return state->current != nullptr; }
  bool isOfferOut() const;
  // The pair is one that another host had, and may still have.
  bool isInherited() const;
  // Inherited keys, and no bundle of a person's is out that an offer to the guest would void.
  bool wantsRekeying() const;
  // Another with each offer that is made, and when one becomes the pair.
  uint64_t offerNumber() const { return offers; }
  // Empty when there is none.
  kj::String hostFingerprint() const;
  kj::String guestFingerprint() const;

  // A new key and token; an unused earlier one is void. Gives what a bundle needs.
  struct Issued {
    HostPublicKey host;
    EnrolmentToken token;
  };
  kj::OneOf<Issued, StateFileError> issue(uint32_t lifetimeSeconds);

  // After an authentic enrolment handshake by `guest`: the secret for ACCEPT.
  kj::OneOf<LinkSecret, StateFileError> bind(const GuestPublicKey& guest);
  // The guest has the secret: the offer becomes the pair. Does nothing if it already is.
  kj::Maybe<StateFileError> commit(const GuestPublicKey& guest);
  bool isPending(const GuestPublicKey& guest) const;

  // The counter of a CONFIRM: BACK when it is not above every earlier one, as after a rollback. Remembered.
  enum class Counter { FORWARD, BACK };
  kj::OneOf<Counter, StateFileError> count(uint64_t sessionCounter);

  // Frees keys that were replaced while a handshake might still have used them. To be called when none is under way.
  void forgetReplaced() { replaced.clear(); }

  // HostKeyring.
  kj::Maybe<const HostIdentity&> identityFor(const Hint& keyHint) override;
  kj::Maybe<const HostEnrolment&> enrolmentFor(const Hint& tokenHint) override;

 private:
  // What handshakes borrow, made from `state`.
  struct Lent {
    kj::Maybe<HostIdentity> current;
    kj::Maybe<HostIdentity> pending;
    kj::Maybe<HostEnrolment> enrolment;
  };

  StateFile file;
  const VmId vm;
  kj::Own<HostState> state;
  const Clocks clocks;
  Random& random;
  kj::Own<Lent> lent;
  kj::Vector<kj::Own<Lent>> replaced;
  kj::Maybe<kj::TimePoint> offerEnds;  // of the offer that this process issued

  uint64_t offers = 0;

  kj::Maybe<StateFileError> save();
  void lendAnew();
  kj::Own<Lent> lend() const;
  uint64_t wallSeconds() const;
};

}  // namespace postern::host
