#pragma once
// Admission: the limits on peers that have not proved anything yet. Guarantees, whatever peers do:
//  - no more than limits::MAX_HALF_OPEN connections are between accept and authentication; those above wait, unread,
//    in the kernel's listen queue, and get their turn in the order in which whenSlot() was called;
//  - no more than limits::MAX_HALF_OPEN_PER_VM of them belong to one VM and source class;
//  - a VM's failed attempts come at limits::HANDSHAKES_PER_SECOND, after a burst of limits::HANDSHAKE_BURST. An attempt
//    that succeeds gives its token back, so a VM that reconnects with the right keys is never slowed down;
//  - one VM cannot use up another's share, nor an unprivileged program of a guest that of its agent (SourceClass);
//  - memory is held only for VMs that have an attempt in progress or had one in the few seconds before the last
//    attempt of anyone. The caller bounds their number by asking only for VMs that it knows.
// There is no ban: a refused peer is welcome as soon as its bucket has a token.
//
// The order of use, with a Listener: whenPending(), then whenSlot(), then tryAccept(), then admit(). A slot taken
// before there is a connection would let idle listeners starve the busy ones.
// Lives on one loop; slots, half-open attempts and promises must not outlive it. Does not log and closes nothing.

#include <kj/async.h>
#include <kj/list.h>
#include <kj/map.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/time.h>

namespace postern {

// vsock: whether the peer's source port is below 1024. It proves nothing to the host, but inside a guest only a
// privileged program can have it, so that others in the guest have their own share to spoil.
enum class SourceClass { ORDINARY, PRIVILEGED };
SourceClass sourceClassOfVsockPort(uint32_t port);

enum class Refusal {
  TOO_MANY_HALF_OPEN,  // the VM's earlier attempts have neither succeeded nor ended
  TOO_OFTEN,           // the VM's bucket is empty
};
kj::StringPtr describe(Refusal refusal);

class Admission {
  struct Vm;

 public:
  // `clock` outlives this. A kj::Timer is one.
  explicit Admission(const kj::MonotonicClock& clock);
  ~Admission() noexcept(false);
  KJ_DISALLOW_COPY(Admission);

  // One of the MAX_HALF_OPEN. Destroying it lets the next waiter go.
  class Slot {
   public:
    Slot(Slot&& other) noexcept;
    Slot& operator=(Slot&&) = delete;
    ~Slot() noexcept(false);
    KJ_DISALLOW_COPY(Slot);

   private:
    friend class Admission;
    explicit Slot(Admission& admission);
    kj::Maybe<Admission&> admission;
  };

  // An attempt between accept and authentication. Destroying it frees its slots.
  class HalfOpen {
   public:
    HalfOpen(Admission& admission, Slot slot, Vm& vm, SourceClass source);
    ~HalfOpen() noexcept(false);
    KJ_DISALLOW_COPY(HalfOpen);

    // The peer has proved itself: gives the token back and frees the slots now. Once.
    void succeeded();

   private:
    void release();

    Admission& admission;
    kj::Maybe<Slot> slot;  // null once released
    Vm& vm;
    const SourceClass source;
  };

  // First come, first served. A waiter that is cancelled, before or after its turn, takes nothing along.
  kj::Promise<Slot> whenSlot();

  // `vm` is the name or id under which its attempts are counted. On refusal the slot is free again; a connection that
  // is refused here costs no token.
  kj::OneOf<kj::Own<HalfOpen>, Refusal> admit(Slot slot, kj::StringPtr vm, SourceClass source);

  unsigned halfOpen() const { return slotsTaken; }  // slots given out, for a status page
  size_t vmsRemembered() const { return vms.size(); }

 private:
  // Time's credit in place of a count of tokens: an attempt costs one interval, and at most a burst's worth is saved.
  struct Share {
    unsigned halfOpen = 0;
    kj::Duration credit;
    kj::TimePoint creditedAt = kj::origin<kj::TimePoint>();

    void refill(kj::TimePoint now);
    bool isIdle() const;
  };
  struct Vm {
    kj::String name;
    Share shares[2];  // by SourceClass
    Share& share(SourceClass source) { return shares[source == SourceClass::PRIVILEGED]; }
  };
  class Waiter;

  Vm& find(kj::StringPtr name, kj::TimePoint now);
  void forgetIdle(kj::TimePoint now);
  void slotFreed();

  const kj::MonotonicClock& clock;
  unsigned slotsTaken = 0;
  kj::HashMap<kj::StringPtr, kj::Own<Vm>> vms;  // keyed by the Vm's own name
  kj::TimePoint sweptAt;
  struct Queue;
  kj::Own<Queue> queue;
};

}  // namespace postern
