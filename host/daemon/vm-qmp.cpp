// What QEMU says of a Vm, where it has a QMP socket.

#include "host/daemon/vm.h"
#include "host/log/log.h"

namespace postern::host {

void Vm::startQmp() {
  qmpWatch = nullptr;
  if (vmRecord.qmp.size() > 0) qmpWatch = newQmpWatch(environment.port, vmRecord.qmp, environment.random, *this);
}

kj::Maybe<QmpWatch&> Vm::qmp() {
  KJ_IF_MAYBE (watch, qmpWatch) return **watch;
  return nullptr;
}

void Vm::qmpEvent(QmpWatch::Event event) {
  auto tell = [this](kj::StringPtr text) { environment.handler.event(*this, "vm", kj::str(text)); };
  switch (event) {
    case QmpWatch::Event::STOP:
      health.paused(now());
      tell("QEMU has paused it");
      break;
    case QmpWatch::Event::RESUME:
      health.resumed(now());
      tell("QEMU has resumed it");
      break;
    case QmpWatch::Event::RESET:
      health.vmReset(now());
      tell("QEMU has reset it");
      break;
    case QmpWatch::Event::SHUTDOWN:
      health.vmGone(now());
      tell("QEMU has shut it down");
      break;
    case QmpWatch::Event::PORT_CLOSED:
      // The session itself cannot see that nobody has the guest's end open.
      linkUp = false;
      endedSession = kj::max(endedSession, sessions);
      health.linkLost(now(), LinkLoss::PORT_CLOSED);
      break;
    case QmpWatch::Event::PORT_OPENED:
      break;
  }
  healthMayHaveChanged(now());
  publish();
}

void Vm::qmpConnected() {
  logEvent(LogLevel::INFO, "qmp-connected", "watching QEMU", vmRecord.name);
}

void Vm::qmpLost(kj::StringPtr why) {
  logEvent(LogLevel::WARNING, "qmp-lost", why, vmRecord.name);
}

}  // namespace postern::host
