#include "host/qmp/qmp-vm-state.h"

namespace postern::host {

namespace {

using Event = QmpWatch::Event;

kj::String describe(kj::StringPtr name, const QmpEvent& event) {
  auto text = kj::str("QEMU says ", name);
  KJ_IF_MAYBE (reason, event.reason) text = kj::str(text, ": ", *reason);
  KJ_IF_MAYBE (byGuest, event.byGuest) text = kj::str(text, *byGuest ? ", by the guest" : ", by the host");
  return text;
}

// With -no-reboot a reset ends QEMU.
bool isForReset(const QmpEvent& event) {
  KJ_IF_MAYBE (reason, event.reason) return *reason == "guest-reset" || *reason == "host-qmp-system-reset";
  return false;
}

}  // namespace

void QmpVmState::heard(const QmpEvent& event) {
  switch (event.kind) {
    case QmpEvent::Kind::STOP:
      return setPaused(true);
    case QmpEvent::Kind::RESUME:
      return setPaused(false);
    case QmpEvent::Kind::RESET:
      // Of a VM that was off (-no-shutdown) it is one that is not off and not started.
      if (known == Known::OFF) known = Known::NOTHING;
      tellReset();
      return wake(resetWaiters, describe("RESET", event));
    case QmpEvent::Kind::SHUTDOWN:
      setOff(describe("SHUTDOWN", event));
      if (isForReset(event)) wake(resetWaiters, lastWord);
      return;
    case QmpEvent::Kind::AGENT_PORT:
      if (event.portOpen) resetTold = nullptr;  // it is back: a reset that comes now is another one
      return handler.qmpEvent(event.portOpen ? Event::PORT_OPENED : Event::PORT_CLOSED);
    case QmpEvent::Kind::OTHER:
      return;
  }
}

void QmpVmState::answered(const QmpAnswer::Status& status) {
  if (status.state == "shutdown") return setOff(kj::str("QEMU says that the VM is shut down"));
  if (known == Known::OFF) known = Known::NOTHING;  // started again, unseen
  // The guest's own suspension to memory: neither a pause by the host nor the end of one.
  if (status.state == "suspended") return;
  if (status.running && known == Known::NOTHING) {
    known = Known::RUNNING;
    return;
  }
  setPaused(!status.running);
}

void QmpVmState::gone() {
  if (known != Known::NOTHING) setOff(kj::str("QEMU has ended"));
}

void QmpVmState::tellReset() {
  auto now = clock.now();
  KJ_IF_MAYBE (told, resetTold) {
    if (now < *told + ONE_RESET) return;
  }
  resetTold = now;
  handler.qmpEvent(Event::RESET);
}

void QmpVmState::setPaused(bool paused) {
  // With -no-shutdown a STOP follows SHUTDOWN, and says nothing new.
  if (paused && known == Known::OFF) return;
  auto now = paused ? Known::PAUSED : Known::RUNNING;
  if (known == now) return;
  known = now;
  handler.qmpEvent(paused ? Event::STOP : Event::RESUME);
}

void QmpVmState::setOff(kj::String word) {
  if (known == Known::OFF) return;
  known = Known::OFF;
  lastWord = kj::mv(word);
  handler.qmpEvent(Event::SHUTDOWN);
  wake(offWaiters, lastWord);
}

kj::Promise<kj::String> QmpVmState::whenOff(bool reset) {
  if (!reset && known == Known::OFF) return kj::str(lastWord);
  auto& waiters = reset ? resetWaiters : offWaiters;
  Waiters alive;  // without those whose caller has gone
  for (auto& waiter : waiters) {
    if (waiter->isWaiting()) alive.add(kj::mv(waiter));
  }
  auto answer = kj::newPromiseAndFulfiller<kj::String>();
  alive.add(kj::mv(answer.fulfiller));
  waiters = kj::mv(alive);
  return kj::mv(answer.promise);
}

void QmpVmState::wake(Waiters& waiters, kj::StringPtr word) {
  auto woken = kj::mv(waiters);
  waiters = Waiters();
  for (auto& waiter : woken) waiter->fulfill(kj::str(word));
}

}  // namespace postern::host
