#include "transport/admission.h"

#include <kj/debug.h>

#include "protocol/limits.h"

namespace postern {

namespace {

constexpr kj::Duration TOKEN = 1 * kj::SECONDS / int64_t(limits::HANDSHAKES_PER_SECOND);
constexpr kj::Duration FULL = TOKEN * int64_t(limits::HANDSHAKE_BURST);

}  // namespace

// T24
SourceClass sourceClassOfVsockPort(uint32_t port) {
  return port < 1024 ? SourceClass::PRIVILEGED : SourceClass::ORDINARY;
}

kj::StringPtr describe(Refusal refusal) {
  switch (refusal) {
    case Refusal::TOO_MANY_HALF_OPEN:
      return "its earlier attempts are still unfinished";
    case Refusal::TOO_OFTEN:
      return "too many failed attempts in the last seconds";
  }
  KJ_UNREACHABLE;
}

// Slots -------------------------------------------------------------------------------------------------------------

// A promise of whenSlot() that has not had its turn. Leaves the queue when the promise is dropped.
class Admission::Waiter {
 public:
  Waiter(kj::PromiseFulfiller<Slot>& fulfiller, Queue& queue);
  ~Waiter() noexcept(false);
  KJ_DISALLOW_COPY(Waiter);

  void takeTurn(Slot slot);

  kj::ListLink<Waiter> link;

 private:
  kj::PromiseFulfiller<Slot>& fulfiller;
  Queue& queue;
};

struct Admission::Queue {
  kj::List<Waiter, &Waiter::link> waiters;
};

Admission::Waiter::Waiter(kj::PromiseFulfiller<Slot>& fulfiller, Queue& queue) : fulfiller(fulfiller), queue(queue) {
  queue.waiters.add(*this);
}

Admission::Waiter::~Waiter() noexcept(false) {
  if (link.isLinked()) queue.waiters.remove(*this);
}

void Admission::Waiter::takeTurn(Slot slot) {
  queue.waiters.remove(*this);
  fulfiller.fulfill(kj::mv(slot));
}

Admission::Slot::Slot(Admission& admission) : admission(admission) {
  ++admission.slotsTaken;
}

Admission::Slot::Slot(Slot&& other) noexcept : admission(kj::mv(other.admission)) {
  other.admission = nullptr;
}

Admission::Slot::~Slot() noexcept(false) {
  KJ_IF_MAYBE (a, admission) a->slotFreed();
}

void Admission::slotFreed() {
  --slotsTaken;
  if (!queue->waiters.empty()) queue->waiters.front().takeTurn(Slot(*this));
}

kj::Promise<Admission::Slot> Admission::whenSlot() {
  // A free slot and a waiter never exist together, so nobody is overtaken here.
  if (slotsTaken < limits::MAX_HALF_OPEN) return Slot(*this);
  return kj::newAdaptedPromise<Slot, Waiter>(*queue);
}

// Shares ------------------------------------------------------------------------------------------------------------

void Admission::Share::refill(kj::TimePoint now) {
  credit = kj::min(credit + (now - creditedAt), FULL);
  creditedAt = now;
}

bool Admission::Share::isIdle() const {
  return halfOpen == 0 && credit >= FULL;
}

Admission::Admission(const kj::MonotonicClock& clock) : clock(clock), sweptAt(clock.now()), queue(kj::heap<Queue>()) {}

Admission::~Admission() noexcept(false) {}

Admission::Vm& Admission::find(kj::StringPtr name, kj::TimePoint now) {
  KJ_IF_MAYBE (vm, vms.find(name)) return **vm;
  auto vm = kj::heap<Vm>();
  vm->name = kj::str(name);
  for (auto& share : vm->shares) {
    share.credit = FULL;
    share.creditedAt = now;
  }
  Vm& result = *vm;
  vms.insert(result.name, kj::mv(vm));
  return result;
}

// An empty bucket is full again after FULL; looking through all VMs once in that time keeps the table as small as the
// recent past, at a cost that does not grow with the number of attempts.
void Admission::forgetIdle(kj::TimePoint now) {
  if (now - sweptAt < FULL) return;
  sweptAt = now;
  vms.eraseAll([now](kj::StringPtr&, kj::Own<Vm>& vm) {
    for (auto& share : vm->shares) {
      share.refill(now);
      if (!share.isIdle()) return false;
    }
    return true;
  });
}

kj::OneOf<kj::Own<Admission::HalfOpen>, Refusal> Admission::admit(Slot slot, kj::StringPtr name, SourceClass source) {
  auto now = clock.now();
  forgetIdle(now);
  Vm& vm = find(name, now);
  Share& share = vm.share(source);
  share.refill(now);
  // T22
  if (share.halfOpen >= limits::MAX_HALF_OPEN_PER_VM) return Refusal::TOO_MANY_HALF_OPEN;
  // T23
  if (share.credit < TOKEN) return Refusal::TOO_OFTEN;
  share.credit -= TOKEN;
  return kj::heap<HalfOpen>(*this, kj::mv(slot), vm, source);
}

Admission::HalfOpen::HalfOpen(Admission& admission, Slot slot, Vm& vm, SourceClass source)
    : admission(admission), slot(kj::mv(slot)), vm(vm), source(source) {
  ++vm.share(source).halfOpen;
}

Admission::HalfOpen::~HalfOpen() noexcept(false) {
  release();
}

void Admission::HalfOpen::succeeded() {
  KJ_REQUIRE(slot != nullptr, "an attempt succeeds once");
  Share& share = vm.share(source);
  share.refill(admission.clock.now());
  share.credit = kj::min(share.credit + TOKEN, FULL);
  release();
}

void Admission::HalfOpen::release() {
  if (slot == nullptr) return;
  // After this the Vm may be forgotten at any time and is not touched again.
  --vm.share(source).halfOpen;
  slot = nullptr;
}

}  // namespace postern
